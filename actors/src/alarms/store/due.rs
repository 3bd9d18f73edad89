//! What is due: finding it, claiming it, moving it back when waking failed.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::{Due, Kind};

/// How long a claim waits for a lock that somebody else holds on what it wakes.
const LOCK_LIMIT: &str = "SET LOCAL lock_timeout = '3s'";

/// When a kind has something to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Next {
    pub(crate) kind: Kind,
    /// Something is due now.
    pub(crate) is_due: bool,
    /// How long until the first that is not due yet.
    pub(crate) due_in: Option<Duration>,
}

/// When each of these kinds has something to do: two entries of the index each, however many alarms there are.
pub(crate) async fn next(pool: &PgPool, kinds: &[Kind]) -> Result<Vec<Next>, sqlx::Error> {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    let rows: Vec<(i64, bool, Option<f64>)> = sqlx::query_as(
        "SELECT k.place,
                EXISTS (SELECT 1 FROM alarms AS a WHERE a.kind = k.kind AND a.refused_at IS NULL AND a.wake_at <= now()),
                extract(epoch FROM (SELECT a.wake_at FROM alarms AS a
                                    WHERE a.kind = k.kind AND a.refused_at IS NULL AND a.wake_at > now()
                                    ORDER BY a.wake_at LIMIT 1) - clock_timestamp())::float8
         FROM unnest($1::text[]) WITH ORDINALITY AS k (kind, place)",
    )
    .bind(names)
    .fetch_all(pool)
    .await?;
    let of = |(place, is_due, seconds): (i64, bool, Option<f64>)| {
        let kind = usize::try_from(place).ok().and_then(|place| kinds.get(place.checked_sub(1)?))?;
        let due_in = seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX));
        Some(Next { kind: *kind, is_due, due_in })
    };
    Ok(rows.into_iter().filter_map(of).collect())
}

/// Take up to `limit` alarms of this kind that are due and that nobody else is waking, the oldest first. They are gone when
/// the transaction commits, unless they are armed again in it.
pub(crate) async fn claim(connection: &mut PgConnection, kind: Kind, limit: usize) -> Result<Vec<Due>, sqlx::Error> {
    sqlx::query(LOCK_LIMIT).execute(&mut *connection).await?;
    // By place in the table, as the rows were just locked there. One that was moved in between is not at that place any
    // more as this statement sees it, and stays for the next look.
    let rows = sqlx::query_as(
        "DELETE FROM alarms WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM alarms WHERE kind = $1 AND refused_at IS NULL AND wake_at <= now()
             ORDER BY wake_at LIMIT $2 FOR UPDATE SKIP LOCKED))
         RETURNING subject_id, due_at, version, now()",
    )
    .bind(kind.as_str())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    Ok(due(rows))
}

/// Take those of these alarms that are still due and that nobody else is waking.
pub(crate) async fn claim_these(connection: &mut PgConnection, kind: Kind, subjects: &[Uuid]) -> Result<Vec<Due>, sqlx::Error> {
    sqlx::query(LOCK_LIMIT).execute(&mut *connection).await?;
    let rows = sqlx::query_as(
        "DELETE FROM alarms WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM alarms
             WHERE kind = $1 AND subject_id = ANY ($2) AND refused_at IS NULL AND wake_at <= now() FOR UPDATE SKIP LOCKED))
         RETURNING subject_id, due_at, version, now()",
    )
    .bind(kind.as_str())
    .bind(subjects)
    .fetch_all(connection)
    .await?;
    Ok(due(rows))
}

fn due(rows: Vec<(Uuid, OffsetDateTime, i64, OffsetDateTime)>) -> Vec<Due> {
    let mut due: Vec<Due> =
        rows.into_iter().map(|(subject_id, due_at, version, now)| Due { subject_id, due_at, version, now }).collect();
    due.sort_unstable_by_key(|due| (due.due_at, due.subject_id));
    due
}

/// Waking failed: how often it has now, since it was armed. It is looked at again later: after `first` the first time, twice
/// as long each time, at most after `most`. `None` if it was moved, canceled or woken meanwhile.
pub(crate) async fn put_back(
    pool: &PgPool,
    kind: Kind,
    alarm: &Due,
    error: &str,
    (first, most): (Duration, Duration),
) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE alarms SET attempt = attempt + 1, last_error = $5,
                wake_at = now() + make_interval(secs => least($6 * 2 ^ least(attempt, 30), $7))
         WHERE kind = $1 AND subject_id = $2 AND version = $3 AND due_at = $4 AND refused_at IS NULL RETURNING attempt",
    )
    .bind(kind.as_str())
    .bind(alarm.subject_id)
    .bind(alarm.version)
    .bind(alarm.due_at)
    .bind(error)
    .bind(first.as_secs_f64())
    .bind(most.as_secs_f64())
    .fetch_optional(pool)
    .await
}

/// Give it up: it stays, and is not looked at until it is armed again or asked for again.
pub(crate) async fn refuse(pool: &PgPool, kind: Kind, alarm: &Due) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE alarms SET refused_at = now() WHERE kind = $1 AND subject_id = $2 AND version = $3 AND refused_at IS NULL",
    )
    .bind(kind.as_str())
    .bind(alarm.subject_id)
    .bind(alarm.version)
    .execute(pool)
    .await?;
    Ok(())
}

/// Try one again that was given up; false if there is none. Its version grows, so that its next letter is another one.
pub(crate) async fn again(pool: &PgPool, kind: &str, subject_id: Uuid) -> Result<bool, sqlx::Error> {
    let found = sqlx::query(
        "UPDATE alarms SET refused_at = NULL, attempt = 0, wake_at = now(), version = version + 1
         WHERE kind = $1 AND subject_id = $2 AND refused_at IS NOT NULL",
    )
    .bind(kind)
    .bind(subject_id)
    .execute(pool)
    .await?;
    Ok(found.rows_affected() == 1)
}

/// How many alarms of each kind that there is are due and wait, also of kinds that this version does not know. Counted
/// up to 100 000.
pub(crate) async fn backlog(pool: &PgPool) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "WITH RECURSIVE kinds (kind) AS (
             (SELECT kind FROM alarms WHERE refused_at IS NULL ORDER BY kind, wake_at LIMIT 1)
             UNION ALL
             SELECT (SELECT a.kind FROM alarms AS a WHERE a.refused_at IS NULL AND a.kind > k.kind
                     ORDER BY a.kind, a.wake_at LIMIT 1)
             FROM kinds AS k WHERE k.kind IS NOT NULL
         )
         SELECT k.kind, (SELECT count(*) FROM (SELECT 1 FROM alarms AS a WHERE a.kind = k.kind AND a.refused_at IS NULL
                                               AND a.wake_at <= now() LIMIT 100000) AS due)
         FROM kinds AS k WHERE k.kind IS NOT NULL",
    )
    .fetch_all(pool)
    .await
}
