//! What a running download has stored so far. Every function is fenced.

use bowerbird_nats::DownloadId;
use sqlx::{PgConnection, PgPool, Row as _};

use super::{Error, ending::locked};
use crate::{downloads::row::Part, files::store as files};

/// Set aside at a time for content of unknown length.
const RESERVE_STEP_BYTES: i64 = 64 << 20;

/// A multipart upload that a download makes its own.
#[derive(Clone, Debug)]
pub(crate) struct Adoption {
    pub(crate) object_key: String,
    pub(crate) upload_id: String,
    pub(crate) part_size_bytes: i64,
    pub(crate) size_bytes: Option<i64>,
    pub(crate) validator: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) file_name: Option<String>,
}

/// Make an upload the download's own in place of `before`, whose parts are void. Until this nothing may be put into the
/// new one.
pub(crate) async fn adopt(
    connection: &mut PgConnection,
    id: DownloadId,
    fence: i64,
    before: Option<&str>,
    adoption: &Adoption,
) -> Result<(), Error> {
    let row = locked(connection, id, fence).await?;
    if row.upload_id.as_deref() != before {
        return Err(Error::Fenced);
    }
    if before.is_some() {
        sqlx::query("DELETE FROM download_parts WHERE download_id = $1").bind(id.0).execute(&mut *connection).await?;
    }
    let more = (adoption.size_bytes.unwrap_or(RESERVE_STEP_BYTES) - row.reserved_bytes).max(0);
    sqlx::query(
        "UPDATE downloads SET object_key = $2, upload_id = $3, part_size_bytes = $4, size_bytes = $5, validator = $6, \
         source_content_type = $7, source_name = $8, received_bytes = 0, mark_bytes = 0, reserved_bytes = reserved_bytes + $9 WHERE id = $1",
    )
    .bind(id.0)
    .bind(&adoption.object_key)
    .bind(&adoption.upload_id)
    .bind(adoption.part_size_bytes)
    .bind(adoption.size_bytes)
    .bind(&adoption.validator)
    .bind(&adoption.content_type)
    .bind(&adoption.file_name)
    .bind(more)
    .execute(&mut *connection)
    .await?;
    files::reserve(connection, row.account_id, more).await?;
    Ok(())
}

/// Write down parts that are stored. Answers the bytes that are stored by now.
pub(crate) async fn record(
    connection: &mut PgConnection,
    id: DownloadId,
    fence: i64,
    upload_id: &str,
    parts: &[Part],
) -> Result<i64, Error> {
    let row = locked(connection, id, fence).await?;
    if row.upload_id.as_deref() != Some(upload_id) {
        return Err(Error::Fenced);
    }
    let numbers: Vec<i32> = parts.iter().map(|part| part.number).collect();
    let sizes: Vec<i64> = parts.iter().map(|part| part.size_bytes).collect();
    let tags: Vec<&str> = parts.iter().map(|part| part.etag.as_str()).collect();
    let codes: Vec<i64> = parts.iter().map(|part| part.crc64).collect();
    sqlx::query(
        "INSERT INTO download_parts (download_id, part_number, size_bytes, etag, crc64) \
         SELECT $1, * FROM unnest($2::integer[], $3::bigint[], $4::text[], $5::bigint[]) \
         ON CONFLICT (download_id, part_number) DO UPDATE SET size_bytes = excluded.size_bytes, etag = excluded.etag, crc64 = excluded.crc64",
    )
    .bind(id.0)
    .bind(&numbers)
    .bind(&sizes)
    .bind(&tags)
    .bind(&codes)
    .execute(&mut *connection)
    .await?;
    // Parts that are noted a second time are no progress: what kills its workers after the last part must not look healthy.
    let stored: i64 = sqlx::query(
        "UPDATE downloads SET received_bytes = noted.bytes, lost = CASE WHEN noted.bytes > received_bytes THEN 0 ELSE lost END \
         FROM (SELECT coalesce(sum(size_bytes), 0)::bigint AS bytes FROM download_parts WHERE download_id = $1) AS noted \
         WHERE id = $1 RETURNING received_bytes",
    )
    .bind(id.0)
    .fetch_one(&mut *connection)
    .await?
    .try_get("received_bytes")?;
    if stored > row.reserved_bytes {
        let wanted = stored - row.reserved_bytes + if row.size_bytes.is_none() { RESERVE_STEP_BYTES } else { 0 };
        sqlx::query("UPDATE downloads SET reserved_bytes = reserved_bytes + $2 WHERE id = $1")
            .bind(id.0)
            .bind(wanted)
            .execute(&mut *connection)
            .await?;
        files::reserve(connection, row.account_id, wanted).await?;
    }
    Ok(stored)
}

/// Strike parts out that the bucket does not have.
pub(crate) async fn strike(connection: &mut PgConnection, id: DownloadId, fence: i64, numbers: &[i32]) -> Result<(), Error> {
    locked(connection, id, fence).await?;
    sqlx::query("DELETE FROM download_parts WHERE download_id = $1 AND part_number = ANY ($2)")
        .bind(id.0)
        .bind(numbers)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE downloads SET received_bytes = stored.bytes, mark_bytes = least(mark_bytes, stored.bytes) FROM \
         (SELECT coalesce(sum(size_bytes), 0)::bigint AS bytes FROM download_parts WHERE download_id = $1) stored WHERE id = $1",
    )
    .bind(id.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// What is stored is of no use: begin from zero. The upload is left to whoever created it, to abort.
pub(crate) async fn restart(
    connection: &mut PgConnection,
    id: DownloadId,
    fence: i64,
    because_it_changed: bool,
) -> Result<(), Error> {
    let row = locked(connection, id, fence).await?;
    sqlx::query("DELETE FROM download_parts WHERE download_id = $1").bind(id.0).execute(&mut *connection).await?;
    sqlx::query(
        "UPDATE downloads SET object_key = NULL, upload_id = NULL, part_size_bytes = NULL, size_bytes = NULL, validator = NULL, received_bytes = 0, mark_bytes = 0, reserved_bytes = 0, restarts = restarts + $2 WHERE id = $1",
    )
    .bind(id.0)
    .bind(i32::from(because_it_changed))
    .execute(&mut *connection)
    .await?;
    files::release(connection, row.account_id, row.reserved_bytes).await?;
    Ok(())
}

/// How fast it goes, for whoever looks.
pub(crate) async fn progress(
    pool: &PgPool,
    id: DownloadId,
    fence: i64,
    size_bytes: Option<i64>,
    bytes_per_second: i64,
    connections: i32,
) -> Result<(), Error> {
    let written = sqlx::query(
        "UPDATE downloads SET size_bytes = coalesce(size_bytes, $3), bytes_per_second = $4, connections = $5 \
         WHERE id = $1 AND fence = $2 AND status = 'running'",
    )
    .bind(id.0)
    .bind(fence)
    .bind(size_bytes)
    .bind(bytes_per_second)
    .bind(connections)
    .execute(pool)
    .await?;
    if written.rows_affected() == 1 { Ok(()) } else { Err(Error::Fenced) }
}
