//! What becomes of an upload: its object landed, was found good or bad, or never came.

use std::time::Duration;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    UploadId, event,
    event::EventType,
    file::{Available, Quarantined},
    upload::{Failure, Status},
};
use sqlx::{PgConnection, PgPool, Row as _};

use super::{Error, columns, file_store, read, tell, told, usage};
use crate::{
    alarms::{self, Kind},
    events,
    files::store::{Purge, row::file_columns},
    uploads::row::Row,
};

/// When an upload that is being looked at is looked at by somebody else: longer than a try takes between two of its signs
/// of life.
pub(crate) const LOOK_AGAIN_AFTER: Duration = Duration::from_mins(2);
/// A request that was let in by a link just before it lapsed may still be writing this much later.
const LATE_WRITES_FOR: Duration = Duration::from_mins(10);

/// An object that is there.
pub(crate) struct Landed<'a> {
    pub(crate) etag: &'a str,
    /// CRC-64/NVME, its bits as a signed number.
    pub(crate) crc64: Option<i64>,
    pub(crate) detected_type: Option<&'a str>,
    /// It has the digest that was announced.
    pub(crate) verified: bool,
}

/// The object of a pending upload is there and takes a while to look at. None: it is not pending any more.
pub(crate) async fn land(pool: &PgPool, id: UploadId, landed: &Landed<'_>) -> Result<Option<Row>, Error> {
    let mut transaction = pool.begin().await?;
    alarms::hold(&mut transaction, Kind::Upload, id.0).await?;
    let row = sqlx::query(concat!(
        "UPDATE uploads SET status = 'processing', landed_at = now(), etag = $2, crc64 = $3, detected_type = $4, verified = $5 \
         WHERE id = $1 AND status = 'pending' RETURNING ",
        columns!()
    ))
    .bind(id.0)
    .bind(landed.etag)
    .bind(landed.crc64)
    .bind(landed.detected_type)
    .bind(landed.verified)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let row = read(&row)?;
    alarms::arm_after(&mut transaction, Kind::Upload, id.0, LOOK_AGAIN_AFTER).await?;
    transaction.commit().await?;
    Ok(Some(row))
}

/// The object was read and has the digest that was announced.
pub(crate) async fn verified(pool: &PgPool, id: UploadId) -> Result<(), Error> {
    sqlx::query("UPDATE uploads SET verified = true WHERE id = $1 AND status = 'processing'").bind(id.0).execute(pool).await?;
    Ok(())
}

/// The external check is asked once more: which time it is. None: nobody waits for its answer any more.
pub(crate) async fn check_asked(pool: &PgPool, id: UploadId) -> Result<Option<i32>, Error> {
    let attempt = sqlx::query_scalar(
        "UPDATE uploads SET check_attempt = check_attempt + 1 WHERE id = $1 AND status = 'processing' RETURNING check_attempt",
    )
    .bind(id.0)
    .fetch_optional(pool)
    .await?;
    Ok(attempt)
}

/// The file is there; in quarantine if there is a reason. False: the upload had ended before.
pub(crate) async fn complete(pool: &PgPool, id: UploadId, landed: &Landed<'_>, quarantine: Option<&str>) -> Result<bool, Error> {
    let mut transaction = pool.begin().await?;
    alarms::hold(&mut transaction, Kind::Upload, id.0).await?;
    let row = sqlx::query(concat!(
        "UPDATE uploads SET status = 'completed', finished_at = now(), landed_at = coalesce(landed_at, now()), etag = $2, \
         crc64 = $3, detected_type = $4, verified = $5 \
         WHERE id = $1 AND status IN ('pending', 'processing') RETURNING ",
        columns!()
    ))
    .bind(id.0)
    .bind(landed.etag)
    .bind(landed.crc64)
    .bind(landed.detected_type)
    .bind(landed.verified)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let row = read(&row)?;
    alarms::cancel(&mut transaction, Kind::Upload, id.0).await?;
    let folder = file_store::folders::hold_path(&mut transaction, row.account_id, "/").await?;
    let name = file_store::folders::free_name(&mut transaction, folder.id, &row.file_name).await?;
    let file = sqlx::query(concat!(
        "WITH f AS (INSERT INTO files (id, account_id, name, folder_id, size_bytes, content_type, sha256, crc64, etag, object_key, status, \
         source, upload_id) VALUES ($1, $2, $3, $12, $4, $5, $6, $7, $8, $9, $10, 'upload', $11) RETURNING *) SELECT ",
        file_columns!(),
        " FROM f JOIN folders AS d ON d.id = f.folder_id"
    ))
    .bind(row.file_id.0)
    .bind(row.account_id.0)
    .bind(name)
    .bind(row.size_bytes)
    .bind(row.file_type())
    .bind(row.sha256.as_ref().filter(|_| landed.verified).map(<[u8; 32]>::as_slice))
    .bind(landed.crc64)
    .bind(landed.etag)
    .bind(&row.object_key)
    .bind(if quarantine.is_some() { "quarantined" } else { "available" })
    .bind(id.0)
    .bind(folder.id.0)
    .fetch_one(&mut *transaction)
    .await?;
    let file = file_store::row::file(&file)?;
    let (account, entity) = (Some(row.account_id), row.file_id.0);
    let of_file = match quarantine {
        Some(reason) => {
            let data = Quarantined { file, reason: reason.to_owned() };
            events::NewEvent::new(IdSource, event::FILE_QUARANTINED, account, entity, &data)
        }
        None => events::NewEvent::new(IdSource, event::FILE_AVAILABLE, account, entity, &Available { file }),
    };
    events::record_many(&mut transaction, vec![told(event::UPLOAD_COMPLETED, &row), of_file]).await?;
    usage::settle(&mut transaction, row.account_id, row.size_bytes).await?;
    transaction.commit().await?;
    Ok(true)
}

/// What arrived is not what was announced, or is not wanted. None: the upload had ended before.
pub(crate) async fn fail(pool: &PgPool, id: UploadId, failure: &Failure) -> Result<Option<Row>, Error> {
    let mut transaction = pool.begin().await?;
    let ended =
        end(&mut transaction, id, Ending { status: Status::Failed, happened: event::UPLOAD_FAILED, failure: Some(failure) });
    let row = ended.await?;
    transaction.commit().await?;
    Ok(row)
}

/// Its owner does not want it any more. None: it had ended before.
pub(crate) async fn abort(connection: &mut PgConnection, id: UploadId) -> Result<Option<Row>, Error> {
    end(connection, id, Ending { status: Status::Aborted, happened: event::UPLOAD_ABORTED, failure: None }).await
}

/// Nothing came in time. None: its time is not over, or something came.
pub(crate) async fn expire(pool: &PgPool, id: UploadId) -> Result<Option<Row>, Error> {
    let mut transaction = pool.begin().await?;
    let ending = Ending { status: Status::Expired, happened: event::UPLOAD_EXPIRED, failure: None };
    let row = end(&mut transaction, id, ending).await?;
    transaction.commit().await?;
    Ok(row)
}

struct Ending<'a> {
    status: Status,
    happened: EventType,
    failure: Option<&'a Failure>,
}

async fn end(connection: &mut PgConnection, id: UploadId, ending: Ending<'_>) -> Result<Option<Row>, Error> {
    alarms::hold(connection, Kind::Upload, id.0).await?;
    let row = sqlx::query(concat!(
        "UPDATE uploads SET status = $2, finished_at = now(), error_code = $3, error_detail = $4 \
         WHERE id = $1 AND status IN ('pending', 'processing') \
         AND ($2 <> 'expired' OR (status = 'pending' AND expires_at <= now())) RETURNING ",
        columns!(),
        ", extract(epoch FROM links_until - now())::double precision AS links_seconds"
    ))
    .bind(id.0)
    .bind(ending.status.as_str())
    .bind(ending.failure.map(|failure| failure.code.as_str()))
    .bind(ending.failure.map(|failure| &failure.detail))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(found) = row else { return Ok(None) };
    let row = read(&found)?;
    alarms::cancel(connection, Kind::Upload, id.0).await?;
    purge(connection, &row.prefix(), Duration::ZERO).await?;
    // A link that is out cannot be called back. What it still lets in is found by its notification, or by this.
    let links_for = found.try_get::<Option<f64>, _>("links_seconds")?.unwrap_or(0.0).max(0.0);
    purge(connection, &row.prefix(), Duration::from_secs_f64(links_for) + LATE_WRITES_FOR).await?;
    tell(connection, ending.happened, &row).await?;
    usage::release(connection, row.account_id, row.size_bytes).await?;
    Ok(Some(row))
}

async fn purge(connection: &mut PgConnection, prefix: &str, after: Duration) -> Result<(), Error> {
    file_store::purge(connection, &Purge { prefix, keep_key: None, object_key: None, after }).await?;
    Ok(())
}

/// Have the object of an ended upload deleted, unless it is the content of a file, of one in the trash, or of a version. True
/// if it will be.
pub(crate) async fn purge_key(pool: &PgPool, row: &Row) -> Result<bool, Error> {
    let mut transaction = pool.begin().await?;
    let kept: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM files WHERE object_key = $1 AND purging_at IS NULL) \
             OR EXISTS (SELECT FROM file_versions WHERE object_key = $1)",
    )
    .bind(&row.object_key)
    .fetch_one(&mut *transaction)
    .await?;
    if kept {
        return Ok(false);
    }
    // Only this one: contents of other files may lie below the same prefix.
    let purge = Purge { prefix: &row.prefix(), keep_key: None, object_key: Some(&row.object_key), after: Duration::ZERO };
    file_store::purge(&mut transaction, &purge).await?;
    transaction.commit().await?;
    Ok(true)
}
