//! The tables of downloads, and nothing but: what may happen to a row, each a function, each fenced where a worker asks.
//!
//! A worker's write names the fence that its claim got and asks for `status = 'running'`. When another worker has the
//! row, or its owner has ended it, the answer is [`Error::Fenced`] and nothing was written.

mod dispatch;
mod ending;
mod lease;
mod ledger;
mod requests;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, DownloadId, FileId,
    download::{Changed, Status},
    event::EventType,
    id::NodeId,
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};

pub(crate) use self::{
    dispatch::{HandOut, Limits, beat, begin, dispatch, due, forget_hand_outs},
    ending::{Finished, complete, fail, give_back, is_unfinished, locked, retry, trim},
    lease::{Claimed, Renewal, claim, hand_back, lose, reap, renew},
    ledger::{Adoption, adopt, progress, record, restart, strike},
    requests::{Change, New, Retried, cancel, change, delete, find, find_locked, hold_status, insert, list, requeue},
};
use super::row::{Row, failure, word};
use crate::{events, files};

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The row is another worker's by now, or ended.
    #[error("the download is not this worker's any more")]
    Fenced,
    /// The account's quota does not hold it.
    #[error("the quota of the account is used up")]
    QuotaExceeded,
    /// The account has too many unfinished downloads.
    #[error("the account has too many unfinished downloads")]
    TooMany,
    /// The account is not there, or was disabled.
    #[error("the account may do nothing")]
    Disabled,
    /// A stored value is not one that we write.
    #[error("a row of downloads holds what no version of this program writes: {0}")]
    Corrupt(&'static str),
    /// PostgreSQL failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl From<files::store::Error> for Error {
    fn from(error: files::store::Error) -> Self {
        match error {
            files::store::Error::QuotaExceeded => Error::QuotaExceeded,
            files::store::Error::TooMany => Error::TooMany,
            files::store::Error::Disabled => Error::Disabled,
            files::store::Error::Corrupt(what) => Error::Corrupt(what),
            // A completed download takes another name, and moves no folder.
            files::store::Error::NameTaken | files::store::Error::TooLarge | files::store::Error::DoesNotFit => {
                Error::Corrupt("place of the file")
            }
            files::store::Error::Database(error) => Error::Database(error),
        }
    }
}

/// The columns of a [`Row`].
macro_rules! columns {
    () => {
        "downloads.id, downloads.account_id, source_sealed, display_url, asked_name, folder, checksum_algorithm, checksum, \
         max_connections, downloads.priority, max_attempts, start_at, status, attempt, lost, not_before, worker, fence, \
         file_id, object_key, upload_id, part_size_bytes, size_bytes, validator, source_content_type, \
         source_name, restarts, received_bytes, mark_bytes, reserved_bytes, bytes_per_second, connections, sha256, \
         verified, error_code, error_detail, error_retryable, created_at, started_at, finished_at"
    };
}
use columns;

/// What a download was when something happened to it, told to everybody who follows.
async fn tell(connection: &mut PgConnection, happened: EventType, row: &Row) -> Result<(), Error> {
    let data = Changed { download: row.to_download() };
    events::record(connection, events::NewEvent::new(IdSource, happened, Some(row.account_id), row.id.0, &data)).await?;
    Ok(())
}

/// [`tell`] of many.
async fn tell_all(connection: &mut PgConnection, happened: &EventType, rows: &[Row]) -> Result<(), Error> {
    let told = rows.iter().map(|row| {
        let data = Changed { download: row.to_download() };
        events::NewEvent::new(IdSource, happened.clone(), Some(row.account_id), row.id.0, &data)
    });
    events::record_many(connection, told.collect()).await?;
    Ok(())
}

fn read(row: &PgRow) -> Result<Row, Error> {
    let known = |what: &'static str| move || Error::Corrupt(what);
    let checksum = match (row.try_get::<Option<&str>, _>("checksum_algorithm")?, row.try_get::<Option<Vec<u8>>, _>("checksum")?) {
        (Some(algorithm), Some(value)) => Some((word(algorithm).ok_or_else(known("checksum_algorithm"))?, value)),
        _ => None,
    };
    let error = match row.try_get::<Option<&str>, _>("error_code")? {
        Some(code) => failure(
            code,
            row.try_get::<Option<String>, _>("error_detail")?.unwrap_or_default(),
            row.try_get::<Option<bool>, _>("error_retryable")?.unwrap_or_default(),
        ),
        None => None,
    };
    Ok(Row {
        id: DownloadId(row.try_get("id")?),
        account_id: AccountId(row.try_get("account_id")?),
        source_sealed: row.try_get("source_sealed")?,
        display_url: row.try_get("display_url")?,
        asked_name: row.try_get("asked_name")?,
        folder: row.try_get("folder")?,
        checksum,
        max_connections: row.try_get("max_connections")?,
        priority: row.try_get("priority")?,
        max_attempts: row.try_get("max_attempts")?,
        start_at: row.try_get("start_at")?,
        status: word::<Status>(row.try_get("status")?).ok_or_else(known("status"))?,
        attempt: row.try_get("attempt")?,
        lost: row.try_get("lost")?,
        not_before: row.try_get("not_before")?,
        worker: row.try_get::<Option<_>, _>("worker")?.map(NodeId),
        fence: row.try_get("fence")?,
        file_id: FileId(row.try_get("file_id")?),
        object_key: row.try_get("object_key")?,
        upload_id: row.try_get("upload_id")?,
        part_size_bytes: row.try_get("part_size_bytes")?,
        size_bytes: row.try_get("size_bytes")?,
        validator: row.try_get("validator")?,
        source_content_type: row.try_get("source_content_type")?,
        source_name: row.try_get("source_name")?,
        restarts: row.try_get("restarts")?,
        received_bytes: row.try_get("received_bytes")?,
        mark_bytes: row.try_get("mark_bytes")?,
        reserved_bytes: row.try_get("reserved_bytes")?,
        bytes_per_second: row.try_get("bytes_per_second")?,
        connections: row.try_get("connections")?,
        sha256: row.try_get("sha256")?,
        verified: word(row.try_get("verified")?).ok_or_else(known("verified"))?,
        error,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}

fn read_all(rows: &[PgRow]) -> Result<Vec<Row>, Error> {
    rows.iter().map(read).collect()
}

#[cfg(test)]
mod tests;
