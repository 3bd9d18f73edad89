//! What is refused: kept once with its reason and without credentials, and handed back to the one that refused it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{PATIENCE, bus, completed, outsider};
use async_nats::jetstream;
use bowerbird_nats::{
    Bus, Delivery, Event, Outcome,
    consume::ConsumerSpec,
    dead::{Buried, DeadLetter, Replay},
    topology::{DEAD, EVENTS, REPLAYS},
};
use bowerbird_testkit::{NatsServer, RawNats, eventually};
use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

type Seen<T> = Arc<Mutex<Vec<T>>>;

/// Consumes beside the test, for as long as the tasks live; writes down what comes, and does with it what `judge` says of its number, 1, 2, 3 …
fn consume<T>(bus: &Bus, spec: ConsumerSpec, judge: fn(usize) -> Outcome) -> (JoinSet<()>, Seen<T>)
where
    T: bowerbird_nats::consume::FromMessage + Clone,
{
    let (bus, seen, mut tasks) = (bus.clone(), Seen::<T>::default(), JoinSet::new());
    let noted = Arc::clone(&seen);
    tasks.spawn(async move {
        let handler = move |delivery: Delivery<T>| {
            let mut noted = noted.lock().unwrap();
            noted.push(delivery.message);
            std::future::ready(judge(noted.len()))
        };
        bus.consume(spec, CancellationToken::new(), Arc::new(Semaphore::new(1)), handler).await;
    });
    (tasks, seen)
}

async fn count<T>(seen: &Seen<T>, count: usize) {
    eventually(PATIENCE, &format!("{count} came"), async || (seen.lock().unwrap().len() == count).then_some(())).await;
}

async fn stored(context: &jetstream::Context, stream: &str) -> u64 {
    context.get_stream(stream).await.unwrap().cached_info().state.messages
}

fn back(letter: &Buried) -> Replay<'_> {
    Replay {
        stream: &letter.stream,
        consumer: &letter.consumer,
        subject: &letter.subject,
        headers: &letter.headers,
        body: &letter.body,
    }
}

fn refuse_the_first_two(number: usize) -> Outcome {
    if number <= 2 { Outcome::Refuse { reason: format!("the {number}th\ttime") } } else { Outcome::Done }
}

#[tokio::test]
async fn a_letter_that_is_sent_back_reaches_the_consumer_that_refused_it_and_no_other() {
    let server = NatsServer::start().await;
    let (bus, context) = (bus(&server).await, outsider(&server).await);
    let every = || bus.subjects().every_event();
    let (_picky, by_picky) = consume::<Event>(&bus, bus.event_consumer("picky", every()), refuse_the_first_two);
    let (_other, by_other) = consume::<Event>(&bus, bus.event_consumer("other", every()), |_| Outcome::Done);
    let (_letters, letters) = consume::<Buried>(&bus, bus.dead_consumer("letters"), |_| Outcome::Done);
    let sent = completed(1);
    bus.publish_event(&sent).await.unwrap();
    count(&letters, 1).await;
    let letter = letters.lock().unwrap()[0].clone();
    assert_eq!((letter.stream.as_str(), letter.consumer.as_str(), letter.deliveries), (EVENTS, "picky", 1));
    assert_eq!(letter.reason, "the 1th time");

    // Refused again it is another letter; then it is taken.
    bus.replay(back(&letter)).await.unwrap();
    count(&letters, 2).await;
    let second = letters.lock().unwrap()[1].clone();
    assert_eq!((&second.subject, &second.headers, &second.body), (&letter.subject, &letter.headers, &letter.body));
    assert_ne!(second.message_id, letter.message_id);
    bus.replay(back(&second)).await.unwrap();
    count(&by_picky, 3).await;
    // What comes to everybody still does, and what came back was as it had been sent.
    bus.publish_event(&completed(2)).await.unwrap();
    count(&by_picky, 4).await;
    count(&by_other, 2).await;
    assert_eq!(by_picky.lock().unwrap()[..3], [sent.clone(), sent.clone(), sent]);
    eventually(PATIENCE, "nothing is left to be handed back", async || (stored(&context, REPLAYS).await == 0).then_some(()))
        .await;
    assert_eq!((stored(&context, EVENTS).await, stored(&context, DEAD).await), (2, 2));
}

#[tokio::test]
async fn what_is_no_event_is_refused_once_by_each_and_the_others_go_on() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let (_one, events) = consume::<Event>(&bus, bus.event_consumer("one", bus.subjects().every_event()), |_| Outcome::Done);
    let (_letters, letters) = consume::<Buried>(&bus, bus.dead_consumer("letters"), |_| Outcome::Done);
    let mut raw = RawNats::connect(&server).await;
    raw.publish("bowerbird.v1.evt.what.ever", &[("Authorization", "Bearer secret"), ("X-Kept", "a%20b")], b"\xff\0nonsense")
        .await;
    raw.flush().await;
    bus.publish_event(&completed(1)).await.unwrap();
    count(&letters, 1).await;
    count(&events, 1).await;
    let letter = letters.lock().unwrap()[0].clone();
    assert_eq!((letter.subject.as_str(), &letter.body[..]), ("bowerbird.v1.evt.what.ever", &b"\xff\0nonsense"[..]));
    assert_eq!(letter.headers, [("X-Kept".to_owned(), "a%20b".to_owned())]);
    assert!(!letter.reason.is_empty());
}

#[tokio::test]
async fn a_letter_that_does_not_fit_with_its_reason_is_kept_without_its_body() {
    let server = NatsServer::start_with("max_payload: 2KB").await;
    let bus = bus(&server).await;
    let letter = DeadLetter {
        stream: EVENTS.into(),
        consumer: "one".into(),
        reason: "because of äöü".into(),
        subject: "bowerbird.v1.evt.a.b".into(),
        stream_sequence: 1,
        deliveries: 1,
        stored_at: time::OffsetDateTime::UNIX_EPOCH,
        headers: Vec::new(),
        body: Bytes::from(vec![b'x'; 2000]),
    };
    bus.publish_dead(&letter).await.unwrap();
    let (_letters, letters) = consume::<Buried>(&bus, bus.dead_consumer("letters"), |_| Outcome::Done);
    count(&letters, 1).await;
    let kept = letters.lock().unwrap()[0].clone();
    assert!(kept.body.is_empty() && kept.reason.starts_with("because of äöü (its body"), "{kept:?}");
}

#[tokio::test]
async fn a_letter_is_taken_out_of_its_stream_only_where_it_still_lies() {
    let server = NatsServer::start().await;
    let (bus, context) = (bus(&server).await, outsider(&server).await);
    let mut raw = RawNats::connect(&server).await;
    for body in [b"1", b"2"] {
        raw.publish("bowerbird.v1.dead.EVENTS.one", &[], body).await;
    }
    raw.flush().await;
    eventually(PATIENCE, "both are stored", async || (stored(&context, DEAD).await == 2).then_some(())).await;
    let lies = context.get_stream(DEAD).await.unwrap().get_raw_message(1).await.unwrap().time;
    assert!(!bus.exhume(1, lies + Duration::from_secs(1)).await.unwrap(), "another lies there");
    assert!(bus.exhume(1, lies).await.unwrap());
    assert!(!bus.exhume(1, lies).await.unwrap(), "nothing lies there any more");
    assert_eq!(stored(&context, DEAD).await, 1);
    // What others put there is read as far as it goes.
    let (_letters, letters) = consume::<Buried>(&bus, bus.dead_consumer("letters"), |_| Outcome::Done);
    count(&letters, 1).await;
    let letter = letters.lock().unwrap()[0].clone();
    assert_eq!((letter.stream.as_str(), letter.consumer.as_str(), letter.message_id), (EVENTS, "one", None));
}
