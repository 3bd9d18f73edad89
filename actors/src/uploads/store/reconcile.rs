//! What the database knows of keys that the bucket has, and which files should have objects.

use std::{collections::HashSet, time::Duration};

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, StoredFile, file_store, files};
use crate::files::store::Purge;

/// A key of the bucket: which account's and which file's it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) key: String,
    pub(crate) file_id: Uuid,
}

/// The database's time.
pub(crate) async fn now(pool: &PgPool) -> Result<OffsetDateTime, Error> {
    Ok(sqlx::query_scalar("SELECT now()").fetch_one(pool).await?)
}

/// Those of these keys that are somebody's: a file's, also a deleted one's that is still to be purged, or that of an upload
/// or download that has not ended, or that were handed to the purger before.
pub(crate) async fn known_keys(pool: &PgPool, keys: &[Known]) -> Result<HashSet<String>, Error> {
    let names: Vec<&str> = keys.iter().map(|known| known.key.as_str()).collect();
    let files: Vec<Uuid> = keys.iter().map(|known| known.file_id).collect();
    let known: Vec<String> = sqlx::query_scalar(
        "SELECT k.key FROM unnest($1::text[], $2::uuid[]) AS k (key, file_id)
         WHERE EXISTS (SELECT FROM files f WHERE f.object_key = k.key)
            OR EXISTS (SELECT FROM file_versions v WHERE v.object_key = k.key)
            OR EXISTS (SELECT FROM uploads u WHERE u.object_key = k.key AND u.finished_at IS NULL)
            OR EXISTS (SELECT FROM downloads d WHERE d.file_id = k.file_id AND d.finished_at IS NULL)
            OR EXISTS (SELECT FROM object_purges p WHERE p.prefix = regexp_replace(k.key, '[^/]*$', '')
                       AND p.keep_key IS DISTINCT FROM k.key)",
    )
    .bind(names)
    .bind(files)
    .fetch_all(pool)
    .await?;
    Ok(known.into_iter().collect())
}

/// Those of these uploads in parts that are somebody's; by the object store's name for them.
pub(crate) async fn known_uploads(pool: &PgPool, uploads: &[(String, Uuid)]) -> Result<HashSet<String>, Error> {
    let (names, files): (Vec<&str>, Vec<Uuid>) = uploads.iter().map(|(name, file)| (name.as_str(), *file)).unzip();
    let known: Vec<String> = sqlx::query_scalar(
        "SELECT k.name FROM unnest($1::text[], $2::uuid[]) AS k (name, file_id)
         WHERE EXISTS (SELECT FROM uploads u WHERE u.file_id = k.file_id AND u.storage_upload_id = k.name AND u.finished_at IS NULL)
            OR EXISTS (SELECT FROM downloads d WHERE d.file_id = k.file_id
                       AND (d.finished_at IS NULL OR d.upload_id = k.name))",
    )
    .bind(names)
    .bind(files)
    .fetch_all(pool)
    .await?;
    Ok(known.into_iter().collect())
}

/// Files with keys after the first and up to the last, in the order of the bucket.
pub(crate) async fn files_between(
    pool: &PgPool,
    after: Option<&str>,
    to: Option<&str>,
    limit: i64,
) -> Result<Vec<StoredFile>, Error> {
    let rows = sqlx::query(
        "SELECT id, object_key, size_bytes, etag, status FROM files
         WHERE deleted_at IS NULL AND ($1::text IS NULL OR object_key COLLATE \"C\" > $1)
         AND ($2::text IS NULL OR object_key COLLATE \"C\" <= $2) ORDER BY object_key COLLATE \"C\" LIMIT $3",
    )
    .bind(after)
    .bind(to)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter().map(files::stored).collect()
}

/// Have an object that nobody knows deleted; but not what a file below the same prefix has.
pub(crate) async fn purge_object(pool: &PgPool, known: &Known) -> Result<bool, Error> {
    let mut transaction = pool.begin().await?;
    let kept: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM files WHERE object_key = $1) OR EXISTS (SELECT FROM file_versions WHERE object_key = $1)",
    )
    .bind(&known.key)
    .fetch_one(&mut *transaction)
    .await?;
    let Some((prefix, _)) = known.key.rsplit_once('/') else { return Ok(false) };
    if kept {
        return Ok(false);
    }
    // Only this one: contents of other files may lie below the same prefix.
    let prefix = format!("{prefix}/");
    let purge = Purge { prefix: &prefix, keep_key: None, object_key: Some(&known.key), after: Duration::ZERO };
    file_store::purge(&mut transaction, &purge).await?;
    transaction.commit().await?;
    Ok(true)
}
