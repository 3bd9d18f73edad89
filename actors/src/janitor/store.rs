//! The sweeps as statements. `$1` is how many rows one may take.

use sqlx::PgPool;

/// Each with its number, which is in the database, and its name. A row is taken long after nobody can ask for it any more,
/// and of a thing of which nothing can happen any more the count of its events goes with it.
pub(super) const SWEEPS: &[(u128, &str, &str)] = &[
    (
        1,
        "answers of idempotent requests",
        "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM idempotency_keys WHERE created_at < now() - interval '1 day' LIMIT $1))",
    ),
    (
        // The stream keeps events for 30 days, and the table from which it can be filled again for 90.
        2,
        "marks of processed events",
        "DELETE FROM processed_events WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM processed_events WHERE processed_at < now() - interval '120 days' LIMIT $1))",
    ),
    (
        // As long as the stream DEAD keeps them.
        80,
        "dead letters",
        "DELETE FROM dead_letters WHERE id = ANY (ARRAY(
             SELECT id FROM dead_letters WHERE refused_at < now() - interval '90 days' LIMIT $1))",
    ),
    (
        4,
        "uploads that ended",
        "DELETE FROM uploads WHERE id = ANY (ARRAY(
             SELECT id FROM uploads WHERE finished_at < now() - interval '7 days' LIMIT $1))",
    ),
    (
        // With their refresh tokens.
        3,
        "sessions that ended",
        "WITH gone AS MATERIALIZED (
             SELECT id FROM sessions WHERE coalesce(closed_at, expires_at) < now() - interval '30 days' LIMIT $1
         ), counts AS (DELETE FROM event_sequences WHERE entity_id IN (SELECT id FROM gone))
         DELETE FROM sessions WHERE id IN (SELECT id FROM gone)",
    ),
    (
        201,
        "shares that ended",
        "DELETE FROM shares WHERE id = ANY (ARRAY(
             SELECT id FROM shares WHERE ended_at < now() - interval '30 days' LIMIT $1))",
    ),
    (
        // Fired for the last time, missed, completed or canceled.
        20,
        "reminders that ended",
        "WITH gone AS MATERIALIZED (
             SELECT id FROM reminders WHERE ended_at < now() - interval '90 days' LIMIT $1
         ), counts AS (DELETE FROM event_sequences WHERE entity_id IN (SELECT id FROM gone))
         DELETE FROM reminders WHERE id IN (SELECT id FROM gone)",
    ),
    (
        // With their logs.
        71,
        "deliveries of webhooks that ended",
        "DELETE FROM webhook_deliveries WHERE id = ANY (ARRAY(
             SELECT id FROM webhook_deliveries WHERE finished_at < now() - interval '30 days' LIMIT $1))",
    ),
    (
        72,
        "deliveries of deleted webhooks",
        "DELETE FROM webhook_deliveries WHERE id = ANY (ARRAY(
             SELECT d.id FROM webhooks w JOIN webhook_deliveries d ON d.webhook_id = w.id
             WHERE w.deleted_at < now() - interval '10 minutes' AND d.status <> 'sending' LIMIT $1))",
    ),
    (
        73,
        "deleted webhooks",
        "WITH gone AS MATERIALIZED (
             SELECT id FROM webhooks w WHERE deleted_at < now() - interval '10 minutes'
             AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.webhook_id = w.id) LIMIT $1
         ), counts AS (DELETE FROM event_sequences WHERE entity_id IN (SELECT id FROM gone))
         DELETE FROM webhooks WHERE id IN (SELECT id FROM gone)",
    ),
];

/// Take up to `limit` rows; how many were.
pub(super) async fn sweep(pool: &PgPool, statement: &'static str, limit: i64) -> Result<u64, sqlx::Error> {
    Ok(sqlx::query(statement).bind(limit).execute(pool).await?.rows_affected())
}
