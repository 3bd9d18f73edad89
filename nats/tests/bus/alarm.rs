//! The clock of the alarms: schedules fire once, when they should, whatever happens to the server in between.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bowerbird_nats::{
    Bus, Delivery, Outcome,
    alarm::{Bucket, Look, Refused},
    topology::{ALARMS, DEAD},
};
use bowerbird_testkit::{NatsServer, eventually};
use time::OffsetDateTime;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, bus, id, outsider};

#[expect(clippy::disallowed_methods, reason = "the server's clock is the machine's")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// What was heard, each with the time at which it was.
type Heard = Arc<Mutex<Vec<(Look, OffsetDateTime)>>>;

fn listen(bus: &Bus) -> (Heard, CancellationToken, JoinSet<()>) {
    let (heard, until): (Heard, _) = (Arc::default(), CancellationToken::new());
    let (bus, stop, note) = (bus.clone(), until.clone(), Arc::clone(&heard));
    let listening = JoinSet::from_iter([async move {
        bus.consume(bus.alarm_consumer(), stop, Arc::new(Semaphore::new(8)), move |delivery: Delivery<Look>| {
            note.lock().unwrap().push((delivery.message, now()));
            std::future::ready(Outcome::Done)
        })
        .await;
    }]);
    (heard, until, listening)
}

fn all_stored(results: Vec<Result<(), bowerbird_nats::publish::Error>>) {
    for result in results {
        result.unwrap();
    }
}

#[tokio::test]
async fn a_bucket_fires_once_not_before_its_second_and_a_past_one_at_once() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let (heard, until, listening) = listen(&bus);
    let soon = now().unix_timestamp() + 3;
    let (past, next, far) = (Bucket(soon - 60), Bucket(soon), Bucket(soon + 3600));
    all_stored(bus.schedule_buckets(&[past, next, far]).await);
    // Again: replaced, not added.
    all_stored(bus.schedule_buckets(&[next, far, next]).await);
    let first = eventually(PATIENCE, "the past one fires", async || heard.lock().unwrap().first().cloned()).await;
    assert_eq!(first.0, Look::Bucket(past));
    eventually(PATIENCE, "the next one fires", async || (heard.lock().unwrap().len() == 2).then_some(())).await;
    let (look, at) = heard.lock().unwrap()[1].clone();
    assert_eq!(look, Look::Bucket(next));
    let late = at - OffsetDateTime::from_unix_timestamp(soon).unwrap();
    assert!(late >= time::Duration::ZERO && late < time::Duration::seconds(5), "{late}");

    until.cancel();
    listening.join_all().await;
    let subjects = outsider(&server).await.get_stream(ALARMS).await.unwrap();
    let left: Vec<String> = {
        use futures_util::TryStreamExt;
        let told = subjects.info_with_subjects("bowerbird.v1.alarm.at.>").await.unwrap();
        told.map_ok(|(subject, _)| subject).try_collect().await.unwrap()
    };
    assert_eq!(left, [bus.subjects().alarm_bucket(far).as_str()], "what fired is gone, what waits is there once");
}

#[tokio::test]
async fn schedules_outlive_a_killed_server_and_what_came_due_meanwhile_fires_when_it_is_back() {
    let mut server = NatsServer::start().await;
    let bus = bus(&server).await;
    let soon = Bucket(now().unix_timestamp() + 2);
    let buckets: Vec<Bucket> = (0..500).map(|second| Bucket(soon.0 + 3600 + second)).chain([soon]).collect();
    all_stored(bus.schedule_buckets(&buckets).await);
    server.kill9();
    eventually(PATIENCE, "its second has passed", async || (now().unix_timestamp() > soon.0).then_some(())).await;
    server.restart().await;
    let (heard, until, listening) = listen(&bus);
    let look = eventually(PATIENCE, "it fires", async || heard.lock().unwrap().first().map(|(look, _)| look.clone())).await;
    assert_eq!(look, Look::Bucket(soon));
    let info = outsider(&server).await.get_stream(ALARMS).await.unwrap().cached_info().clone();
    assert!(info.state.messages >= 500, "{}", info.state.messages);
    until.cancel();
    listening.join_all().await;
}

#[tokio::test]
async fn the_dead_letter_of_an_alarm_is_written_once_and_sent_again_it_asks_for_the_alarm() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let subject_id = id();
    let due_at = time::macros::datetime!(2026-02-03 04:05:06 UTC);
    let refused = Refused { kind: "reminder", subject_id, due_at, version: 1, attempts: 10, reason: "no such zone" };
    bus.publish_dead_alarm(&refused).await.unwrap();
    bus.publish_dead_alarm(&refused).await.unwrap();
    bus.publish_dead_alarm(&Refused { subject_id: id(), ..refused }).await.unwrap();
    let context = outsider(&server).await;
    let dead = context.get_stream(DEAD).await.unwrap();
    assert_eq!(dead.cached_info().state.messages, 2);
    let letter = dead.get_raw_message(1).await.unwrap();
    let subject = letter
        .headers
        .iter()
        .find_map(|(name, values)| (name.to_string() == bowerbird_nats::envelope::DEAD_SUBJECT).then(|| values[0].to_string()));
    context.publish(subject.unwrap(), letter.payload).await.unwrap().await.unwrap();
    let (heard, until, listening) = listen(&bus);
    let look =
        eventually(PATIENCE, "it is asked for", async || heard.lock().unwrap().first().map(|(look, _)| look.clone())).await;
    assert_eq!(look, Look::Again { kind: "reminder".into(), subject_id });
    until.cancel();
    listening.join_all().await;
}

#[tokio::test]
async fn a_day_of_buckets_is_scheduled_within_a_time_that_is_stated() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let begin = now().unix_timestamp() + 3600;
    let buckets: Vec<Bucket> = (0..3000).map(|second| Bucket(begin + second)).collect();
    let started = std::time::Instant::now();
    all_stored(bus.schedule_buckets(&buckets).await);
    let took = started.elapsed();
    println!("3 000 buckets scheduled in {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
}
