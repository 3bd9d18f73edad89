//! Statistics: whatever is delivered how often, and whoever is killed meanwhile, each event counts once.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{collections::BTreeMap, time::Duration};

use bowerbird_actors::{
    alarms::AlarmsAddress,
    analytics::{Ended, Folder, Rebuilt, rebuild},
    metrics::Meters,
    supervision::{self, Address, ChildSpec, Intensity, Root},
};
use bowerbird_lifecycle::{Clock, IdSource, Metrics};
use bowerbird_testkit::{RawNats, eventually};
use serde_json::{Value, json};
use sqlx::PgPool;
use time::{Date, OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::stand::{PATIENCE, Servers, now, proving};

/// Messages of one atomic batch.
const BATCH: usize = 1000;

/// A process that only counts.
struct Counting {
    address: Address<Ended>,
    root: Root,
}

async fn counting(servers: &Servers) -> Counting {
    let folder = Folder::new(
        servers.database.pool(),
        servers.bus().await,
        Meters::register(&Metrics::default()),
        AlarmsAddress::default(),
    );
    let address = Address::default();
    let often = Intensity { restarts: 1000, within: Duration::from_mins(1) };
    let child = ChildSpec::actor("folder", &address, move || (folder.clone(), ())).tolerated(often);
    Counting { address, root: supervision::start("root", vec![child], Clock::system()).await.unwrap() }
}

/// An event, as the table and the wire have it.
struct Fact {
    id: Uuid,
    account: Option<Uuid>,
    entity: Uuid,
    time: OffsetDateTime,
    event_type: &'static str,
    data: Value,
    bytes: i64,
}

/// Facts of three days, of a few accounts and of none, with and without a size.
fn facts(count: usize) -> Vec<Fact> {
    let accounts: Vec<Uuid> = (0..20).map(|_| IdSource.next()).collect();
    let today = now().date().midnight().assume_utc();
    (0..count)
        .map(|number| {
            let (entity, bytes) = (IdSource.next(), i64::from(rand::random_range(0..1 << 30)));
            let (event_type, data, bytes) = match number % 4 {
                0 => ("download.queued", json!({}), 0),
                1 => ("session.opened", json!({}), 0),
                2 => ("from.the_future", json!([1, 2]), 0),
                _ => ("file.purged", json!({ "file_id": entity, "size_bytes": bytes }), bytes),
            };
            let micros = i64::try_from(number).unwrap();
            Fact {
                id: IdSource.next(),
                account: accounts.get(rand::random_range(0..=accounts.len())).copied(),
                entity,
                time: today - time::Duration::days(rand::random_range(0..3)) + time::Duration::microseconds(micros),
                event_type,
                data,
                bytes,
            }
        })
        .collect()
}

async fn record(pool: &PgPool, facts: &[Fact]) {
    sqlx::query(
        "INSERT INTO events (recorded_at, id, event_type, account_id, entity_id, entity_sequence, data)
         SELECT t, i, k, a, e, 1, d
         FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $6::jsonb[]) AS f (t, i, k, a, e, d)",
    )
    .bind(facts.iter().map(|fact| fact.time).collect::<Vec<_>>())
    .bind(facts.iter().map(|fact| fact.id).collect::<Vec<_>>())
    .bind(facts.iter().map(|fact| fact.event_type).collect::<Vec<_>>())
    .bind(facts.iter().map(|fact| fact.account).collect::<Vec<_>>())
    .bind(facts.iter().map(|fact| fact.entity).collect::<Vec<_>>())
    .bind(facts.iter().map(|fact| fact.data.clone()).collect::<Vec<_>>())
    .execute(pool)
    .await
    .unwrap();
}

/// Stores these as they come, also what was stored before: without message ids, and as batches, so that it does not take
/// a sync for each.
async fn send(servers: &Servers, facts: &[&Fact]) {
    let (mut raw, bus) = (RawNats::connect(&servers.nats).await, servers.bus().await);
    let mut stored = bus.stream_state("EVENTS").await.unwrap().unwrap().last_sequence;
    for batch in facts.chunks(BATCH) {
        let batch_id = IdSource.next().to_string();
        for (number, fact) in batch.iter().enumerate() {
            let (id, entity, number) = (fact.id.to_string(), fact.entity.to_string(), (number + 1).to_string());
            let owner = fact.account.map_or_else(|| "system".to_owned(), |account| account.to_string());
            let (area, _) = fact.event_type.split_once('.').unwrap();
            let (source, time) = (format!("/bowerbird/{area}"), fact.time.format(&Rfc3339).unwrap());
            let mut headers = vec![
                ("ce-specversion", "1.0"),
                ("ce-id", &id),
                ("ce-type", fact.event_type),
                ("ce-source", &source),
                ("ce-time", &time),
                ("ce-subject", &entity),
                ("ce-entitysequence", "1"),
                ("Nats-Batch-Id", &batch_id),
                ("Nats-Batch-Sequence", &number),
            ];
            if fact.account.is_some() {
                headers.push(("ce-accountid", &owner));
            }
            if number == batch.len().to_string() {
                headers.push(("Nats-Batch-Commit", "1"));
            }
            let subject = format!("bowerbird.v1.evt.{}.{owner}.{entity}", fact.event_type);
            raw.publish(&subject, &headers, fact.data.to_string().as_bytes()).await;
        }
        raw.flush().await;
        stored += batch.len() as u64;
        eventually(PATIENCE, "a batch is stored", async || {
            let state = bus.stream_state("EVENTS").await.ok()??;
            (state.last_sequence >= stored).then_some(())
        })
        .await;
    }
}

/// Until everything in the stream was delivered and acknowledged.
async fn all_done(servers: &Servers, patience: Duration) {
    eventually(patience, "everything is counted", async || {
        let mut raw = RawNats::connect(&servers.nats).await;
        let info: Value = serde_json::from_slice(&raw.ask("$JS.API.CONSUMER.INFO.EVENTS.statistics", b"").await).ok()?;
        (info["num_pending"] == 0 && info["num_ack_pending"] == 0).then_some(())
    })
    .await;
}

type Rows = BTreeMap<(Option<Uuid>, Date, String), (i64, i64)>;

fn truth(facts: &[Fact]) -> Rows {
    let mut rows = Rows::new();
    for fact in facts {
        for account in [fact.account.map(Some), Some(None)].into_iter().flatten() {
            let row = rows.entry((account, fact.time.date(), fact.event_type.to_owned())).or_default();
            row.0 += 1;
            row.1 += fact.bytes;
        }
    }
    rows
}

async fn counted(pool: &PgPool) -> Rows {
    let rows: Vec<(Option<Uuid>, Date, String, i64, i64)> = sqlx::query_as(
        "SELECT account_id, day, event_type, events, bytes FROM statistics
         UNION ALL SELECT NULL, day, event_type, events, bytes FROM system_statistics",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    rows.into_iter().map(|(account, day, kind, events, bytes)| ((account, day, kind), (events, bytes))).collect()
}

/// How far two counts are apart, in events and in bytes.
fn difference(one: &Rows, other: &Rows) -> (i64, i64) {
    let keys: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    keys.into_iter().fold((0, 0), |sum, key| {
        let (one, other) = (one.get(key).copied().unwrap_or_default(), other.get(key).copied().unwrap_or_default());
        (sum.0 + (one.0 - other.0).abs(), sum.1 + (one.1 - other.1).abs())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_counts_once_however_often_it_is_delivered_and_whoever_is_killed() {
    let (count, kills) = if proving() { (100_000, 50) } else { (6_000, 4) };
    let servers = Servers::start().await;
    let pool = servers.database.pool();
    let facts = facts(count);
    for some in facts.chunks(5000) {
        record(&pool, some).await;
    }
    let mut deliveries: Vec<&Fact> = facts.iter().flat_map(|fact| std::iter::repeat_n(fact, rand::random_range(1..=5))).collect();
    for index in (1..deliveries.len()).rev() {
        deliveries.swap(index, rand::random_range(0..=index));
    }
    let processes = [counting(&servers).await, counting(&servers).await];
    let addresses = processes.each_ref().map(|process| process.address.clone());
    let began = Instant::now();
    let killing = JoinSet::from_iter([async move {
        let mut killed = 0;
        while killed < kills {
            sleep(Duration::from_millis(250)).await;
            if let Ok(actor) = addresses[killed % 2].get() {
                actor.kill();
                killed += 1;
            }
        }
    }]);
    send(&servers, &deliveries).await;
    let sent_after = began.elapsed();
    killing.join_all().await;
    all_done(&servers, Duration::from_mins(10)).await;
    let took = began.elapsed();
    let (truth, found) = (truth(&facts), counted(&pool).await);
    println!(
        "{count} events, {} deliveries stored in {sent_after:?}, {kills} kills, all counted after {took:?}: difference {:?}",
        deliveries.len(),
        difference(&truth, &found)
    );
    assert_eq!(difference(&truth, &found), (0, 0));

    // Counted anew, also from ruins, and while everything comes once more.
    let again: Vec<&Fact> = facts.iter().step_by(7).collect();
    sqlx::query("UPDATE statistics SET events = events + 3").execute(&pool).await.unwrap();
    sqlx::query("DELETE FROM system_statistics WHERE event_type = 'file.purged'").execute(&pool).await.unwrap();
    let began = Instant::now();
    let ((), rebuilt) = tokio::join!(send(&servers, &again), async { rebuild(&pool).await.unwrap() });
    all_done(&servers, Duration::from_mins(5)).await;
    println!("counted anew in {:?}: difference {:?}", began.elapsed(), difference(&truth, &counted(&pool).await));
    assert_eq!(rebuilt, Rebuilt { days: 3, events: count as u64 });
    assert_eq!(difference(&truth, &counted(&pool).await), (0, 0));
    for process in processes {
        assert!(process.root.stop(PATIENCE).await);
    }
}

#[tokio::test]
async fn owners_see_their_own_statistics_and_administrators_those_of_all() {
    use bowerbird_nats::{
        Code,
        statistics::{GetStatistics, GetSystemStatistics},
    };
    let servers = Servers::start().await;
    let node = servers.node("").await;
    node.register("alice").await;
    node.register("bob").await;
    let (alice, admin) = (node.login("alice").await.access_token, node.administrator("root").await);
    let mine = eventually(PATIENCE, "the session is counted", async || {
        let mine = node.ask_as(&GetStatistics::default(), Some(&alice), None).await.unwrap();
        (mine.total.sessions_opened == 1).then_some(mine)
    })
    .await;
    assert_eq!((mine.days.len(), mine.total.accounts_registered, mine.total.events), (30, 1, 2));
    assert_eq!(mine.days.last().map(|day| (day.day, day.counts)), Some((mine.to, mine.total)));
    let all = eventually(PATIENCE, "all sessions are counted", async || {
        let all = node.ask_as(&GetSystemStatistics::default(), Some(&admin), None).await.unwrap();
        (all.total.sessions_opened == 2 && all.total.accounts_registered >= 2).then_some(all)
    })
    .await;
    assert!(all.total.events >= 4);
    let refused = node.ask_as(&GetSystemStatistics::default(), Some(&alice), None).await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    let far = GetStatistics { from: Some(Date::MIN), to: None };
    assert_eq!(node.ask_as(&far, Some(&alice), None).await.unwrap_err().code, Code::InvalidValue);
}
