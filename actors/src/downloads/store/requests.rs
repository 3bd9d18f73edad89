//! What owners do with their downloads. Every function but [`list`] runs in the caller's transaction.

use std::time::Duration;

use bowerbird_nats::{
    AccountId, DownloadId, FileId,
    download::{Algorithm, Status},
    event,
};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, columns, read, read_all, tell};
use crate::{
    alarms::{self, Kind},
    downloads::row::{Row, word},
    files::store::{self as files, Purge},
};

/// A worker that was stopped may still finish a write that it had begun; what it leaves is deleted this much later.
pub(super) const SECOND_PURGE_AFTER: Duration = Duration::from_mins(10);

/// A download to be.
pub(crate) struct New {
    pub(crate) id: DownloadId,
    pub(crate) account_id: AccountId,
    pub(crate) file_id: FileId,
    pub(crate) source_sealed: Vec<u8>,
    pub(crate) display_url: String,
    pub(crate) asked_name: Option<String>,
    pub(crate) folder: String,
    pub(crate) checksum: Option<(Algorithm, Vec<u8>)>,
    pub(crate) max_connections: Option<i32>,
    pub(crate) priority: i16,
    pub(crate) max_attempts: i32,
    pub(crate) start_at: Option<OffsetDateTime>,
}

/// Add a download: queued, or scheduled if it is for later.
pub(crate) async fn insert(connection: &mut PgConnection, new: &New, max_unfinished: i64) -> Result<Row, Error> {
    let row = sqlx::query(concat!(
        "INSERT INTO downloads (id, account_id, file_id, source_sealed, display_url, asked_name, folder, checksum_algorithm, \
         checksum, max_connections, priority, max_attempts, start_at, status) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, CASE WHEN $13 > now() THEN 'scheduled' ELSE 'queued' END) \
         RETURNING ",
        columns!()
    ))
    .bind(new.id.0)
    .bind(new.account_id.0)
    .bind(new.file_id.0)
    .bind(&new.source_sealed)
    .bind(&new.display_url)
    .bind(&new.asked_name)
    .bind(&new.folder)
    .bind(new.checksum.as_ref().map(|(algorithm, _)| algorithm_word(*algorithm)))
    .bind(new.checksum.as_ref().map(|(_, value)| value))
    .bind(new.max_connections)
    .bind(new.priority)
    .bind(new.max_attempts)
    .bind(new.start_at)
    .fetch_one(&mut *connection)
    .await?;
    let row = read(&row)?;
    if row.status == Status::Queued {
        tell(connection, event::DOWNLOAD_QUEUED, &row).await?;
    } else if let Some(start_at) = row.start_at {
        alarms::arm(connection, Kind::Download, row.id.0, start_at).await?;
    }
    // Last, as it locks what all downloads of an account share.
    files::enqueue(connection, new.account_id, max_unfinished).await?;
    Ok(row)
}

/// One download of this account.
pub(crate) async fn find(pool: &PgPool, account: AccountId, id: DownloadId) -> Result<Option<Row>, Error> {
    let row = sqlx::query(concat!("SELECT ", columns!(), " FROM downloads WHERE id = $1 AND account_id = $2"))
        .bind(id.0)
        .bind(account.0)
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(read).transpose()
}

/// One download of this account, held until the transaction ends.
pub(crate) async fn find_locked(connection: &mut PgConnection, account: AccountId, id: DownloadId) -> Result<Option<Row>, Error> {
    let row = sqlx::query(concat!("SELECT ", columns!(), " FROM downloads WHERE id = $1 AND account_id = $2 FOR UPDATE"))
        .bind(id.0)
        .bind(account.0)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

/// The status of a download of this account, which stays as it is until the transaction ends.
pub(crate) async fn hold_status(
    connection: &mut PgConnection,
    account: AccountId,
    id: DownloadId,
) -> Result<Option<Status>, Error> {
    let status: Option<String> = sqlx::query_scalar("SELECT status FROM downloads WHERE id = $1 AND account_id = $2 FOR SHARE")
        .bind(id.0)
        .bind(account.0)
        .fetch_optional(connection)
        .await?;
    status.map(|status| word(&status).ok_or(Error::Corrupt("status"))).transpose()
}

/// Downloads of this account, newest first: those older than `before`, in this status, matching this pattern of LIKE.
pub(crate) async fn list(
    pool: &PgPool,
    account: AccountId,
    status: Option<Status>,
    pattern: Option<&str>,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        " FROM downloads WHERE account_id = $1 AND ($2::uuid IS NULL OR id < $2) AND ($3::text IS NULL OR status = $3) \
         AND ($4::text IS NULL OR display_url ILIKE $4 OR coalesce(asked_name, source_name) ILIKE $4) \
         ORDER BY id DESC LIMIT $5"
    ))
    .bind(account.0)
    .bind(before)
    .bind(status.map(Status::as_str))
    .bind(pattern)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    read_all(&rows)
}

/// What its owner changes of a download that does not run.
pub(crate) struct Change {
    /// A new source: sealed, and as it may be shown.
    pub(crate) source: Option<(Vec<u8>, String)>,
    pub(crate) priority: Option<i16>,
}

/// Change a download that the caller has locked.
pub(crate) async fn change(connection: &mut PgConnection, id: DownloadId, change: &Change) -> Result<Row, Error> {
    let row = sqlx::query(concat!(
        "UPDATE downloads SET source_sealed = coalesce($2, source_sealed), display_url = coalesce($3, display_url), \
         priority = coalesce($4, priority) WHERE id = $1 RETURNING ",
        columns!()
    ))
    .bind(id.0)
    .bind(change.source.as_ref().map(|(sealed, _)| sealed))
    .bind(change.source.as_ref().map(|(_, shown)| shown))
    .bind(change.priority)
    .fetch_one(connection)
    .await?;
    read(&row)
}

/// End an unfinished download that the caller has locked: what is stored of it goes, its quota is free, its worker is
/// fenced off by the status.
pub(crate) async fn cancel(connection: &mut PgConnection, old: &Row) -> Result<Row, Error> {
    let row = sqlx::query(concat!(
        "UPDATE downloads SET status = 'canceled', finished_at = now(), worker = NULL, lease_until = NULL, dispatched_at = NULL, \
         not_before = NULL, upload_id = NULL, object_key = NULL, part_size_bytes = NULL, validator = NULL, \
         received_bytes = 0, reserved_bytes = 0, bytes_per_second = 0, connections = 0 WHERE id = $1 RETURNING ",
        columns!()
    ))
    .bind(old.id.0)
    .fetch_one(&mut *connection)
    .await?;
    let row = read(&row)?;
    forget_stored(connection, old).await?;
    tell(connection, event::DOWNLOAD_CANCELED, &row).await?;
    files::dequeue(connection, old.account_id, old.reserved_bytes).await?;
    Ok(row)
}

/// Have everything deleted that tries of this download have stored, now and once more when a stopped worker must be still.
pub(in crate::downloads) async fn forget_stored(connection: &mut PgConnection, row: &Row) -> Result<(), Error> {
    sqlx::query("DELETE FROM download_parts WHERE download_id = $1").bind(row.id.0).execute(&mut *connection).await?;
    // Without a claim nobody can have stored anything.
    if row.fence > 0 {
        let prefix = row.prefix();
        // The second time for what a worker that was stopped still writes, also one whose row was taken back long ago.
        for after in [Duration::ZERO, SECOND_PURGE_AFTER] {
            files::purge(connection, &Purge { prefix: &prefix, keep_key: None, object_key: None, after }).await?;
        }
    }
    Ok(())
}

/// How a failed or canceled download goes on.
pub(crate) struct Retried {
    /// The file to be, where nothing is stored to go on from: what earlier tries left may still be on its way out.
    pub(crate) fresh_file_id: FileId,
}

/// Queue a failed or canceled download again that the caller has locked.
pub(crate) async fn requeue(
    connection: &mut PgConnection,
    old: &Row,
    retried: &Retried,
    max_unfinished: i64,
) -> Result<Row, Error> {
    let row = sqlx::query(concat!(
        "UPDATE downloads SET status = 'queued', finished_at = NULL, queued_at = now(), not_before = NULL, attempt = 0, lost = 0, \
         restarts = 0, error_code = NULL, error_detail = NULL, error_retryable = NULL, \
         file_id = CASE WHEN upload_id IS NULL THEN $2 ELSE file_id END, \
         size_bytes = CASE WHEN upload_id IS NULL THEN NULL ELSE size_bytes END WHERE id = $1 RETURNING ",
        columns!()
    ))
    .bind(old.id.0)
    .bind(retried.fresh_file_id.0)
    .fetch_one(&mut *connection)
    .await?;
    let row = read(&row)?;
    tell(connection, event::DOWNLOAD_QUEUED, &row).await?;
    files::enqueue(connection, old.account_id, max_unfinished).await?;
    Ok(row)
}

/// Take a finished download off its list that the caller has locked. What a failed one has stored goes with it.
pub(crate) async fn delete(connection: &mut PgConnection, row: &Row) -> Result<(), Error> {
    if row.status == Status::Failed {
        forget_stored(connection, row).await?;
    }
    sqlx::query("DELETE FROM downloads WHERE id = $1").bind(row.id.0).execute(connection).await?;
    Ok(())
}

fn algorithm_word(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Sha256 => "sha256",
        Algorithm::Sha512 => "sha512",
    }
}
