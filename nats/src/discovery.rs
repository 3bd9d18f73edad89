//! Being found: NATS services (ADR-32), so that `nats micro ls`, `info` and `stats` show what runs and how it does.
//!
//! Written here and not taken from async-nats, whose service counts a problem document with a body as a success, and
//! whose stop drops the requests that are on their way.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, Message, SubscribeError, Subscriber};
use futures_util::{StreamExt, stream::SelectAll};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    operation::Access,
    problem::Problem,
    subject::{self, Verb},
};

/// Queue group of every endpoint: a request goes to one of the processes that answer it.
pub(crate) const QUEUE_GROUP: &str = "q";

/// What is told of one endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) area: &'static str,
    pub(crate) operation: &'static str,
    pub(crate) subject: String,
    pub(crate) access: Access,
    pub(crate) summary: &'static str,
    requests: AtomicU64,
    errors: AtomicU64,
    processing_nanoseconds: AtomicU64,
    last_error: Mutex<String>,
}

impl Endpoint {
    pub(crate) fn new(
        area: &'static str,
        operation: &'static str,
        subject: String,
        access: Access,
        summary: &'static str,
    ) -> Self {
        Endpoint {
            area,
            operation,
            subject,
            access,
            summary,
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            processing_nanoseconds: AtomicU64::new(0),
            last_error: Mutex::new(String::new()),
        }
    }

    /// Unique among all endpoints; ADR-32 allows no dot in it.
    fn name(&self) -> String {
        format!("{}-{}", self.area, self.operation)
    }

    pub(crate) fn count(&self, took: Duration, refused: Option<&Problem>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.processing_nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(problem) = refused {
            self.errors.fetch_add(1, Ordering::Relaxed);
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = format!("{}:{}", problem.status, problem.code);
        }
    }
}

/// One running service, as it tells of itself.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) description: String,
    /// RFC 3339.
    pub(crate) started: String,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
}

#[derive(Serialize)]
struct Identity<'a> {
    name: &'a str,
    id: &'a str,
    version: &'a str,
    metadata: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Pong<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    identity: Identity<'a>,
}

#[derive(Serialize)]
struct Info<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    identity: Identity<'a>,
    description: &'a str,
    endpoints: Vec<EndpointInfo<'a>>,
}

#[derive(Serialize)]
struct EndpointInfo<'a> {
    name: String,
    subject: &'a str,
    queue_group: &'static str,
    metadata: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Stats<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    identity: Identity<'a>,
    started: &'a str,
    endpoints: Vec<EndpointStats<'a>>,
}

#[derive(Serialize)]
struct EndpointStats<'a> {
    name: String,
    subject: &'a str,
    queue_group: &'static str,
    num_requests: u64,
    num_errors: u64,
    last_error: String,
    processing_time: u64,
    average_processing_time: u64,
}

impl Service {
    fn identity(&self) -> Identity<'_> {
        Identity { name: &self.name, id: &self.id, version: &self.version, metadata: BTreeMap::new() }
    }

    fn answer(&self, verb: Verb) -> Result<Vec<u8>, serde_json::Error> {
        match verb {
            Verb::Ping => serde_json::to_vec(&Pong { kind: "io.nats.micro.v1.ping_response", identity: self.identity() }),
            Verb::Info => serde_json::to_vec(&Info {
                kind: "io.nats.micro.v1.info_response",
                identity: self.identity(),
                description: &self.description,
                endpoints: self
                    .endpoints
                    .iter()
                    .map(|endpoint| EndpointInfo {
                        name: endpoint.name(),
                        subject: &endpoint.subject,
                        queue_group: QUEUE_GROUP,
                        metadata: BTreeMap::from([("summary", endpoint.summary), ("access", endpoint.access.as_str())]),
                    })
                    .collect(),
            }),
            Verb::Stats => serde_json::to_vec(&Stats {
                kind: "io.nats.micro.v1.stats_response",
                identity: self.identity(),
                started: &self.started,
                endpoints: self.endpoints.iter().map(|endpoint| stats(endpoint)).collect(),
            }),
        }
    }
}

fn stats(endpoint: &Endpoint) -> EndpointStats<'_> {
    let requests = endpoint.requests.load(Ordering::Relaxed);
    let processing_time = endpoint.processing_nanoseconds.load(Ordering::Relaxed);
    EndpointStats {
        name: endpoint.name(),
        subject: &endpoint.subject,
        queue_group: QUEUE_GROUP,
        num_requests: requests,
        num_errors: endpoint.errors.load(Ordering::Relaxed),
        last_error: endpoint.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        processing_time,
        average_processing_time: processing_time.checked_div(requests).unwrap_or(0),
    }
}

/// The subscriptions that a service is found by.
pub(crate) struct Listening(SelectAll<futures_util::stream::BoxStream<'static, (Verb, Message)>>);

impl Listening {
    pub(crate) async fn start(client: &Client, service: &Service) -> Result<Listening, SubscribeError> {
        let mut all = SelectAll::new();
        for verb in Verb::ALL {
            for subject in subject::discovery(*verb, &service.name, &service.id) {
                let messages: Subscriber = client.subscribe(subject.nats()).await?;
                all.push(messages.map(move |message| (*verb, message)).boxed());
            }
        }
        Ok(Listening(all))
    }

    /// Tells of the service until it stops.
    pub(crate) async fn answer(mut self, client: Client, service: Arc<Service>, stopping: CancellationToken) {
        loop {
            let (verb, message) = tokio::select! {
                () = stopping.cancelled() => return,
                next = self.0.next() => match next {
                    Some(next) => next,
                    None => return,
                },
            };
            let Some(reply) = message.reply.filter(|reply| subject::is_inbox(reply)) else { continue };
            match service.answer(verb) {
                Ok(body) => {
                    if let Err(error) = client.publish(reply, body.into()).await {
                        debug!(%error, "a service discovery request was not answered");
                    }
                }
                Err(error) => debug!(%error, "a service description has no JSON"),
            }
        }
    }
}
