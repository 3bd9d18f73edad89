//! What time, events and new zone rules do to reminders: many at once, in the caller's transaction.

use std::collections::HashSet;

use bowerbird_nats::{AccountId, ReminderId, reminder::Status};
use sqlx::PgConnection;
use time::{OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

use super::{Error, columns, read_all};
use crate::reminders::row::Row;

/// These reminders, in the order of their ids, held until the transaction ends. Hold their alarms before.
pub(crate) async fn locked(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query(concat!("SELECT ", columns!(), " FROM reminders WHERE id = ANY ($1) ORDER BY id FOR UPDATE"))
        .bind(ids)
        .fetch_all(connection)
        .await?;
    read_all(&rows)
}

/// Write what waking changes of rows that the caller holds: when they fire, what they wait for, how far they are.
pub(crate) async fn progress(connection: &mut PgConnection, rows: &[Row]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let after = |of: fn(&Row) -> Option<i64>| rows.iter().map(of).collect::<Vec<Option<i64>>>();
    let times = |of: fn(&Row) -> Option<OffsetDateTime>| rows.iter().map(of).collect::<Vec<Option<OffsetDateTime>>>();
    let locals = |of: fn(&Row) -> Option<PrimitiveDateTime>| rows.iter().map(of).collect::<Vec<Option<PrimitiveDateTime>>>();
    sqlx::query(
        "UPDATE reminders AS r SET status = t.status, next_fire_at = t.next_fire_at, next_local = t.next_local, \
         snoozed_until = t.snoozed_until, floor_at = t.floor_at, handled_local = t.handled_local, zone_rules = t.zone_rules, \
         last_fired_at = t.last_fired_at, fired = t.fired, updated_at = t.updated_at, ended_at = t.ended_at, \
         on_event_after = t.on_event_after, unless_event_after = t.unless_event_after \
         FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamp[], $5::timestamptz[], $6::timestamptz[], \
                     $7::timestamp[], $8::text[], $9::timestamptz[], $10::bigint[], $11::timestamptz[], $12::timestamptz[], \
                     $13::bigint[], $14::bigint[]) \
           AS t (id, status, next_fire_at, next_local, snoozed_until, floor_at, handled_local, zone_rules, last_fired_at, fired, \
                 updated_at, ended_at, on_event_after, unless_event_after) \
         WHERE r.id = t.id",
    )
    .bind(rows.iter().map(|row| row.id.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.status.as_str()).collect::<Vec<_>>())
    .bind(times(|row| row.next_fire_at))
    .bind(locals(|row| row.next_local))
    .bind(times(|row| row.snoozed_until))
    .bind(rows.iter().map(|row| row.floor_at).collect::<Vec<_>>())
    .bind(locals(|row| row.handled_local))
    .bind(rows.iter().map(|row| row.zone_rules.as_deref()).collect::<Vec<_>>())
    .bind(times(|row| row.last_fired_at))
    .bind(rows.iter().map(|row| row.fired).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.updated_at).collect::<Vec<_>>())
    .bind(times(|row| row.ended_at))
    .bind(after(|row| row.on_event.as_ref().and_then(|watch| watch.after)))
    .bind(after(|row| row.unless_event.as_ref().and_then(|watch| watch.after)))
    .execute(connection)
    .await?;
    Ok(())
}

/// Of these reminders, those that something cancels which has happened since they wait for it, published or not.
pub(crate) async fn happened_to(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<ReminderId>, Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let happened: Vec<Uuid> = sqlx::query_scalar(
        "SELECT r.id FROM reminders AS r WHERE r.id = ANY ($1) AND r.unless_event_after IS NOT NULL AND EXISTS \
         (SELECT FROM events AS e WHERE e.entity_id = r.unless_event_id AND e.entity_sequence > r.unless_event_after \
          AND e.event_type = r.unless_event_type)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(happened.into_iter().map(ReminderId).collect())
}

/// An event, as far as it concerns who waits for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happening<'a> {
    pub(crate) event_type: &'a str,
    pub(crate) thing: Uuid,
    pub(crate) sequence: i64,
}

/// Reminders that fire or are canceled at this event: up to `limit` of those that come after `after`, in the order of their
/// ids.
pub(crate) async fn waiting_for(
    connection: &mut PgConnection,
    event: Happening<'_>,
    after: Uuid,
    limit: usize,
) -> Result<Vec<Uuid>, Error> {
    let waiting = sqlx::query_scalar(
        "SELECT id FROM reminders WHERE on_event_id = $1 AND on_event_type = $2 AND on_event_after < $3 AND id > $5 \
         UNION SELECT id FROM reminders \
         WHERE status = $4 AND unless_event_id = $1 AND unless_event_type = $2 AND unless_event_after < $3 AND id > $5 \
         ORDER BY id LIMIT $6",
    )
    .bind(event.thing)
    .bind(event.event_type)
    .bind(event.sequence)
    .bind(Status::Scheduled.as_str())
    .bind(after)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX));
    Ok(waiting.fetch_all(connection).await?)
}

/// Those of these accounts that are disabled.
pub(crate) async fn disabled_among(connection: &mut PgConnection, accounts: &[Uuid]) -> Result<HashSet<AccountId>, Error> {
    let disabled: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM accounts WHERE id = ANY ($1) AND disabled_at IS NOT NULL")
        .bind(accounts)
        .fetch_all(connection)
        .await?;
    Ok(disabled.into_iter().map(AccountId).collect())
}

/// Up to `limit` reminders that are scheduled by zone rules before `rules`.
pub(crate) async fn scheduled_by_older_zone_rules(
    connection: &mut PgConnection,
    rules: &str,
    limit: i64,
) -> Result<Vec<Uuid>, Error> {
    let ids = sqlx::query_scalar(
        "SELECT id FROM reminders WHERE status = 'scheduled' AND zone_rules < $1 ORDER BY zone_rules, id LIMIT $2",
    );
    Ok(ids.bind(rules).bind(limit).fetch_all(connection).await?)
}
