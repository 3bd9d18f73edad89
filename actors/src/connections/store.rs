//! The table `nodes`.

use bowerbird_nats::id::NodeId;
use sqlx::PgPool;

/// The process of this node has started.
pub(super) async fn started(pool: &PgPool, node: NodeId) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO nodes (id, started_at, last_seen_at) VALUES ($1, now(), now())
         ON CONFLICT (id) DO UPDATE SET started_at = now(), last_seen_at = now(), stopped_at = NULL",
    )
    .bind(node.0)
    .execute(pool)
    .await?;
    Ok(())
}

/// It lives.
pub(super) async fn seen(pool: &PgPool, node: NodeId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE nodes SET last_seen_at = now() WHERE id = $1").bind(node.0).execute(pool).await?;
    Ok(())
}

/// It ended in order.
pub(super) async fn stopped(pool: &PgPool, node: NodeId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE nodes SET stopped_at = now() WHERE id = $1").bind(node.0).execute(pool).await?;
    Ok(())
}
