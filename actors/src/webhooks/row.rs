//! Rows of `webhooks` and `webhook_deliveries`, and how their owner sees them.

use bowerbird_nats::{
    EventId, WebhookDeliveryId, WebhookId,
    webhook::{Attempt, Delivery, DeliveryStatus, DisabledReason, Failure, Status, Webhook},
};
use time::OffsetDateTime;

use super::secret::{self, Seal};

/// A row of `webhooks`; the schema documents each column.
#[derive(Clone, Debug)]
pub(crate) struct WebhookRow {
    pub(crate) id: WebhookId,
    pub(crate) url_sealed: Vec<u8>,
    pub(crate) event_types: Vec<String>,
    pub(crate) description: Option<String>,
    pub(crate) status: Status,
    pub(crate) disabled_reason: Option<DisabledReason>,
    pub(crate) disabled_at: Option<OffsetDateTime>,
    pub(crate) secret_sealed: Vec<u8>,
    /// The secret before, while messages are signed with it as well.
    pub(crate) old_secret_sealed: Option<Vec<u8>>,
    pub(crate) old_secret_until: Option<OffsetDateTime>,
    pub(crate) failing_since: Option<OffsetDateTime>,
    pub(crate) last_success_at: Option<OffsetDateTime>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

impl WebhookRow {
    /// As its owner sees it, without its secret.
    pub(crate) fn to_webhook(&self, seal: &Seal) -> Result<Webhook, secret::Error> {
        Ok(Webhook {
            id: self.id,
            url: seal.open_url(self.id, &self.url_sealed)?,
            event_types: self.event_types.clone(),
            description: self.description.clone(),
            status: self.status,
            disabled_reason: self.disabled_reason,
            disabled_at: self.disabled_at,
            secret: None,
            old_secret_until: self.old_secret_until,
            last_success_at: self.last_success_at,
            failing_since: self.failing_since,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// A row of `webhook_deliveries`; the schema documents each column.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryRow {
    pub(crate) id: WebhookDeliveryId,
    pub(crate) webhook_id: WebhookId,
    pub(crate) event_id: Option<EventId>,
    pub(crate) event_type: String,
    /// Where it is; `waiting` and `queued` are both [`DeliveryStatus::Pending`].
    pub(crate) status: DeliveryStatus,
    pub(crate) attempts_made: i32,
    pub(crate) next_attempt_at: Option<OffsetDateTime>,
    pub(crate) response_status: Option<i32>,
    pub(crate) error: Option<Failure>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) finished_at: Option<OffsetDateTime>,
}

impl DeliveryRow {
    /// As its owner sees it in a list.
    pub(crate) fn into_delivery(self) -> Delivery {
        Delivery {
            id: self.id,
            webhook_id: self.webhook_id,
            event_id: self.event_id,
            event_type: self.event_type,
            status: self.status,
            attempts_made: self.attempts_made,
            next_attempt_at: self.next_attempt_at,
            response_status: self.response_status,
            error: self.error,
            created_at: self.created_at,
            finished_at: self.finished_at,
            body: None,
            attempts: Vec::new(),
        }
    }

    /// As its owner sees it alone.
    pub(crate) fn into_whole(self, body: String, attempts: Vec<Attempt>) -> Delivery {
        Delivery { body: Some(body), attempts, ..self.into_delivery() }
    }
}

/// One try, as it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) started_at: OffsetDateTime,
    pub(crate) duration_ms: i32,
    pub(crate) response_status: Option<i32>,
    /// At most the first [`RESPONSE_BYTES`].
    pub(crate) response_body: Option<Vec<u8>>,
    /// Why it failed, if it did.
    pub(crate) failure: Option<Failure>,
}

/// Bytes of an answer that are kept.
pub(crate) const RESPONSE_BYTES: usize = 1024;
