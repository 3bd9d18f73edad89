//! What the tests of this room share.

pub(crate) mod token;

use std::{sync::Arc, time::Duration};

use async_nats::jetstream;
use bowerbird_nats::{AccountId, AskContext, Bus, Event, EventType, Verifier, bus::Options, event, id::EventId};
use bowerbird_testkit::NatsServer;
use time::OffsetDateTime;
use uuid::Uuid;

pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) fn options(server: &NatsServer) -> Options {
    Options { url: server.url(), prefix: "bowerbird".to_owned(), replicas: 1, name: "test".to_owned(), ..Options::default() }
}

/// A bus whose topology is there.
pub(crate) async fn bus(server: &NatsServer) -> Bus {
    let bus = connect(server).await;
    bus.ensure_topology().await.unwrap();
    bus
}

pub(crate) async fn connect(server: &NatsServer) -> Bus {
    Bus::connect(options(server), Duration::from_secs(20)).await.unwrap()
}

/// A client of somebody else, to look at what is really there.
pub(crate) async fn outsider(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

pub(crate) fn verifier() -> Verifier {
    let now = OffsetDateTime::from_unix_timestamp(token::NOW).unwrap();
    Verifier::new(token::ISSUER.into(), token::AUDIENCE.into(), Arc::new(move || now))
}

pub(crate) fn context(timeout: Duration) -> AskContext {
    AskContext { timeout, request_id: "request-1".into(), ..AskContext::default() }
}

pub(crate) fn id() -> Uuid {
    #[expect(clippy::disallowed_methods, reason = "a test needs some id")]
    Uuid::now_v7()
}

pub(crate) fn an_event(event_type: EventType, entity_id: Uuid, sequence: i64) -> Event {
    Event {
        id: EventId(id()),
        event_type,
        account_id: Some(AccountId(Uuid::from_u128(7))),
        entity_id,
        entity_sequence: sequence,
        time: time::macros::datetime!(2026-02-03 04:05:06 UTC),
        data: serde_json::json!({"sequence": sequence}),
        traceparent: None,
    }
}

pub(crate) fn completed(sequence: i64) -> Event {
    an_event(event::DOWNLOAD_COMPLETED, id(), sequence)
}
