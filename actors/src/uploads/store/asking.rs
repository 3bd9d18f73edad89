//! What owners ask, and what is looked up for them.

use std::time::Duration;

use bowerbird_nats::{AccountId, FileId, UploadId, event, upload::Status};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, columns, read, tell, usage};
use crate::{
    alarms::{self, Kind},
    uploads::row::{Row, object_key},
};

/// An upload to be.
pub(crate) struct New {
    pub(crate) id: UploadId,
    pub(crate) account_id: AccountId,
    pub(crate) file_id: FileId,
    pub(crate) file_name: String,
    pub(crate) size_bytes: i64,
    pub(crate) content_type: Option<String>,
    pub(crate) sha256: Option<[u8; 32]>,
    /// For an object in parts.
    pub(crate) part_size_bytes: Option<i64>,
    pub(crate) ttl: Duration,
    /// When the link that is given out with it lapses, if it is one for the whole object.
    pub(crate) links_for: Option<Duration>,
}

/// Add an upload, its bytes set aside.
pub(crate) async fn insert(connection: &mut PgConnection, new: &New, max_unfinished: i64) -> Result<Row, Error> {
    let row = sqlx::query(concat!(
        "INSERT INTO uploads (id, account_id, file_id, file_name, size_bytes, content_type, sha256, object_key, part_size_bytes, \
         expires_at, links_until) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + make_interval(secs => $10), now() + make_interval(secs => $11)) \
         RETURNING ",
        columns!()
    ))
    .bind(new.id.0)
    .bind(new.account_id.0)
    .bind(new.file_id.0)
    .bind(&new.file_name)
    .bind(new.size_bytes)
    .bind(&new.content_type)
    .bind(new.sha256.as_ref().map(<[u8; 32]>::as_slice))
    .bind(object_key(new.account_id, new.file_id))
    .bind(new.part_size_bytes)
    .bind(new.ttl.as_secs_f64())
    .bind(new.links_for.map(|time| time.as_secs_f64()))
    .fetch_one(&mut *connection)
    .await?;
    let row = read(&row)?;
    alarms::arm(connection, Kind::Upload, row.id.0, row.expires_at).await?;
    tell(connection, event::UPLOAD_CREATED, &row).await?;
    usage::reserve(connection, new.account_id, new.size_bytes, max_unfinished).await?;
    Ok(row)
}

/// One upload of this account.
pub(crate) async fn find(pool: &PgPool, account: AccountId, id: UploadId) -> Result<Option<Row>, Error> {
    let row = sqlx::query(concat!("SELECT ", columns!(), " FROM uploads WHERE id = $1 AND account_id = $2"))
        .bind(id.0)
        .bind(account.0)
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(read).transpose()
}

/// One upload, whoever's.
pub(crate) async fn find_any(pool: &PgPool, id: UploadId) -> Result<Option<Row>, Error> {
    let row = sqlx::query(concat!("SELECT ", columns!(), " FROM uploads WHERE id = $1")).bind(id.0).fetch_optional(pool).await?;
    row.as_ref().map(read).transpose()
}

/// The upload whose object has this key.
pub(crate) async fn find_by_key(pool: &PgPool, key: &str) -> Result<Option<Row>, Error> {
    let row =
        sqlx::query(concat!("SELECT ", columns!(), " FROM uploads WHERE object_key = $1")).bind(key).fetch_optional(pool).await?;
    row.as_ref().map(read).transpose()
}

/// Uploads of this account, newest first: those older than `before`, in this status.
pub(crate) async fn list(
    pool: &PgPool,
    account: AccountId,
    status: Option<Status>,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        " FROM uploads WHERE account_id = $1 AND ($2::uuid IS NULL OR id < $2) AND ($3::text IS NULL OR status = $3) \
         ORDER BY id DESC LIMIT $4"
    ))
    .bind(account.0)
    .bind(before)
    .bind(status.map(Status::as_str))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(read).collect()
}

/// Remember what the object store calls the upload in parts, unless somebody was faster: the name that counts. None: the
/// upload is not pending any more.
pub(crate) async fn begin_parts(pool: &PgPool, id: UploadId, storage_upload_id: &str) -> Result<Option<String>, Error> {
    let name = sqlx::query_scalar(
        "UPDATE uploads SET storage_upload_id = coalesce(storage_upload_id, $2) WHERE id = $1 AND status = 'pending'
         RETURNING storage_upload_id",
    )
    .bind(id.0)
    .bind(storage_upload_id)
    .fetch_optional(pool)
    .await?;
    Ok(name)
}

/// A link for the whole object is given out that lapses then. False: the upload is not pending any more.
pub(crate) async fn links_given(pool: &PgPool, id: UploadId, until: OffsetDateTime) -> Result<bool, Error> {
    let given = sqlx::query("UPDATE uploads SET links_until = greatest(links_until, $2) WHERE id = $1 AND status = 'pending'")
        .bind(id.0)
        .bind(until)
        .execute(pool)
        .await?;
    Ok(given.rows_affected() == 1)
}

/// Unfinished uploads after this one, oldest first, made at least so long ago.
pub(crate) async fn unfinished_after(
    pool: &PgPool,
    after: Option<Uuid>,
    age: Duration,
    limit: i64,
) -> Result<Vec<UploadId>, Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM uploads WHERE finished_at IS NULL AND ($1::uuid IS NULL OR id > $1)
         AND created_at <= now() - make_interval(secs => $2) ORDER BY id LIMIT $3",
    )
    .bind(after)
    .bind(age.as_secs_f64())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(UploadId).collect())
}

/// Those of these that are unfinished.
pub(crate) async fn unfinished_among(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM uploads WHERE id = ANY ($1) AND finished_at IS NULL").bind(ids).fetch_all(connection).await
}

/// Have an unfinished upload looked at after this long.
pub(crate) async fn look_again(pool: &PgPool, id: UploadId, after: Duration) -> Result<(), Error> {
    let mut transaction = pool.begin().await?;
    alarms::hold(&mut transaction, Kind::Upload, id.0).await?;
    let held = sqlx::query("SELECT FROM uploads WHERE id = $1 AND finished_at IS NULL FOR UPDATE")
        .bind(id.0)
        .fetch_optional(&mut *transaction)
        .await?;
    if held.is_some() {
        alarms::arm_after(&mut transaction, Kind::Upload, id.0, after).await?;
    }
    transaction.commit().await?;
    Ok(())
}
