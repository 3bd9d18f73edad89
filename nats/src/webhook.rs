//! Webhooks: where an account wants its events sent to, signed as Standard Webhooks says, and what became of each.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    id::{EventId, WebhookDeliveryId, WebhookId},
    operation::{Done, operation},
    page::Page,
};

/// Type of the message that a test call sends.
pub const TEST: &str = "webhook.test";

/// Whether anything is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "WebhookStatus", rename_all = "snake_case"))]
pub enum Status {
    /// Events are sent.
    Enabled,
    /// Nothing is sent; `disabled_reason` says why.
    Disabled,
}

impl Status {
    /// As it is written: `enabled`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Enabled => "enabled",
            Status::Disabled => "disabled",
        }
    }
}

/// Why nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "WebhookDisabledReason", rename_all = "snake_case"))]
pub enum DisabledReason {
    /// Its owner wanted it so.
    Owner,
    /// The receiver answered 410 Gone.
    Gone,
    /// Nothing but failures for days.
    Failing,
}

impl DisabledReason {
    /// As it is written: `gone`.
    pub const fn as_str(self) -> &'static str {
        match self {
            DisabledReason::Owner => "owner",
            DisabledReason::Gone => "gone",
            DisabledReason::Failing => "failing",
        }
    }
}

/// A webhook.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none))]
pub struct Webhook {
    /// Its identifier.
    pub id: WebhookId,
    /// Where its messages are sent to.
    pub url: String,
    /// What is sent: types (`download.completed`) and whole areas (`download.*`). Empty: every event of the account.
    pub event_types: Vec<String>,
    /// What its owner wrote about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether anything is sent.
    pub status: Status,
    /// Why nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<DisabledReason>,
    /// Since when nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
    /// The secret that its messages are signed with, `whsec_…`. Only in the answers to making it and to a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// After a rotation: until when messages are signed with the old secret as well.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub old_secret_until: Option<OffsetDateTime>,
    /// When a message last was received.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub last_success_at: Option<OffsetDateTime>,
    /// Since when every try has failed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub failing_since: Option<OffsetDateTime>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its owner last changed it.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("id", &self.id).field("status", &self.status).finish_non_exhaustive()
    }
}

/// Where a delivery is. `pending → sending → succeeded`, back to `pending` while tries are left, or `failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "WebhookDeliveryStatus", rename_all = "snake_case"))]
pub enum DeliveryStatus {
    /// Waits for its turn, or for `next_attempt_at`.
    Pending,
    /// On its way.
    Sending,
    /// The receiver answered 2xx.
    Succeeded,
    /// Given up; `error` says why.
    Failed,
}

/// Why a message was not received. Closed; documented in `docs/webhooks.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "WebhookErrorCode", rename_all = "snake_case"))]
pub enum ErrorCode {
    /// The address may not be dialled.
    BlockedTarget,
    /// The name does not resolve.
    DnsFailure,
    /// Nobody listens there, or the connection broke.
    ConnectFailed,
    /// The TLS handshake failed or the certificate is not valid.
    TlsFailed,
    /// No answer in time.
    Timeout,
    /// The receiver answered with a status that is not 2xx. A redirect is one of those.
    HttpStatus,
    /// The receiver does not speak HTTP as it should.
    ProtocolError,
    /// The webhook was disabled before the message was received.
    WebhookDisabled,
    /// Too many messages waited for this webhook.
    TooManyPending,
    /// The processes that were to send it were lost again and again.
    WorkerLost,
}

impl ErrorCode {
    /// As it is written: `http_status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BlockedTarget => "blocked_target",
            ErrorCode::DnsFailure => "dns_failure",
            ErrorCode::ConnectFailed => "connect_failed",
            ErrorCode::TlsFailed => "tls_failed",
            ErrorCode::Timeout => "timeout",
            ErrorCode::HttpStatus => "http_status",
            ErrorCode::ProtocolError => "protocol_error",
            ErrorCode::WebhookDisabled => "webhook_disabled",
            ErrorCode::TooManyPending => "too_many_pending",
            ErrorCode::WorkerLost => "worker_lost",
        }
    }
}

/// Why a message was not received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "WebhookFailure"))]
pub struct Failure {
    /// What it was, for programs.
    pub code: ErrorCode,
    /// What it was, for people.
    pub detail: String,
}

/// One try to hand a message over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "WebhookAttempt", skip_serializing_if_is_none))]
pub struct Attempt {
    /// 1 for the first.
    pub number: i32,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// Milliseconds that it took.
    pub duration_ms: i32,
    /// Status that the receiver answered with, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_status: Option<i32>,
    /// The first 1024 bytes of what it answered; what is no UTF-8 is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_body: Option<String>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// A message for one webhook, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(rename = "WebhookDelivery", skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct Delivery {
    /// Its identifier; the header `webhook-id` of every try.
    pub id: WebhookDeliveryId,
    /// The webhook that it is for.
    pub webhook_id: WebhookId,
    /// The event that it tells of; a test tells of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    /// The type of its event, or `webhook.test`.
    pub event_type: String,
    /// Where it is.
    pub status: DeliveryStatus,
    /// Tries so far.
    pub attempts_made: i32,
    /// When the next try is due.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub next_attempt_at: Option<OffsetDateTime>,
    /// Status of the last answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_status: Option<i32>,
    /// Why the last try failed, or why no other is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// The body, exactly as it is sent. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The last 20 tries, the newest first. Not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default))]
    pub attempts: Vec<Attempt>,
}

/// Have events sent somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(deny_unknown_fields, skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct CreateWebhook {
    /// Where to: `http` or `https`, at most 4096 characters, no user and password in it.
    #[cfg_attr(feature = "openapi", oai(validator(min_length = 1, max_length = 4096)))]
    pub url: String,
    /// What is sent: types (`download.completed`) and whole areas (`download.*`), at most 50. Every event of the account
    /// when not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default, validator(max_items = 50)))]
    pub event_types: Vec<String>,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 200)))]
    pub description: Option<String>,
}

/// One webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetWebhook {
    /// The webhook.
    pub id: WebhookId,
}

/// The caller's webhooks, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListWebhooks {
    /// Items of the page, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Change a webhook; what is not given stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateWebhook {
    /// The webhook.
    pub id: WebhookId,
    /// Where to from now on, also what waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What is sent from now on; an empty list for every event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_types: Option<Vec<String>>,
    /// What it is, for people; empty to take it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `disabled` ends what waits; `enabled` begins with the events that come from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// Take a webhook away, with everything that waits for it and the log of its deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteWebhook {
    /// The webhook.
    pub id: WebhookId,
}

/// Send a message of the type `webhook.test` now, once, and tell how that went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestWebhook {
    /// The webhook. It may be disabled.
    pub id: WebhookId,
}

/// Sign with a new secret, and for a time with the old one as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateWebhookSecret {
    /// The webhook.
    pub id: WebhookId,
}

/// What was sent to a webhook and what is to be, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListWebhookDeliveries {
    /// The webhook.
    pub webhook_id: WebhookId,
    /// Only those in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<DeliveryStatus>,
    /// Items of the page, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One delivery with its body and the log of its tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetWebhookDelivery {
    /// The webhook.
    pub webhook_id: WebhookId,
    /// The delivery.
    pub id: WebhookDeliveryId,
}

/// Send a message again now, also one that was received; its tries begin anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryWebhookDelivery {
    /// The webhook. It must be enabled.
    pub webhook_id: WebhookId,
    /// The delivery.
    pub id: WebhookDeliveryId,
}

operation!(CreateWebhook => Webhook, "webhook", "create", Account, "Have events sent somewhere.");
operation!(reads GetWebhook => Webhook, "webhook", "get", Account, "One webhook.");
operation!(reads ListWebhooks => Page<Webhook>, "webhook", "list", Account, "The caller's webhooks, newest first.");
operation!(UpdateWebhook => Webhook, "webhook", "update", Account, "Change a webhook.");
operation!(DeleteWebhook => Done, "webhook", "delete", Account, "Take a webhook away.");
operation!(TestWebhook => Delivery, "webhook", "test", Account, "Send a test message now and tell how that went.");
operation!(RotateWebhookSecret => Webhook, "webhook", "rotate_secret", Account, "Sign with a new secret, and for a time with the old one as well.");
operation!(reads ListWebhookDeliveries => Page<Delivery>, "webhook", "list_deliveries", Account, "What was sent to a webhook and what is to be, newest first.");
operation!(reads GetWebhookDelivery => Delivery, "webhook", "get_delivery", Account, "One delivery with its body and the log of its tries.");
operation!(RetryWebhookDelivery => Delivery, "webhook", "retry_delivery", Account, "Send a message again now.");

/// `webhook.disabled`: nothing is sent to it any more, and its owner did not ask for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// The webhook.
    pub webhook_id: WebhookId,
    /// Scheme and host that it sends to: `https://example.org`.
    pub origin: String,
    /// What its owner wrote about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Why.
    pub reason: DisabledReason,
    /// Since when every try had failed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub failing_since: Option<OffsetDateTime>,
}

/// `webhook.failed`: a message was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The webhook.
    pub webhook_id: WebhookId,
    /// The message.
    pub delivery_id: WebhookDeliveryId,
    /// The event that it was to tell of.
    pub event_id: EventId,
    /// The type of that.
    pub event_type: String,
    /// Why it was given up.
    pub error: Failure,
    /// What it was to tell, if that is a reminder that was meant for webhooks and is not in the inbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminder: Option<Untold>,
}

/// A reminder that was not told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    /// What to tell.
    pub title: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A message as receivers get it: the body of the POST.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The type of the event, or `webhook.test`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    pub timestamp: OffsetDateTime,
    /// The body of the event, as its type says.
    pub data: serde_json::Value,
}
