//! How a try went, written down; and what follows from it for the message and for its webhook.

use std::time::Duration;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, WebhookDeliveryId, event,
    webhook::{Disabled, DisabledReason, Failure, Status},
};
use sqlx::{PgConnection, Row as _};
use time::OffsetDateTime;

use super::{Claimed, Error, end_pending, given_up};
use crate::{
    alarms::{self, Kind},
    downloads::row::word,
    events::{self, NewEvent},
    webhooks::row::Tried,
};

/// Tries of a message that stay in its log.
const LOG_LENGTH: i32 = 20;

/// What follows from a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It was received.
    Received,
    /// The receiver wants nothing any more, ever.
    Gone,
    /// It was not received.
    Missed {
        /// When the next try is made; `None` when this was the last.
        wait: Option<Duration>,
        /// How long the receiver wants to be left alone.
        pause: Option<Duration>,
    },
}

/// What became of the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// It was disabled because of this try.
    pub(crate) disabled: Option<DisabledReason>,
    /// The message was given up, which is told.
    pub(crate) given_up: bool,
}

/// How settling decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// A webhook that only failed for this long is disabled.
    pub(crate) disable_after: Duration,
    /// Scheme and host of its URL, for whoever is told.
    pub(crate) origin: &'a str,
}

struct Webhook {
    status: Status,
    failing_since: Option<OffsetDateTime>,
    description: Option<String>,
    now: OffsetDateTime,
}

/// Write a try down, under the fence of its claim.
pub(crate) async fn settle(
    connection: &mut PgConnection,
    claimed: &Claimed,
    tried: &Tried,
    after: After,
    rules: Rules<'_>,
) -> Result<Settled, Error> {
    if let After::Missed { wait, pause } = after {
        if wait.is_some() {
            alarms::hold(connection, Kind::WebhookDelivery, claimed.id.0).await?;
        }
        if pause.is_some() {
            alarms::hold(connection, Kind::WebhookPause, claimed.webhook_id.0).await?;
        }
    }
    let webhook = note_health(connection, claimed, after).await?;
    let disabled = match after {
        _ if webhook.status == Status::Disabled => None,
        After::Gone => Some(DisabledReason::Gone),
        After::Missed { .. } if has_failed_for(&webhook, rules.disable_after) => Some(DisabledReason::Failing),
        After::Received | After::Missed { .. } => None,
    };
    let ends = webhook.status == Status::Disabled || disabled.is_some();
    let again_at = match after {
        After::Missed { wait: Some(wait), .. } if !ends => Some(webhook.now + wait),
        _ => None,
    };
    let number = note_delivery(connection, claimed, tried, after, again_at).await?;
    log(connection, claimed.id, number, tried).await?;
    if let Some(due_at) = again_at {
        alarms::arm(connection, Kind::WebhookDelivery, claimed.id.0, due_at).await?;
    }
    if let (After::Missed { pause: Some(pause), .. }, false) = (after, ends) {
        let until = sqlx::query_scalar(
            "UPDATE webhooks SET paused_until = greatest(paused_until, $2) WHERE id = $1 RETURNING paused_until",
        )
        .bind(claimed.webhook_id.0)
        .bind(webhook.now + pause)
        .fetch_one(&mut *connection)
        .await?;
        alarms::arm(connection, Kind::WebhookPause, claimed.webhook_id.0, until).await?;
    }
    if let Some(reason) = disabled {
        disable(connection, claimed, &webhook, reason, rules.origin).await?;
    }
    let given_up = after != After::Received && again_at.is_none();
    if given_up {
        given_up::tell(connection, &[claimed.id.0], given_up::Of::All).await?;
    }
    Ok(Settled { disabled, given_up })
}

fn has_failed_for(webhook: &Webhook, long: Duration) -> bool {
    webhook.failing_since.is_some_and(|since| webhook.now - since >= long)
}

/// Lock the webhook and write down how its receiver does.
async fn note_health(connection: &mut PgConnection, claimed: &Claimed, after: After) -> Result<Webhook, Error> {
    sqlx::query("SELECT FROM webhooks WHERE id = $1 FOR NO KEY UPDATE")
        .bind(claimed.webhook_id.0)
        .execute(&mut *connection)
        .await?;
    // It is written to once a minute, not with every message. A failure long ago says nothing of the days since, in which
    // nothing was sent: the count begins anew.
    let update = if after == After::Received {
        "UPDATE webhooks SET failing_since = NULL, last_success_at = now() WHERE id = $1 \
         AND (failing_since IS NOT NULL OR last_success_at IS NULL OR last_success_at < now() - interval '1 minute')"
    } else {
        "UPDATE webhooks SET last_failure_at = now(), failing_since = CASE WHEN last_failure_at < now() - interval '1 day' \
             THEN now() ELSE coalesce(failing_since, now()) END \
         WHERE id = $1 AND (failing_since IS NULL OR last_failure_at IS NULL OR last_failure_at < now() - interval '1 minute')"
    };
    sqlx::query(update).bind(claimed.webhook_id.0).execute(&mut *connection).await?;
    let row = sqlx::query("SELECT status, failing_since, description, now() AS now FROM webhooks WHERE id = $1")
        .bind(claimed.webhook_id.0)
        .fetch_optional(connection)
        .await?
        // Only a sweep takes it, long after its owner did; its deliveries went before.
        .ok_or(Error::Fenced)?;
    Ok(Webhook {
        status: word(row.try_get("status")?).ok_or(Error::Corrupt("status"))?,
        failing_since: row.try_get("failing_since")?,
        description: row.try_get("description")?,
        now: row.try_get("now")?,
    })
}

/// Gives the number of the try.
async fn note_delivery(
    connection: &mut PgConnection,
    claimed: &Claimed,
    tried: &Tried,
    after: After,
    again_at: Option<OffsetDateTime>,
) -> Result<i32, Error> {
    let status = match (after, again_at) {
        (After::Received, _) => "succeeded",
        (_, Some(_)) => "waiting",
        (_, None) => "failed",
    };
    let (code, detail) = tried.failure.as_ref().map(|Failure { code, detail }| (code.as_str(), detail)).unzip();
    let number = sqlx::query_scalar(
        "UPDATE webhook_deliveries SET status = $3, next_attempt_at = $4, worker = NULL, lease_until = NULL, lost = 0, \
         attempts_made = attempts_made + 1, response_status = $5, error_code = $6, error_detail = $7, \
         finished_at = CASE WHEN $3 = 'waiting' THEN NULL ELSE now() END \
         WHERE id = $1 AND fence = $2 AND status = 'sending' RETURNING attempts_made",
    )
    .bind(claimed.id.0)
    .bind(claimed.fence)
    .bind(status)
    .bind(again_at)
    .bind(tried.response_status)
    .bind(code)
    .bind(detail)
    .fetch_optional(connection)
    .await?;
    number.ok_or(Error::Fenced)
}

/// Add a try to the log of a message.
pub(super) async fn log(connection: &mut PgConnection, id: WebhookDeliveryId, number: i32, tried: &Tried) -> Result<(), Error> {
    let (code, detail) = tried.failure.as_ref().map(|Failure { code, detail }| (code.as_str(), detail)).unzip();
    sqlx::query(
        "INSERT INTO webhook_attempts (delivery_id, number, started_at, duration_ms, response_status, response_body, error_code, \
         error_detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id.0)
    .bind(number)
    .bind(tried.started_at)
    .bind(tried.duration_ms)
    .bind(tried.response_status)
    .bind(&tried.response_body)
    .bind(code)
    .bind(detail)
    .execute(&mut *connection)
    .await?;
    if number > LOG_LENGTH {
        sqlx::query("DELETE FROM webhook_attempts WHERE delivery_id = $1 AND number <= $2")
            .bind(id.0)
            .bind(number - LOG_LENGTH)
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn disable(
    connection: &mut PgConnection,
    claimed: &Claimed,
    webhook: &Webhook,
    reason: DisabledReason,
    origin: &str,
) -> Result<(), Error> {
    sqlx::query("UPDATE webhooks SET status = 'disabled', disabled_reason = $2, disabled_at = now() WHERE id = $1")
        .bind(claimed.webhook_id.0)
        .bind(reason.as_str())
        .execute(&mut *connection)
        .await?;
    end_pending(connection, claimed.webhook_id).await?;
    let data = Disabled {
        webhook_id: claimed.webhook_id,
        origin: origin.to_owned(),
        description: webhook.description.clone(),
        reason,
        failing_since: webhook.failing_since,
    };
    tell(connection, claimed.account_id, &data).await
}

async fn tell(connection: &mut PgConnection, account: AccountId, data: &Disabled) -> Result<(), Error> {
    let event = NewEvent::new(IdSource, event::WEBHOOK_DISABLED, Some(account), data.webhook_id.0, data);
    events::record(connection, event).await?;
    Ok(())
}
