//! The tables of webhooks, and nothing but.
//!
//! **Order of locks**: alarms, then the webhook, then its deliveries. A write of a sender names the fence that its claim
//! got; when the delivery is another's by now, the answer is [`Error::Fenced`] and nothing is written.

mod deliveries;
mod given_up;
mod intake;
mod lease;
mod requests;
mod settle;

use bowerbird_nats::{
    EventId, WebhookDeliveryId, WebhookId,
    webhook::{DeliveryStatus, ErrorCode, Failure, Status},
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

pub(crate) use self::{
    deliveries::{attempts, body, find_delivery, list_deliveries, record_test, retry},
    intake::{Matching, insert, interested, matching},
    lease::{Claimed, HandedBack, Room, claim, due, hand_back, queue_due, reap, resume},
    requests::{Change, New, add, change, delete, find, find_locked, list, rotate},
    settle::{After, Rules, settle},
};
use super::row::{DeliveryRow, WebhookRow};
use crate::downloads::row::word;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The delivery is another sender's by now.
    #[error("the delivery is not this worker's any more")]
    Fenced,
    /// The account has as many webhooks as it may.
    #[error("the account has too many webhooks")]
    TooMany,
    /// The account is not there, or was disabled.
    #[error("the account may do nothing")]
    Disabled,
    /// A stored value is not one that we write.
    #[error("a row of webhooks holds what no version of this program writes: {0}")]
    Corrupt(&'static str),
    /// PostgreSQL failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// The columns of a [`WebhookRow`].
macro_rules! webhook_columns {
    () => {
        "id, url_sealed, event_types, description, status, disabled_reason, disabled_at, secret_sealed, \
         CASE WHEN old_secret_until > now() THEN old_secret_sealed END AS old_secret_sealed, \
         CASE WHEN old_secret_until > now() THEN old_secret_until END AS old_secret_until, \
         failing_since, last_success_at, created_at, updated_at"
    };
}
use webhook_columns;

/// The columns of a [`DeliveryRow`].
macro_rules! delivery_columns {
    () => {
        "id, webhook_id, event_id, event_type, status, attempts_made, next_attempt_at, response_status, error_code, error_detail, \
         created_at, finished_at"
    };
}
use delivery_columns;

fn read_webhook(row: &PgRow) -> Result<WebhookRow, Error> {
    let reason = row.try_get::<Option<&str>, _>("disabled_reason")?;
    Ok(WebhookRow {
        id: WebhookId(row.try_get("id")?),
        url_sealed: row.try_get("url_sealed")?,
        event_types: row.try_get("event_types")?,
        description: row.try_get("description")?,
        status: word::<Status>(row.try_get("status")?).ok_or(Error::Corrupt("status"))?,
        disabled_reason: reason.map(|reason| word(reason).ok_or(Error::Corrupt("disabled_reason"))).transpose()?,
        disabled_at: row.try_get("disabled_at")?,
        secret_sealed: row.try_get("secret_sealed")?,
        old_secret_sealed: row.try_get("old_secret_sealed")?,
        old_secret_until: row.try_get("old_secret_until")?,
        failing_since: row.try_get("failing_since")?,
        last_success_at: row.try_get("last_success_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

fn read_delivery(row: &PgRow) -> Result<DeliveryRow, Error> {
    let status = match row.try_get("status")? {
        "waiting" | "queued" => DeliveryStatus::Pending,
        other => word(other).ok_or(Error::Corrupt("status"))?,
    };
    Ok(DeliveryRow {
        id: WebhookDeliveryId(row.try_get("id")?),
        webhook_id: WebhookId(row.try_get("webhook_id")?),
        event_id: row.try_get::<Option<_>, _>("event_id")?.map(EventId),
        event_type: row.try_get("event_type")?,
        status,
        attempts_made: row.try_get("attempts_made")?,
        next_attempt_at: row.try_get("next_attempt_at")?,
        response_status: row.try_get("response_status")?,
        error: read_failure(row)?,
        created_at: row.try_get("created_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}

fn read_failure(row: &PgRow) -> Result<Option<Failure>, Error> {
    let Some(code) = row.try_get::<Option<&str>, _>("error_code")? else { return Ok(None) };
    let code = word::<ErrorCode>(code).ok_or(Error::Corrupt("error_code"))?;
    Ok(Some(Failure { code, detail: row.try_get::<Option<String>, _>("error_detail")?.unwrap_or_default() }))
}

/// End everything that waits for a webhook that was disabled or taken away; the caller holds its row. What is on its way
/// ends with its try. Alarms are left alone: one that finds nothing that waits does nothing.
async fn end_pending(connection: &mut PgConnection, webhook: WebhookId) -> Result<(), Error> {
    let ended: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE webhook_deliveries SET status = 'failed', next_attempt_at = NULL, finished_at = now(), error_code = $2, \
         error_detail = 'the webhook was disabled before the message was received; enable it and send the message again' \
         WHERE webhook_id = $1 AND status IN ('waiting', 'queued') RETURNING id",
    )
    .bind(webhook.0)
    .bind(ErrorCode::WebhookDisabled.as_str())
    .fetch_all(&mut *connection)
    .await?;
    given_up::tell(connection, &ended, given_up::Of::Reminders).await
}
