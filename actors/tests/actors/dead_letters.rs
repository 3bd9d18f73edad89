//! Dead letters: what cannot be handled is kept, holds nobody up, and can be handed back or deleted.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bowerbird_lifecycle::{IdSource, Tasks};
use bowerbird_nats::{
    Bus, Code, EventId, Outcome,
    consume::Delivery,
    dead_letter::{DeadLetter, DeleteDeadLetter, GetDeadLetter, ListDeadLetters, ReplayDeadLetter},
    event::{DOWNLOAD_CANCELED, DOWNLOAD_QUEUED, Event},
};
use bowerbird_testkit::{RawNats, eventually};
use serde_json::json;
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::stand::{Node, PATIENCE, Servers, now, proving};

/// Messages that are sent together, this often: 2 500 a second.
const AT_ONCE: usize = 50;
const EVERY: Duration = Duration::from_millis(20);

/// A consumer of the test's own. Of the good it writes down how late they come, and it refuses the bad as long as it is
/// broken.
#[derive(Clone, Default)]
struct Judge {
    broken: Arc<AtomicBool>,
    late: Arc<Mutex<Vec<Duration>>>,
    bad: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
}

impl Judge {
    /// Under this durable name, until `until`.
    fn consume(&self, bus: &Bus, durable: &'static str, until: CancellationToken) {
        let (judge, bus) = (self.clone(), bus.clone());
        Tasks::default().spawn_detached(async move {
            let spec = bus.event_consumer(durable, bus.subjects().every_event());
            let handler = move |delivery: Delivery<Event>| std::future::ready(judge.judge(&delivery));
            bus.consume(spec, until, Arc::new(Semaphore::new(64)), handler).await;
        });
    }

    fn judge(&self, delivery: &Delivery<Event>) -> Outcome {
        let event_type = &delivery.message.event_type;
        if *event_type == DOWNLOAD_QUEUED {
            let late = now() - delivery.stored_at;
            self.late.lock().unwrap().push(late.try_into().unwrap_or_default());
        } else if *event_type != DOWNLOAD_CANCELED {
            self.others.fetch_add(1, Ordering::SeqCst);
        } else if self.broken.load(Ordering::SeqCst) {
            return Outcome::Refuse { reason: "it is broken".to_owned() };
        } else {
            self.bad.fetch_add(1, Ordering::SeqCst);
        }
        Outcome::Done
    }

    async fn has_seen(&self, good: usize) {
        eventually(Duration::from_mins(3), "all good ones came", async || {
            (self.late.lock().unwrap().len() >= good).then_some(())
        })
        .await;
    }

    fn percentiles(&self) -> (Duration, Duration) {
        let mut late = self.late.lock().unwrap();
        late.sort_unstable();
        (late[late.len() / 2], late[late.len() * 99 / 100])
    }
}

fn event(event_type: bowerbird_nats::EventType) -> Event {
    Event {
        id: EventId(IdSource.next()),
        event_type,
        account_id: None,
        entity_id: IdSource.next(),
        entity_sequence: 1,
        time: now(),
        data: json!({ "kid": "a", "text": "x".repeat(200) }),
        traceparent: None,
    }
}

/// Sends `good` good ones at an even pace, and as many bad ones and as much nonsense among them; the ids of the bad and
/// the bodies of the nonsense.
async fn send(servers: &Servers, bus: &Bus, good: usize, bad: usize, nonsense: usize) -> (BTreeSet<Uuid>, BTreeSet<Vec<u8>>) {
    let mut raw = RawNats::connect(&servers.nats).await;
    let (mut ids, mut bodies) = (BTreeSet::new(), BTreeSet::new());
    let rounds = good / AT_ONCE;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for round in 0..rounds {
        ticks.tick().await;
        let mut events: Vec<Event> = (0..AT_ONCE).map(|_| event(DOWNLOAD_QUEUED)).collect();
        // So many by now, spread evenly.
        while ids.len() < bad * (round + 1) / rounds {
            let bad = event(DOWNLOAD_CANCELED);
            ids.insert(bad.id.0);
            events.insert(AT_ONCE / 2, bad);
        }
        for result in bus.publish_events(&events).await {
            result.unwrap();
        }
        while bodies.len() < nonsense * (round + 1) / rounds {
            let body = IdSource.next().to_string().into_bytes();
            raw.publish("bowerbird.v1.evt.what.ever.is.this", &[("Authorization", "Bearer secret")], &body).await;
            bodies.insert(body);
        }
        raw.flush().await;
    }
    (ids, bodies)
}

async fn letters(node: &Node, admin: &str, consumer: &str) -> Vec<DeadLetter> {
    let (mut letters, mut cursor) = (Vec::new(), None);
    loop {
        let list = ListDeadLetters { stream: Some("EVENTS".into()), consumer: Some(consumer.into()), limit: Some(200), cursor };
        let page = node.ask_as(&list, Some(admin), None).await.unwrap();
        letters.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return letters;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_poison_and_nothing_else_is_refused_and_holds_nobody_up_and_can_be_handed_back() {
    let good = if proving() { 99_000 } else { 4_950 };
    let each = good / 198;
    let servers = Servers::start().await;
    let node = servers.node("").await;
    let admin = node.administrator("root").await;

    // First without poison, then with as much as one message in a hundred.
    let (clean, stop) = (Judge::default(), CancellationToken::new());
    clean.consume(&node.bus, "clean", stop.clone());
    send(&servers, &node.bus, good, 0, 0).await;
    clean.has_seen(good).await;
    stop.cancel();
    let judge = Judge::default();
    judge.broken.store(true, Ordering::SeqCst);
    let until = CancellationToken::new();
    judge.consume(&node.bus, "judge", until.clone());
    judge.has_seen(good).await;
    judge.late.lock().unwrap().clear();
    let (bad, nonsense) = send(&servers, &node.bus, good, each, each).await;
    judge.has_seen(good).await;

    let refused = eventually(PATIENCE, "every letter is written down", async || {
        let refused = letters(&node, &admin, "judge").await;
        (refused.len() >= 2 * each).then_some(refused)
    })
    .await;
    let ((clean_p50, clean_p99), (p50, p99)) = (clean.percentiles(), judge.percentiles());
    println!(
        "{good} good, {} poison: p50 {clean_p50:?} without, {p50:?} with; p99 {clean_p99:?} without, {p99:?} with",
        2 * each
    );
    // Exactly the poison.
    let (mut broken, mut found_bad, mut found_nonsense) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for letter in refused {
        let content: (Vec<u8>, serde_json::Value) = sqlx::query_as("SELECT payload, headers FROM dead_letters WHERE id = $1")
            .bind(letter.id.0)
            .fetch_one(&node.pool)
            .await
            .unwrap();
        assert!(!content.1.to_string().contains("secret"), "{}", content.1);
        if letter.reason == "it is broken" {
            let ce_id = content.1.as_array().unwrap().iter().find(|header| header[0] == "ce-id").unwrap()[1].clone();
            found_bad.insert(ce_id.as_str().unwrap().parse().unwrap());
            broken.push(letter);
        } else {
            found_nonsense.insert(content.0);
        }
    }
    assert_eq!((found_bad, found_nonsense), (bad, nonsense));
    assert!(p99 < (clean_p99 * 3).max(clean_p99 + Duration::from_millis(100)), "{clean_p99:?} without, {p99:?} with");

    // What is handed back is handled by the one that refused it, once, and comes to nobody else.
    let others = judge.others.load(Ordering::SeqCst);
    let before = node.bus.stream_state("EVENTS").await.unwrap().unwrap().last_sequence;
    judge.broken.store(false, Ordering::SeqCst);
    let began = Instant::now();
    let mut again = 0;
    for letter in &broken {
        // On a machine that is busy with other things there may be no room for a moment: asked again, as the answer says.
        let replayed = eventually(PATIENCE, "it is handed back", async || {
            match node.ask_as(&ReplayDeadLetter { id: letter.id }, Some(&admin), None).await {
                Ok(letter) => Some(letter),
                Err(problem) if problem.code == Code::Unavailable => {
                    again += 1;
                    None
                }
                Err(problem) => panic!("{problem:?}"),
            }
        })
        .await;
        assert!(replayed.replayed_at.is_some());
    }
    eventually(PATIENCE, "all were handled", async || (judge.bad.load(Ordering::SeqCst) >= each).then_some(())).await;
    println!("{} handed back, {again} asked again, and handled in {:?}", broken.len(), began.elapsed());
    // An answer that did not come may have been sent all the same; else each is handled once.
    let handled = judge.bad.load(Ordering::SeqCst);
    assert!((each..=each + again).contains(&handled), "{handled} of {each}, {again} asked again");
    assert_eq!(judge.others.load(Ordering::SeqCst), others);
    assert_eq!(node.bus.stream_state("EVENTS").await.unwrap().unwrap().last_sequence, before);
    until.cancel();
}

#[tokio::test]
async fn administrators_look_at_a_letter_delete_it_and_others_do_not() {
    let servers = Servers::start().await;
    let node = servers.node("").await;
    node.register("alice").await;
    let (alice, admin) = (node.login("alice").await.access_token, node.administrator("root").await);
    let mut raw = RawNats::connect(&servers.nats).await;
    raw.publish("bowerbird.v1.evt.what.ever", &[("x-one", "1"), ("Authorization", "Bearer secret")], b"no \xff event").await;
    raw.flush().await;
    let letter = eventually(PATIENCE, "the letter is there", async || letters(&node, &admin, "statistics").await.pop()).await;
    assert_eq!((letter.subject.as_str(), letter.size_bytes, letter.deliveries), ("bowerbird.v1.evt.what.ever", 10, 1));
    assert!(letter.replayed_at.is_none() && !letter.reason.is_empty());

    let opened = node.ask_as(&GetDeadLetter { id: letter.id }, Some(&admin), None).await.unwrap();
    assert_eq!((&opened.letter, opened.body_base64.as_str()), (&letter, "bm8g/yBldmVudA=="));
    assert_eq!(opened.headers.iter().map(|header| header.name.as_str()).collect::<Vec<_>>(), ["x-one"]);
    for problem in [
        node.ask_as(&ListDeadLetters::default(), Some(&alice), None).await.unwrap_err(),
        node.ask_as(&GetDeadLetter { id: letter.id }, Some(&alice), None).await.unwrap_err(),
        node.ask_as(&ReplayDeadLetter { id: letter.id }, Some(&alice), None).await.unwrap_err(),
        node.ask_as(&DeleteDeadLetter { id: letter.id }, Some(&alice), None).await.unwrap_err(),
    ] {
        assert_eq!(problem.code, Code::Forbidden);
    }

    // Refused again it is another letter.
    node.ask_as(&ReplayDeadLetter { id: letter.id }, Some(&admin), None).await.unwrap();
    eventually(PATIENCE, "it was refused again", async || (letters(&node, &admin, "statistics").await.len() == 2).then_some(()))
        .await;
    // Two were written down, and one of them was never sent back.
    for line in ["dead_letters_total{consumer=\"statistics\"} 2", "dead_letters_waiting{consumer=\"statistics\"} 1"] {
        eventually(PATIENCE, line, async || node.metrics.encode().contains(line).then_some(())).await;
    }

    let lies = async || {
        let info: serde_json::Value =
            serde_json::from_slice(&RawNats::connect(&servers.nats).await.ask("$JS.API.STREAM.INFO.DEAD", b"").await).unwrap();
        info["state"]["messages"].as_u64().unwrap()
    };
    let before = lies().await;
    node.ask_as(&DeleteDeadLetter { id: letter.id }, Some(&admin), None).await.unwrap();
    assert_eq!((lies().await, letters(&node, &admin, "statistics").await.len()), (before - 1, 1));
    let gone = node.ask_as(&DeleteDeadLetter { id: letter.id }, Some(&admin), None).await.unwrap_err();
    assert_eq!(gone.code, Code::NotFound);
    let gone = node.ask_as(&ReplayDeadLetter { id: letter.id }, Some(&admin), None).await.unwrap_err();
    assert_eq!(gone.code, Code::NotFound);
}
