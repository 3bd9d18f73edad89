//! Contents beside the present one: versions that were kept, and copies that are being made.

use std::time::Duration;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, FileId, FileVersionId, event,
    file::{Available, Changed, File, FileVersion},
};
use sqlx::{PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::{
    Error, change,
    row::{self, file_columns},
};
use crate::downloads::row::hexadecimal;

/// Versions of a file of this account, newest first. None: there is no such file.
pub(crate) async fn versions(
    pool: &PgPool,
    account: AccountId,
    file: FileId,
    limit: i64,
) -> Result<Option<Vec<FileVersion>>, Error> {
    let there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM files WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL)")
            .bind(file.0)
            .bind(account.0)
            .fetch_one(pool)
            .await?;
    if !there {
        return Ok(None);
    }
    let rows = sqlx::query("SELECT * FROM file_versions WHERE file_id = $1 ORDER BY id DESC LIMIT $2")
        .bind(file.0)
        .bind(limit)
        .fetch_all(pool)
        .await?;
    let read = rows.iter().map(|row| {
        Ok(FileVersion {
            id: FileVersionId(row.try_get("id")?),
            size_bytes: row.try_get("size_bytes")?,
            content_type: row.try_get("content_type")?,
            sha256: row.try_get::<Option<Vec<u8>>, _>("sha256")?.as_deref().map(hexadecimal),
            replaced_at: row.try_get("replaced_at")?,
            expires_at: row.try_get("expires_at")?,
        })
    });
    Ok(Some(read.collect::<Result<_, Error>>()?))
}

/// Put a version in the place of the present content of a file that is held, which becomes a version. None: there is no such
/// version.
pub(crate) async fn bring_back(
    connection: &mut PgConnection,
    account: AccountId,
    file: FileId,
    version: FileVersionId,
    keep: Duration,
) -> Result<Option<File>, Error> {
    let old = sqlx::query("DELETE FROM file_versions WHERE id = $1 AND file_id = $2 AND expires_at > now() RETURNING *")
        .bind(version.0)
        .bind(file.0)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(old) = old else { return Ok(None) };
    change::keep_content(connection, file, keep).await?;
    let row = sqlx::query(concat!(
        "UPDATE files AS f SET size_bytes = $2, content_type = $3, sha256 = $4, crc64 = $5, etag = $6, object_key = $7, \
         version = f.version + 1, updated_at = now() FROM folders AS d WHERE f.id = $1 AND d.id = f.folder_id RETURNING ",
        file_columns!()
    ))
    .bind(file.0)
    .bind(old.try_get::<i64, _>("size_bytes")?)
    .bind(old.try_get::<&str, _>("content_type")?)
    .bind(old.try_get::<Option<Vec<u8>>, _>("sha256")?)
    .bind(old.try_get::<Option<i64>, _>("crc64")?)
    .bind(old.try_get::<&str, _>("etag")?)
    .bind(old.try_get::<&str, _>("object_key")?)
    .fetch_one(&mut *connection)
    .await?;
    let now = row::file(&row)?;
    change::tell(connection, event::FILE_UPDATED, account, file.0, &Changed { file: now.clone() }).await?;
    Ok(Some(now))
}

/// Have versions purged whose time is over; how many.
pub(crate) async fn expire(pool: &PgPool, limit: i64) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query(
        "WITH gone AS (
             DELETE FROM file_versions WHERE id IN
                 (SELECT id FROM file_versions WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
             RETURNING object_key, account_id, size_bytes
         )
         INSERT INTO object_purges (prefix, object_key, account_id, freed_stored_bytes)
         SELECT regexp_replace(object_key, '[^/]*$', ''), object_key, account_id, size_bytes FROM gone",
    )
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}

/// Begin a copy: set its bytes aside, and see to it that whatever becomes of it is cleared away after `within` unless it is
/// finished. Answers the number of that clearing.
pub(crate) async fn begin_copy(
    connection: &mut PgConnection,
    account: AccountId,
    prefix: &str,
    size_bytes: i64,
    within: Duration,
) -> Result<i64, Error> {
    super::reserve(connection, account, size_bytes).await?;
    Ok(sqlx::query_scalar(
        "INSERT INTO object_purges (prefix, account_id, freed_reserved_bytes, due_at) \
         VALUES ($1, $2, $3, now() + make_interval(secs => $4)) RETURNING id",
    )
    .bind(prefix)
    .bind(account.0)
    .bind(size_bytes)
    .bind(within.as_secs_f64())
    .fetch_one(connection)
    .await?)
}

/// Clear a copy away now that will not be finished.
pub(crate) async fn give_up_copy(pool: &PgPool, purge: i64) -> Result<(), Error> {
    sqlx::query("UPDATE object_purges SET due_at = now() WHERE id = $1").bind(purge).execute(pool).await?;
    Ok(())
}

/// A copy whose object is there.
pub(crate) struct Copied<'a> {
    pub(crate) purge: i64,
    pub(crate) id: FileId,
    pub(crate) of: FileId,
    pub(crate) name: &'a str,
    pub(crate) folder: Uuid,
    pub(crate) etag: &'a str,
    pub(crate) object_key: &'a str,
    /// What the content was when it was copied.
    pub(crate) source_key: &'a str,
}

/// Make the file of a copy; its folder is held. None: it was cleared away meanwhile, or its source is another one by now.
pub(crate) async fn finish_copy(
    connection: &mut PgConnection,
    account: AccountId,
    copied: &Copied<'_>,
) -> Result<Option<File>, Error> {
    // Whoever clears it away takes this row, too: one of the two has it.
    let reserved: Option<i64> =
        sqlx::query_scalar("DELETE FROM object_purges WHERE id = $1 AND attempt = 0 RETURNING freed_reserved_bytes")
            .bind(copied.purge)
            .fetch_optional(&mut *connection)
            .await?;
    let Some(reserved) = reserved else { return Ok(None) };
    let row = sqlx::query(concat!(
        "WITH f AS (INSERT INTO files (id, account_id, name, folder_id, size_bytes, content_type, sha256, crc64, etag, object_key, status, \
         source, tags, description) SELECT $3, account_id, $4, $5, size_bytes, content_type, sha256, crc64, $6, $7, status, source, tags, \
         description FROM files WHERE id = $1 AND account_id = $2 AND object_key = $8 AND deleted_at IS NULL RETURNING *) SELECT ",
        file_columns!(),
        " FROM f JOIN folders AS d ON d.id = f.folder_id"
    ))
    .bind(copied.of.0)
    .bind(account.0)
    .bind(copied.id.0)
    .bind(copied.name)
    .bind(copied.folder)
    .bind(copied.etag)
    .bind(copied.object_key)
    .bind(copied.source_key)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let file = row::file(&row)?;
    change::tell(connection, event::FILE_AVAILABLE, account, file.id.0, &Available { file: file.clone() }).await?;
    sqlx::query(
        "UPDATE account_usage SET reserved_bytes = reserved_bytes - $2, stored_bytes = stored_bytes + $3, files = files + 1 WHERE account_id = $1",
    )
    .bind(account.0)
    .bind(reserved)
    .bind(file.size_bytes)
    .execute(connection)
    .await?;
    Ok(Some(file))
}

/// New identifiers for a copy: its file, and where its object goes.
pub(crate) fn place_of_copy(account: AccountId) -> (FileId, String, String) {
    let id = FileId(IdSource.next());
    let prefix = format!("{account}/{id}/");
    let key = format!("{prefix}copy");
    (id, prefix, key)
}
