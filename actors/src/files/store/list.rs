//! Lists of files: narrowed, searched and ordered. Each statement has only the conditions that were asked for, and is planned
//! for its values: the right index for a rare word is the wrong one for a common one.
//!
//! Where no index is right (what is common alone is rare together, or far down the order) a statement would take seconds. It is
//! given a moment; when that is over the list is worked off in pieces, so many files in the order of the list at a time.

use std::time::Duration;

use bowerbird_nats::{
    AccountId, FileId, FolderId,
    file::{File, FileStatus, Sort},
};
use sqlx::{PgPool, Postgres, QueryBuilder, Row as _, postgres::PgRow};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Error,
    row::{self, file_columns},
};

/// Which files are listed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters<'a> {
    pub(crate) folder: Option<FolderId>,
    /// A pattern of LIKE.
    pub(crate) pattern: Option<&'a str>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) tags: &'a [String],
    pub(crate) min_size_bytes: Option<i64>,
    pub(crate) max_size_bytes: Option<i64>,
    pub(crate) created_after: Option<OffsetDateTime>,
    pub(crate) created_before: Option<OffsetDateTime>,
    pub(crate) updated_after: Option<OffsetDateTime>,
    pub(crate) updated_before: Option<OffsetDateTime>,
    pub(crate) status: Option<FileStatus>,
}

impl Filters<'_> {
    /// Whether more is asked for than a folder, so that much may have to be passed over.
    fn are_searched(&self) -> bool {
        let Filters { pattern, content_type, min_size_bytes, max_size_bytes, tags, status, .. } = self;
        let times = [self.created_after, self.created_before, self.updated_after, self.updated_before];
        pattern.is_some()
            || content_type.is_some()
            || min_size_bytes.is_some()
            || max_size_bytes.is_some()
            || status.is_some()
            || !tags.is_empty()
            || times.iter().any(Option::is_some)
    }
}

/// Where a page ends: the last file, and what it was ordered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) by: By,
    pub(crate) id: Uuid,
}

/// What a file is ordered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Time(OffsetDateTime),
    Number(i64),
    Text(String),
}

/// A file, and where a page that ends with it ends.
pub(crate) type Listed = (File, Mark);

/// How long the whole list is searched before it is worked off in pieces: what an index fits is done by then, also on a machine that is
/// busy with other things.
const WHOLE_WITHIN: &str = "SET LOCAL statement_timeout = '150ms'";
/// Files of a piece.
const PIECE: i64 = 10_000;
/// How long pieces are added to a page that is not full.
const PIECES_WITHIN: Duration = Duration::from_millis(150);

/// The order of a list, and what a page begins behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    pub(crate) sort: Sort,
    pub(crate) descending: bool,
    pub(crate) after: Option<&'a Mark>,
}

impl Order<'_> {
    fn key(&self) -> &'static str {
        match self.sort {
            Sort::Created => "created_at",
            Sort::Updated => "updated_at",
            Sort::Name => "lower(name) COLLATE \"C\"",
            Sort::Size => "size_bytes",
        }
    }

    fn direction(&self) -> &'static str {
        if self.descending { "DESC" } else { "ASC" }
    }

    /// Files of this account behind the page before.
    fn begin(&self, query: &mut QueryBuilder<Postgres>, account: AccountId) {
        query
            .push("(SELECT *, lower(name) AS sort_name FROM files WHERE deleted_at IS NULL AND account_id = ")
            .push_bind(account.0);
        if let Some(Mark { by, id }) = self.after {
            query.push(format!(" AND ({}, id) {} (", self.key(), if self.descending { "<" } else { ">" }));
            match by {
                By::Time(time) => query.push_bind(*time),
                By::Number(number) => query.push_bind(*number),
                By::Text(text) => query.push_bind(text.clone()),
            };
            query.push(", ").push_bind(*id).push(")");
        }
    }

    /// So many of them.
    fn end(&self, query: &mut QueryBuilder<Postgres>, limit: i64) {
        let (key, direction) = (self.key(), self.direction());
        query.push(format!(" ORDER BY {key} {direction}, id {direction} LIMIT ")).push_bind(limit).push(")");
    }

    /// The order of what was taken out of that.
    fn outside(&self, direction: &str) -> String {
        let key = if self.sort == Sort::Name { "sort_name COLLATE \"C\"" } else { self.key() };
        format!(" ORDER BY f.{key} {direction}, f.id {direction}")
    }

    fn read(&self, row: &PgRow) -> Result<Listed, Error> {
        let file = row::file(row)?;
        let by = match self.sort {
            Sort::Created => By::Time(file.created_at),
            Sort::Updated => By::Time(file.updated_at),
            Sort::Name => By::Text(row.try_get("sort_name")?),
            Sort::Size => By::Number(file.size_bytes),
        };
        let mark = Mark { by, id: file.id.0 };
        Ok((file, mark))
    }
}

/// A page of files of this account; and, if it is not full and yet not the last, where it ends.
pub(crate) async fn list(
    pool: &PgPool,
    account: AccountId,
    filters: &Filters<'_>,
    order: Order<'_>,
    limit: u32,
) -> Result<(Vec<Listed>, Option<Mark>), Error> {
    let mut query = QueryBuilder::<Postgres>::new(concat!("SELECT ", file_columns!(), ", f.sort_name FROM "));
    order.begin(&mut query, account);
    narrow(&mut query, filters);
    order.end(&mut query, i64::from(limit));
    query.push(" AS f JOIN folders AS d ON d.id = f.folder_id").push(order.outside(order.direction()));
    let query = query.build().persistent(false);
    let found = if filters.are_searched() {
        let mut transaction = pool.begin().await?;
        sqlx::query(WHOLE_WITHIN).persistent(false).execute(&mut *transaction).await?;
        let found = query.fetch_all(&mut *transaction).await;
        transaction.rollback().await?;
        found
    } else {
        query.fetch_all(pool).await
    };
    match found {
        Ok(rows) => Ok((rows.iter().map(|row| order.read(row)).collect::<Result<_, _>>()?, None)),
        Err(error) if is_out_of_time(&error) => pieces(pool, account, filters, order, limit, PIECE).await,
        Err(error) => Err(error.into()),
    }
}

/// As [`list`], of so many files at a time in the order of the list, until the page is full, the list is over, or the time is.
pub(crate) async fn pieces(
    pool: &PgPool,
    account: AccountId,
    filters: &Filters<'_>,
    order: Order<'_>,
    limit: u32,
    size: i64,
) -> Result<(Vec<Listed>, Option<Mark>), Error> {
    let began = Instant::now();
    let (mut found, mut end) = piece(pool, account, filters, order, limit, size).await?;
    while let Some(mark) = end.take() {
        if began.elapsed() >= PIECES_WITHIN {
            return Ok((found, Some(mark)));
        }
        let left = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        let (more, next) = piece(pool, account, filters, Order { after: Some(&mark), ..order }, left, size).await?;
        found.extend(more);
        end = next;
    }
    Ok((found, None))
}

/// The next `piece` files alone.
async fn piece(
    pool: &PgPool,
    account: AccountId,
    filters: &Filters<'_>,
    order: Order<'_>,
    limit: u32,
    piece: i64,
) -> Result<(Vec<Listed>, Option<Mark>), Error> {
    let mut query = QueryBuilder::<Postgres>::new("WITH piece AS MATERIALIZED ");
    order.begin(&mut query, account);
    if let Some(folder) = filters.folder {
        query.push(" AND folder_id = ").push_bind(folder.0);
    }
    order.end(&mut query, piece);
    let columns = concat!("SELECT ", file_columns!(), ", f.sort_name, ");
    let folders = ") AS f JOIN folders AS d ON d.id = f.folder_id";
    query.push(" SELECT * FROM (").push(columns).push("false AS is_end FROM (SELECT * FROM piece WHERE true");
    narrow(&mut query, filters);
    query.push(folders).push(order.outside(order.direction()));
    query.push(" LIMIT ").push_bind(i64::from(limit)).push(") AS found");
    // If there may be more: the last of the piece, whatever it is.
    query.push(" UNION ALL SELECT * FROM (").push(columns).push("true AS is_end FROM (SELECT * FROM piece");
    query.push(" WHERE (SELECT count(*) FROM piece) >= ").push_bind(piece).push(folders);
    query.push(order.outside(if order.descending { "ASC" } else { "DESC" })).push(" LIMIT 1) AS last");
    let rows = query.build().persistent(false).fetch_all(pool).await?;
    let (mut found, mut end) = (Vec::with_capacity(rows.len()), None);
    for row in &rows {
        let listed = order.read(row)?;
        if row.try_get("is_end")? {
            end = Some(listed.1);
        } else {
            found.push(listed);
        }
    }
    // A full page ends with its last file.
    let is_full = u32::try_from(found.len()).is_ok_and(|found| found >= limit);
    Ok((found, end.filter(|_| !is_full)))
}

/// PostgreSQL ended the statement because its time was over.
fn is_out_of_time(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "57014")
}

fn narrow(query: &mut QueryBuilder<Postgres>, filters: &Filters<'_>) {
    if let Some(folder) = filters.folder {
        query.push(" AND folder_id = ").push_bind(folder.0);
    }
    if let Some(pattern) = filters.pattern {
        query.push(" AND name ILIKE ").push_bind(pattern);
    }
    if let Some(prefix) = filters.content_type {
        query.push(" AND content_type COLLATE \"C\" >= ").push_bind(prefix);
        query.push(" AND content_type COLLATE \"C\" < ").push_bind(format!("{prefix}\u{10ffff}"));
    }
    if !filters.tags.is_empty() {
        query.push(" AND tags @> ").push_bind(filters.tags);
    }
    if let Some(least) = filters.min_size_bytes {
        query.push(" AND size_bytes >= ").push_bind(least);
    }
    if let Some(most) = filters.max_size_bytes {
        query.push(" AND size_bytes <= ").push_bind(most);
    }
    for (condition, time) in [
        (" AND created_at >= ", filters.created_after),
        (" AND created_at < ", filters.created_before),
        (" AND updated_at >= ", filters.updated_after),
        (" AND updated_at < ", filters.updated_before),
    ] {
        if let Some(time) = time {
            query.push(condition).push_bind(time);
        }
    }
    match filters.status {
        // In the words of the index that there is for what is rare.
        Some(FileStatus::Available) => query.push(" AND status = 'available'"),
        Some(FileStatus::Pending) => query.push(" AND status <> 'available' AND status = 'pending'"),
        Some(FileStatus::Quarantined) => query.push(" AND status <> 'available' AND status = 'quarantined'"),
        Some(FileStatus::Missing) => query.push(" AND status <> 'available' AND status = 'missing'"),
        None => query,
    };
}

/// Files in a folder, by name: those after this name.
pub(crate) async fn children(pool: &PgPool, folder: FolderId, after: Option<&str>, limit: u32) -> Result<Vec<File>, Error> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        file_columns!(),
        " FROM files AS f JOIN folders AS d ON d.id = f.folder_id WHERE f.folder_id = $1 AND f.deleted_at IS NULL \
         AND f.name COLLATE \"C\" > $2 ORDER BY f.name COLLATE \"C\" LIMIT $3"
    ))
    .bind(folder.0)
    .bind(after.unwrap_or_default())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(row::file).collect()
}

/// One file of this account with the key of its object.
pub(crate) async fn find(pool: &PgPool, account: AccountId, id: FileId) -> Result<Option<super::Stored>, Error> {
    let row = sqlx::query(concat!(
        "SELECT ",
        file_columns!(),
        " FROM files AS f JOIN folders AS d ON d.id = f.folder_id WHERE f.id = $1 AND f.account_id = $2 AND f.deleted_at IS NULL"
    ))
    .bind(id.0)
    .bind(account.0)
    .fetch_optional(pool)
    .await?;
    row.map(|row| Ok(super::Stored { file: row::file(&row)?, object_key: row.try_get("object_key")? })).transpose()
}
