//! What owners ask about deliveries.

use bowerbird_nats::{
    AccountId, WebhookDeliveryId, WebhookId,
    webhook::{Attempt, DeliveryStatus, Failure, TEST},
};
use sqlx::{PgConnection, PgExecutor, PgPool, Row as _};
use uuid::Uuid;

use super::{Error, delivery_columns, read_delivery, read_failure, settle::log};
use crate::webhooks::row::{DeliveryRow, Tried};

macro_rules! listing {
    ($which:literal) => {
        concat!(
            "SELECT ",
            delivery_columns!(),
            " FROM webhook_deliveries WHERE webhook_id = $1 AND ",
            $which,
            " AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
        )
    };
}

/// Deliveries of a webhook, newest first: those older than `before`, in this status. The caller knows whose it is.
pub(crate) async fn list_deliveries(
    pool: &PgPool,
    webhook: WebhookId,
    status: Option<DeliveryStatus>,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<DeliveryRow>, Error> {
    // Each with its own words, as only these find the index that has nothing but such deliveries.
    let rows = sqlx::query(match status {
        None => listing!("true"),
        Some(DeliveryStatus::Pending) => listing!("status IN ('waiting', 'queued')"),
        Some(DeliveryStatus::Sending) => listing!("status = 'sending'"),
        Some(DeliveryStatus::Succeeded) => listing!("status = 'succeeded'"),
        Some(DeliveryStatus::Failed) => listing!("status = 'failed'"),
    })
    .bind(webhook.0)
    .bind(before)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(read_delivery).collect()
}

/// One delivery of a webhook of this account.
pub(crate) async fn find_delivery(
    executor: impl PgExecutor<'_>,
    account: AccountId,
    webhook: WebhookId,
    id: WebhookDeliveryId,
) -> Result<Option<DeliveryRow>, Error> {
    let row = sqlx::query(concat!(
        "SELECT ",
        delivery_columns!(),
        " FROM webhook_deliveries WHERE id = $1 AND webhook_id = $2 \
         AND EXISTS (SELECT FROM webhooks WHERE webhooks.id = $2 AND account_id = $3 AND deleted_at IS NULL)"
    ))
    .bind(id.0)
    .bind(webhook.0)
    .bind(account.0)
    .fetch_optional(executor)
    .await?;
    row.as_ref().map(read_delivery).transpose()
}

/// The body of a delivery; empty for one that is gone meanwhile.
pub(crate) async fn body(pool: &PgPool, id: WebhookDeliveryId) -> Result<String, Error> {
    let body = sqlx::query_scalar("SELECT body FROM webhook_deliveries WHERE id = $1").bind(id.0).fetch_optional(pool).await?;
    Ok(body.unwrap_or_default())
}

/// The log of a delivery, newest first.
pub(crate) async fn attempts(pool: &PgPool, id: WebhookDeliveryId) -> Result<Vec<Attempt>, Error> {
    let rows = sqlx::query(
        "SELECT number, started_at, duration_ms, response_status, response_body, error_code, error_detail \
         FROM webhook_attempts WHERE delivery_id = $1 ORDER BY number DESC",
    )
    .bind(id.0)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let body = row.try_get::<Option<Vec<u8>>, _>("response_body")?.filter(|body| !body.is_empty());
            Ok(Attempt {
                number: row.try_get("number")?,
                started_at: row.try_get("started_at")?,
                duration_ms: row.try_get("duration_ms")?,
                response_status: row.try_get("response_status")?,
                response_body: body.map(|body| String::from_utf8_lossy(&body).into_owned()),
                error: read_failure(row)?,
            })
        })
        .collect()
}

/// Queue a delivery again whose webhook the caller has locked; its schedule begins anew. `None` if there is no such one, or
/// if it is being sent.
pub(crate) async fn retry(
    connection: &mut PgConnection,
    webhook: WebhookId,
    id: WebhookDeliveryId,
) -> Result<Option<DeliveryRow>, Error> {
    let row = sqlx::query(concat!(
        "UPDATE webhook_deliveries SET status = 'queued', queued_at = now(), attempt = 0, lost = 0, next_attempt_at = NULL, \
         finished_at = NULL WHERE id = $1 AND webhook_id = $2 AND status <> 'sending' RETURNING ",
        delivery_columns!()
    ))
    .bind(id.0)
    .bind(webhook.0)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(read_delivery).transpose()
}

/// Write down a test that was made.
pub(crate) async fn record_test(
    connection: &mut PgConnection,
    webhook: WebhookId,
    id: WebhookDeliveryId,
    body: &str,
    tried: &Tried,
) -> Result<DeliveryRow, Error> {
    let (code, detail) = tried.failure.as_ref().map(|Failure { code, detail }| (code.as_str(), detail)).unzip();
    let row = sqlx::query(concat!(
        "INSERT INTO webhook_deliveries (id, webhook_id, event_type, body, status, attempt, attempts_made, response_status, \
         error_code, error_detail, finished_at) \
         VALUES ($1, $2, $3, $4, CASE WHEN $6::text IS NULL THEN 'succeeded' ELSE 'failed' END, 1, 1, $5, $6, $7, now()) RETURNING ",
        delivery_columns!()
    ))
    .bind(id.0)
    .bind(webhook.0)
    .bind(TEST)
    .bind(body)
    .bind(tried.response_status)
    .bind(code)
    .bind(detail)
    .fetch_one(&mut *connection)
    .await?;
    log(connection, id, 1, tried).await?;
    read_delivery(&row)
}
