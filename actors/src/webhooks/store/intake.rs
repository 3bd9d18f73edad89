//! From an event to deliveries.

use bowerbird_nats::{AccountId, EventId, EventType, WebhookDeliveryId, WebhookId, webhook::ErrorCode};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;

use super::{Error, given_up};

/// Whether this account has a webhook that is sent anything at all: the cheap question that is asked for every event.
pub(crate) async fn interested(pool: &PgPool, account: AccountId) -> Result<bool, Error> {
    let interested = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM webhooks AS w JOIN accounts AS a ON a.id = w.account_id AND a.disabled_at IS NULL \
                        WHERE w.account_id = $1 AND w.deleted_at IS NULL AND w.status = 'enabled')",
    )
    .bind(account.0)
    .fetch_one(pool)
    .await?;
    Ok(interested)
}

/// A webhook that wants an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matching {
    pub(crate) webhook_id: WebhookId,
    /// As many wait for it as may.
    pub(crate) full: bool,
}

/// The enabled webhooks of this account that want an event of this type (all of them if it is `for_all`), if they were
/// enabled when it happened, and none if the account is disabled. They are held as they are until the transaction ends.
pub(crate) async fn matching(
    connection: &mut PgConnection,
    account: AccountId,
    event_type: &EventType,
    for_all: bool,
    happened_at: OffsetDateTime,
    max_pending: i64,
) -> Result<Vec<Matching>, Error> {
    let rows: Vec<(uuid::Uuid, bool)> = sqlx::query_as(
        "SELECT w.id, (SELECT count(*) FROM (SELECT FROM webhook_deliveries d WHERE d.webhook_id = w.id \
                 AND d.status IN ('waiting', 'queued', 'sending') LIMIT $6) AS pending) >= $6 \
         FROM webhooks w JOIN accounts a ON a.id = w.account_id AND a.disabled_at IS NULL WHERE w.account_id = $1 AND w.deleted_at IS NULL AND w.status = 'enabled' AND w.enabled_at <= $5 \
         AND ($4 OR w.event_types = '{}' OR w.event_types && ARRAY[$2, $3]) ORDER BY w.id FOR SHARE OF w",
    )
    .bind(account.0)
    .bind(event_type.as_str())
    .bind(format!("{}.*", event_type.area()))
    .bind(for_all)
    .bind(happened_at)
    .bind(max_pending)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(id, full)| Matching { webhook_id: WebhookId(id), full }).collect())
}

/// A delivery for each of these webhooks, all with the same body. For one that is full it is made as failed, so that its
/// owner sees it and can send it. One that there is already stays as it is.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    event: EventId,
    event_type: &EventType,
    body: &str,
    deliveries: &[(WebhookDeliveryId, Matching)],
) -> Result<(), Error> {
    let (ids, rest): (Vec<_>, Vec<_>) =
        deliveries.iter().map(|(id, matching)| (id.0, (matching.webhook_id.0, matching.full))).unzip();
    let (webhooks, full): (Vec<_>, Vec<_>) = rest.into_iter().unzip();
    sqlx::query(
        "INSERT INTO webhook_deliveries (id, webhook_id, event_id, event_type, body, status, finished_at, error_code, error_detail) \
         SELECT t.id, t.webhook_id, $1, $2, $3, CASE WHEN t.is_full THEN 'failed' ELSE 'queued' END, \
                CASE WHEN t.is_full THEN now() END, CASE WHEN t.is_full THEN $7 END, \
                CASE WHEN t.is_full THEN 'too many messages wait for this webhook already; send it again when they are fewer' END \
         FROM unnest($4::uuid[], $5::uuid[], $6::boolean[]) AS t (id, webhook_id, is_full) \
         ON CONFLICT ON CONSTRAINT webhook_deliveries_one_of_event DO NOTHING",
    )
    .bind(event.0)
    .bind(event_type.as_str())
    .bind(body)
    .bind(&ids)
    .bind(webhooks)
    .bind(full)
    .bind(ErrorCode::TooManyPending.as_str())
    .execute(&mut *connection)
    .await?;
    // Of the rest there are as many as of what happens.
    given_up::tell(connection, &ids, given_up::Of::Reminders).await
}
