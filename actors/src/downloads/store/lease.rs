//! Who has a download, and until when.

use std::time::Duration;

use bowerbird_nats::{
    DownloadId,
    download::{ErrorCode, Failure, Work},
    event,
    id::NodeId,
};
use sqlx::{PgConnection, PgPool, Row as _};

use super::{Error, columns, ending, read, read_all, tell};
use crate::downloads::row::{Part, Row};

/// Workers that may be lost with a download, one after the other and none of them storing anything, before it is taken
/// for the cause.
const MAX_LOST: i32 = 30;

/// A download that this node runs now.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) row: Row,
    /// The ledger, in order.
    pub(crate) parts: Vec<Part>,
}

/// Take what a work message names, unless it is void.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    work: Work,
    node: NodeId,
    lease: Duration,
) -> Result<Option<Claimed>, Error> {
    let row = sqlx::query(concat!(
        "UPDATE downloads SET status = 'running', worker = $3, fence = fence + 1, lease_until = now() + make_interval(secs => $4), \
         attempt = attempt + 1, mark_bytes = received_bytes, started_at = coalesce(started_at, now()), dispatched_at = NULL, \
         not_before = NULL WHERE id = $1 AND dispatch_no = $2 AND status = 'queued' RETURNING ",
        columns!()
    ))
    .bind(work.download_id.0)
    .bind(work.dispatch_no)
    .bind(node.0)
    .bind(lease.as_secs_f64())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let row = read(&row)?;
    let parts = if row.upload_id.is_some() {
        sqlx::query("SELECT part_number, size_bytes, etag, crc64 FROM download_parts WHERE download_id = $1 ORDER BY part_number")
            .bind(row.id.0)
            .fetch_all(&mut *connection)
            .await?
            .iter()
            .map(|part| {
                Ok(Part {
                    number: part.try_get("part_number")?,
                    size_bytes: part.try_get("size_bytes")?,
                    etag: part.try_get("etag")?,
                    crc64: part.try_get("crc64")?,
                })
            })
            .collect::<Result<Vec<_>, sqlx::Error>>()?
    } else {
        Vec::new()
    };
    tell(connection, event::DOWNLOAD_STARTED, &row).await?;
    Ok(Some(Claimed { row, parts }))
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// The lease runs on.
    Renewed,
    /// The download is not this worker's any more, or has ended.
    Lost,
}

/// Go on for another lease.
pub(crate) async fn renew(pool: &PgPool, id: DownloadId, fence: i64, lease: Duration) -> Result<Renewal, Error> {
    let renewed = sqlx::query("UPDATE downloads SET lease_until = now() + make_interval(secs => $3) WHERE id = $1 AND fence = $2 AND status = 'running'")
        .bind(id.0)
        .bind(fence)
        .bind(lease.as_secs_f64())
        .execute(pool)
        .await?;
    Ok(if renewed.rows_affected() == 1 { Renewal::Renewed } else { Renewal::Lost })
}

/// Queue what runs on nodes that did not renew. Answers what was taken back.
pub(crate) async fn reap(connection: &mut PgConnection) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query(concat!(
        "UPDATE downloads SET status = 'queued', worker = NULL, lease_until = NULL, bytes_per_second = 0, connections = 0, \
         attempt = CASE WHEN received_bytes > mark_bytes THEN 0 ELSE greatest(attempt - 1, 0) END, \
         lost = CASE WHEN received_bytes > mark_bytes THEN 0 ELSE lost + 1 END \
         WHERE id IN (SELECT id FROM downloads WHERE status = 'running' AND lease_until < now() \
                      ORDER BY lease_until LIMIT 200 FOR UPDATE SKIP LOCKED) RETURNING ",
        columns!()
    ))
    .fetch_all(&mut *connection)
    .await?;
    settle_lost(connection, read_all(&rows)?).await
}

/// Queue everything that this node runs: because it stops, or because it was restarted and what its predecessor ran is
/// lost (`crashed`).
pub(crate) async fn hand_back(connection: &mut PgConnection, node: NodeId, crashed: bool) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query(concat!(
        "UPDATE downloads SET status = 'queued', worker = NULL, lease_until = NULL, bytes_per_second = 0, connections = 0, \
         attempt = CASE WHEN received_bytes > mark_bytes THEN 0 ELSE greatest(attempt - 1, 0) END, \
         lost = CASE WHEN received_bytes > mark_bytes THEN 0 WHEN $2 THEN lost + 1 ELSE lost END \
         WHERE worker = $1 AND status = 'running' RETURNING ",
        columns!()
    ))
    .bind(node.0)
    .bind(crashed)
    .fetch_all(&mut *connection)
    .await?;
    settle_lost(connection, read_all(&rows)?).await
}

/// Queue one that this node lost: its actor ended without settling it.
pub(crate) async fn lose(connection: &mut PgConnection, id: DownloadId, fence: i64) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query(concat!(
        "UPDATE downloads SET status = 'queued', worker = NULL, lease_until = NULL, bytes_per_second = 0, connections = 0, \
         attempt = CASE WHEN received_bytes > mark_bytes THEN 0 ELSE greatest(attempt - 1, 0) END, \
         lost = CASE WHEN received_bytes > mark_bytes THEN 0 ELSE lost + 1 END \
         WHERE id = $1 AND fence = $2 AND status = 'running' RETURNING ",
        columns!()
    ))
    .bind(id.0)
    .bind(fence)
    .fetch_all(&mut *connection)
    .await?;
    settle_lost(connection, read_all(&rows)?).await
}

async fn settle_lost(connection: &mut PgConnection, rows: Vec<Row>) -> Result<Vec<Row>, Error> {
    for row in &rows {
        if row.lost < MAX_LOST {
            tell(connection, event::DOWNLOAD_QUEUED, row).await?;
        } else {
            let detail = format!(
                "{MAX_LOST} workers in a row were lost while they ran it, so it is taken for the cause; `retry` tries again"
            );
            ending::end(connection, row, &Failure { code: ErrorCode::Stalled, detail, retryable: true }, false).await?;
        }
    }
    Ok(rows.into_iter().filter(|row| row.lost < MAX_LOST).collect())
}
