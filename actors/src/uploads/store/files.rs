//! Files whose objects went away without us, and came back.

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, event,
    file::{FileStatus, Found, Missing},
};
use sqlx::{PgPool, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{Error, file_store};
use crate::{downloads::row::word, events, files::store::row::file_columns};

/// A file that is not deleted, as far as its object is concerned.
#[derive(Clone, Debug)]
pub(crate) struct StoredFile {
    pub(crate) id: Uuid,
    pub(crate) object_key: String,
    pub(crate) size_bytes: i64,
    pub(crate) etag: String,
    pub(crate) status: FileStatus,
}

pub(super) fn stored(row: &PgRow) -> Result<StoredFile, Error> {
    Ok(StoredFile {
        id: row.try_get("id")?,
        object_key: row.try_get("object_key")?,
        size_bytes: row.try_get("size_bytes")?,
        etag: row.try_get("etag")?,
        status: word(row.try_get("status")?).ok_or(Error::Corrupt("files.status"))?,
    })
}

/// The file whose object has this key.
pub(crate) async fn file_by_key(pool: &PgPool, key: &str) -> Result<Option<StoredFile>, Error> {
    let row =
        sqlx::query("SELECT id, object_key, size_bytes, etag, status FROM files WHERE object_key = $1 AND deleted_at IS NULL")
            .bind(key)
            .fetch_optional(pool)
            .await?;
    row.as_ref().map(stored).transpose()
}

/// The object with this key is gone, and nobody of us removed it. False: it was known, its owner has deleted it, or it has
/// another content now.
pub(crate) async fn missing(pool: &PgPool, id: Uuid, key: &str) -> Result<bool, Error> {
    let mut transaction = pool.begin().await?;
    let row = sqlx::query(concat!(
        "UPDATE files AS f SET found_as = f.status, status = 'missing', updated_at = now() FROM folders AS d \
         WHERE f.id = $1 AND f.object_key = $2 AND f.deleted_at IS NULL AND f.status IN ('available', 'quarantined') \
         AND d.id = f.folder_id RETURNING ",
        file_columns!()
    ))
    .bind(id)
    .bind(key)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let account = AccountId(row.try_get("account_id")?);
    let data = Missing { file: file_store::row::file(&row)? };
    events::record(&mut transaction, events::NewEvent::new(IdSource, event::FILE_MISSING, Some(account), id, &data)).await?;
    transaction.commit().await?;
    Ok(true)
}

/// The object of a missing file is there again, under this entity tag. False: it was not missing.
pub(crate) async fn found(pool: &PgPool, id: Uuid, etag: &str) -> Result<bool, Error> {
    let mut transaction = pool.begin().await?;
    let row = sqlx::query(concat!(
        "UPDATE files AS f SET status = coalesce(f.found_as, 'available'), found_as = NULL, updated_at = now() FROM folders AS d \
         WHERE f.id = $1 AND f.deleted_at IS NULL AND f.status = 'missing' AND f.etag = $2 AND d.id = f.folder_id RETURNING ",
        file_columns!()
    ))
    .bind(id)
    .bind(etag)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let account = AccountId(row.try_get("account_id")?);
    let data = Found { file: file_store::row::file(&row)? };
    events::record(&mut transaction, events::NewEvent::new(IdSource, event::FILE_FOUND, Some(account), id, &data)).await?;
    transaction.commit().await?;
    Ok(true)
}
