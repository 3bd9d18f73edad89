//! The table of shares. Everything that lets somebody in asks in its own statement whether the share, its owner and what it
//! leads to still allow it.

use bowerbird_nats::{
    AccountId, FileId, FolderId, ShareId,
    share::{EndedBy, Share},
};
use sqlx::{PgConnection, PgPool, Row as _, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Error;
use crate::downloads::row::word;

/// Wrong passwords in a row before the first pause.
const FREE_TRIES: i32 = 5;
/// Longest pause, in seconds.
const LONGEST_PAUSE: f64 = 900.0;

/// The columns of a share `s` with the names of what it leads to.
macro_rules! share_columns {
    () => {
        "s.id, s.account_id, s.file_id, s.folder_id, s.password_hash, s.expires_at, s.max_downloads, s.downloads, s.created_at, \
         s.ended_at, s.ended_by, coalesce(f.name, d.name) AS name"
    };
}

/// A share to be.
pub(crate) struct NewShare<'a> {
    pub(crate) id: ShareId,
    pub(crate) account_id: AccountId,
    pub(crate) file_id: Option<FileId>,
    pub(crate) folder_id: Option<FolderId>,
    pub(crate) token_hash: &'a [u8],
    pub(crate) password_hash: Option<&'a str>,
    pub(crate) expires_at: Option<OffsetDateTime>,
    pub(crate) max_downloads: Option<i64>,
}

/// A share that somebody has the token of, and that still leads somewhere.
pub(crate) struct Opened {
    pub(crate) id: ShareId,
    pub(crate) account_id: AccountId,
    pub(crate) file_id: Option<FileId>,
    pub(crate) folder_id: Option<FolderId>,
    pub(crate) name: String,
    pub(crate) size_bytes: Option<i64>,
    pub(crate) password_hash: Option<String>,
    pub(crate) expires_at: Option<OffsetDateTime>,
    pub(crate) max_downloads: Option<i64>,
    pub(crate) downloads: i64,
}

/// Make a share of a live thing of this account. None: there is no such thing.
pub(crate) async fn insert(connection: &mut PgConnection, new: &NewShare<'_>) -> Result<Option<Share>, Error> {
    // What it leads to is held, so that it cannot go to the trash without this share.
    let row = sqlx::query(concat!(
        "WITH f AS (SELECT id, name FROM files WHERE id = $3 AND account_id = $2 AND deleted_at IS NULL FOR SHARE), \
         d AS (SELECT id, name FROM folders WHERE id = $4 AND account_id = $2 AND deleted_at IS NULL FOR SHARE), \
         s AS (INSERT INTO shares (id, account_id, file_id, folder_id, token_hash, password_hash, expires_at, max_downloads) \
         SELECT $1, $2, (SELECT id FROM f), (SELECT id FROM d), $5, $6, $7, $8 \
         WHERE EXISTS (SELECT FROM f) OR EXISTS (SELECT FROM d) RETURNING *) SELECT ",
        share_columns!(),
        " FROM s LEFT JOIN f ON f.id = s.file_id LEFT JOIN d ON d.id = s.folder_id"
    ))
    .bind(new.id.0)
    .bind(new.account_id.0)
    .bind(new.file_id.map(|id| id.0))
    .bind(new.folder_id.map(|id| id.0))
    .bind(new.token_hash)
    .bind(new.password_hash)
    .bind(new.expires_at)
    .bind(new.max_downloads)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Shares of this account that have not ended.
pub(crate) async fn alive(connection: &mut PgConnection, account: AccountId) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM shares WHERE account_id = $1 AND ended_at IS NULL")
        .bind(account.0)
        .fetch_one(connection)
        .await?)
}

/// Shares of this account, newest first.
pub(crate) async fn list(
    pool: &PgPool,
    account: AccountId,
    (file, folder): (Option<FileId>, Option<FolderId>),
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Share>, Error> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        share_columns!(),
        " FROM shares AS s LEFT JOIN files AS f ON f.id = s.file_id LEFT JOIN folders AS d ON d.id = s.folder_id \
         WHERE s.account_id = $1 AND ($2::uuid IS NULL OR s.file_id = $2) AND ($3::uuid IS NULL OR s.folder_id = $3) \
         AND ($4::uuid IS NULL OR s.id < $4) ORDER BY s.id DESC LIMIT $5"
    ))
    .bind(account.0)
    .bind(file.map(|id| id.0))
    .bind(folder.map(|id| id.0))
    .bind(before)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(read).collect()
}

/// End shares: one of this account, or those whose time is over. What ended.
pub(crate) async fn end(
    connection: &mut PgConnection,
    account: Option<AccountId>,
    ids: &[Uuid],
) -> Result<Vec<(AccountId, Share)>, Error> {
    let rows = sqlx::query(concat!(
        "WITH s AS (UPDATE shares SET ended_at = now(), ended_by = CASE WHEN $2::uuid IS NULL THEN 'expired' ELSE 'revoked' END \
         WHERE id = ANY ($1) AND ended_at IS NULL AND CASE WHEN $2::uuid IS NULL THEN expires_at <= now() ELSE account_id = $2 END \
         RETURNING *) SELECT ",
        share_columns!(),
        " FROM s LEFT JOIN files AS f ON f.id = s.file_id LEFT JOIN folders AS d ON d.id = s.folder_id"
    ))
    .bind(ids)
    .bind(account.map(|account| account.0))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((AccountId(row.try_get("account_id")?), read(row)?))).collect()
}

/// Whether this account has this share, ended or not.
pub(crate) async fn exists(connection: &mut PgConnection, account: AccountId, id: ShareId) -> Result<bool, Error> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM shares WHERE id = $1 AND account_id = $2)")
        .bind(id.0)
        .bind(account.0)
        .fetch_one(connection)
        .await?)
}

/// Of these, those that end later than now.
pub(crate) async fn not_over(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<(Uuid, OffsetDateTime)>, Error> {
    Ok(sqlx::query_as("SELECT id, expires_at FROM shares WHERE id = ANY ($1) AND ended_at IS NULL AND expires_at > now()")
        .bind(ids)
        .fetch_all(connection)
        .await?)
}

/// The share with this token, if it still leads somewhere: not ended, its owner may act, its thing is there.
pub(crate) async fn open(pool: &PgPool, token_hash: &[u8]) -> Result<Option<Opened>, Error> {
    let row = sqlx::query(
        "SELECT s.id, s.account_id, s.file_id, s.folder_id, coalesce(f.name, d.name) AS name, f.size_bytes, s.password_hash, \
         s.expires_at, s.max_downloads, s.downloads FROM shares AS s \
         JOIN accounts AS a ON a.id = s.account_id AND a.disabled_at IS NULL \
         LEFT JOIN files AS f ON f.id = s.file_id AND f.account_id = s.account_id AND f.deleted_at IS NULL AND f.status = 'available' \
         LEFT JOIN folders AS d ON d.id = s.folder_id AND d.account_id = s.account_id AND d.deleted_at IS NULL \
         WHERE s.token_hash = $1 AND s.ended_at IS NULL AND (s.expires_at IS NULL OR s.expires_at > now()) \
         AND (s.max_downloads IS NULL OR s.downloads < s.max_downloads) AND (f.id IS NOT NULL OR d.id IS NOT NULL)",
    )
    .bind(token_hash)
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Opened {
        id: ShareId(row.try_get("id")?),
        account_id: AccountId(row.try_get("account_id")?),
        file_id: row.try_get::<Option<Uuid>, _>("file_id")?.map(FileId),
        folder_id: row.try_get::<Option<Uuid>, _>("folder_id")?.map(FolderId),
        name: row.try_get("name")?,
        size_bytes: row.try_get("size_bytes")?,
        password_hash: row.try_get("password_hash")?,
        expires_at: row.try_get("expires_at")?,
        max_downloads: row.try_get("max_downloads")?,
        downloads: row.try_get("downloads")?,
    }))
}

/// Whether this share still lets somebody read it who was let in before.
pub(crate) async fn is_alive(pool: &PgPool, id: ShareId) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM shares AS s JOIN accounts AS a ON a.id = s.account_id AND a.disabled_at IS NULL \
         WHERE s.id = $1 AND s.ended_at IS NULL AND (s.expires_at IS NULL OR s.expires_at > now()))",
    )
    .bind(id.0)
    .fetch_one(pool)
    .await?)
}

/// One more fetch, if the share allows one more. However many ask at once, no more than its maximum are told yes.
pub(crate) async fn count(connection: &mut PgConnection, id: ShareId) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar(
        "UPDATE shares SET downloads = downloads + 1 WHERE id = $1 AND ended_at IS NULL \
         AND (expires_at IS NULL OR expires_at > now()) AND (max_downloads IS NULL OR downloads < max_downloads) RETURNING downloads",
    )
    .bind(id.0)
    .fetch_optional(connection)
    .await?)
}

/// A try at the password: counted as wrong before it is looked at, so that many at once are counted too. The seconds to wait
/// if none may be made now.
pub(crate) async fn try_password(pool: &PgPool, id: ShareId) -> Result<Result<(), u64>, Error> {
    let tried = sqlx::query(
        "UPDATE shares SET failed_passwords = failed_passwords + 1, locked_until = CASE WHEN failed_passwords + 1 >= $2 \
         THEN now() + make_interval(secs => least($3, 8 * power(2::double precision, least(failed_passwords + 1 - $2, 20)))) END \
         WHERE id = $1 AND (locked_until IS NULL OR locked_until <= now())",
    )
    .bind(id.0)
    .bind(FREE_TRIES)
    .bind(LONGEST_PAUSE)
    .execute(pool)
    .await?;
    if tried.rows_affected() == 1 {
        return Ok(Ok(()));
    }
    let left: Option<i64> =
        sqlx::query_scalar("SELECT ceil(extract(epoch FROM locked_until - now()))::bigint FROM shares WHERE id = $1")
            .bind(id.0)
            .fetch_optional(pool)
            .await?
            .flatten();
    Ok(Err(left.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(1).max(1)))
}

/// The password was right: nothing is counted against it.
pub(crate) async fn right_password(pool: &PgPool, id: ShareId) -> Result<(), Error> {
    sqlx::query("UPDATE shares SET failed_passwords = 0, locked_until = NULL WHERE id = $1").bind(id.0).execute(pool).await?;
    Ok(())
}

fn read(row: &PgRow) -> Result<Share, Error> {
    let ended_by: Option<&str> = row.try_get("ended_by")?;
    Ok(Share {
        id: ShareId(row.try_get("id")?),
        file_id: row.try_get::<Option<Uuid>, _>("file_id")?.map(FileId),
        folder_id: row.try_get::<Option<Uuid>, _>("folder_id")?.map(FolderId),
        name: row.try_get("name")?,
        url: None,
        token: None,
        has_password: row.try_get::<Option<&str>, _>("password_hash")?.is_some(),
        expires_at: row.try_get("expires_at")?,
        max_downloads: row.try_get("max_downloads")?,
        downloads: row.try_get("downloads")?,
        created_at: row.try_get("created_at")?,
        ended_at: row.try_get("ended_at")?,
        ended_by: ended_by.map(|text| word::<EndedBy>(text).ok_or(Error::Corrupt("ended_by"))).transpose()?,
    })
}
