//! Lists of files: narrowed, searched and ordered. Each statement has only the conditions that were asked for, and is planned
//! for its values: the right index for a rare word is the wrong one for a common one.

use bowerbird_nats::{
    AccountId, FileId, FolderId,
    file::{File, FileStatus, Sort},
};
use sqlx::{PgPool, Postgres, QueryBuilder, Row as _};
use time::OffsetDateTime;
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

/// A page of files of this account.
pub(crate) async fn list(
    pool: &PgPool,
    account: AccountId,
    filters: &Filters<'_>,
    (sort, descending): (Sort, bool),
    after: Option<&Mark>,
    limit: u32,
) -> Result<Vec<Listed>, Error> {
    let key = match sort {
        Sort::Created => "created_at",
        Sort::Updated => "updated_at",
        Sort::Name => "lower(name) COLLATE \"C\"",
        Sort::Size => "size_bytes",
    };
    let direction = if descending { "DESC" } else { "ASC" };
    let mut query = QueryBuilder::<Postgres>::new(concat!("SELECT ", file_columns!(), ", f.sort_name FROM (SELECT *, "));
    query.push("lower(name) AS sort_name FROM files WHERE deleted_at IS NULL AND account_id = ").push_bind(account.0);
    narrow(&mut query, filters);
    if let Some(Mark { by, id }) = after {
        query.push(format!(" AND ({key}, id) {} (", if descending { "<" } else { ">" }));
        match by {
            By::Time(time) => query.push_bind(*time),
            By::Number(number) => query.push_bind(*number),
            By::Text(text) => query.push_bind(text.as_str()),
        };
        query.push(", ").push_bind(*id).push(")");
    }
    query.push(format!(" ORDER BY {key} {direction}, id {direction} LIMIT ")).push_bind(i64::from(limit));
    query.push(
        format!(") AS f JOIN folders AS d ON d.id = f.folder_id ORDER BY f.{key} {direction}, f.id {direction}")
            .replace("f.lower(name)", "f.sort_name"),
    );
    let rows = query.build().persistent(false).fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            let file = row::file(row)?;
            let by = match sort {
                Sort::Created => By::Time(file.created_at),
                Sort::Updated => By::Time(file.updated_at),
                Sort::Name => By::Text(row.try_get("sort_name")?),
                Sort::Size => By::Number(file.size_bytes),
            };
            let mark = Mark { by, id: file.id.0 };
            Ok((file, mark))
        })
        .collect()
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
