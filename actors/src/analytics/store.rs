//! The tables `statistics`, `system_statistics`, `statistics_closed_days`, and `events` and `processed_events` as far as
//! counting needs them.
//!
//! Who counts what comes in holds the lock of counting together with all others that do; who counts a day anew holds it
//! alone. So a day that is counted anew is neither missed nor counted twice by an event that comes in meanwhile.

use bowerbird_nats::{AccountId, EventId, event::Event};
use futures_util::TryStreamExt as _;
use sqlx::{PgConnection, PgPool, Row as _};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::counted::{Count, Counted, Sums};
use crate::events;

/// Whose effects these are, in `processed_events`.
const CONSUMER: &str = "statistics";
/// Advisory lock of counting.
const COUNTING: i64 = 0x626f_7765_7374_6174;

/// Join those who count what comes in, until the transaction ends. False while a day is counted anew.
pub(super) async fn join(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_xact_lock_shared($1)").bind(COUNTING).fetch_one(connection).await
}

/// Keep everybody else from counting until the transaction ends; waits for those who do, at most this transaction's
/// `lock_timeout`.
pub(super) async fn alone(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET LOCAL lock_timeout = '60s'").execute(&mut *connection).await?;
    // It only holds the lock while another connection counts.
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0").execute(&mut *connection).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(COUNTING).execute(connection).await?;
    Ok(())
}

/// See one moment of the database until the transaction ends, however long that takes. First in its transaction.
pub(super) async fn one_moment(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *connection).await?;
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *connection).await?;
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0").execute(connection).await?;
    Ok(())
}

/// Which of these days are closed.
pub(super) async fn closed_among(connection: &mut PgConnection, days: &[Date]) -> Result<Vec<Date>, sqlx::Error> {
    sqlx::query_scalar("SELECT day FROM statistics_closed_days WHERE day = ANY ($1)").bind(days).fetch_all(connection).await
}

/// Mark these events as counted; those that were not before. Locked in the order of their ids, whoever else marks them.
pub(super) async fn first_times(connection: &mut PgConnection, counted: &[Counted]) -> Result<Vec<EventId>, sqlx::Error> {
    let mut ids: Vec<Uuid> = counted.iter().map(|counted| counted.event_id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    let new: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO processed_events (consumer, event_id) SELECT $1, id FROM unnest($2::uuid[]) AS id
         ON CONFLICT DO NOTHING RETURNING event_id",
    )
    .bind(CONSUMER)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(new.into_iter().map(EventId).collect())
}

/// Add to what is counted.
pub(super) async fn add(connection: &mut PgConnection, sums: &Sums) -> Result<(), sqlx::Error> {
    let keys = || sums.accounts.keys();
    if !sums.accounts.is_empty() {
        sqlx::query(
            "INSERT INTO statistics (account_id, day, event_type, events, bytes)
             SELECT * FROM unnest($1::uuid[], $2::date[], $3::text[], $4::bigint[], $5::bigint[])
             ON CONFLICT (account_id, day, event_type) DO UPDATE
                 SET events = statistics.events + excluded.events, bytes = statistics.bytes + excluded.bytes",
        )
        .bind(keys().map(|key| key.0.0).collect::<Vec<_>>())
        .bind(keys().map(|key| key.1).collect::<Vec<_>>())
        .bind(keys().map(|key| key.2.as_str().to_owned()).collect::<Vec<_>>())
        .bind(sums.accounts.values().map(|count| count.events).collect::<Vec<_>>())
        .bind(sums.accounts.values().map(|count| count.bytes).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    let keys = || sums.system.keys();
    if !sums.system.is_empty() {
        // Last: these rows are what everybody who counts shares.
        sqlx::query(
            "INSERT INTO system_statistics (day, event_type, events, bytes)
             SELECT * FROM unnest($1::date[], $2::text[], $3::bigint[], $4::bigint[])
             ON CONFLICT (day, event_type) DO UPDATE
                 SET events = system_statistics.events + excluded.events, bytes = system_statistics.bytes + excluded.bytes",
        )
        .bind(keys().map(|key| key.0).collect::<Vec<_>>())
        .bind(keys().map(|key| key.1.as_str().to_owned()).collect::<Vec<_>>())
        .bind(sums.system.values().map(|count| count.events).collect::<Vec<_>>())
        .bind(sums.system.values().map(|count| count.bytes).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Forget what was counted of a day.
pub(super) async fn clear(connection: &mut PgConnection, day: Date) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM statistics WHERE day = $1").bind(day).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM system_statistics WHERE day = $1").bind(day).execute(connection).await?;
    Ok(())
}

/// The events of a day, one after the other to `each`; how many there are.
pub(super) async fn events_of(
    connection: &mut PgConnection,
    day: Date,
    mut each: impl FnMut(&Event),
) -> Result<u64, sqlx::Error> {
    let (from, to) = bounds(day);
    let mut rows = sqlx::query(
        "SELECT id, event_type, account_id, entity_id, entity_sequence, recorded_at, data, traceparent
         FROM events WHERE recorded_at >= $1 AND recorded_at < $2",
    )
    .bind(from)
    .bind(to)
    .fetch(connection);
    let mut found = 0;
    while let Some(row) = rows.try_next().await? {
        each(&events::read(&row)?);
        found += 1;
    }
    Ok(found)
}

/// Mark every event of a day as counted.
pub(super) async fn mark_day(connection: &mut PgConnection, day: Date) -> Result<(), sqlx::Error> {
    let (from, to) = bounds(day);
    sqlx::query(
        "INSERT INTO processed_events (consumer, event_id)
         SELECT $1, id FROM events WHERE recorded_at >= $2 AND recorded_at < $3 ORDER BY id ON CONFLICT DO NOTHING",
    )
    .bind(CONSUMER)
    .bind(from)
    .bind(to)
    .execute(connection)
    .await?;
    Ok(())
}

/// Close a day; false if it is closed already.
pub(super) async fn close(connection: &mut PgConnection, day: Date) -> Result<bool, sqlx::Error> {
    let closed = sqlx::query("INSERT INTO statistics_closed_days (day) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(day)
        .execute(connection)
        .await?;
    Ok(closed.rows_affected() == 1)
}

/// The days from the first to the last that there are events of and that are not closed, oldest first.
pub(super) async fn open_days(pool: &PgPool) -> Result<Vec<Date>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT day::date FROM (SELECT min(recorded_at) AT TIME ZONE 'UTC' AS first, max(recorded_at) AT TIME ZONE 'UTC' AS last
                                FROM events) AS e,
             generate_series(e.first::date::timestamp, e.last::date::timestamp, interval '1 day') AS day
         WHERE day::date NOT IN (SELECT day FROM statistics_closed_days) ORDER BY day",
    )
    .fetch_all(pool)
    .await
}

/// The day that the database has now, in UTC.
pub(super) async fn today(pool: &PgPool) -> Result<Date, sqlx::Error> {
    sqlx::query_scalar("SELECT (now() AT TIME ZONE 'UTC')::date").fetch_one(pool).await
}

/// What is counted of these days, of an account or of all: day, event type, count.
pub(super) async fn read(
    pool: &PgPool,
    account: Option<AccountId>,
    from: Date,
    to: Date,
) -> Result<Vec<(Date, String, Count)>, sqlx::Error> {
    let query = match account {
        Some(account) => {
            sqlx::query("SELECT day, event_type, events, bytes FROM statistics WHERE account_id = $3 AND day BETWEEN $1 AND $2")
                .bind(from)
                .bind(to)
                .bind(account.0)
        }
        None => sqlx::query("SELECT day, event_type, events, bytes FROM system_statistics WHERE day BETWEEN $1 AND $2")
            .bind(from)
            .bind(to),
    };
    let rows = query.fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            let count = Count { events: row.try_get("events")?, bytes: row.try_get("bytes")? };
            Ok((row.try_get("day")?, row.try_get("event_type")?, count))
        })
        .collect()
}

/// The first moment of a day of UTC, and that of the next.
fn bounds(day: Date) -> (OffsetDateTime, OffsetDateTime) {
    let from = day.midnight().assume_utc();
    (from, from.saturating_add(time::Duration::DAY))
}
