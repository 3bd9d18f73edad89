//! Publishing to a real server: stored once, in order, and through everything that the server does meanwhile.

use std::time::Duration;

use crate::support::{PATIENCE, an_event, bus, completed, connect, id, outsider};
use async_nats::jetstream::{self, consumer::pull, context::PublishErrorKind, message::PublishMessage};
use bowerbird_nats::{
    WorkKind,
    dead::DeadLetter,
    event,
    id::NodeId,
    publish::Error,
    topology::{DEAD, DOWNLOADS, EVENTS, OBJECTS},
};
use bowerbird_testkit::{NatsServer, eventually};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::Instant};

async fn stored(context: &jetstream::Context, stream: &str) -> u64 {
    context.get_stream(stream).await.unwrap().cached_info().state.messages
}

/// What the server does that the retry is for: without a stream the client fails at once.
#[tokio::test]
async fn without_a_stream_the_client_fails_at_once_and_publishing_puts_the_stream_back() {
    let server = NatsServer::start().await;
    let (bus, context) = (connect(&server).await, outsider(&server).await);
    let began = Instant::now();
    let raw = context.publish("bowerbird.v1.evt.download.completed.system.x", "x".into()).await.unwrap().await;
    assert_eq!(raw.unwrap_err().kind(), PublishErrorKind::StreamNotFound);
    assert!(began.elapsed() < Duration::from_secs(1), "the library gives up at once");

    bus.publish_event(&completed(1)).await.unwrap();
    assert_eq!(stored(&context, EVENTS).await, 1);
    context.delete_stream(EVENTS).await.unwrap();
    bus.publish_event(&completed(2)).await.unwrap();
    assert_eq!(stored(&context, EVENTS).await, 1);
    context.delete_stream(DOWNLOADS).await.unwrap();
    bus.publish_work(WorkKind::Downloads, &id(), 1).await.unwrap();
    assert_eq!(stored(&context, DOWNLOADS).await, 1);
}

#[tokio::test]
async fn an_event_that_is_published_again_is_stored_once_also_after_a_restart() {
    let mut server = NatsServer::start().await;
    let bus = bus(&server).await;
    let event = completed(1);
    for _ in 0..3 {
        bus.publish_event(&event).await.unwrap();
    }
    assert_eq!(stored(&outsider(&server).await, EVENTS).await, 1);
    server.restart().await;
    bus.publish_event(&event).await.unwrap();
    assert_eq!(stored(&outsider(&server).await, EVENTS).await, 1);
}

#[tokio::test]
async fn a_hand_out_that_waits_is_not_queued_twice_and_that_is_a_success() {
    let server = NatsServer::start().await;
    let (bus, context) = (bus(&server).await, outsider(&server).await);
    let download = id();
    for _ in 0..3 {
        bus.publish_work(WorkKind::Downloads, &download, 1).await.unwrap();
    }
    assert_eq!(stored(&context, DOWNLOADS).await, 1);
    // In flight counts as waiting.
    let consumer: jetstream::consumer::Consumer<pull::Config> =
        context.get_consumer_from_stream("downloads", DOWNLOADS).await.unwrap();
    let message = consumer.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap();
    bus.publish_work(WorkKind::Downloads, &download, 1).await.unwrap();
    assert_eq!(stored(&context, DOWNLOADS).await, 1);
    // The next hand-out of the same row is another, and the same one may be queued again when it was acknowledged.
    bus.publish_work(WorkKind::Downloads, &download, 2).await.unwrap();
    message.double_ack().await.unwrap();
    bus.publish_work(WorkKind::Downloads, &download, 1).await.unwrap();
    assert_eq!(stored(&context, DOWNLOADS).await, 2);
}

/// Why consumers recognise repeats themselves: a work queue forgets the ids of what was acknowledged with a restart.
#[tokio::test]
async fn a_work_queue_forgets_message_ids_with_a_restart() {
    let mut server = NatsServer::start().await;
    let (_bus, context) = (bus(&server).await, outsider(&server).await);
    let publish = async |context: &jetstream::Context| {
        let message = PublishMessage::build().message_id("the same").payload("x".into());
        let subject = "bowerbird.v1.work.download.0198c0de-0000-7000-8000-000000000000.1";
        context.send_publish(subject, message).await.unwrap().await.unwrap().duplicate
    };
    assert!(!publish(&context).await);
    let consumer: jetstream::consumer::Consumer<pull::Config> =
        context.get_consumer_from_stream("downloads", DOWNLOADS).await.unwrap();
    let message = consumer.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap();
    message.double_ack().await.unwrap();
    assert!(publish(&context).await, "as long as it runs it remembers");
    server.restart().await;
    let context = outsider(&server).await;
    assert!(!publish(&context).await, "stored again");
}

#[tokio::test]
async fn a_message_in_flight_when_the_server_is_killed_is_stored_once() {
    let mut server = NatsServer::start().await;
    let bus = bus(&server).await;
    let mut publishing = JoinSet::new();
    for sequence in 0..300 {
        let bus = bus.clone();
        publishing.spawn(async move { bus.publish_event(&completed(sequence)).await });
    }
    let context = outsider(&server).await;
    eventually(PATIENCE, "some are stored", async || (stored(&context, EVENTS).await > 10).then_some(())).await;
    server.kill9();
    server.restart().await;
    let began = Instant::now();
    while let Some(result) = publishing.join_next().await {
        result.unwrap().unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(10), "what was lost is sent again at once: {:?}", began.elapsed());
    assert_eq!(stored(&outsider(&server).await, EVENTS).await, 300);
}

#[tokio::test]
async fn a_batch_keeps_the_order_of_each_thing() {
    let mut server = NatsServer::start().await;
    let bus = bus(&server).await;
    let things: Vec<_> = (0..20).map(|_| id()).collect();
    let mut events = Vec::new();
    for sequence in 1..=20 {
        events.extend(things.iter().map(|thing| an_event(event::DOWNLOAD_QUEUED, *thing, sequence)));
    }
    let publishing = async {
        let results = bus.publish_events(&events).await;
        assert_eq!(results.len(), events.len());
        for result in results {
            result.unwrap();
        }
    };
    let disturbing = async {
        let context = outsider(&server).await;
        eventually(PATIENCE, "some are stored", async || (stored(&context, EVENTS).await > 20).then_some(())).await;
        server.restart().await;
    };
    tokio::join!(publishing, disturbing);
    let context = outsider(&server).await;
    assert_eq!(stored(&context, EVENTS).await, 400);
    let consumer = context.get_stream(EVENTS).await.unwrap().create_consumer(pull::Config::default()).await.unwrap();
    let mut messages = consumer.messages().await.unwrap().take(400);
    let mut seen = std::collections::HashMap::new();
    while let Some(message) = messages.next().await {
        let headers = message.unwrap().message.headers.unwrap();
        let sequence: i64 = headers.get("ce-entitysequence").unwrap().as_str().parse().unwrap();
        let last = seen.insert(headers.get("ce-subject").unwrap().as_str().to_owned(), sequence).unwrap_or(0);
        assert_eq!(sequence, last + 1);
    }
}

#[tokio::test]
async fn when_one_event_does_not_get_through_those_after_it_are_kept_back() {
    let server = NatsServer::start_with("max_payload: 2KB").await;
    let bus = bus(&server).await;
    let (thing, other) = (id(), id());
    let mut large = an_event(event::DOWNLOAD_QUEUED, thing, 2);
    large.data = serde_json::json!("x".repeat(4000));
    let results = bus
        .publish_events(&[
            an_event(event::DOWNLOAD_QUEUED, thing, 1),
            large,
            an_event(event::DOWNLOAD_QUEUED, thing, 3),
            an_event(event::DOWNLOAD_QUEUED, other, 1),
        ])
        .await;
    assert!(matches!(results.as_slice(), [Ok(()), Err(Error::TooLarge), Err(Error::KeptBack), Ok(())]), "{results:?}");
    assert_eq!(stored(&outsider(&server).await, EVENTS).await, 2);
    assert!(bus.publish_events(&[]).await.is_empty());
}

#[tokio::test]
async fn a_subject_that_lands_in_a_foreign_stream_is_refused() {
    let server = NatsServer::start().await;
    let (bus, context) = (connect(&server).await, outsider(&server).await);
    let foreign =
        jetstream::stream::Config { name: "FOREIGN".into(), subjects: vec!["bowerbird.v1.evt.>".into()], ..Default::default() };
    context.create_stream(foreign).await.unwrap();
    let result = bus.publish_event(&completed(1)).await;
    assert!(matches!(result, Err(Error::Refused(_))), "{result:?}");
    assert_eq!(stored(&context, "FOREIGN").await, 0);
}

#[tokio::test]
async fn notifications_and_dead_letters_are_stored_once_under_their_ids() {
    let server = NatsServer::start().await;
    let (bus, context) = (bus(&server).await, outsider(&server).await);
    let letter = DeadLetter {
        stream: EVENTS.into(),
        consumer: "some.odd consumer".into(),
        reason: "because".into(),
        subject: "bowerbird.v1.evt.x".into(),
        stream_sequence: 7,
        deliveries: 3,
        stored_at: time::OffsetDateTime::UNIX_EPOCH,
        headers: vec![
            ("ce-id".into(), "abc".into()),
            ("Nats-Msg-Id".into(), "of the other stream".into()),
            ("Nats-Expected-Stream".into(), EVENTS.into()),
        ],
        body: Bytes::from_static(b"{}"),
    };
    for _ in 0..2 {
        bus.publish_object(Bytes::from_static(b"{\"Key\":\"a\"}"), "notification-1").await.unwrap();
        bus.publish_dead(&letter).await.unwrap();
    }
    assert_eq!((stored(&context, OBJECTS).await, stored(&context, DEAD).await), (1, 1));
    let stored = context.get_stream(DEAD).await.unwrap().get_raw_message(1).await.unwrap();
    assert_eq!(stored.subject.as_str(), "bowerbird.v1.dead.EVENTS.some_odd_consumer");
    assert_eq!(stored.headers.get("ce-id").unwrap().as_str(), "abc");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    number: u32,
}

#[tokio::test]
async fn an_order_reaches_the_one_process_that_it_is_for() {
    let server = NatsServer::start().await;
    let (bus, sender) = (connect(&server).await, connect(&server).await);
    let (mine, other) = (NodeId(id()), NodeId(id()));
    let mut orders = bus.listen_node::<Order>(mine, "download", "stop").await.unwrap();
    // A subscription holds from when the server has it; nothing confirms it but an order that arrives.
    eventually(PATIENCE, "an order arrives", async || {
        sender.tell_node(mine, "download", "stop", &Order { number: 0 }).await.unwrap();
        tokio::time::timeout(Duration::from_millis(50), orders.next()).await.ok()
    })
    .await;
    sender.tell_node(other, "download", "stop", &Order { number: 1 }).await.unwrap();
    sender.tell_node(mine, "download", "stop", &"nonsense").await.unwrap();
    sender.tell_node(mine, "download", "stop", &Order { number: 2 }).await.unwrap();
    let next = loop {
        let order = tokio::time::timeout(PATIENCE, orders.next()).await.unwrap().unwrap();
        if order.number != 0 {
            break order;
        }
    };
    assert_eq!(next, Order { number: 2 });
}

#[tokio::test]
async fn live_messages_do_not_pile_up_while_the_server_is_away() {
    let mut server = NatsServer::start().await;
    let bus = connect(&server).await;
    let account = bowerbird_nats::AccountId(id());
    let listener = connect(&server).await;
    let mut live = listener.listen_live(account).await.unwrap();
    eventually(PATIENCE, "a live message arrives", async || {
        bus.tell_live("download", "progress", account, id(), &Order { number: 1 });
        tokio::time::timeout(Duration::from_millis(50), live.next()).await.ok()
    })
    .await;
    server.kill9();
    eventually(PATIENCE, "the loss is noticed", async || (!bus.is_connected()).then_some(())).await;
    let began = Instant::now();
    for number in 0..10_000 {
        bus.tell_live("download", "progress", account, id(), &Order { number });
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    server.restart().await;
    eventually(PATIENCE, "the bus works again", async || bus.publish_event(&completed(1)).await.ok()).await;
}
