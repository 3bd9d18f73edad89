//! Many facts at once, over a real server: together where they can be, one by one where not, each stored once.

use std::{collections::HashMap, time::Duration};

use crate::support::{PATIENCE, an_event, bus, completed, id, outsider};
use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
};
use bowerbird_nats::{Event, event, publish::Error, topology::EVENTS};
use bowerbird_testkit::{NatsServer, eventually};
use futures_util::StreamExt;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

/// Identity, thing and place in its life of each stored message, in the order of the stream; and how many batches they
/// came in.
async fn stored(context: &jetstream::Context) -> (Vec<(String, String, i64)>, usize) {
    let stream = context.get_stream(EVENTS).await.unwrap();
    let count = usize::try_from(stream.cached_info().state.messages).unwrap();
    let consumer = stream.create_consumer(pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() }).await.unwrap();
    let (mut found, mut batches) = (Vec::new(), Vec::new());
    let mut messages = consumer.messages().await.unwrap().take(count);
    while found.len() < count
        && let Some(message) = messages.next().await
    {
        let headers = message.unwrap().message.headers.unwrap();
        let read = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        batches.extend(read("Nats-Batch-Id"));
        let sequence = read("ce-entitysequence").unwrap().parse().unwrap();
        found.push((read("ce-id").unwrap(), read("ce-subject").unwrap(), sequence));
    }
    batches.dedup();
    (found, batches.len())
}

fn ids(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.id.to_string()).collect()
}

/// Facts of these things in turn, `each` of each.
fn lives(things: &[Uuid], each: i64) -> Vec<Event> {
    (1..=each).flat_map(|place| things.iter().map(move |thing| an_event(event::DOWNLOAD_QUEUED, *thing, place))).collect()
}

/// The places in the life of each thing come 1, 2, 3 …
fn assert_lives(found: &[(String, String, i64)]) {
    let mut last: HashMap<&str, i64> = HashMap::new();
    for (_, thing, place) in found {
        let before = last.insert(thing, *place).unwrap_or(0);
        assert_eq!(*place, before + 1, "of {thing}");
    }
}

#[tokio::test]
async fn thousands_are_stored_in_the_order_given_in_a_few_batches() {
    let server = NatsServer::start().await;
    let (bus, context) = (bus(&server).await, outsider(&server).await);
    let events = lives(&[id(), id(), id()], 800);
    let began = Instant::now();
    for result in bus.publish_events(&events).await {
        result.unwrap();
    }
    println!("{} events in {:?}", events.len(), began.elapsed());
    let (found, batches) = stored(&context).await;
    assert_eq!(found.iter().map(|found| found.0.clone()).collect::<Vec<_>>(), ids(&events));
    assert_eq!(batches, 3);
}

#[tokio::test]
async fn those_that_are_stored_already_are_not_stored_again_and_the_others_are() {
    let server = NatsServer::start().await;
    let (bus, context) = (bus(&server).await, outsider(&server).await);
    let events = lives(&[id(), id(), id()], 20);
    for result in bus.publish_events(&events[..30]).await {
        result.unwrap();
    }
    for _ in 0..2 {
        for result in bus.publish_events(&events).await {
            result.unwrap();
        }
    }
    let (found, batches) = stored(&context).await;
    assert_eq!((found.len(), batches), (60, 1), "the second batch was refused as a whole");
    assert_lives(&found);
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_of_batches_stores_each_once_and_in_order() {
    let mut server = NatsServer::start().await;
    let bus = bus(&server).await;
    let things: Vec<_> = (0..8).map(|_| id()).collect();
    let mut publishing = JoinSet::new();
    for thing in things {
        let bus = bus.clone();
        publishing.spawn(async move {
            for round in lives(&[thing], 2000).chunks(400) {
                for result in bus.publish_events(round).await {
                    result.unwrap();
                }
            }
        });
    }
    for kill in 1..=3_u64 {
        let context = outsider(&server).await;
        eventually(PATIENCE, "some are stored", async || {
            let stream = context.get_stream(EVENTS).await.ok()?;
            (stream.cached_info().state.messages >= kill * 2000).then_some(())
        })
        .await;
        server.restart().await;
    }
    let began = Instant::now();
    while let Some(result) = publishing.join_next().await {
        result.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(25), "what was lost is sent again at once: {:?}", began.elapsed());
    let (found, batches) = stored(&outsider(&server).await).await;
    assert_eq!(found.len(), 16_000);
    assert_lives(&found);
    println!("16000 messages in {batches} runs of one batch, three kills");
}

#[tokio::test]
async fn a_stream_that_takes_no_batches_gets_them_one_by_one() {
    let server = NatsServer::start().await;
    let (bus, context) = (bus(&server).await, outsider(&server).await);
    let mut config = context.get_stream(EVENTS).await.unwrap().cached_info().config.clone();
    config.allow_atomic_publish = false;
    context.update_stream(config).await.unwrap();
    let events = lives(&[id(), id(), id()], 20);
    for result in bus.publish_events(&events).await {
        result.unwrap();
    }
    let (found, batches) = stored(&context).await;
    assert_eq!((found.len(), batches), (60, 0));
    assert_lives(&found);
    // What was switched off by hand comes back with the next start.
    bus.ensure_topology().await.unwrap();
    assert!(context.get_stream(EVENTS).await.unwrap().cached_info().config.allow_atomic_publish);
}

#[tokio::test]
async fn a_stream_that_was_lost_is_put_back_and_takes_the_batch() {
    let server = NatsServer::start().await;
    let (bus, context) = (bus(&server).await, outsider(&server).await);
    context.delete_stream(EVENTS).await.unwrap();
    let events = lives(&[id()], 50);
    for result in bus.publish_events(&events).await {
        result.unwrap();
    }
    assert_eq!(stored(&context).await.0.len(), 50);
}

#[tokio::test]
async fn one_that_is_too_large_costs_only_itself_and_what_comes_after_it_of_the_same_thing() {
    let server = NatsServer::start_with("max_payload: 2KB").await;
    let (bus, context) = (bus(&server).await, outsider(&server).await);
    let (thing, others) = (id(), (0..2000).map(|_| completed(1)));
    let mut events: Vec<Event> = (1..=5).map(|place| an_event(event::DOWNLOAD_QUEUED, thing, place)).collect();
    events[2].data = json!("x".repeat(4000));
    events.extend(others);
    events.push(an_event(event::DOWNLOAD_QUEUED, thing, 6));
    let results = bus.publish_events(&events).await;
    assert_eq!(results.len(), events.len());
    let refused = |index: usize| results[index].as_ref().unwrap_err();
    assert!(matches!(refused(2), Error::TooLarge | Error::Refused(_)), "{:?}", refused(2));
    for index in [3, 4, 2005] {
        assert!(matches!(refused(index), Error::KeptBack), "{index}: {:?}", refused(index));
    }
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2002);
    let (found, _) = stored(&context).await;
    assert_eq!(found.len(), 2002);
}
