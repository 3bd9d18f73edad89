//! The tables `outbox`, `events` (to read), `stream_marks`, and the partitions of `events`.

use bowerbird_nats::{EventId, event::Event};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use time::{Date, OffsetDateTime};

use crate::events::{self, SHARDS};

/// First number of the pair of advisory locks, one per shard.
const SHARD_LOCK: i32 = 0x6f75_7462;
/// Advisory lock of whoever compares a stream with its mark.
pub(super) const COMPARING: i64 = 0x626f_7765_6f75_7401;
/// Advisory lock of whoever looks after the partitions.
pub(super) const PARTITIONING: i64 = 0x626f_7765_6f75_7402;

/// Take every shard that no other relay works on, until the transaction ends. Whoever held a shard before has committed,
/// so what is read afterwards is what is left.
pub(super) async fn take_shards(connection: &mut PgConnection) -> Result<Vec<i16>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT shard::smallint FROM generate_series(0, $2::int - 1) AS shard, \
         set_config('idle_in_transaction_session_timeout', '60s', true) WHERE pg_try_advisory_xact_lock($1, shard)",
    )
    .bind(SHARD_LOCK)
    .bind(i32::from(SHARDS))
    .fetch_all(connection)
    .await
}

/// Up to `limit` events that wait in these shards, oldest first. What is committed is seen, whenever it was begun: there
/// is no cursor that a slow transaction could fall behind. Shard by shard, so that a long backlog is not sorted each time;
/// nobody else takes from a shard that is held.
pub(super) async fn waiting(connection: &mut PgConnection, shards: &[i16], limit: usize) -> Result<Vec<Event>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.id, e.event_type, e.account_id, e.entity_id, e.entity_sequence, e.recorded_at, e.data, e.traceparent
         FROM (SELECT w.event_id, w.recorded_at
               FROM unnest($1::smallint[]) AS s (shard)
               CROSS JOIN LATERAL (SELECT event_id, recorded_at FROM outbox
                                   WHERE outbox.shard = s.shard ORDER BY recorded_at LIMIT $2) AS w
               ORDER BY w.recorded_at LIMIT $2) AS o
         JOIN events AS e ON e.recorded_at = o.recorded_at AND e.id = o.event_id
         ORDER BY e.recorded_at",
    )
    .bind(shards)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    rows.iter().map(events::read).collect()
}

/// These are published.
pub(super) async fn published(connection: &mut PgConnection, events: &[EventId]) -> Result<(), sqlx::Error> {
    let ids: Vec<uuid::Uuid> = events.iter().map(|event| event.0).collect();
    sqlx::query("DELETE FROM outbox WHERE event_id = ANY ($1)").bind(ids).execute(connection).await?;
    Ok(())
}

/// How many wait, and for how many seconds the oldest of them.
pub(super) async fn backlog(connection: &mut PgConnection) -> Result<(i64, i64), sqlx::Error> {
    sqlx::query_as("SELECT count(*), coalesce(extract(epoch FROM now() - min(recorded_at))::bigint, 0) FROM outbox")
        .fetch_one(connection)
        .await
}

/// Put what happened within the last `seconds` into the outbox again; how many events that were.
pub(super) async fn requeue_since(connection: &mut PgConnection, seconds: i64) -> Result<u64, sqlx::Error> {
    // Weeks of events may take longer than any request may.
    sqlx::query("SET LOCAL statement_timeout = '10min'").execute(&mut *connection).await?;
    let queued = sqlx::query(
        "INSERT INTO outbox (event_id, recorded_at, shard)
         SELECT id, recorded_at, (get_byte(uuid_send(entity_id), 15) % $2)::smallint
         FROM events WHERE recorded_at > now() - make_interval(secs => $1)
         ON CONFLICT DO NOTHING",
    )
    .bind(i32::try_from(seconds).unwrap_or(i32::MAX))
    .bind(i32::from(SHARDS))
    .execute(connection)
    .await?;
    Ok(queued.rows_affected())
}

/// One process at a time, until the transaction ends. False if another is at it.
pub(super) async fn take_turn(connection: &mut PgConnection, lock: i64) -> Result<bool, sqlx::Error> {
    // The bus is asked meanwhile.
    sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1) FROM set_config('idle_in_transaction_session_timeout', '60s', true)")
        .bind(lock)
        .fetch_one(connection)
        .await
}

/// What a stream looked like when it was last seen: when it was made, and its last sequence.
pub(crate) async fn mark(connection: &mut PgConnection, stream: &str) -> Result<Option<(OffsetDateTime, i64)>, sqlx::Error> {
    sqlx::query_as("SELECT stream_created_at, last_sequence FROM stream_marks WHERE stream = $1")
        .bind(stream)
        .fetch_optional(connection)
        .await
}

/// What it looks like now.
pub(crate) async fn set_mark(
    connection: &mut PgConnection,
    stream: &str,
    created_at: OffsetDateTime,
    last_sequence: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO stream_marks (stream, stream_created_at, last_sequence, checked_at) VALUES ($1, $2, $3, now())
         ON CONFLICT (stream) DO UPDATE SET stream_created_at = $2, last_sequence = $3, checked_at = now()",
    )
    .bind(stream)
    .bind(created_at)
    .bind(last_sequence)
    .execute(connection)
    .await?;
    Ok(())
}

/// Make the partition of this day. Does nothing if it is there; fails if the default partition holds events of that day.
pub(super) async fn make_partition(connection: &mut PgConnection, day: Date) -> Result<(), sqlx::Error> {
    let Some(next) = day.next_day() else { return Ok(()) };
    // Nothing but the digits of two dates goes into this text.
    let statement = format!(
        "CREATE TABLE IF NOT EXISTS {} PARTITION OF events FOR VALUES FROM ('{} 00:00:00+00') TO ('{} 00:00:00+00')",
        partition_name(day),
        iso(day),
        iso(next),
    );
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

/// Do not wait long for locks in this transaction: who reads or writes events goes first.
pub(super) async fn be_modest(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET LOCAL lock_timeout = '2s'").execute(connection).await?;
    Ok(())
}

/// The day that the database has now, in UTC.
pub(super) async fn today(pool: &PgPool) -> Result<Date, sqlx::Error> {
    sqlx::query_scalar("SELECT (now() AT TIME ZONE 'UTC')::date").fetch_one(pool).await
}

/// The days before `day` that have a partition and that nothing waits to be published of, oldest first.
pub(super) async fn days_before(pool: &PgPool, day: Date) -> Result<Vec<Date>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT to_date(right(c.relname, 8), 'YYYYMMDD') FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'events'::regclass AND c.relname ~ '^events_[0-9]{8}$' AND c.relname < $1
           AND NOT EXISTS (SELECT 1 FROM outbox WHERE recorded_at < $2)
         ORDER BY c.relname",
    )
    .bind(partition_name(day))
    .bind(day.midnight().assume_utc())
    .fetch_all(pool)
    .await
}

/// Drop the partition of this day.
pub(super) async fn drop_partition(connection: &mut PgConnection, day: Date) -> Result<(), sqlx::Error> {
    // Nothing but the digits of a date goes into this text.
    sqlx::query(AssertSqlSafe(format!("DROP TABLE IF EXISTS {}", partition_name(day)))).execute(connection).await?;
    Ok(())
}

fn partition_name(day: Date) -> String {
    format!("events_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day())
}

fn iso(day: Date) -> String {
    format!("{:04}-{:02}-{:02}", day.year(), u8::from(day.month()), day.day())
}
