//! The tables `events`, `event_sequences`, `outbox` and `processed_events`.

use bowerbird_nats::EventId;
use sqlx::PgConnection;

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

#[cfg(test)]
mod tests {
    use bowerbird_lifecycle::IdSource;
    use bowerbird_nats::event::{DOWNLOAD_COMPLETED, DOWNLOAD_QUEUED};
    use bowerbird_testkit::TestDatabase;
    use serde_json::json;
    use uuid::Uuid;

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
    async fn a_second_delivery_is_told_apart_from_the_first() {
        let database = TestDatabase::new().await;
        let mut connection = database.pool().acquire().await.unwrap();
        let event = NewEvent::new(IdSource, DOWNLOAD_COMPLETED, None, IdSource.next(), &json!({})).id();
        assert!(first_time(&mut connection, "statistics", event).await.unwrap());
        assert!(!first_time(&mut connection, "statistics", event).await.unwrap());
        assert!(first_time(&mut connection, "inbox", event).await.unwrap());
    }
}
