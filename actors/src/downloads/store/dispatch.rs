//! Who runs next. One dispatcher of all nodes decides at a time; the rows are the queue.

use std::time::Duration;

use bowerbird_nats::{DownloadId, event, id::NodeId};
use sqlx::{PgConnection, PgPool, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, columns, read_all, tell_all};
use crate::alarms::{self, Kind};

/// Held by the dispatcher that decides; any number that nobody else uses.
const DISPATCH_LOCK: i64 = 0x6277_6264_6c00_0001;

/// What a dispatcher goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Downloads of one account that run or are handed out.
    pub(crate) per_account: i64,
    /// A node that was not seen for this long has no slots.
    pub(crate) node_gone_after: Duration,
    /// What was handed out and not claimed for this long while slots were free was lost on the way.
    pub(crate) lost_after: Duration,
}

/// A download that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HandOut {
    pub(crate) id: DownloadId,
    pub(crate) dispatch_no: i64,
}

/// This node is there, with this many slots.
pub(crate) async fn beat(pool: &PgPool, node: NodeId, slots: i32) -> Result<(), Error> {
    sqlx::query("INSERT INTO download_nodes (node_id, slots) VALUES ($1, $2) ON CONFLICT (node_id) DO UPDATE SET slots = $2, seen_at = now()")
        .bind(node.0)
        .bind(slots)
        .execute(pool)
        .await?;
    Ok(())
}

/// Whether there is anything for a dispatcher to do: the cheap question that is asked often.
pub(crate) async fn due(pool: &PgPool, limits: Limits) -> Result<bool, Error> {
    let due = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM downloads WHERE status = 'queued' AND dispatched_at IS NULL AND not_before IS NULL) \
         OR EXISTS (SELECT FROM downloads WHERE status = 'queued' AND dispatched_at < now() - make_interval(secs => $1))",
    )
    .bind(limits.lost_after.as_secs_f64())
    .fetch_one(pool)
    .await?;
    Ok(due)
}

/// What these downloads waited for has come: what was scheduled is queued, what was to be tried again may be. One whose
/// time is not there yet, or that somebody else holds right now, has its alarm armed again. Answers how many may run.
pub(crate) async fn begin(connection: &mut PgConnection, ids: &[Uuid]) -> Result<usize, Error> {
    // Nobody is waited for: whoever holds one of these may be waiting for its alarm, which is held here.
    let waiting: Vec<(Uuid, OffsetDateTime)> = sqlx::query_as(
        "SELECT id, greatest(CASE WHEN status = 'scheduled' THEN start_at ELSE not_before END, now() + interval '50 ms') FROM downloads \
         WHERE id = ANY ($1) AND (status = 'scheduled' OR (status = 'queued' AND not_before IS NOT NULL))",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    let scheduled = sqlx::query(concat!(
        "UPDATE downloads SET status = 'queued', queued_at = now() WHERE id IN (SELECT id FROM downloads \
         WHERE id = ANY ($1) AND status = 'scheduled' AND start_at <= now() ORDER BY id FOR UPDATE SKIP LOCKED) RETURNING ",
        columns!()
    ))
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    let scheduled = read_all(&scheduled)?;
    let mut begun: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE downloads SET not_before = NULL WHERE id IN (SELECT id FROM downloads \
         WHERE id = ANY ($1) AND status = 'queued' AND not_before <= now() ORDER BY id FOR UPDATE SKIP LOCKED) RETURNING id",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    begun.extend(scheduled.iter().map(|row| row.id.0));
    let left: Vec<(Uuid, OffsetDateTime)> = waiting.into_iter().filter(|(id, _)| !begun.contains(id)).collect();
    alarms::arm_many(connection, Kind::Download, &left).await?;
    tell_all(connection, &event::DOWNLOAD_QUEUED, &scheduled).await?;
    Ok(begun.len())
}

/// Hand out about twice as many downloads as there are free slots, in the order in which they are to run: by priority,
/// then the account with the fewest that run, then by age. To be committed before anything is published.
pub(crate) async fn dispatch(connection: &mut PgConnection, limits: Limits) -> Result<Vec<HandOut>, Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(DISPATCH_LOCK).execute(&mut *connection).await?;
    let load = sqlx::query(
        "SELECT (SELECT coalesce(sum(slots), 0) FROM download_nodes WHERE seen_at > now() - make_interval(secs => $1))::bigint AS slots, \
         count(*) FILTER (WHERE status = 'running') AS running, \
         count(*) FILTER (WHERE status = 'queued' AND dispatched_at >= now() - make_interval(secs => $2)) AS on_their_way \
         FROM downloads WHERE status = 'running' OR (status = 'queued' AND dispatched_at IS NOT NULL)",
    )
    .bind(limits.node_gone_after.as_secs_f64())
    .bind(limits.lost_after.as_secs_f64())
    .fetch_one(&mut *connection)
    .await?;
    let (slots, running, on_their_way): (i64, i64, i64) =
        (load.try_get("slots")?, load.try_get("running")?, load.try_get("on_their_way")?);
    let free = (slots - running).max(0);
    if free == 0 {
        return Ok(Vec::new());
    }
    // With free slots a message is pulled at once; one that was not is gone (a broker that was wiped, say).
    sqlx::query(
        "UPDATE downloads SET dispatched_at = NULL WHERE status = 'queued' AND dispatched_at < now() - make_interval(secs => $1)",
    )
    .bind(limits.lost_after.as_secs_f64())
    .execute(&mut *connection)
    .await?;
    let wanted = 2 * free - on_their_way;
    if wanted <= 0 {
        return Ok(Vec::new());
    }
    // The accounts that wait are found by skipping through the index, so that a queue of a million rows of one account
    // costs no more than a short one.
    let rows = sqlx::query(
        "WITH RECURSIVE waiting (account_id) AS ( \
             (SELECT account_id FROM downloads WHERE status = 'queued' AND dispatched_at IS NULL ORDER BY account_id LIMIT 1) \
             UNION ALL \
             SELECT (SELECT d.account_id FROM downloads d WHERE d.status = 'queued' AND d.dispatched_at IS NULL \
                     AND d.account_id > w.account_id ORDER BY d.account_id LIMIT 1) \
             FROM waiting w WHERE w.account_id IS NOT NULL \
         ), busy AS ( \
             SELECT account_id, count(*) AS number FROM downloads \
             WHERE status = 'running' OR (status = 'queued' AND dispatched_at IS NOT NULL) GROUP BY account_id \
         ), candidate AS ( \
             SELECT d.id, d.priority, d.queued_at, coalesce(b.number, 0) \
                    + row_number() OVER (PARTITION BY w.account_id ORDER BY d.priority DESC, d.queued_at, d.id) AS place \
             FROM waiting w LEFT JOIN busy b ON b.account_id = w.account_id CROSS JOIN LATERAL ( \
                 SELECT id, priority, queued_at FROM downloads WHERE account_id = w.account_id AND status = 'queued' \
                 AND dispatched_at IS NULL AND not_before IS NULL \
                 ORDER BY priority DESC, queued_at, id LIMIT $1 \
             ) d WHERE w.account_id IS NOT NULL \
         ), pick AS ( \
             SELECT id, row_number() OVER (ORDER BY priority DESC, place, queued_at, id) AS turn FROM candidate \
             WHERE place <= $1 ORDER BY turn LIMIT $2 \
         ) \
         UPDATE downloads SET dispatch_no = dispatch_no + 1, dispatched_at = now() FROM pick \
         WHERE downloads.id = pick.id AND downloads.status = 'queued' AND downloads.dispatched_at IS NULL \
         RETURNING downloads.id, downloads.dispatch_no, pick.turn",
    )
    .bind(limits.per_account)
    .bind(wanted)
    .fetch_all(&mut *connection)
    .await?;
    let mut picked = rows
        .iter()
        .map(|row| {
            Ok((
                row.try_get::<i64, _>("turn")?,
                HandOut { id: DownloadId(row.try_get("id")?), dispatch_no: row.try_get("dispatch_no")? },
            ))
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    picked.sort_unstable_by_key(|(turn, _)| *turn);
    Ok(picked.into_iter().map(|(_, hand_out)| hand_out).collect())
}

/// These could not be published: they wait again, at once.
pub(crate) async fn forget_hand_outs(pool: &PgPool, hand_outs: &[HandOut]) -> Result<(), Error> {
    for hand_out in hand_outs {
        sqlx::query("UPDATE downloads SET dispatched_at = NULL WHERE id = $1 AND dispatch_no = $2 AND status = 'queued'")
            .bind(hand_out.id.0)
            .bind(hand_out.dispatch_no)
            .execute(pool)
            .await?;
    }
    Ok(())
}
