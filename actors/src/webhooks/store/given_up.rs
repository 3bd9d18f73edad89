//! Messages that were given up: their owners are told, and reminders that nobody else tells go to the inbox.

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, EventId, WebhookDeliveryId, WebhookId, event,
    webhook::{Failed, Untold},
};
use serde_json::Value;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::{Error, read_failure};
use crate::events::{self, NewEvent};

/// Which of those that ended are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Each.
    All,
    /// Only reminders: what else there is may be much, and that the webhook ended is told already, or known.
    Reminders,
}

/// Record that these deliveries were given up, as far as they were. Tests are not told of.
pub(super) async fn tell(connection: &mut PgConnection, ended: &[Uuid], of: Of) -> Result<(), Error> {
    if ended.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(
        "SELECT d.id, d.webhook_id, w.account_id, d.event_id, d.event_type, d.error_code, d.error_detail, \
                CASE WHEN d.event_type = 'reminder.fired' THEN d.body END AS body \
         FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id \
         WHERE d.id = ANY ($1) AND d.status = 'failed' AND d.event_id IS NOT NULL AND ($2 OR d.event_type = 'reminder.fired') \
         ORDER BY d.id",
    )
    .bind(ended)
    .bind(of == Of::All)
    .fetch_all(&mut *connection)
    .await?;
    let mut told = Vec::with_capacity(rows.len());
    for row in &rows {
        let failed = Failed {
            webhook_id: WebhookId(row.try_get("webhook_id")?),
            delivery_id: WebhookDeliveryId(row.try_get("id")?),
            event_id: EventId(row.try_get("event_id")?),
            event_type: row.try_get("event_type")?,
            error: read_failure(row)?.ok_or(Error::Corrupt("error_code"))?,
            reminder: row.try_get::<Option<&str>, _>("body")?.and_then(untold),
        };
        if of == Of::Reminders && failed.reminder.is_none() {
            continue;
        }
        let account = AccountId(row.try_get("account_id")?);
        told.push(NewEvent::new(IdSource, event::WEBHOOK_FAILED, Some(account), failed.delivery_id.0, &failed));
    }
    events::record_many(connection, told).await?;
    Ok(())
}

/// What a message was to tell, if that is a reminder that its owner wanted from webhooks and not in the inbox as well.
fn untold(body: &str) -> Option<Untold> {
    let body: Value = serde_json::from_str(body).ok()?;
    let data = &body["data"];
    let goes_to = |channel: &str| data["channels"].as_array().is_some_and(|channels| channels.iter().any(|one| one == channel));
    let text = |name: &str| data[name].as_str().map(str::to_owned);
    (goes_to("webhook") && !goes_to("inbox")).then(|| Untold { title: text("title").unwrap_or_default(), note: text("note") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reminder_that_was_meant_for_webhooks_and_not_for_the_inbox_is_untold() {
        let of = |channels: &str| untold(&format!(r#"{{"data": {{"title": "Milk", "note": "two", "channels": {channels}}}}}"#));
        let milk = Untold { title: "Milk".into(), note: Some("two".into()) };
        assert_eq!(of(r#"["webhook"]"#), Some(milk.clone()));
        assert_eq!(of(r#"["email", "webhook"]"#), Some(milk));
        for told in [r#"["inbox", "webhook"]"#, r#"["inbox"]"#, "[]", "null"] {
            assert_eq!(of(told), None, "{told}");
        }
        assert_eq!(untold("no JSON"), None);
    }
}
