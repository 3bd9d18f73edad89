//! The tables of files, of what accounts store, and of what is to be deleted in the bucket.
//!
//! Functions that take a connection run in the caller's transaction, so that a completed download, its file and the
//! account's usage are one step. Those that touch [`account_usage`](Usage) come last in it, as that row is what all work
//! of an account shares.

pub(crate) mod archive;
pub(crate) mod change;
pub(crate) mod contents;
pub(crate) mod folders;
pub(crate) mod list;
pub(crate) mod row;
pub(crate) mod shares;
pub(crate) mod trash;

use std::time::Duration;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, DownloadId, FileId, event,
    file::{Available, File, FileStatus, Purged},
};
use sqlx::{PgConnection, PgPool, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    alarms::{self, Kind},
    downloads::row::word,
    events,
};
use row::file_columns;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The account's quota does not hold it.
    #[error("the quota of the account is used up")]
    QuotaExceeded,
    /// The account has too many unfinished downloads.
    #[error("the account has too many unfinished downloads")]
    TooMany,
    /// Something in this folder has the name.
    #[error("the name is taken")]
    NameTaken,
    /// More is in the folder than one step may move.
    #[error("the folder holds too much to be moved at once")]
    TooLarge,
    /// What is in the folder would lie too deep, or have too long a path.
    #[error("the folder does not fit there")]
    DoesNotFit,
    /// The account is not there, or was disabled.
    #[error("the account may do nothing")]
    Disabled,
    /// A stored value is not one that we write.
    #[error("a row of files holds what no version of this program writes: {0}")]
    Corrupt(&'static str),
    /// PostgreSQL failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// What an account stores, has set aside and waits for.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) stored_bytes: i64,
    pub(crate) reserved_bytes: i64,
    pub(crate) files: i64,
    pub(crate) unfinished_downloads: i64,
}

/// A file to be, whose object is there.
pub(crate) struct NewFile<'a> {
    pub(crate) id: FileId,
    pub(crate) account_id: AccountId,
    /// The name it is to have; with a number if that is taken.
    pub(crate) name: &'a str,
    /// Path of its folder, which is made if it is not there.
    pub(crate) folder: &'a str,
    pub(crate) size_bytes: i64,
    pub(crate) content_type: &'a str,
    pub(crate) sha256: Option<&'a [u8]>,
    pub(crate) crc64: i64,
    pub(crate) etag: &'a str,
    pub(crate) object_key: &'a str,
    pub(crate) download_id: DownloadId,
    /// What was set aside for it.
    pub(crate) reserved_bytes: i64,
}

/// What is to be deleted in the bucket.
pub(crate) struct Purge<'a> {
    /// Everything below, `<account>/<file>/`; multipart uploads too.
    pub(crate) prefix: &'a str,
    /// But not this object.
    pub(crate) keep_key: Option<&'a str>,
    /// Only this object, if one is named.
    pub(crate) object_key: Option<&'a str>,
    /// Not before this long from now.
    pub(crate) after: Duration,
}

/// A purge that is due.
#[derive(Clone, Debug)]
pub(crate) struct DuePurge {
    pub(crate) id: i64,
    pub(crate) prefix: String,
    pub(crate) keep_key: Option<String>,
    /// Only this object, if one is named.
    pub(crate) object_key: Option<String>,
    pub(crate) attempt: i32,
}

/// The database's time, by which everything here goes.
pub(crate) async fn now(connection: &mut PgConnection) -> Result<OffsetDateTime, Error> {
    Ok(sqlx::query_scalar("SELECT now()").fetch_one(connection).await?)
}

/// What an account stores; nothing if it never did.
#[cfg(test)]
pub(crate) async fn usage(pool: &PgPool, account: AccountId) -> Result<Usage, Error> {
    let row =
        sqlx::query("SELECT stored_bytes, reserved_bytes, files, unfinished_downloads FROM account_usage WHERE account_id = $1")
            .bind(account.0)
            .fetch_optional(pool)
            .await?;
    let Some(row) = row else { return Ok(Usage::default()) };
    Ok(Usage {
        stored_bytes: row.try_get("stored_bytes")?,
        reserved_bytes: row.try_get("reserved_bytes")?,
        files: row.try_get("files")?,
        unfinished_downloads: row.try_get("unfinished_downloads")?,
    })
}

/// One more unfinished download, if the account may have it and has any room left.
pub(crate) async fn enqueue(connection: &mut PgConnection, account: AccountId, max_unfinished: i64) -> Result<(), Error> {
    let admitted = sqlx::query(
        "INSERT INTO account_usage AS u (account_id, unfinished_downloads) SELECT id, 1 FROM accounts WHERE id = $1 AND disabled_at IS NULL AND quota_bytes > 0 AND $2 > 0 \
         ON CONFLICT (account_id) DO UPDATE SET unfinished_downloads = u.unfinished_downloads + 1 \
         WHERE u.unfinished_downloads < $2 \
           AND u.stored_bytes + u.reserved_bytes < (SELECT quota_bytes FROM accounts WHERE id = $1)",
    )
    .bind(account.0)
    .bind(max_unfinished)
    .execute(&mut *connection)
    .await?;
    if admitted.rows_affected() == 1 {
        return Ok(());
    }
    let waiting: Option<i64> = sqlx::query_scalar(
        "SELECT coalesce(u.unfinished_downloads, 0) FROM accounts a LEFT JOIN account_usage u ON u.account_id = a.id \
         WHERE a.id = $1 AND a.disabled_at IS NULL",
    )
    .bind(account.0)
    .fetch_optional(connection)
    .await?;
    Err(match waiting {
        None => Error::Disabled,
        Some(waiting) if waiting >= max_unfinished => Error::TooMany,
        Some(_) => Error::QuotaExceeded,
    })
}

/// One unfinished download less; what was set aside for it is free.
pub(crate) async fn dequeue(connection: &mut PgConnection, account: AccountId, reserved_bytes: i64) -> Result<(), Error> {
    sqlx::query("UPDATE account_usage SET unfinished_downloads = unfinished_downloads - 1, reserved_bytes = reserved_bytes - $2 WHERE account_id = $1")
        .bind(account.0)
        .bind(reserved_bytes)
        .execute(connection)
        .await?;
    Ok(())
}

/// Set bytes aside, if the quota holds them.
pub(crate) async fn reserve(connection: &mut PgConnection, account: AccountId, bytes: i64) -> Result<(), Error> {
    if bytes <= 0 {
        return Ok(());
    }
    let reserved = sqlx::query(
        "UPDATE account_usage u SET reserved_bytes = u.reserved_bytes + $2 FROM accounts a \
         WHERE u.account_id = $1 AND a.id = $1 AND u.stored_bytes + u.reserved_bytes + $2 <= a.quota_bytes",
    )
    .bind(account.0)
    .bind(bytes)
    .execute(connection)
    .await?;
    if reserved.rows_affected() == 1 { Ok(()) } else { Err(Error::QuotaExceeded) }
}

/// Free bytes that were set aside.
pub(crate) async fn release(connection: &mut PgConnection, account: AccountId, bytes: i64) -> Result<(), Error> {
    sqlx::query("UPDATE account_usage SET reserved_bytes = reserved_bytes - $2 WHERE account_id = $1")
        .bind(account.0)
        .bind(bytes)
        .execute(connection)
        .await?;
    Ok(())
}

/// Add the file of a completed download: what was set aside for it becomes what is stored.
pub(crate) async fn add(connection: &mut PgConnection, new: &NewFile<'_>) -> Result<(), Error> {
    let folder = folders::hold_path(connection, new.account_id, new.folder).await?;
    let name = folders::free_name(connection, folder.id, new.name).await?;
    let row = sqlx::query(concat!(
        "WITH f AS (INSERT INTO files (id, account_id, name, folder_id, size_bytes, content_type, sha256, crc64, etag, object_key, \
         status, source, download_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'available', 'download', $11) RETURNING *) SELECT ",
        file_columns!(),
        " FROM f JOIN folders AS d ON d.id = f.folder_id"
    ))
    .bind(new.id.0)
    .bind(new.account_id.0)
    .bind(name)
    .bind(folder.id.0)
    .bind(new.size_bytes)
    .bind(new.content_type)
    .bind(new.sha256)
    .bind(new.crc64)
    .bind(new.etag)
    .bind(new.object_key)
    .bind(new.download_id.0)
    .fetch_one(&mut *connection)
    .await?;
    let file = row::file(&row)?;
    let happened = events::NewEvent::new(IdSource, event::FILE_AVAILABLE, Some(new.account_id), new.id.0, &Available { file });
    events::record(connection, happened).await?;
    let settled = sqlx::query(
        "UPDATE account_usage u SET reserved_bytes = u.reserved_bytes - $2, stored_bytes = u.stored_bytes + $3, files = u.files + 1, \
         unfinished_downloads = u.unfinished_downloads - 1 FROM accounts a \
         WHERE u.account_id = $1 AND a.id = $1 AND ($3 <= $2 OR u.stored_bytes + u.reserved_bytes - $2 + $3 <= a.quota_bytes)",
    )
    .bind(new.account_id.0)
    .bind(new.reserved_bytes)
    .bind(new.size_bytes)
    .execute(connection)
    .await?;
    if settled.rows_affected() == 1 { Ok(()) } else { Err(Error::QuotaExceeded) }
}

/// A file with the key of its object.
pub(crate) struct Stored {
    pub(crate) file: File,
    pub(crate) object_key: String,
}

/// The status of a file of this account, which stays as it is until the transaction ends.
pub(crate) async fn hold_status(
    connection: &mut PgConnection,
    account: AccountId,
    id: FileId,
) -> Result<Option<FileStatus>, Error> {
    let status: Option<String> =
        sqlx::query_scalar("SELECT status FROM files WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL FOR SHARE")
            .bind(id.0)
            .bind(account.0)
            .fetch_optional(connection)
            .await?;
    status.map(|status| word(&status).ok_or(Error::Corrupt("status"))).transpose()
}

/// Have something deleted in the bucket.
pub(crate) async fn purge(connection: &mut PgConnection, purge: &Purge<'_>) -> Result<(), Error> {
    let (id, due_at): (i64, OffsetDateTime) = sqlx::query_as(
        "INSERT INTO object_purges (prefix, keep_key, due_at, object_key) VALUES ($1, $2, now() + make_interval(secs => $3), $4) \
         RETURNING id, due_at",
    )
    .bind(purge.prefix)
    .bind(purge.keep_key)
    .bind(purge.after.as_secs_f64())
    .bind(purge.object_key)
    .fetch_one(&mut *connection)
    .await?;
    alarms::arm(connection, Kind::Purge, alarm_of(id), due_at).await?;
    Ok(())
}

/// What the alarm of a purge is about.
fn alarm_of(purge: i64) -> Uuid {
    Uuid::from_u128(u128::from(purge.unsigned_abs()))
}

/// Take purges that are due. A purger that dies with them is followed by another after `retry_after`.
pub(crate) async fn take_purges(pool: &PgPool, retry_after: Duration, limit: i64) -> Result<Vec<DuePurge>, Error> {
    let rows = sqlx::query(
        "UPDATE object_purges SET due_at = now() + make_interval(secs => $1), attempt = attempt + 1 WHERE id IN \
         (SELECT id FROM object_purges WHERE due_at <= now() ORDER BY due_at, id LIMIT $2 FOR UPDATE SKIP LOCKED) \
         RETURNING id, prefix, keep_key, object_key, attempt",
    )
    .bind(retry_after.as_secs_f64())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(DuePurge {
                id: row.try_get("id")?,
                prefix: row.try_get("prefix")?,
                keep_key: row.try_get("keep_key")?,
                object_key: row.try_get("object_key")?,
                attempt: row.try_get("attempt")?,
            })
        })
        .collect()
}

/// Everything of this purge is gone from the bucket: its row goes, with it the file's, and its bytes are free.
pub(crate) async fn purged(connection: &mut PgConnection, id: i64) -> Result<(), Error> {
    let row = sqlx::query(
        "DELETE FROM object_purges WHERE id = $1 RETURNING file_id, account_id, freed_stored_bytes, freed_reserved_bytes",
    )
    .bind(id)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(()) };
    if let Some(file) = row.try_get::<Option<Uuid>, _>("file_id")? {
        let gone = sqlx::query("DELETE FROM files WHERE id = $1 AND purging_at IS NOT NULL RETURNING account_id, size_bytes")
            .bind(file)
            .fetch_optional(&mut *connection)
            .await?;
        // Another purger was as far as this one.
        let Some(gone) = gone else { return Ok(()) };
        let data = Purged { file_id: FileId(file), size_bytes: gone.try_get("size_bytes")? };
        let account = AccountId(gone.try_get("account_id")?);
        let happened = events::NewEvent::new(IdSource, event::FILE_PURGED, Some(account), file, &data);
        events::record(connection, happened).await?;
    }
    if let Some(account) = row.try_get::<Option<Uuid>, _>("account_id")? {
        sqlx::query(
            "UPDATE account_usage SET stored_bytes = stored_bytes - $2, reserved_bytes = reserved_bytes - $3 WHERE account_id = $1",
        )
        .bind(account)
        .bind(row.try_get::<i64, _>("freed_stored_bytes")?)
        .bind(row.try_get::<i64, _>("freed_reserved_bytes")?)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// This purge failed and is tried again after this long.
pub(crate) async fn not_purged(pool: &PgPool, id: i64, why: &str, after: Duration) -> Result<(), Error> {
    let mut transaction = pool.begin().await?;
    let due_at: Option<OffsetDateTime> = sqlx::query_scalar(
        "UPDATE object_purges SET last_error = $2, due_at = now() + make_interval(secs => $3) WHERE id = $1 RETURNING due_at",
    )
    .bind(id)
    .bind(why)
    .bind(after.as_secs_f64())
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(due_at) = due_at {
        alarms::arm(&mut transaction, Kind::Purge, alarm_of(id), due_at).await?;
    }
    transaction.commit().await?;
    Ok(())
}
