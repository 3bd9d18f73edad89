//! Streams, consumers and buckets: made, made again, upgraded in place.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::time::Duration;

use crate::support::{PATIENCE, bus, completed, connect, id, options, outsider};
use async_nats::jetstream::{
    consumer::pull,
    stream::{Config, RetentionPolicy},
};
use bowerbird_nats::{
    Bus, WorkKind,
    bus::{ConnectError, Options},
    topology::{ALARMS, DEAD, DOWNLOADS, EVENTS, OBJECTS},
};
use bowerbird_testkit::{NatsServer, eventually};

const DAY: Duration = Duration::from_hours(24);

#[tokio::test]
async fn applying_it_twice_changes_nothing_and_loses_nothing() {
    let server = NatsServer::start().await;
    let (bus, context) = (bus(&server).await, outsider(&server).await);
    bus.publish_event(&completed(1)).await.unwrap();
    bus.publish_work(WorkKind::Downloads, &id(), 1).await.unwrap();
    let names = [EVENTS, DOWNLOADS, OBJECTS, ALARMS, DEAD, "KV_KEYS"];
    let look = async || {
        let mut seen = Vec::new();
        for name in names {
            let info = context.get_stream(name).await.unwrap().cached_info().clone();
            seen.push((info.config, info.created, info.state.messages));
        }
        let mut consumer: async_nats::jetstream::consumer::Consumer<pull::Config> =
            context.get_consumer_from_stream("downloads", DOWNLOADS).await.unwrap();
        let consumer = consumer.info().await.unwrap();
        (seen, consumer.config.clone(), consumer.created)
    };
    let before = look().await;
    bus.ensure_topology().await.unwrap();
    let (other, another) = (connect(&server).await, connect(&server).await);
    let (one, two) = tokio::join!(other.ensure_topology(), another.ensure_topology());
    one.unwrap();
    two.unwrap();
    let after = look().await;
    for (before, after) in before.0.iter().zip(&after.0) {
        assert_eq!(before, after);
    }
    assert_eq!((after.1, after.2), (before.1, before.2));
}

#[tokio::test]
async fn processes_that_start_together_make_it_once() {
    let server = NatsServer::start().await;
    let buses = [connect(&server).await, connect(&server).await, connect(&server).await];
    let results = futures_util::future::join_all(buses.iter().map(Bus::ensure_topology)).await;
    for result in results {
        result.unwrap();
    }
}

#[tokio::test]
async fn an_older_shape_is_upgraded_in_place() {
    let server = NatsServer::start().await;
    let context = outsider(&server).await;
    let older = Config { name: EVENTS.into(), subjects: vec!["bowerbird.v1.evt.>".into()], max_age: DAY, ..Config::default() };
    context.create_stream(older).await.unwrap();
    let older = Config {
        name: DOWNLOADS.into(),
        subjects: vec!["bowerbird.v1.work.download.>".into()],
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    context.create_stream(older).await.unwrap();
    let older = pull::Config { durable_name: Some("downloads".into()), max_deliver: 5, ..pull::Config::default() };
    let created = context.create_consumer_on_stream(older, DOWNLOADS).await.unwrap().cached_info().created;
    context.publish("bowerbird.v1.evt.download.completed.system.x", "kept".into()).await.unwrap().await.unwrap();

    connect(&server).await.ensure_topology().await.unwrap();
    let events = context.get_stream(EVENTS).await.unwrap();
    assert_eq!((events.cached_info().config.max_age, events.cached_info().state.messages), (30 * DAY, 1));
    let downloads = context.get_stream(DOWNLOADS).await.unwrap().cached_info().config.clone();
    assert!(downloads.discard_new_per_subject && downloads.max_messages_per_subject == 1);
    let mut consumer: async_nats::jetstream::consumer::Consumer<pull::Config> =
        context.get_consumer_from_stream("downloads", DOWNLOADS).await.unwrap();
    let consumer = consumer.info().await.unwrap();
    assert_eq!((consumer.config.max_deliver, consumer.created), (-1, created));
}

#[tokio::test]
async fn what_cannot_be_upgraded_is_named_and_left_alone() {
    let server = NatsServer::start().await;
    let context = outsider(&server).await;
    let strange = Config {
        name: DOWNLOADS.into(),
        subjects: vec!["bowerbird.v1.work.download.>".into()],
        retention: RetentionPolicy::Limits,
        ..Config::default()
    };
    context.create_stream(strange).await.unwrap();
    let error = connect(&server).await.ensure_topology().await.unwrap_err();
    assert!(error.to_string().starts_with("the stream DOWNLOADS could not be made or upgraded"), "{error}");
    assert_eq!(context.get_stream(DOWNLOADS).await.unwrap().cached_info().config.retention, RetentionPolicy::Limits);
}

#[tokio::test]
async fn the_duplicate_windows_are_long_enough() {
    let server = NatsServer::start().await;
    let (_bus, context) = (bus(&server).await, outsider(&server).await);
    for name in [EVENTS, OBJECTS, DEAD] {
        let config = context.get_stream(name).await.unwrap().cached_info().config.clone();
        assert!(config.duplicate_window >= Duration::from_mins(5), "{name}: {:?}", config.duplicate_window);
    }
    assert_eq!(context.get_stream(OBJECTS).await.unwrap().cached_info().config.max_age, 7 * DAY);
}

async fn refusal(options: Options) -> (ConnectError, Duration) {
    let began = tokio::time::Instant::now();
    let error = Bus::connect(options, Duration::from_millis(700)).await.unwrap_err();
    (error, began.elapsed())
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_refused_with_a_sentence() {
    let server = NatsServer::start_with("authorization { user: core, password: secret }").await;
    let wrong = Options { user: Some(("core".into(), "wrong".into())), ..options(&server) };
    let (error, took) = refusal(wrong).await;
    assert!(error.to_string().contains("check nats.user and nats.password"), "{error}");
    assert!(took < Duration::from_millis(600), "more patience would not cure it");
    let right = Options { user: Some(("core".into(), "secret".into())), ..options(&server) };
    assert!(Bus::connect(right.clone(), Duration::from_secs(10)).await.is_ok());

    let (error, _) = refusal(Options { prefix: "a.b".into(), ..right.clone() }).await;
    assert!(error.to_string().contains("nats.prefix"), "{error}");
    let (error, _) = refusal(Options { url: "nats://".into(), ..right.clone() }).await;
    assert!(error.to_string().contains("nats.url"), "{error}");
    let (error, _) = refusal(Options { credentials_file: Some("/does/not/exist".into()), ..right.clone() }).await;
    assert!(error.to_string().contains("nats.credentials_file"), "{error}");
    let port = bowerbird_testkit::free_port();
    let (error, took) = refusal(Options { url: format!("nats://127.0.0.1:{port}"), ..right }).await;
    assert!(error.to_string().contains("start one, or correct nats.url"), "{error}");
    assert!(took < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_without_jetstream_is_refused_with_a_sentence() {
    let accounts = r"accounts { PLAIN: { users: [ { user: core, password: secret } ] }, SYS: {} }, system_account: SYS";
    let server = NatsServer::start_with(accounts).await;
    let (error, _) = refusal(Options { user: Some(("core".into(), "secret".into())), ..options(&server) }).await;
    assert!(error.to_string().contains("add a jetstream block"), "{error}");
}

#[tokio::test]
async fn a_server_that_comes_late_is_waited_for() {
    let mut server = NatsServer::start().await;
    let options = options(&server);
    server.kill9();
    let connecting = Bus::connect(options, Duration::from_secs(20));
    let (connected, ()) = tokio::join!(connecting, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.restart().await;
    });
    let bus = connected.unwrap();
    server.kill9();
    eventually(PATIENCE, "the loss is seen", async || (!bus.is_connected()).then_some(())).await;
    server.restart().await;
    eventually(PATIENCE, "the return is seen", async || bus.is_connected().then_some(())).await;
}
