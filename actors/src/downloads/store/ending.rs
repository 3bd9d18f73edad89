//! How a try ends: in a file, in another try, or for good. Each is one transaction, fenced, with its events and the
//! account's usage.

use std::time::Duration;

use bowerbird_nats::{
    DownloadId, FileId,
    download::{Failure, Status, Verified},
    event,
};
use sqlx::PgConnection;

use super::{
    Error, columns, read,
    requests::{SECOND_PURGE_AFTER, forget_stored},
    tell,
};
use crate::{
    alarms::{self, Kind},
    downloads::row::Row,
    files::store::{self as files, NewFile, Purge},
};

/// What a finished transfer stored.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) object_key: String,
    pub(crate) name: String,
    pub(crate) size_bytes: i64,
    pub(crate) content_type: String,
    pub(crate) sha256: Option<Vec<u8>>,
    pub(crate) crc64: i64,
    pub(crate) etag: String,
    pub(crate) verified: Verified,
}

/// The row of a running download, held until the transaction ends, if it is this worker's.
pub(crate) async fn locked(connection: &mut PgConnection, id: DownloadId, fence: i64) -> Result<Row, Error> {
    let row = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        " FROM downloads WHERE id = $1 AND fence = $2 AND status = 'running' FOR UPDATE"
    ))
    .bind(id.0)
    .bind(fence)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map_or(Err(Error::Fenced), read)
}

/// The object is there and whole: make the file, end the download, move its bytes from reserved to stored.
pub(crate) async fn complete(
    connection: &mut PgConnection,
    id: DownloadId,
    fence: i64,
    finished: &Finished,
) -> Result<(Row, FileId), Error> {
    let old = locked(connection, id, fence).await?;
    let row = sqlx::query(concat!(
        "UPDATE downloads SET status = 'completed', finished_at = now(), worker = NULL, lease_until = NULL, object_key = $2, upload_id = NULL, \
         part_size_bytes = NULL, size_bytes = $3, received_bytes = $3, sha256 = $4, verified = $5, \
         source_content_type = coalesce(source_content_type, $6), source_name = coalesce(source_name, $7), reserved_bytes = 0, \
         bytes_per_second = 0, connections = 0, error_code = NULL, error_detail = NULL, error_retryable = NULL WHERE id = $1 RETURNING ",
        columns!()
    ))
    .bind(id.0)
    .bind(&finished.object_key)
    .bind(finished.size_bytes)
    .bind(&finished.sha256)
    .bind(verified_word(finished.verified))
    .bind(&finished.content_type)
    .bind(&finished.name)
    .fetch_one(&mut *connection)
    .await?;
    let row = read(&row)?;
    sqlx::query("DELETE FROM download_parts WHERE download_id = $1").bind(id.0).execute(&mut *connection).await?;
    if fence > 1 || old.restarts > 0 || old.part_size_bytes.is_some() {
        // Earlier tries, or an upload of this one that could not be aborted, may have left something beside it, and a worker that was stopped may still put something there.
        for after in [Duration::ZERO, SECOND_PURGE_AFTER] {
            let purge = Purge { prefix: &row.prefix(), keep_key: Some(&finished.object_key), object_key: None, after };
            files::purge(connection, &purge).await?;
        }
    }
    tell(connection, event::DOWNLOAD_COMPLETED, &row).await?;
    files::add(
        connection,
        &NewFile {
            id: row.file_id,
            account_id: row.account_id,
            name: row.asked_name.as_deref().unwrap_or(&finished.name),
            folder: &row.folder,
            size_bytes: finished.size_bytes,
            content_type: &finished.content_type,
            sha256: finished.sha256.as_deref(),
            crc64: finished.crc64,
            etag: &finished.etag,
            object_key: &finished.object_key,
            download_id: id,
            reserved_bytes: old.reserved_bytes,
        },
    )
    .await?;
    let file_id = row.file_id;
    Ok((row, file_id))
}

/// Release the lease and try again after this long. What was stored and what was reserved stay. `counts`: whether this was
/// one of the tries that a download has.
pub(crate) async fn retry(
    connection: &mut PgConnection,
    id: DownloadId,
    fence: i64,
    failure: &Failure,
    after: Duration,
    counts: bool,
) -> Result<Row, Error> {
    locked(connection, id, fence).await?;
    let row = sqlx::query(concat!(
        "UPDATE downloads SET status = 'queued', worker = NULL, lease_until = NULL, not_before = now() + make_interval(secs => $2), \
         attempt = CASE WHEN received_bytes > mark_bytes THEN 0 WHEN $6 THEN attempt ELSE greatest(attempt - 1, 0) END, lost = 0, error_code = $3, error_detail = $4, \
         error_retryable = $5, bytes_per_second = 0, connections = 0 WHERE id = $1 RETURNING ",
        columns!()
    ))
    .bind(id.0)
    .bind(after.as_secs_f64())
    .bind(failure.code.as_str())
    .bind(&failure.detail)
    .bind(failure.retryable)
    .bind(counts)
    .fetch_one(&mut *connection)
    .await?;
    let row = read(&row)?;
    if let Some(not_before) = row.not_before {
        alarms::arm(connection, Kind::Download, row.id.0, not_before).await?;
    }
    tell(connection, event::DOWNLOAD_QUEUED, &row).await?;
    Ok(row)
}

/// Release the lease, nothing having gone wrong with the download itself: this node stops, say.
pub(crate) async fn give_back(connection: &mut PgConnection, id: DownloadId, fence: i64) -> Result<Row, Error> {
    locked(connection, id, fence).await?;
    let row = sqlx::query(concat!(
        "UPDATE downloads SET status = 'queued', worker = NULL, lease_until = NULL, \
         attempt = CASE WHEN received_bytes > mark_bytes THEN 0 ELSE greatest(attempt - 1, 0) END, \
         bytes_per_second = 0, connections = 0 WHERE id = $1 RETURNING ",
        columns!()
    ))
    .bind(id.0)
    .fetch_one(&mut *connection)
    .await?;
    let row = read(&row)?;
    tell(connection, event::DOWNLOAD_QUEUED, &row).await?;
    Ok(row)
}

/// Give up. `keep`: what is stored stays for a later `retry`, with a new link perhaps.
pub(crate) async fn fail(
    connection: &mut PgConnection,
    id: DownloadId,
    fence: i64,
    failure: &Failure,
    keep: bool,
) -> Result<Row, Error> {
    let old = locked(connection, id, fence).await?;
    end(connection, &old, failure, keep).await
}

/// Give up a download that the caller has locked.
pub(super) async fn end(connection: &mut PgConnection, old: &Row, failure: &Failure, keep: bool) -> Result<Row, Error> {
    let keep = keep && old.upload_id.is_some();
    let row = sqlx::query(concat!(
        "UPDATE downloads SET status = 'failed', finished_at = now(), worker = NULL, lease_until = NULL, not_before = NULL, dispatched_at = NULL, \
         reserved_bytes = 0, bytes_per_second = 0, connections = 0, error_code = $2, error_detail = $3, error_retryable = $4, \
         upload_id = CASE WHEN $5 THEN upload_id END, object_key = CASE WHEN $5 THEN object_key END, \
         part_size_bytes = CASE WHEN $5 THEN part_size_bytes END, \
         validator = CASE WHEN $5 THEN validator END, received_bytes = CASE WHEN $5 THEN received_bytes ELSE 0 END, lost = 0 \
         WHERE id = $1 RETURNING ",
        columns!()
    ))
    .bind(old.id.0)
    .bind(failure.code.as_str())
    .bind(&failure.detail)
    .bind(failure.retryable)
    .bind(keep)
    .fetch_one(&mut *connection)
    .await?;
    let row = read(&row)?;
    if !keep {
        forget_stored(connection, old).await?;
    }
    tell(connection, event::DOWNLOAD_FAILED, &row).await?;
    files::dequeue(connection, old.account_id, old.reserved_bytes).await?;
    Ok(row)
}

/// Tidy a batch of finished downloads: what failed ones keep goes after `keep_parts`, the rows after `keep_rows`.
/// Answers how many were touched.
pub(crate) async fn trim(connection: &mut PgConnection, keep_parts: Duration, keep_rows: Duration) -> Result<usize, Error> {
    let stale = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        " FROM downloads WHERE status = 'failed' AND upload_id IS NOT NULL AND finished_at < now() - make_interval(secs => $1) \
         ORDER BY finished_at LIMIT 100 FOR UPDATE SKIP LOCKED"
    ))
    .bind(keep_parts.as_secs_f64())
    .fetch_all(&mut *connection)
    .await?;
    for row in &stale {
        let row = read(row)?;
        forget_stored(connection, &row).await?;
        sqlx::query(
            "UPDATE downloads SET upload_id = NULL, object_key = NULL, part_size_bytes = NULL, validator = NULL, \
             received_bytes = 0 WHERE id = $1",
        )
        .bind(row.id.0)
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query("DELETE FROM download_nodes WHERE seen_at < now() - interval '1 day'").execute(&mut *connection).await?;
    let removed = sqlx::query(
        "DELETE FROM downloads WHERE id IN (SELECT id FROM downloads WHERE finished_at < now() - make_interval(secs => $1) \
         AND upload_id IS NULL ORDER BY finished_at LIMIT 500 FOR UPDATE SKIP LOCKED)",
    )
    .bind(keep_rows.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(stale.len() + usize::try_from(removed.rows_affected()).unwrap_or(usize::MAX))
}

fn verified_word(verified: Verified) -> &'static str {
    match verified {
        Verified::Digest => "digest",
        Verified::Length => "length",
        Verified::None => "none",
    }
}

/// Whether a download in this status still waits for something.
pub(crate) fn is_unfinished(status: Status) -> bool {
    matches!(status, Status::Scheduled | Status::Queued | Status::Running)
}
