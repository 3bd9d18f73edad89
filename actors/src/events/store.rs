//! The tables `events`, `event_sequences`, `outbox` and `processed_events`.

use std::collections::HashSet;

use bowerbird_nats::{
    AccountId, EventId,
    event::{Event, EventType},
};
use sqlx::{PgConnection, Row as _, postgres::PgRow, types::Json};
use uuid::Uuid;

use super::{NewEvent, shard_of};

/// Record a fact in the caller's transaction; gives its place in the life of its thing. It is published some milliseconds
/// after the commit, sooner when somebody rings the [`super::Bell`].
///
/// Until the transaction ends, others that record about the same thing wait: so the sequence is the order of the commits.
/// Record towards the end of a transaction, and about several things always in the same order of things.
pub async fn record(connection: &mut PgConnection, event: NewEvent) -> Result<i64, sqlx::Error> {
    let data = event.data.map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query_scalar(
        "WITH next AS (
             INSERT INTO event_sequences AS s (entity_id, last_sequence, last_recorded_at)
             VALUES ($1, 1, clock_timestamp())
             ON CONFLICT (entity_id) DO UPDATE SET
                 last_sequence = s.last_sequence + 1,
                 last_recorded_at = greatest(clock_timestamp(), s.last_recorded_at + interval '1 microsecond')
             RETURNING last_sequence, last_recorded_at
         ), fact AS (
             INSERT INTO events (recorded_at, id, event_type, account_id, entity_id, entity_sequence, data, traceparent)
             SELECT last_recorded_at, $2, $3, $4, $1, last_sequence, $5, $6 FROM next
         )
         INSERT INTO outbox (event_id, recorded_at, shard)
         SELECT $2, last_recorded_at, $7 FROM next
         RETURNING (SELECT last_sequence FROM next)",
    )
    .bind(event.entity_id)
    .bind(event.id.0)
    .bind(event.event_type.as_str())
    .bind(event.account_id.map(|account| account.0))
    .bind(data)
    .bind(event.traceparent)
    .bind(shard_of(&event.entity_id))
    .fetch_one(connection)
    .await
}

/// Record facts in the caller's transaction, in one statement however many: what [`record`] promises holds for each. Facts
/// of one thing keep the order in which they are given.
///
/// The things are locked in the order of their ids. Call it once in a transaction, towards its end.
pub async fn record_many(connection: &mut PgConnection, events: Vec<NewEvent>) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::default();
    for event in events {
        rows.ids.push(event.id.0);
        rows.event_types.push(event.event_type.as_str().to_owned());
        rows.accounts.push(event.account_id.map(|account| account.0));
        rows.entities.push(event.entity_id);
        rows.data.push(Json(event.data.map_err(|error| sqlx::Error::Encode(error.into()))?));
        rows.traceparents.push(event.traceparent);
        rows.shards.push(shard_of(&event.entity_id));
    }
    sqlx::query(
        "WITH given AS (
             SELECT t.*, row_number() OVER (PARTITION BY entity_id ORDER BY place) AS nth,
                    count(*) OVER (PARTITION BY entity_id) AS of_entity
             FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::jsonb[], $6::text[], $7::smallint[])
                  WITH ORDINALITY AS t (id, event_type, account_id, entity_id, data, traceparent, shard, place)
         ), next AS (
             INSERT INTO event_sequences AS s (entity_id, last_sequence, last_recorded_at)
             SELECT entity_id, of_entity, clock_timestamp() + (of_entity - 1) * interval '1 microsecond'
             FROM given WHERE nth = 1 ORDER BY entity_id
             ON CONFLICT (entity_id) DO UPDATE SET
                 last_sequence = s.last_sequence + excluded.last_sequence,
                 last_recorded_at = greatest(clock_timestamp(), s.last_recorded_at + interval '1 microsecond')
                     + (excluded.last_sequence - 1) * interval '1 microsecond'
             RETURNING entity_id, last_sequence, last_recorded_at
         ), fact AS (
             INSERT INTO events (recorded_at, id, event_type, account_id, entity_id, entity_sequence, data, traceparent)
             SELECT n.last_recorded_at - (g.of_entity - g.nth) * interval '1 microsecond', g.id, g.event_type, g.account_id,
                    g.entity_id, n.last_sequence - g.of_entity + g.nth, g.data, g.traceparent
             FROM given AS g JOIN next AS n USING (entity_id)
         )
         INSERT INTO outbox (event_id, recorded_at, shard)
         SELECT g.id, n.last_recorded_at - (g.of_entity - g.nth) * interval '1 microsecond', g.shard
         FROM given AS g JOIN next AS n USING (entity_id)",
    )
    .bind(rows.ids)
    .bind(rows.event_types)
    .bind(rows.accounts)
    .bind(rows.entities)
    .bind(rows.data)
    .bind(rows.traceparents)
    .bind(rows.shards)
    .execute(connection)
    .await?;
    Ok(())
}

/// Events column by column, as a statement over all of them takes them.
#[derive(Default)]
struct Rows {
    ids: Vec<Uuid>,
    event_types: Vec<String>,
    accounts: Vec<Option<Uuid>>,
    entities: Vec<Uuid>,
    data: Vec<Json<serde_json::Value>>,
    traceparents: Vec<Option<String>>,
    shards: Vec<i16>,
}

/// Whether `consumer` sees this event for the first time. In the transaction of the effect: a second delivery waits for
/// the first to commit and is then told no.
pub async fn first_time(connection: &mut PgConnection, consumer: &str, event: EventId) -> Result<bool, sqlx::Error> {
    let written = sqlx::query("INSERT INTO processed_events (consumer, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(consumer)
        .bind(event.0)
        .execute(connection)
        .await?;
    Ok(written.rows_affected() == 1)
}

/// The event of a row of `events`, all of whose columns were asked for.
pub(crate) fn read(row: &PgRow) -> Result<Event, sqlx::Error> {
    let event_type: EventType =
        row.try_get::<&str, _>("event_type")?.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Event {
        id: EventId(row.try_get("id")?),
        event_type,
        account_id: row.try_get::<Option<Uuid>, _>("account_id")?.map(AccountId),
        entity_id: row.try_get("entity_id")?,
        entity_sequence: row.try_get("entity_sequence")?,
        time: row.try_get("recorded_at")?,
        data: row.try_get("data")?,
        traceparent: row.try_get("traceparent")?,
    })
}

/// Those of these events that `consumer` sees for the first time; otherwise as [`first_time`].
pub async fn first_times(
    connection: &mut PgConnection,
    consumer: &str,
    events: &[EventId],
) -> Result<HashSet<EventId>, sqlx::Error> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.0).collect();
    // In the order of ids, so that two who mark the same events do not wait for each other in a circle.
    let first: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO processed_events (consumer, event_id) SELECT $1, id FROM unnest($2::uuid[]) AS id ORDER BY id
         ON CONFLICT DO NOTHING RETURNING event_id",
    )
    .bind(consumer)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(first.into_iter().map(EventId).collect())
}

#[cfg(test)]
mod tests {
    use bowerbird_lifecycle::IdSource;
    use bowerbird_nats::event::{DOWNLOAD_COMPLETED, DOWNLOAD_QUEUED};
    use bowerbird_testkit::TestDatabase;
    use serde_json::json;

    use super::*;

    fn fact(entity: Uuid) -> NewEvent {
        NewEvent::new(IdSource, DOWNLOAD_QUEUED, None, entity, &json!({"a": 1}))
    }

    #[tokio::test]
    async fn the_sequence_of_a_thing_has_no_gap_and_its_times_rise_whoever_writes() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let entity = IdSource.next();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let pool = pool.clone();
            writers.spawn(async move {
                for turn in 0..5 {
                    let mut transaction = pool.begin().await.unwrap();
                    record(&mut transaction, fact(entity)).await.unwrap();
                    if (writer + turn) % 4 == 0 {
                        transaction.rollback().await.unwrap();
                    } else {
                        transaction.commit().await.unwrap();
                    }
                }
            });
        }
        writers.join_all().await;
        let rows: Vec<(i64, time::OffsetDateTime)> =
            sqlx::query_as("SELECT entity_sequence, recorded_at FROM events WHERE entity_id = $1 ORDER BY entity_sequence")
                .bind(entity)
                .fetch_all(&pool)
                .await
                .unwrap();
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), (1..=30).collect::<Vec<i64>>());
        assert!(rows.is_sorted_by(|earlier, later| earlier.1 < later.1));
        let outbox: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&pool).await.unwrap();
        assert_eq!(outbox, 30);
    }

    #[tokio::test]
    async fn many_at_once_keep_the_order_of_each_thing_and_go_on_where_it_was() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let (old, new) = (IdSource.next(), IdSource.next());
        let mut transaction = pool.begin().await.unwrap();
        assert_eq!(record(&mut transaction, fact(old)).await.unwrap(), 1);
        let many: Vec<NewEvent> = [old, new, old, new, old].map(fact).into();
        let ids: Vec<EventId> = many.iter().map(NewEvent::id).collect();
        record_many(&mut transaction, many).await.unwrap();
        record_many(&mut transaction, Vec::new()).await.unwrap();
        assert_eq!(record(&mut transaction, fact(old)).await.unwrap(), 5);
        transaction.commit().await.unwrap();

        let rows: Vec<(Uuid, i64, Uuid, bool)> = sqlx::query_as(
            "SELECT e.entity_id, e.entity_sequence, e.id,
                    e.recorded_at > lag(e.recorded_at, 1, '-infinity') OVER (PARTITION BY e.entity_id ORDER BY e.entity_sequence)
             FROM events AS e JOIN outbox AS o ON o.event_id = e.id AND o.recorded_at = e.recorded_at
             ORDER BY e.entity_id, e.entity_sequence",
        )
        .fetch_all(&pool)
        .await
        .unwrap();
        assert!(rows.iter().all(|row| row.3), "{rows:?}");
        let of = |entity| rows.iter().filter(move |row| row.0 == entity).map(|row| (row.1, EventId(row.2)));
        assert_eq!(of(new).collect::<Vec<_>>(), [(1, ids[1]), (2, ids[3])]);
        assert_eq!(of(old).skip(1).take(3).collect::<Vec<_>>(), [(2, ids[0]), (3, ids[2]), (4, ids[4])]);
        assert_eq!(of(old).map(|row| row.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn those_who_record_many_of_the_same_things_do_not_wait_in_a_circle() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let things: Vec<Uuid> = (0..50).map(|_| IdSource.next()).collect();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8_usize {
            let (pool, mut things) = (pool.clone(), things.clone());
            things.rotate_left(writer * 7);
            writers.spawn(async move {
                for _ in 0..10 {
                    let mut transaction = pool.begin().await.unwrap();
                    record_many(&mut transaction, things.iter().copied().map(fact).collect()).await.unwrap();
                    transaction.commit().await.unwrap();
                }
            });
        }
        writers.join_all().await;
        let (least, most, events): (i64, i64, i64) =
            sqlx::query_as("SELECT min(last_sequence), max(last_sequence), (SELECT count(*) FROM events) FROM event_sequences")
                .fetch_one(&pool)
                .await
                .unwrap();
        assert_eq!((least, most, events), (80, 80, 4000));
    }

    #[tokio::test]
    async fn ten_thousand_at_once_take_less_time_than_a_second_by_far() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let many: Vec<NewEvent> = (0..10_000).map(|_| fact(IdSource.next())).collect();
        let mut transaction = pool.begin().await.unwrap();
        let started = std::time::Instant::now();
        record_many(&mut transaction, many).await.unwrap();
        transaction.commit().await.unwrap();
        let took = started.elapsed();
        println!("10 000 events recorded in {took:?}");
        // Loose, for machines that are busy; one by one it is some ten times that.
        assert!(took < std::time::Duration::from_secs(3), "{took:?}");
    }

    #[tokio::test]
    async fn a_second_delivery_is_told_apart_from_the_first() {
        let database = TestDatabase::new().await;
        let mut connection = database.pool().acquire().await.unwrap();
        let event = NewEvent::new(IdSource, DOWNLOAD_COMPLETED, None, IdSource.next(), &json!({})).id();
        assert!(first_time(&mut connection, "statistics", event).await.unwrap());
        assert!(!first_time(&mut connection, "statistics", event).await.unwrap());
        assert!(first_time(&mut connection, "inbox", event).await.unwrap());

        let other = NewEvent::new(IdSource, DOWNLOAD_COMPLETED, None, IdSource.next(), &json!({})).id();
        let fresh = first_times(&mut connection, "inbox", &[event, other, other]).await.unwrap();
        assert_eq!(fresh, HashSet::from([other]));
        assert!(first_times(&mut connection, "inbox", &[other]).await.unwrap().is_empty());
        assert!(first_times(&mut connection, "inbox", &[]).await.unwrap().is_empty());
    }
}
