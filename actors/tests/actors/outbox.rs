//! The outbox: what was committed is published, whatever is killed.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use bowerbird_actors::{
    events::{self, Bell, NewEvent},
    metrics::Meters,
    outbox::Outbox,
    supervision::{self, Address, ChildSpec, Intensity, Root},
};
use bowerbird_lifecycle::{Clock, IdSource, Metrics};
use bowerbird_nats::{
    EventId,
    event::{DOWNLOAD_QUEUED, Event},
};
use bowerbird_testkit::{RawNats, eventually};
use serde_json::json;
use sqlx::PgPool;
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

use crate::stand::{Heard, PATIENCE, Servers, now};

/// A process that does nothing but relay.
struct Relay {
    address: Address<bowerbird_actors::outbox::Ended>,
    root: Root,
}

async fn relay(servers: &Servers) -> Relay {
    let meters = Meters::register(&Metrics::default());
    let (pool, bus) = (servers.database.pool(), servers.bus().await);
    let outbox = Outbox::new(pool, bus, Bell::default(), meters);
    let address = Address::default();
    let often = Intensity { restarts: 1000, within: Duration::from_mins(1) };
    let child = ChildSpec::actor("outbox", &address, move || (outbox.clone(), ())).tolerated(often);
    let root = supervision::start("root", vec![child], Clock::system()).await.unwrap();
    Relay { address, root }
}

/// Writes `turns` facts about a few shared things, some of them rolled back, each after a pause at the worst moment.
async fn write(pool: PgPool, things: Vec<Uuid>, writer: usize, turns: usize) -> Vec<EventId> {
    let mut committed = Vec::new();
    for turn in 0..turns {
        let fact = NewEvent::new(
            IdSource,
            DOWNLOAD_QUEUED,
            None,
            things[(writer * 7 + turn) % things.len()],
            &json!({"writer": writer}),
        );
        let id = fact.id();
        let mut transaction = pool.begin().await.unwrap();
        events::record(&mut transaction, fact).await.unwrap();
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..20))).await;
        if turn % 5 == 4 {
            transaction.rollback().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
            committed.push(id);
        }
    }
    committed
}

async fn write_with(servers: &Servers, writers: usize, turns: usize) -> HashSet<EventId> {
    let things: Vec<Uuid> = (0..24).map(|_| IdSource.next()).collect();
    let mut writing = JoinSet::new();
    for writer in 0..writers {
        writing.spawn(write(servers.database.pool(), things.clone(), writer, turns));
    }
    writing.join_all().await.into_iter().flatten().collect()
}

async fn wait_until_empty(pool: &PgPool) {
    eventually(PATIENCE, "the outbox is empty", async || {
        let waiting = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(pool).await;
        matches!(waiting, Ok(0_i64)).then_some(())
    })
    .await;
}

async fn wait_for(heard: &Heard, committed: &HashSet<EventId>) -> Vec<Event> {
    eventually(PATIENCE, "every committed event was heard", async || {
        let events = heard.so_far();
        let ids: HashSet<EventId> = events.iter().map(|event| event.id).collect();
        (ids.len() >= committed.len()).then_some(events)
    })
    .await
}

/// The first time that each event was heard, by thing: 1, 2, 3 …
fn assert_order(events: &[Event]) {
    let mut known = HashSet::new();
    let mut last: HashMap<Uuid, i64> = HashMap::new();
    for event in events.iter().filter(|event| known.insert(event.id)) {
        let before = last.insert(event.entity_id, event.entity_sequence).unwrap_or(0);
        assert_eq!(event.entity_sequence, before + 1, "of {}", event.entity_id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_what_was_committed_though_relays_are_killed_and_nats_restarts() {
    let mut servers = Servers::start().await;
    let relays = [relay(&servers).await, relay(&servers).await];
    let heard = Heard::listen(&servers.bus().await, "test");
    let pool = servers.database.pool();
    let addresses: Vec<_> = relays.iter().map(|relay| relay.address.clone()).collect();
    let killing = JoinSet::from_iter([async move {
        for turn in 0..30 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            if let Ok(actor) = addresses[turn % 2].get() {
                actor.kill();
            }
        }
    }]);
    let (committed, ()) = tokio::join!(
        async {
            let things: Vec<Uuid> = (0..24).map(|_| IdSource.next()).collect();
            let mut writing = JoinSet::new();
            for writer in 0..32 {
                writing.spawn(write(pool.clone(), things.clone(), writer, 60));
            }
            writing.join_all().await.into_iter().flatten().collect::<HashSet<EventId>>()
        },
        async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            servers.nats.restart().await;
        }
    );
    killing.join_all().await;
    wait_until_empty(&pool).await;
    let events = wait_for(&heard, &committed).await;
    let published: HashSet<EventId> = events.iter().map(|event| event.id).collect();
    assert_eq!(published, committed);
    assert_order(&events);
    println!("{} committed, {} heard, {} of them twice", committed.len(), events.len(), events.len() - published.len());
    for relay in relays {
        assert!(relay.root.stop(PATIENCE).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_lost_is_filled_again() {
    let mut servers = Servers::start().await;
    let relay = relay(&servers).await;
    let pool = servers.database.pool();
    let mut committed = write_with(&servers, 8, 20).await;
    wait_until_empty(&pool).await;
    eventually(PATIENCE, "the stream was looked at", async || {
        let marks = sqlx::query_scalar("SELECT count(*) FROM stream_marks WHERE last_sequence > 0").fetch_one(&pool).await;
        matches!(marks, Ok(1_i64)).then_some(())
    })
    .await;

    servers.nats.wipe_jetstream().await;
    committed.extend(write_with(&servers, 8, 20).await);
    let heard = Heard::listen(&servers.bus().await, "test");
    let events = wait_for(&heard, &committed).await;
    assert_eq!(events.iter().map(|event| event.id).collect::<HashSet<_>>(), committed);
    // By thing, what is in the new stream is all of its life.
    let mut lives: BTreeMap<Uuid, HashSet<usize>> = BTreeMap::new();
    for event in &events {
        lives.entry(event.entity_id).or_default().insert(usize::try_from(event.entity_sequence).unwrap());
    }
    assert!(lives.values().all(|life| (1..=life.len()).all(|sequence| life.contains(&sequence))));
    assert!(relay.root.stop(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_again_within_the_duplicate_window_adds_nothing() {
    let servers = Servers::start().await;
    let relay = relay(&servers).await;
    let committed = write_with(&servers, 4, 10).await;
    wait_until_empty(&servers.database.pool()).await;
    let again = bowerbird_actors::outbox::requeue(&servers.database.pool()).await.unwrap();
    assert_eq!(usize::try_from(again).unwrap(), committed.len());
    wait_until_empty(&servers.database.pool()).await;
    let state = servers.bus().await.stream_state("EVENTS").await.unwrap().unwrap();
    assert_eq!(usize::try_from(state.last_sequence).unwrap(), committed.len());
    assert!(relay.root.stop(PATIENCE).await);
}

#[tokio::test]
async fn a_relay_that_stops_publishes_what_waits_and_days_have_partitions() {
    let servers = Servers::start().await;
    let relay = relay(&servers).await;
    let pool = servers.database.pool();
    eventually(PATIENCE, "there are partitions", async || {
        let days =
            sqlx::query_scalar("SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass").fetch_one(&pool).await;
        matches!(days, Ok(9_i64)).then_some(())
    })
    .await;
    let committed = write(pool.clone(), vec![IdSource.next()], 0, 3).await;
    assert!(relay.root.stop(PATIENCE).await);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
    let strays: i64 = sqlx::query_scalar("SELECT count(*) FROM events_default").fetch_one(&pool).await.unwrap();
    assert_eq!((committed.len(), strays), (3, 0));
}

/// Commits so many events of as many things at once.
async fn commit(pool: &PgPool, events: i32) {
    sqlx::query(
        "WITH facts AS (
             INSERT INTO events (recorded_at, id, event_type, entity_id, entity_sequence, data)
             SELECT now() - interval '1 minute' + i * interval '1 microsecond', gen_random_uuid(), 'download.queued',
                    gen_random_uuid(), 1, jsonb_build_object('text', repeat('x', 300))
             FROM generate_series(1, $1) AS i
             RETURNING id, recorded_at, entity_id
         )
         INSERT INTO outbox (event_id, recorded_at, shard)
         SELECT id, recorded_at, get_byte(uuid_send(entity_id), 15) % 16 FROM facts",
    )
    .bind(events)
    .execute(pool)
    .await
    .unwrap();
}

fn an_event(entity_sequence: i64) -> Event {
    Event {
        id: EventId(IdSource.next()),
        event_type: DOWNLOAD_QUEUED,
        account_id: None,
        entity_id: IdSource.next(),
        entity_sequence,
        time: now(),
        data: json!({ "text": "x".repeat(300) }),
        traceparent: None,
    }
}

/// A single copy with every write synced takes about a thousand single messages a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_published_many_times_faster_than_one_sync_for_each_event() {
    let (singly, together) = (3000, 20_000);
    let servers = Servers::start().await;
    let (relay, pool) = (relay(&servers).await, servers.database.pool());
    let mut raw = RawNats::connect(&servers.nats).await;
    let mut per_second = Vec::new();
    for (allowed, events) in [(false, singly), (true, together)] {
        let info: serde_json::Value = serde_json::from_slice(&raw.ask("$JS.API.STREAM.INFO.EVENTS", b"").await).unwrap();
        let mut config = info["config"].clone();
        config["allow_atomic"] = json!(allowed);
        raw.ask("$JS.API.STREAM.UPDATE.EVENTS", config.to_string().as_bytes()).await;
        commit(&pool, events).await;
        let began = Instant::now();
        wait_until_empty(&pool).await;
        per_second.push(f64::from(events) / began.elapsed().as_secs_f64());
    }
    let state = servers.bus().await.stream_state("EVENTS").await.unwrap().unwrap();
    assert_eq!(state.last_sequence, u64::from((singly + together).unsigned_abs()));
    // JetStream's part of it: the same, without PostgreSQL.
    let events: Vec<Event> = (0..together).map(|number| an_event(number.into())).collect();
    let (bus, began) = (servers.bus().await, Instant::now());
    for result in bus.publish_events(&events).await {
        result.unwrap();
    }
    println!(
        "from commit to stored: {:.0} events a second one by one, {:.0} in batches; {:.0} without the database",
        per_second[0],
        per_second[1],
        f64::from(together) / began.elapsed().as_secs_f64()
    );
    assert!(per_second[1] > 2.0 * per_second[0], "{per_second:?}");
    assert!(relay.root.stop(PATIENCE).await);
}
