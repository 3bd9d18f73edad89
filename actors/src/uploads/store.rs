//! The table of uploads, and what becomes of a row: every step asks for the status that it starts from, so that of two who
//! do the same one does it and the other sees that it is done.

mod asking;
mod ending;
mod files;
mod reconcile;
mod usage;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, FileId, UploadId,
    event::EventType,
    upload::{Changed, ErrorCode, Failure, Status},
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};

pub(crate) use self::{
    asking::{
        New, begin_parts, find, find_any, find_by_key, insert, links_given, list, look_again, unfinished_after, unfinished_among,
    },
    ending::{Landed, abort, check_asked, complete, expire, fail, land, purge_key, verified},
    files::{StoredFile, file_by_key, found, missing},
    reconcile::{Known, files_between, known_keys, known_uploads, now, purge_object},
};
use super::row::Row;
use crate::{downloads::row::word, events, files::store as file_store};

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The account's quota does not hold it.
    #[error("the quota of the account is used up")]
    QuotaExceeded,
    /// The account has too many unfinished uploads.
    #[error("the account has too many unfinished uploads")]
    TooMany,
    /// The account is not there, or was disabled.
    #[error("the account may do nothing")]
    Disabled,
    /// A stored value is not one that we write.
    #[error("a row of uploads holds what no version of this program writes: {0}")]
    Corrupt(&'static str),
    /// PostgreSQL failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<file_store::Error> for Error {
    fn from(error: file_store::Error) -> Self {
        match error {
            file_store::Error::QuotaExceeded => Error::QuotaExceeded,
            file_store::Error::TooMany => Error::TooMany,
            file_store::Error::Disabled => Error::Disabled,
            file_store::Error::Corrupt(what) => Error::Corrupt(what),
            // A landed upload takes another name, and moves no folder.
            file_store::Error::NameTaken | file_store::Error::TooLarge | file_store::Error::DoesNotFit => {
                Error::Corrupt("place of the file")
            }
            file_store::Error::Database(error) => Error::Database(error),
        }
    }
}

/// The columns of a [`Row`].
macro_rules! columns {
    () => {
        "id, account_id, file_id, file_name, size_bytes, content_type, sha256, object_key, part_size_bytes, storage_upload_id, \
         status, etag, crc64, detected_type, verified, error_code, error_detail, expires_at, \
         created_at, finished_at, expires_at <= now() AS is_over, \
         extract(epoch FROM now() - landed_at)::double precision AS landed_seconds_ago"
    };
}
use columns;

fn read(row: &PgRow) -> Result<Row, Error> {
    let code: Option<String> = row.try_get("error_code")?;
    let error = match code {
        Some(code) => Some(Failure {
            code: word::<ErrorCode>(&code).ok_or(Error::Corrupt("error_code"))?,
            detail: row.try_get::<Option<String>, _>("error_detail")?.unwrap_or_default(),
        }),
        None => None,
    };
    let sha256: Option<Vec<u8>> = row.try_get("sha256")?;
    Ok(Row {
        id: UploadId(row.try_get("id")?),
        account_id: AccountId(row.try_get("account_id")?),
        file_id: FileId(row.try_get("file_id")?),
        file_name: row.try_get("file_name")?,
        size_bytes: row.try_get("size_bytes")?,
        content_type: row.try_get("content_type")?,
        sha256: sha256.map(|digest| digest.try_into().map_err(|_| Error::Corrupt("sha256"))).transpose()?,
        object_key: row.try_get("object_key")?,
        part_size_bytes: row.try_get("part_size_bytes")?,
        storage_upload_id: row.try_get("storage_upload_id")?,
        status: word::<Status>(row.try_get("status")?).ok_or(Error::Corrupt("status"))?,
        etag: row.try_get("etag")?,
        crc64: row.try_get("crc64")?,
        detected_type: row.try_get("detected_type")?,
        verified: row.try_get("verified")?,
        error,
        expires_at: row.try_get("expires_at")?,
        created_at: row.try_get("created_at")?,
        finished_at: row.try_get("finished_at")?,
        is_over: row.try_get("is_over")?,
        landed_seconds_ago: row.try_get("landed_seconds_ago")?,
    })
}

/// What an upload was when something happened to it.
fn told(happened: EventType, row: &Row) -> events::NewEvent {
    events::NewEvent::new(IdSource, happened, Some(row.account_id), row.id.0, &Changed { upload: row.to_upload() })
}

async fn tell(connection: &mut PgConnection, happened: EventType, row: &Row) -> Result<(), Error> {
    events::record(connection, told(happened, row)).await?;
    Ok(())
}
