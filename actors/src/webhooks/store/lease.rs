//! Who sends what, and when: claims and leases.

use std::time::Duration;

use bowerbird_nats::{AccountId, WebhookDeliveryId, WebhookId, id::NodeId, webhook::ErrorCode};
use sqlx::{PgConnection, PgPool, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{Error, given_up};

/// Held by whoever claims, so that the bound of a webhook holds over all nodes; any number that nobody else uses.
const CLAIM_LOCK: i64 = 0x6277_6268_6b00_0001;
/// Workers in a row that may be lost with a message before it is taken for the cause.
const MAX_LOST: i32 = 5;

/// A message that is ours to send until its lease ends.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) id: WebhookDeliveryId,
    pub(crate) fence: i64,
    /// Tries since it was made or sent again by hand, this one included.
    pub(crate) attempt: i32,
    pub(crate) body: String,
    pub(crate) webhook_id: WebhookId,
    pub(crate) account_id: AccountId,
    pub(crate) url_sealed: Vec<u8>,
    pub(crate) secret_sealed: Vec<u8>,
    /// The secret before, while messages are signed with it as well.
    pub(crate) old_secret_sealed: Option<Vec<u8>>,
    /// Its receiver failed the last time.
    pub(crate) is_failing: bool,
}

/// Whether there is anything to claim or to take back: the cheap question that is asked often.
pub(crate) async fn due(pool: &PgPool) -> Result<bool, Error> {
    let due = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM webhook_deliveries WHERE status = 'queued') \
         OR EXISTS (SELECT FROM webhook_deliveries WHERE status = 'sending' AND lease_until < now())",
    )
    .fetch_one(pool)
    .await?;
    Ok(due)
}

/// How much a sender can take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Messages at most.
    pub(crate) free: i64,
    /// Of these, at most so many for receivers that fail.
    pub(crate) free_for_failing: i64,
    /// Messages that may be on their way to one webhook, over all nodes.
    pub(crate) per_webhook: i64,
}

/// Take messages for this node: the webhook with the least on its way first, then by age. A webhook that fails is sent one
/// at a time, and those of an account that is disabled nothing. Claims follow one another, so the bounds hold whoever claims.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    node: NodeId,
    lease: Duration,
    room: Room,
) -> Result<Vec<Claimed>, Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CLAIM_LOCK).execute(&mut *connection).await?;
    // The first part steps from webhook to webhook along the index, so that a long queue of one costs no more than a short one.
    let rows = sqlx::query(
        "WITH RECURSIVE waiting AS ( \
             (SELECT webhook_id FROM webhook_deliveries WHERE status = 'queued' \
              ORDER BY webhook_id, queued_at, id LIMIT 1) \
             UNION ALL \
             SELECT (SELECT d.webhook_id FROM webhook_deliveries d WHERE d.status = 'queued' AND d.webhook_id > waiting.webhook_id \
                     ORDER BY d.webhook_id, d.queued_at, d.id LIMIT 1) \
             FROM waiting WHERE waiting.webhook_id IS NOT NULL \
         ), ours AS MATERIALIZED ( \
             SELECT w.id, w.failing_since IS NOT NULL AS is_failing, \
                    CASE WHEN w.failing_since IS NULL THEN $5 ELSE 1 END AS most, \
                    (SELECT count(*) FROM webhook_deliveries s WHERE s.webhook_id = w.id AND s.status = 'sending') AS on_its_way \
             FROM waiting JOIN webhooks w ON w.id = waiting.webhook_id \
             JOIN accounts a ON a.id = w.account_id AND a.disabled_at IS NULL \
             WHERE w.status = 'enabled' AND (w.paused_until IS NULL OR w.paused_until <= now()) \
         ), candidates AS ( \
             SELECT q.id, q.queued_at, ours.is_failing, \
                    ours.on_its_way + row_number() OVER (PARTITION BY ours.id ORDER BY q.queued_at, q.id) AS place \
             FROM ours CROSS JOIN LATERAL ( \
                 SELECT d.id, d.queued_at FROM webhook_deliveries d WHERE d.webhook_id = ours.id AND d.status = 'queued' \
                 ORDER BY d.queued_at, d.id LIMIT greatest(ours.most - ours.on_its_way, 0)) AS q \
         ), chosen AS ( \
             SELECT id FROM ( \
                 SELECT id, place, queued_at, is_failing, \
                        row_number() OVER (PARTITION BY is_failing ORDER BY place, queued_at, id) AS turn FROM candidates) AS c \
             WHERE NOT is_failing OR turn <= $4 ORDER BY place, queued_at, id LIMIT $3 \
         ) \
         UPDATE webhook_deliveries AS d SET status = 'sending', worker = $1, fence = d.fence + 1, attempt = d.attempt + 1, \
                lease_until = now() + make_interval(secs => $2) \
         FROM chosen, webhooks AS w \
         WHERE d.id = chosen.id AND w.id = d.webhook_id AND d.status = 'queued' \
         RETURNING d.id, d.fence, d.attempt, d.body, w.id AS webhook_id, w.account_id, w.url_sealed, w.secret_sealed, \
                   CASE WHEN w.old_secret_until > now() THEN w.old_secret_sealed END AS old_secret_sealed, \
                   w.failing_since IS NOT NULL AS is_failing",
    )
    .bind(node.0)
    .bind(lease.as_secs_f64())
    .bind(room.free)
    .bind(room.free_for_failing)
    .bind(room.per_webhook)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read_claimed).collect()
}

fn read_claimed(row: &PgRow) -> Result<Claimed, Error> {
    Ok(Claimed {
        id: WebhookDeliveryId(row.try_get("id")?),
        fence: row.try_get("fence")?,
        attempt: row.try_get("attempt")?,
        body: row.try_get("body")?,
        webhook_id: WebhookId(row.try_get("webhook_id")?),
        account_id: AccountId(row.try_get("account_id")?),
        url_sealed: row.try_get("url_sealed")?,
        secret_sealed: row.try_get("secret_sealed")?,
        old_secret_sealed: row.try_get("old_secret_sealed")?,
        is_failing: row.try_get("is_failing")?,
    })
}

/// What was taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HandedBack {
    /// Queued again.
    pub(crate) queued: usize,
    /// Given up, as too many workers were lost with them.
    pub(crate) failed: usize,
}

/// Queue what was on its way and whose sender was lost. It may have been received; it is sent again with the same id.
pub(crate) async fn reap(connection: &mut PgConnection) -> Result<HandedBack, Error> {
    let lapsed: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM webhook_deliveries WHERE status = 'sending' AND lease_until < now() \
         ORDER BY lease_until LIMIT 500 FOR UPDATE SKIP LOCKED",
    )
    .fetch_all(&mut *connection)
    .await?;
    take_back(connection, &lapsed, true).await
}

/// Queue everything that this node sends: because it stops, or because it was restarted and what its predecessor sent is
/// lost (`crashed`).
pub(crate) async fn hand_back(connection: &mut PgConnection, node: NodeId, crashed: bool) -> Result<HandedBack, Error> {
    let held: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM webhook_deliveries WHERE status = 'sending' AND worker = $1 FOR UPDATE")
            .bind(node.0)
            .fetch_all(&mut *connection)
            .await?;
    take_back(connection, &held, crashed).await
}

async fn take_back(connection: &mut PgConnection, ids: &[Uuid], lost: bool) -> Result<HandedBack, Error> {
    if ids.is_empty() {
        return Ok(HandedBack::default());
    }
    // The try that was lost counts for the log of losses, not for the schedule. What a disabled webhook had on its way ends.
    let ended: Vec<(Uuid, bool)> = sqlx::query_as(
        "UPDATE webhook_deliveries AS d SET worker = NULL, lease_until = NULL, attempt = d.attempt - 1, \
                lost = d.lost + CASE WHEN $2 THEN 1 ELSE 0 END, \
                status = CASE WHEN g.given_up OR g.disabled THEN 'failed' ELSE 'queued' END, \
                finished_at = CASE WHEN g.given_up OR g.disabled THEN now() END, \
                error_code = CASE WHEN g.disabled THEN $5 WHEN g.given_up THEN $4 ELSE d.error_code END, \
                error_detail = CASE WHEN g.disabled THEN 'the webhook was disabled while the message was on its way' \
                    WHEN g.given_up THEN 'the processes that were to send it were lost again and again; send it again by hand' \
                    ELSE d.error_detail END \
         FROM (SELECT s.id, $2 AND s.lost + 1 >= $3 AS given_up, w.status = 'disabled' AS disabled \
               FROM webhook_deliveries s JOIN webhooks w ON w.id = s.webhook_id WHERE s.id = ANY ($1)) AS g \
         WHERE d.id = g.id RETURNING d.id, d.status = 'failed'",
    )
    .bind(ids)
    .bind(lost)
    .bind(MAX_LOST)
    .bind(ErrorCode::WorkerLost.as_str())
    .bind(ErrorCode::WebhookDisabled.as_str())
    .fetch_all(&mut *connection)
    .await?;
    let failed: Vec<Uuid> = ended.iter().filter_map(|(id, failed)| failed.then_some(*id)).collect();
    given_up::tell(connection, &failed, given_up::Of::All).await?;
    Ok(HandedBack { queued: ended.len() - failed.len(), failed: failed.len() })
}

/// The alarms of these deliveries are due: those that still wait are queued.
pub(crate) async fn queue_due(connection: &mut PgConnection, ids: &[Uuid]) -> Result<u64, sqlx::Error> {
    // In the order of their ids, so that two who touch the same ones do not wait for each other in a circle.
    let queued = sqlx::query(
        "UPDATE webhook_deliveries SET status = 'queued', queued_at = now(), next_attempt_at = NULL WHERE id IN \
         (SELECT id FROM webhook_deliveries WHERE id = ANY ($1) AND status = 'waiting' ORDER BY id FOR UPDATE)",
    )
    .bind(ids)
    .execute(connection)
    .await?;
    Ok(queued.rows_affected())
}

/// The pauses of these webhooks are over.
pub(crate) async fn resume(connection: &mut PgConnection, webhooks: &[Uuid]) -> Result<u64, sqlx::Error> {
    let resumed = sqlx::query(
        "UPDATE webhooks SET paused_until = NULL WHERE id IN \
         (SELECT id FROM webhooks WHERE id = ANY ($1) AND paused_until <= now() ORDER BY id FOR NO KEY UPDATE)",
    )
    .bind(webhooks)
    .execute(connection)
    .await?;
    Ok(resumed.rows_affected())
}
