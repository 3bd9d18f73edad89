//! Consuming from a real server, and what happens when it or what it holds goes away.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{PATIENCE, an_event, bus, completed, id, outsider};
use async_nats::jetstream::consumer::pull;
use bowerbird_nats::{
    AccountId, Bus, Delivery, Event, Outcome, WorkKind,
    consume::{AckError, ConsumerSpec, FromMessage},
    download::Work,
    envelope, event,
    topology::{DEAD, DOWNLOADS, EVENTS},
};
use bowerbird_testkit::{NatsServer, eventually};
use futures_util::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A consumer that runs beside the test.
struct Running {
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Running {
    fn start<T, F, Fut>(bus: &Bus, spec: ConsumerSpec, permits: Arc<Semaphore>, handler: F) -> Running
    where
        T: FromMessage + Sync,
        F: Fn(Delivery<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let (bus, shutdown, mut tasks) = (bus.clone(), CancellationToken::new(), JoinSet::new());
        let stop = shutdown.clone();
        tasks.spawn(async move { bus.consume(spec, stop, permits, handler).await });
        Running { tasks, shutdown }
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), async { while self.tasks.join_next().await.is_some() {} })
            .await
            .expect("a consumer ends when it is told to");
    }
}

fn permits(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count))
}

type Seen = Arc<Mutex<Vec<i64>>>;

/// Writes down the sequence of each event.
fn noting(seen: &Seen) -> impl Fn(Delivery<Event>) -> std::future::Ready<Outcome> + Send + Sync + use<> {
    let seen = Arc::clone(seen);
    move |delivery: Delivery<Event>| {
        seen.lock().unwrap().push(delivery.message.entity_sequence);
        std::future::ready(Outcome::Done)
    }
}

async fn sees(seen: &Seen, sequence: i64) {
    eventually(PATIENCE, &format!("event {sequence} is consumed"), async || {
        seen.lock().unwrap().contains(&sequence).then_some(())
    })
    .await;
}

fn everything(bus: &Bus) -> ConsumerSpec {
    bus.event_consumer("test", bus.subjects().every_event())
}

async fn stored(server: &NatsServer, stream: &str) -> u64 {
    outsider(server).await.get_stream(stream).await.unwrap().cached_info().state.messages
}

#[tokio::test]
async fn an_event_arrives_as_it_was_published_and_once() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let sent = completed(1);
    bus.publish_event(&sent).await.unwrap();
    let got: Arc<Mutex<Vec<Event>>> = Arc::default();
    let noted = Arc::clone(&got);
    let running = Running::start(&bus, everything(&bus), permits(4), move |delivery: Delivery<Event>| {
        noted.lock().unwrap().push(delivery.message);
        std::future::ready(Outcome::Done)
    });
    let other = an_event(event::FILE_AVAILABLE, id(), 2);
    bus.publish_event(&other).await.unwrap();
    eventually(PATIENCE, "both arrive", async || (got.lock().unwrap().len() == 2).then_some(())).await;
    running.stop().await;
    assert_eq!(*got.lock().unwrap(), [sent, other]);
    let mut consumer: async_nats::jetstream::consumer::Consumer<pull::Config> =
        outsider(&server).await.get_consumer_from_stream("test", EVENTS).await.unwrap();
    let info = consumer.info().await.unwrap();
    assert_eq!((info.num_ack_pending, info.num_pending, info.num_redelivered), (0, 0, 0));
}

#[tokio::test]
async fn no_more_messages_are_taken_than_there_are_permits() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    for number in 0..20 {
        bus.publish_work(WorkKind::Downloads, &id(), number).await.unwrap();
    }
    let kept: Arc<Mutex<Vec<OwnedSemaphorePermit>>> = Arc::default();
    let (hold, taken) = (Arc::clone(&kept), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&taken);
    let running = Running::start(&bus, bus.work_consumer(WorkKind::Downloads), permits(3), move |delivery: Delivery<Work>| {
        let (hold, count) = (Arc::clone(&hold), Arc::clone(&count));
        async move {
            delivery.ack_now().await.unwrap();
            hold.lock().unwrap().push(delivery.take_permit().unwrap());
            count.fetch_add(1, Ordering::SeqCst);
            Outcome::Done
        }
    });
    eventually(PATIENCE, "three are taken", async || (taken.load(Ordering::SeqCst) == 3).then_some(())).await;
    assert_eq!(stored(&server, DOWNLOADS).await, 17, "three were acknowledged and left the queue, the others wait there");
    let pending = |server: &NatsServer| {
        let url = server.url();
        async move {
            let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
            let mut consumer: async_nats::jetstream::consumer::Consumer<pull::Config> =
                context.get_consumer_from_stream("downloads", DOWNLOADS).await.unwrap();
            consumer.info().await.unwrap().num_ack_pending
        }
    };
    assert_eq!(pending(&server).await, 0, "nothing is taken ahead");
    kept.lock().unwrap().pop();
    eventually(PATIENCE, "a permit that is given back brings one more", async || {
        (taken.load(Ordering::SeqCst) == 4).then_some(())
    })
    .await;
    assert_eq!(stored(&server, DOWNLOADS).await, 16);
    running.stop().await;
}

#[tokio::test]
async fn a_refused_message_lies_among_the_dead_with_its_reason_and_is_gone_from_the_queue() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let download = id();
    let running = Running::start(&bus, bus.work_consumer(WorkKind::Downloads), permits(2), |_: Delivery<Work>| {
        std::future::ready(Outcome::Refuse { reason: "the row is \"gone\"\r\nfor good".to_owned() })
    });
    bus.publish_work(WorkKind::Downloads, &download, 3).await.unwrap();
    eventually(PATIENCE, "it is among the dead", async || (stored(&server, DEAD).await == 1).then_some(())).await;
    eventually(PATIENCE, "it left the queue", async || (stored(&server, DOWNLOADS).await == 0).then_some(())).await;
    running.stop().await;

    let letter = outsider(&server).await.get_stream(DEAD).await.unwrap().get_raw_message(1).await.unwrap();
    let header = |name: &str| envelope::percent_decode(letter.headers.get(name).unwrap().as_str()).into_owned();
    assert_eq!(letter.subject.as_str(), "bowerbird.v1.dead.DOWNLOADS.downloads");
    assert_eq!(header(envelope::DEAD_REASON), "the row is \"gone\"  for good");
    assert_eq!(header(envelope::DEAD_SUBJECT), format!("bowerbird.v1.work.download.{download}.3"));
    assert_eq!((header(envelope::DEAD_STREAM), header(envelope::DEAD_SEQUENCE)), ("DOWNLOADS".into(), "1".into()));
    let body: Work = serde_json::from_slice(&letter.payload).unwrap();
    assert_eq!((body.download_id.0, body.dispatch_no), (download, 3));
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_refused_and_the_next_is_handled() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let stranger = outsider(&server).await;
    let subject = format!("bowerbird.v1.evt.download.completed.system.{}", id());
    stranger.publish(subject, "not an event".into()).await.unwrap().await.unwrap();
    let seen = Seen::default();
    let running = Running::start(&bus, everything(&bus), permits(1), noting(&seen));
    bus.publish_event(&completed(5)).await.unwrap();
    sees(&seen, 5).await;
    eventually(PATIENCE, "it is among the dead", async || (stored(&server, DEAD).await == 1).then_some(())).await;
    running.stop().await;
    let letter = stranger.get_stream(DEAD).await.unwrap().get_raw_message(1).await.unwrap();
    let reason = envelope::percent_decode(letter.headers.get(envelope::DEAD_REASON).unwrap().as_str()).into_owned();
    assert_eq!(reason, "the header ce-type is missing");
}

#[tokio::test]
async fn a_retry_comes_again_after_its_time_and_not_for_ever() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let spec = ConsumerSpec { max_deliveries: 3, ..everything(&bus) };
    let running = Running::start(&bus, spec, permits(1), move |delivery: Delivery<Event>| {
        assert_eq!(delivery.deliveries, i64::try_from(count.fetch_add(1, Ordering::SeqCst)).unwrap() + 1);
        std::future::ready(Outcome::Retry { after: Duration::from_millis(200) })
    });
    let began = tokio::time::Instant::now();
    bus.publish_event(&completed(1)).await.unwrap();
    eventually(PATIENCE, "it is given up", async || (stored(&server, DEAD).await == 1).then_some(())).await;
    assert!(began.elapsed() >= Duration::from_millis(400), "twice 200 ms lie between three tries");
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    running.stop().await;
}

#[tokio::test]
async fn an_outage_of_what_a_handler_stands_on_uses_up_no_delivery_and_a_stop_hands_the_message_back() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    // Shorter than the outage: the server is told that the message is worked on.
    let spec = || ConsumerSpec { max_deliveries: 2, ack_wait: Duration::from_secs(1), ..everything(&bus) };
    let running = Running::start(&bus, spec(), permits(1), move |delivery: Delivery<Event>| {
        assert_eq!(delivery.deliveries, 1);
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Outcome::Later { after: Duration::from_millis(50) })
    });
    bus.publish_event(&completed(1)).await.unwrap();
    eventually(PATIENCE, "it is tried for longer than one delivery lasts", async || {
        (tries.load(Ordering::SeqCst) >= 40).then_some(())
    })
    .await;
    running.stop().await;
    assert_eq!(stored(&server, DEAD).await, 0);
    let seen = Seen::default();
    let running = Running::start(&bus, spec(), permits(1), noting(&seen));
    sees(&seen, 1).await;
    running.stop().await;
    assert_eq!(stored(&server, DEAD).await, 0);
}

#[tokio::test]
async fn a_message_that_kills_every_handler_is_put_among_the_dead_unread() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let spec = ConsumerSpec { max_deliveries: 1, ..everything(&bus) };
    let running = Running::start(&bus, spec, permits(1), move |_: Delivery<Event>| {
        count.fetch_add(1, Ordering::SeqCst);
        async { panic!("poison") }
    });
    bus.publish_event(&completed(1)).await.unwrap();
    eventually(PATIENCE, "it is among the dead", async || (stored(&server, DEAD).await == 1).then_some(())).await;
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_consumer_that_is_deleted_under_a_running_consume_is_made_again() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let seen = Seen::default();
    let running = Running::start(&bus, everything(&bus), permits(4), noting(&seen));
    bus.publish_event(&completed(1)).await.unwrap();
    sees(&seen, 1).await;
    outsider(&server).await.delete_consumer_from_stream("test", EVENTS).await.unwrap();
    bus.publish_event(&completed(2)).await.unwrap();
    sees(&seen, 2).await;
    running.stop().await;
}

#[tokio::test]
async fn a_wiped_jetstream_is_furnished_again_and_messages_flow() {
    let mut server = NatsServer::start().await;
    let bus = bus(&server).await;
    let seen = Seen::default();
    let running = Running::start(&bus, everything(&bus), permits(4), noting(&seen));
    bus.publish_event(&completed(1)).await.unwrap();
    sees(&seen, 1).await;
    server.wipe_jetstream().await;
    bus.publish_event(&completed(2)).await.unwrap();
    sees(&seen, 2).await;
    running.stop().await;
    assert_eq!(stored(&server, DOWNLOADS).await, 0, "the other streams are there again as well");
}

#[tokio::test]
async fn a_killed_server_costs_no_message() {
    let mut server = NatsServer::start().await;
    let bus = bus(&server).await;
    let seen = Seen::default();
    let running = Running::start(&bus, everything(&bus), permits(4), noting(&seen));
    for sequence in 0..3 {
        bus.publish_event(&completed(sequence * 2)).await.unwrap();
        sees(&seen, sequence * 2).await;
        server.kill9();
        let (bus, late) = (bus.clone(), completed(sequence * 2 + 1));
        let mut publishing = JoinSet::new();
        publishing.spawn(async move { bus.publish_event(&late).await });
        server.restart().await;
        publishing.join_next().await.unwrap().unwrap().unwrap();
        sees(&seen, sequence * 2 + 1).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_frozen_server_costs_no_message() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let seen = Seen::default();
    let running = Running::start(&bus, everything(&bus), permits(4), noting(&seen));
    bus.publish_event(&completed(1)).await.unwrap();
    sees(&seen, 1).await;
    server.freeze();
    // Longer than the heartbeats that are missed meanwhile.
    tokio::time::sleep(Duration::from_secs(6)).await;
    server.thaw();
    bus.publish_event(&completed(2)).await.unwrap();
    sees(&seen, 2).await;
    running.stop().await;
}

#[tokio::test]
async fn an_acknowledgement_to_a_deleted_consumer_is_an_error() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let result: Arc<Mutex<Option<Result<(), AckError>>>> = Arc::default();
    let (told, url) = (Arc::clone(&result), server.url());
    let running = Running::start(&bus, everything(&bus), permits(1), move |delivery: Delivery<Event>| {
        let (told, url) = (Arc::clone(&told), url.clone());
        async move {
            if told.lock().unwrap().is_none() {
                let stranger = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
                stranger.delete_consumer_from_stream("test", EVENTS).await.unwrap();
                let acknowledged = delivery.ack_now().await;
                *told.lock().unwrap() = Some(acknowledged);
            }
            Outcome::Done
        }
    });
    bus.publish_event(&completed(1)).await.unwrap();
    let told = eventually(PATIENCE, "the acknowledgement is answered", async || *result.lock().unwrap()).await;
    assert_eq!(told, Err(AckError::Gone));
    running.stop().await;
}

#[tokio::test]
async fn stopping_waits_for_the_handlers_and_hands_back_nothing_twice() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    for sequence in 0..8 {
        bus.publish_event(&completed(sequence)).await.unwrap();
    }
    let (started, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (begin, end) = (Arc::clone(&started), Arc::clone(&ended));
    let go = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&go);
    let running = Running::start(&bus, everything(&bus), permits(2), move |_: Delivery<Event>| {
        let (begin, end, gate) = (Arc::clone(&begin), Arc::clone(&end), Arc::clone(&gate));
        async move {
            begin.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            end.fetch_add(1, Ordering::SeqCst);
            Outcome::Done
        }
    });
    eventually(PATIENCE, "two run", async || (started.load(Ordering::SeqCst) == 2).then_some(())).await;
    running.shutdown.cancel();
    go.add_permits(100);
    running.stop().await;
    assert_eq!((started.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (2, 2));
    let mut consumer: async_nats::jetstream::consumer::Consumer<pull::Config> =
        outsider(&server).await.get_consumer_from_stream("test", EVENTS).await.unwrap();
    let info = consumer.info().await.unwrap();
    assert_eq!((info.num_ack_pending, info.num_pending), (0, 6));
}

#[tokio::test]
async fn a_handler_that_takes_longer_than_the_ack_wait_is_not_given_its_message_twice() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let (count, done) = (Arc::clone(&runs), Arc::new(AtomicBool::new(false)));
    let finished = Arc::clone(&done);
    let spec = ConsumerSpec { ack_wait: Duration::from_secs(2), ..everything(&bus) };
    let running = Running::start(&bus, spec, permits(2), move |_: Delivery<Event>| {
        let (count, finished) = (Arc::clone(&count), Arc::clone(&finished));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(5)).await;
            finished.store(true, Ordering::SeqCst);
            Outcome::Done
        }
    });
    bus.publish_event(&completed(1)).await.unwrap();
    eventually(PATIENCE, "it is done", async || done.load(Ordering::SeqCst).then_some(())).await;
    running.stop().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

/// Whose event it is comes from the subject, which the server's permissions guard, and not from a header.
#[tokio::test]
async fn the_account_of_an_event_is_that_of_its_subject() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let event = completed(1);
    bus.publish_event(&event).await.unwrap();
    let mut messages = outsider(&server)
        .await
        .get_stream(EVENTS)
        .await
        .unwrap()
        .create_consumer(pull::Config::default())
        .await
        .unwrap()
        .messages()
        .await
        .unwrap();
    let message = messages.next().await.unwrap().unwrap();
    let account = AccountId(Uuid::from_u128(7));
    assert_eq!(message.headers.as_ref().unwrap().get("ce-accountid").unwrap().as_str(), account.to_string());
    assert_eq!(message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().as_str(), event.id.to_string());
    assert!(message.subject.contains(&account.to_string()));
}
