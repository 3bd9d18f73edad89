//! The sweeps as statements. `$1` is how many rows one may take.

use sqlx::PgPool;

/// Each with its name. A row is taken long after nobody can ask for it any more.
pub(super) const SWEEPS: &[(&str, &str)] = &[
    (
        "answers of idempotent requests",
        "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM idempotency_keys WHERE created_at < now() - interval '1 day' LIMIT $1))",
    ),
    (
        // The stream keeps events for 30 days, and the table from which it can be filled again for 90.
        "marks of processed events",
        "DELETE FROM processed_events WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM processed_events WHERE processed_at < now() - interval '120 days' LIMIT $1))",
    ),
    (
        // With their refresh tokens.
        "sessions that ended",
        "DELETE FROM sessions WHERE id = ANY (ARRAY(
             SELECT id FROM sessions WHERE coalesce(closed_at, expires_at) < now() - interval '30 days' LIMIT $1))",
    ),
];

/// Take up to `limit` rows; how many were.
pub(super) async fn sweep(pool: &PgPool, statement: &'static str, limit: i64) -> Result<u64, sqlx::Error> {
    Ok(sqlx::query(statement).bind(limit).execute(pool).await?.rows_affected())
}
