//! Counting days anew from the table of events: when an operator asks for it, and for the last time before the events of a
//! day are dropped.
//!
//! One day at a time, alone: nobody counts what comes in until the day is written. What was recorded by then is in the day
//! and marked as counted, so that it is not counted again when it comes in; what is recorded later comes in later.

use sqlx::PgPool;
use time::Date;
use tracing::{info, warn};

use super::{
    counted::{Counted, Sums},
    store,
};

/// What was counted anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Days that were counted anew. Those whose events are gone keep what was counted of them.
    pub days: u64,
    /// Events on them.
    pub events: u64,
}

/// Count every day anew whose events are still there. Safe while everything runs.
pub async fn rebuild(pool: &PgPool) -> Result<Rebuilt, sqlx::Error> {
    let mut rebuilt = Rebuilt::default();
    for day in store::open_days(pool).await? {
        rebuilt.events += count_anew(pool, day, false).await?;
        rebuilt.days += 1;
    }
    info!(days = rebuilt.days, events = rebuilt.events, "the statistics were counted anew");
    Ok(rebuilt)
}

/// Count a day for the last time, before its events are dropped. From here on its statistics are all that is left of it.
pub(crate) async fn close(pool: &PgPool, day: Date) -> Result<(), sqlx::Error> {
    let events = count_anew(pool, day, true).await?;
    info!(%day, events, "the statistics of a day were closed");
    Ok(())
}

async fn count_anew(pool: &PgPool, day: Date, closing: bool) -> Result<u64, sqlx::Error> {
    let mut lock = pool.begin().await?;
    store::alone(&mut lock).await?;
    // Begun under the lock, so that everything that anybody has counted is seen.
    let mut transaction = pool.begin().await?;
    store::one_moment(&mut transaction).await?;
    let is_open = if closing {
        store::close(&mut transaction, day).await?
    } else {
        store::closed_among(&mut transaction, &[day]).await?.is_empty()
    };
    if !is_open {
        return Ok(0);
    }
    let (mut sums, mut not_counted) = (Sums::default(), 0_u64);
    let events = store::events_of(&mut transaction, day, |event| match Counted::of(event) {
        Ok(counted) => sums.add(&counted),
        // Refused when it comes in, too.
        Err(_reason) => not_counted += 1,
    })
    .await?;
    if not_counted > 0 {
        warn!(%day, events = not_counted, "some events do not say what their type says, and are not counted");
    }
    store::clear(&mut transaction, day).await?;
    store::add(&mut transaction, &sums).await?;
    store::mark_day(&mut transaction, day).await?;
    transaction.commit().await?;
    lock.rollback().await?;
    Ok(events)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bowerbird_lifecycle::IdSource;
    use bowerbird_nats::{
        AccountId, EventId,
        event::{DOWNLOAD_QUEUED, FILE_PURGED},
    };
    use bowerbird_testkit::TestDatabase;
    use serde_json::json;
    use time::Duration;
    use tokio::task::JoinSet;
    use uuid::Uuid;

    use super::*;
    use crate::analytics::folder::fold;

    type Rows = BTreeMap<(Option<Uuid>, Date, String), (i64, i64)>;

    /// Everything that is counted.
    async fn rows(pool: &PgPool) -> Rows {
        let rows: Vec<(Option<Uuid>, Date, String, i64, i64)> = sqlx::query_as(
            "SELECT account_id, day, event_type, events, bytes FROM statistics
             UNION ALL SELECT NULL, day, event_type, events, bytes FROM system_statistics",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        rows.into_iter().map(|(account, day, kind, events, bytes)| ((account, day, kind), (events, bytes))).collect()
    }

    /// What is to be counted of these.
    fn truth(counted: &[Counted]) -> Rows {
        let mut rows = Rows::new();
        for one in counted {
            for account in [one.account_id.map(|account| Some(account.0)), Some(None)].into_iter().flatten() {
                let row = rows.entry((account, one.day, one.event_type.as_str().to_owned())).or_default();
                row.0 += 1;
                row.1 += one.bytes;
            }
        }
        rows
    }

    /// Records `count` events of a few accounts, so many days ago.
    async fn record(pool: &PgPool, days_ago: i64, count: usize) -> Vec<Counted> {
        let accounts: Vec<Option<AccountId>> =
            (0..5).map(|number| (number > 0).then(|| AccountId(Uuid::from_u128(number)))).collect();
        let day = store::today(pool).await.unwrap() - Duration::days(days_ago);
        let mut recorded = Vec::new();
        for number in 0..count {
            let bytes = i64::try_from(number % 3 * 10).unwrap();
            let (event_type, data) = if bytes > 0 {
                (FILE_PURGED, json!({ "file_id": IdSource.next(), "size_bytes": bytes }))
            } else {
                (DOWNLOAD_QUEUED, json!({}))
            };
            let counted = Counted {
                event_id: EventId(IdSource.next()),
                account_id: accounts[number % accounts.len()],
                day,
                event_type,
                bytes,
            };
            sqlx::query(
                "INSERT INTO events (recorded_at, id, event_type, account_id, entity_id, entity_sequence, data)
                 VALUES ($1, $2, $3, $4, $2, 1, $5)",
            )
            .bind(day.midnight().assume_utc() + Duration::microseconds(i64::try_from(number).unwrap()))
            .bind(counted.event_id.0)
            .bind(counted.event_type.as_str())
            .bind(counted.account_id.map(|account| account.0))
            .bind(data)
            .execute(pool)
            .await
            .unwrap();
            recorded.push(counted);
        }
        recorded
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_counted_from_many_sides_and_anew_meanwhile_is_counted_once() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let mut recorded = record(&pool, 0, 300).await;
        recorded.extend(record(&pool, 1, 300).await);
        let mut sides = JoinSet::new();
        for side in 0..4 {
            let (pool, mut recorded) = (pool.clone(), recorded.clone());
            sides.spawn(async move {
                // Each side hears everything, in an order of its own.
                recorded.rotate_left(side * 150);
                for batch in recorded.chunks(37) {
                    fold(&pool, [batch, &batch[..5.min(batch.len())]].concat()).await.unwrap();
                }
            });
        }
        let rebuilding = pool.clone();
        sides.spawn(async move {
            for _ in 0..5 {
                rebuild(&rebuilding).await.unwrap();
            }
        });
        while let Some(side) = sides.join_next().await {
            side.unwrap();
        }
        assert_eq!(rows(&pool).await, truth(&recorded));
    }

    #[tokio::test]
    async fn statistics_that_were_lost_or_spoilt_are_made_again() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let recorded = record(&pool, 0, 50).await;
        fold(&pool, recorded.clone()).await.unwrap();
        for spoiling in
            ["UPDATE statistics SET events = events + 1", "DELETE FROM system_statistics", "DELETE FROM processed_events"]
        {
            sqlx::query(spoiling).execute(&pool).await.unwrap();
            assert_eq!(rebuild(&pool).await.unwrap(), Rebuilt { days: 1, events: 50 });
            assert_eq!(rows(&pool).await, truth(&recorded), "{spoiling}");
        }
        // What comes again is recognised, although this process never counted it.
        assert_eq!(fold(&pool, recorded.clone()).await.unwrap(), 0);
        assert_eq!(rows(&pool).await, truth(&recorded));
    }

    #[tokio::test]
    async fn a_closed_day_holds_every_event_of_it_and_outlives_them() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let old = record(&pool, 91, 40).await;
        let new = record(&pool, 0, 40).await;
        // Some came in before the day was closed, the others come after it.
        fold(&pool, old[..10].to_vec()).await.unwrap();
        close(&pool, old[0].day).await.unwrap();
        sqlx::query("DELETE FROM events WHERE recorded_at < now() - interval '2 days'").execute(&pool).await.unwrap();
        assert_eq!(fold(&pool, [old.clone(), new.clone()].concat()).await.unwrap(), 40);
        let all = truth(&[old.clone(), new].concat());
        assert_eq!(rows(&pool).await, all);
        sqlx::query("DELETE FROM processed_events").execute(&pool).await.unwrap();
        assert_eq!(rebuild(&pool).await.unwrap(), Rebuilt { days: 1, events: 40 });
        close(&pool, old[0].day).await.unwrap();
        assert_eq!(rows(&pool).await, all);
    }

    #[tokio::test]
    async fn an_event_that_does_not_say_its_size_is_left_out_also_when_counted_anew() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let recorded = record(&pool, 0, 10).await;
        sqlx::query("UPDATE events SET data = '{}' WHERE id = $1").bind(recorded[1].event_id.0).execute(&pool).await.unwrap();
        rebuild(&pool).await.unwrap();
        let without: Vec<Counted> = recorded.iter().enumerate().filter(|(n, _)| *n != 1).map(|(_, one)| one.clone()).collect();
        assert_eq!(rows(&pool).await, truth(&without));
    }
}
