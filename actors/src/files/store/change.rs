//! Changing a file: its name and place, what is said of it, and the content that another one's takes the place of.

use std::time::Duration;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, FileId, FolderId, event,
    file::{Changed, File, OnCollision, Purged},
};
use sqlx::{PgConnection, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Error, folders,
    row::{self, file_columns},
};
use crate::events::{self, NewEvent};

/// One file of this account, held until the transaction ends. Hold the folder before in which a name is chosen for it.
pub(crate) async fn hold(connection: &mut PgConnection, account: AccountId, id: FileId) -> Result<Option<File>, Error> {
    let row = sqlx::query(concat!(
        "SELECT ",
        file_columns!(),
        " FROM files AS f JOIN folders AS d ON d.id = f.folder_id \
         WHERE f.id = $1 AND f.account_id = $2 AND f.deleted_at IS NULL FOR NO KEY UPDATE OF f"
    ))
    .bind(id.0)
    .bind(account.0)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(row::file).transpose()
}

/// The folder that a file is in right now.
pub(crate) async fn folder_of(connection: &mut PgConnection, account: AccountId, id: FileId) -> Result<Option<FolderId>, Error> {
    let folder: Option<Uuid> =
        sqlx::query_scalar("SELECT folder_id FROM files WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL")
            .bind(id.0)
            .bind(account.0)
            .fetch_optional(connection)
            .await?;
    Ok(folder.map(FolderId))
}

/// Where a file is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Under this name.
    Free(String),
    /// In place of this file, which has the name.
    Of(FileId),
}

/// Choose a name in a folder that is held, for a file that is not in it under this name.
pub(crate) async fn choose(
    connection: &mut PgConnection,
    folder: FolderId,
    wanted: &str,
    on_collision: OnCollision,
) -> Result<Place, Error> {
    match (folders::named(connection, folder, wanted).await?, on_collision) {
        (None, _) => Ok(Place::Free(wanted.to_owned())),
        (Some(_), OnCollision::Fail) => Err(Error::NameTaken),
        (Some(_), OnCollision::Rename) => Ok(Place::Free(folders::free_name(connection, folder, wanted).await?)),
        (Some(taken), OnCollision::Replace) => Ok(Place::Of(taken)),
    }
}

/// What a file is to be.
pub(crate) struct New<'a> {
    pub(crate) name: &'a str,
    pub(crate) folder: FolderId,
    pub(crate) tags: &'a [String],
    pub(crate) description: Option<&'a str>,
    pub(crate) expires_at: Option<OffsetDateTime>,
}

/// Change a file that is held.
pub(crate) async fn change(connection: &mut PgConnection, id: FileId, new: &New<'_>) -> Result<File, Error> {
    let row = sqlx::query(concat!(
        "UPDATE files AS f SET name = $2, folder_id = $3, tags = $4, description = $5, expires_at = $6, version = f.version + 1, \
         updated_at = now() FROM folders AS d WHERE f.id = $1 AND d.id = $3 RETURNING ",
        file_columns!()
    ))
    .bind(id.0)
    .bind(new.name)
    .bind(new.folder.0)
    .bind(new.tags)
    .bind(new.description)
    .bind(new.expires_at)
    .fetch_one(connection)
    .await?;
    row::file(&row)
}

/// Keep the content of a file, which is held, as a version of it.
pub(crate) async fn keep_content(connection: &mut PgConnection, id: FileId, keep: Duration) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO file_versions (id, file_id, account_id, size_bytes, content_type, sha256, crc64, etag, object_key, expires_at) \
         SELECT $2, id, account_id, size_bytes, content_type, sha256, crc64, etag, object_key, now() + make_interval(secs => $3) \
         FROM files WHERE id = $1",
    )
    .bind(id.0)
    .bind(IdSource.next())
    .bind(keep.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}

/// Put the content of one file in the place of another's, and take the first off the drive. Both are held. What the other one
/// held becomes a version of it; versions of the first go along.
pub(crate) async fn replace(
    connection: &mut PgConnection,
    account: AccountId,
    replaced: FileId,
    by: FileId,
    keep: Duration,
) -> Result<File, Error> {
    // Only an available file has a content to keep and to share.
    let held = hold(connection, account, replaced).await?.ok_or(Error::NameTaken)?;
    if held.status != bowerbird_nats::file::FileStatus::Available {
        return Err(Error::NameTaken);
    }
    keep_content(connection, replaced, keep).await?;
    sqlx::query("UPDATE file_versions SET file_id = $2 WHERE file_id = $1")
        .bind(by.0)
        .bind(replaced.0)
        .execute(&mut *connection)
        .await?;
    let gone = sqlx::query(
        "DELETE FROM files WHERE id = $1 RETURNING size_bytes, content_type, sha256, crc64, etag, object_key, status",
    )
    .bind(by.0)
    .fetch_one(&mut *connection)
    .await?;
    let row = sqlx::query(concat!(
        "UPDATE files AS f SET size_bytes = $2, content_type = $3, sha256 = $4, crc64 = $5, etag = $6, object_key = $7, status = $8, \
         version = f.version + 1, updated_at = now() FROM folders AS d WHERE f.id = $1 AND d.id = f.folder_id RETURNING ",
        file_columns!()
    ))
    .bind(replaced.0)
    .bind(gone.try_get::<i64, _>("size_bytes")?)
    .bind(gone.try_get::<&str, _>("content_type")?)
    .bind(gone.try_get::<Option<Vec<u8>>, _>("sha256")?)
    .bind(gone.try_get::<Option<i64>, _>("crc64")?)
    .bind(gone.try_get::<&str, _>("etag")?)
    .bind(gone.try_get::<&str, _>("object_key")?)
    .bind(gone.try_get::<&str, _>("status")?)
    .fetch_one(&mut *connection)
    .await?;
    let file = row::file(&row)?;
    let purged = Purged { file_id: by, size_bytes: 0 };
    let told = vec![
        NewEvent::new(IdSource, event::FILE_PURGED, Some(account), by.0, &purged),
        NewEvent::new(IdSource, event::FILE_UPDATED, Some(account), replaced.0, &Changed { file: file.clone() }),
    ];
    events::record_many(connection, told).await?;
    sqlx::query("UPDATE account_usage SET files = files - 1 WHERE account_id = $1").bind(account.0).execute(connection).await?;
    Ok(file)
}

/// Record one fact about a file.
pub(crate) async fn tell<T: serde::Serialize>(
    connection: &mut PgConnection,
    event_type: bowerbird_nats::EventType,
    account: AccountId,
    thing: Uuid,
    data: &T,
) -> Result<(), Error> {
    events::record(connection, NewEvent::new(IdSource, event_type, Some(account), thing, data)).await?;
    Ok(())
}
