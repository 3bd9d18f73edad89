//! What JetStream holds for us, as data: streams, durable consumers, buckets.
//!
//! Applied at start and whenever something is found missing. Applying it again changes nothing, an older shape is
//! upgraded in place, and nothing is ever deleted to be made anew. PostgreSQL is the truth: all of this can be lost and
//! filled again from there.

use std::time::Duration;

use async_nats::jetstream::{
    Context,
    consumer::{AckPolicy, DeliverPolicy, pull},
    kv,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use tracing::debug;

use crate::subject::{Subject, Subjects, WorkKind};

/// Every fact.
pub const EVENTS: &str = "EVENTS";
/// Downloads that are to run.
pub const DOWNLOADS: &str = "DOWNLOADS";
/// Notifications of the object store.
pub const OBJECTS: &str = "OBJECTS";
/// The clock of the alarms.
pub const ALARMS: &str = "ALARMS";
/// The durable consumer that all processes share to hear of due alarms.
pub(crate) const ALARMS_CONSUMER: &str = "alarms";
/// What was refused.
pub const DEAD: &str = "DEAD";
/// What was refused and is to be handled once more.
pub const REPLAYS: &str = "REPLAYS";
/// The public signing keys.
pub const KEYS: &str = "KEYS";
/// The one entry of the bucket `KEYS`.
pub(crate) const KEYS_ENTRY: &str = "current";

const DAY: Duration = Duration::from_hours(24);
/// How long a message id is remembered. Longer than the outbox needs to send again what got no acknowledgement; beyond
/// it, consumers recognise repeats themselves.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(10);

impl WorkKind {
    /// The stream that hands it out.
    pub const fn stream(self) -> &'static str {
        match self {
            WorkKind::Downloads => DOWNLOADS,
        }
    }

    /// The durable consumer that all workers share.
    pub const fn consumer(self) -> &'static str {
        match self {
            WorkKind::Downloads => "downloads",
        }
    }
}

/// Why the topology is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// JetStream did not take it.
    #[error("the {what} {name} could not be made or upgraded: look at `nats {what} info {name}`; nothing was deleted")]
    NotTaken {
        /// `stream`, `consumer`, `kv`
        what: &'static str,
        /// Its name.
        name: String,
        /// What JetStream said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// JetStream did not say what it looks like.
    #[error("JetStream did not say what the stream {name} looks like")]
    NotTold {
        /// Its name.
        name: String,
        /// What it said instead.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A durable pull consumer as this version wants it.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// The stream that it reads.
    pub stream: &'static str,
    pub(crate) config: pull::Config,
}

impl Consumer {
    /// A consumer that reads what `filter` says.
    pub(crate) fn reading(
        stream: &'static str,
        durable: &str,
        filter: &Subject,
        ack_wait: Duration,
        replicas: usize,
    ) -> Consumer {
        let config = pull::Config {
            durable_name: Some(durable.to_owned()),
            description: Some("Shared by all processes that do this work.".to_owned()),
            filter_subject: filter.as_str().to_owned(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            // The server would leave what was delivered too often in a work queue for ever. `consume` counts instead, and
            // puts such a message among the dead before it takes it off.
            max_deliver: -1,
            max_ack_pending: 1000,
            num_replicas: replicas,
            ..pull::Config::default()
        };
        Consumer { stream, config }
    }
}

/// The streams, for `replicas` copies each.
pub fn streams(subjects: &Subjects, replicas: usize) -> Vec<Config> {
    let stream = |name: &str, description: &str, subject: Subject| Config {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        subjects: vec![subject.as_str().to_owned()],
        storage: StorageType::File,
        num_replicas: replicas,
        duplicate_window: DUPLICATE_WINDOW,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        ..Config::default()
    };
    vec![
        Config {
            retention: RetentionPolicy::Limits,
            max_age: 30 * DAY,
            allow_direct: true,
            allow_atomic_publish: true,
            ..stream(EVENTS, "Every fact; kept 30 days. PostgreSQL keeps them longer.", subjects.every_event())
        },
        Config {
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            max_messages_per_subject: 1,
            discard_new_per_subject: true,
            ..stream(
                DOWNLOADS,
                "Downloads that are to run: each hand-out of a row once. The row is the truth.",
                subjects.every_work(WorkKind::Downloads),
            )
        },
        Config {
            retention: RetentionPolicy::Limits,
            max_age: 7 * DAY,
            ..stream(OBJECTS, "What the object store tells of changed objects; a hint, kept 7 days.", subjects.every_object())
        },
        Config {
            // Schedules need a stream that keeps them until they fire: no age, no limit that would push them out.
            retention: RetentionPolicy::Limits,
            allow_message_schedules: true,
            // For what was fired; the server turns the two after it on by itself.
            allow_message_ttl: true,
            allow_rollup: true,
            deny_purge: false,
            ..stream(
                ALARMS,
                "Schedules that say when to look at the alarms, one for each second. The rows are the truth.",
                subjects.every_alarm(),
            )
        },
        Config {
            retention: RetentionPolicy::Limits,
            max_age: 90 * DAY,
            allow_direct: true,
            ..stream(DEAD, "What a consumer refused, with the reason in its headers; kept 90 days.", subjects.every_dead())
        },
        Config {
            retention: RetentionPolicy::WorkQueue,
            max_age: 7 * DAY,
            ..stream(
                REPLAYS,
                "What was refused and is to be handled once more by the consumer that refused it; kept 7 days.",
                subjects.every_replay(),
            )
        },
    ]
}

/// The durable consumers of this version's own workers.
pub fn consumers(subjects: &Subjects, replicas: usize) -> Vec<Consumer> {
    WorkKind::ALL
        .iter()
        .map(|kind| Consumer::reading(kind.stream(), kind.consumer(), &subjects.every_work(*kind), ACK_WAIT, replicas))
        .chain([Consumer::reading(ALARMS, ALARMS_CONSUMER, &subjects.every_alarm_due(), ACK_WAIT, replicas)])
        .collect()
}

/// How long a message may be with a worker before it is handed out again.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(30);

/// The buckets.
fn buckets(replicas: usize) -> Vec<kv::Config> {
    vec![kv::Config {
        bucket: KEYS.to_owned(),
        description: "The public signing keys, as JWKS.".to_owned(),
        history: 1,
        storage: StorageType::File,
        num_replicas: replicas,
        ..kv::Config::default()
    }]
}

pub(crate) async fn ensure(jetstream: &Context, subjects: &Subjects, replicas: usize) -> Result<(), Error> {
    for config in streams(subjects, replicas) {
        let name = config.name.clone();
        jetstream.create_or_update_stream(config).await.map_err(|error| not_taken("stream", &name, error))?;
    }
    for consumer in consumers(subjects, replicas) {
        ensure_consumer(jetstream, &consumer).await?;
    }
    for config in buckets(replicas) {
        let name = config.bucket.clone();
        jetstream.create_or_update_key_value(config).await.map_err(|error| not_taken("kv", &name, error))?;
    }
    debug!("streams, consumers and buckets are as they should be");
    Ok(())
}

pub(crate) async fn ensure_consumer(jetstream: &Context, consumer: &Consumer) -> Result<(), Error> {
    let name = consumer.config.durable_name.clone().unwrap_or_default();
    match jetstream.create_consumer_on_stream(consumer.config.clone(), consumer.stream).await {
        Ok(_) => Ok(()),
        Err(error) => Err(not_taken("consumer", &name, error)),
    }
}

fn not_taken(what: &'static str, name: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::NotTaken { what, name: name.to_owned(), source: Box::new(source) }
}
