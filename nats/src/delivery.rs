//! One message in hand: what it says, how it is acknowledged, and what becomes of it.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{HeaderMap, Message, RequestErrorKind, jetstream};
use bytes::Bytes;
use futures_util::FutureExt;
use time::OffsetDateTime;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::{
    bus::Bus,
    consume::ConsumerSpec,
    dead::DeadLetter,
    download, envelope,
    event::Event,
    subject::{Meaning, Subjects, WorkKind},
};

/// How long an acknowledgement is waited for.
pub(crate) const ACK_PATIENCE: Duration = Duration::from_secs(5);
/// When a message comes again whose handler panicked or whose dead letter could not be written.
const RETRY_AFTER_FAULT: Duration = Duration::from_secs(5);
/// Longest reason that is written down.
const REASON_MAX_CHARACTERS: usize = 500;

/// What becomes of a message. Decided on the line that knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done with.
    Done,
    /// It may go better later. After so many tries that is not believed any more, and it is put among the dead.
    Retry {
        /// How much later.
        after: Duration,
    },
    /// What the handler stands on is away (the database, say), whatever the message says: it is handled again as often as
    /// it takes. The message stays in hand, with its permit, and is handed back when it is time to stop.
    Later {
        /// How much later.
        after: Duration,
    },
    /// It will never go better. It is put among the dead with the reason.
    Refuse {
        /// For operators.
        reason: String,
    },
}

/// An acknowledgement was not confirmed. The message may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// There is no such consumer any more.
    #[error("the consumer is gone, so there is nothing to acknowledge")]
    Gone,
    /// No confirmation in time.
    #[error("the acknowledgement was not confirmed in time")]
    NotConfirmed,
}

/// What a message is read from.
#[derive(Debug)]
pub struct Raw<'a> {
    subjects: &'a Subjects,
    message: &'a Message,
}

impl Raw<'_> {
    /// What its subject says.
    pub fn meaning(&self) -> Option<Meaning> {
        self.subjects.read(&self.message.subject)
    }

    /// Its body.
    pub fn body(&self) -> &Bytes {
        &self.message.payload
    }

    /// Every header with each of its values.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.message.headers.iter().flat_map(HeaderMap::iter).flat_map(|(name, values)| {
            let name: &str = name.as_ref();
            values.iter().map(move |value| (name, value.as_str()))
        })
    }

    /// A header, in whatever case its name was written.
    pub fn header(&self, name: &str) -> Option<&str> {
        envelope::get(self.message.headers.as_ref(), name)
    }
}

/// What can be read from a message. The error is the reason that the message is put among the dead for.
pub trait FromMessage: Sized + Send + 'static {
    /// Reads it.
    fn from_message(raw: &Raw<'_>) -> Result<Self, String>;
}

impl FromMessage for Event {
    fn from_message(raw: &Raw<'_>) -> Result<Self, String> {
        let message = raw.message;
        envelope::read_event(raw.subjects, &message.subject, message.headers.as_ref(), &message.payload)
            .map_err(|error| error.to_string())
    }
}

impl FromMessage for download::Work {
    fn from_message(raw: &Raw<'_>) -> Result<Self, String> {
        let work: download::Work =
            serde_json::from_slice(raw.body()).map_err(|error| format!("the body is not a hand-out: {error}"))?;
        let told = Meaning::Work { kind: WorkKind::Downloads, id: work.download_id.0, dispatch_no: work.dispatch_no };
        if raw.meaning() != Some(told) {
            return Err("the body says otherwise than the subject".to_owned());
        }
        Ok(work)
    }
}

impl FromMessage for Bytes {
    fn from_message(raw: &Raw<'_>) -> Result<Self, String> {
        Ok(raw.body().clone())
    }
}

/// A message in hand. Its permit is given back when the message is settled, or lives on with whoever takes it.
#[derive(Debug)]
pub struct Delivery<T> {
    /// What it says.
    pub message: T,
    /// How often it was delivered, this time included.
    pub deliveries: i64,
    /// Its sequence in the stream.
    pub stream_sequence: u64,
    /// When it was stored in the stream.
    pub stored_at: OffsetDateTime,
    acker: Arc<Acker>,
}

impl<T> Delivery<T> {
    /// Takes the message off now, and waits until the server has confirmed it; the outcome of the handler then counts for
    /// nothing. For work: claim in PostgreSQL, commit, acknowledge, and only then begin. If it cannot be confirmed the
    /// message may come again, and is to be recognised by the row.
    pub async fn ack_now(&self) -> Result<(), AckError> {
        self.acker.settle(Settlement::Ack).await
    }

    /// The permit, to be kept as long as the work that the message began. The next message is pulled when it is dropped.
    /// `None` when it was taken before.
    pub fn take_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.acker.take_permit()
    }
}

enum Settlement<'a> {
    Ack,
    /// Again, after a while.
    Nak(Duration),
    /// Never again.
    Term(&'a str),
}

impl Settlement<'_> {
    fn body(&self) -> Bytes {
        match self {
            Settlement::Ack => Bytes::from_static(b"+ACK"),
            Settlement::Nak(after) => format!("-NAK {{\"delay\":{}}}", after.as_nanos()).into(),
            Settlement::Term(reason) => format!("+TERM {reason}").into(),
        }
    }
}

#[derive(Debug)]
struct Acker {
    client: async_nats::Client,
    reply: async_nats::Subject,
    settled: AtomicBool,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Acker {
    fn take_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Settles the message once. Asked and not just published: the server confirms, and says when the consumer is gone.
    async fn settle(&self, settlement: Settlement<'_>) -> Result<(), AckError> {
        if self.is_settled() {
            return Ok(());
        }
        let request = async_nats::Request::new().payload(settlement.body()).timeout(None);
        match timeout(ACK_PATIENCE, self.client.send_request(self.reply.clone(), request)).await {
            Ok(Ok(_)) => {
                self.settled.store(true, Ordering::Release);
                Ok(())
            }
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Err(AckError::Gone),
            Ok(Err(_)) | Err(_) => Err(AckError::NotConfirmed),
        }
    }

    fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Tells the server that the message is still being worked on.
    async fn in_progress(&self) {
        if let Err(error) = self.client.publish(self.reply.clone(), Bytes::from_static(b"+WPI")).await {
            debug!(%error, "the server was not told that a message is still worked on");
        }
    }
}

/// Brings one message from its arrival to its settlement. Once `shutdown` is cancelled nothing is waited for any more.
pub(crate) async fn handle<T, F, Fut>(
    bus: &Bus,
    spec: &ConsumerSpec,
    shutdown: &CancellationToken,
    handler: &F,
    message: Message,
    permit: OwnedSemaphorePermit,
) where
    T: FromMessage,
    F: Fn(Delivery<T>) -> Fut,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    let message = jetstream::Message { message, context: bus.0.jetstream.clone() };
    let Some(metadata) = Metadata::of(&message) else {
        warn!(durable = spec.durable, subject = %message.subject, "a message is not of JetStream and was left alone");
        return;
    };
    let Some(reply) = message.message.reply.clone() else { return };
    let acker = Arc::new(Acker {
        client: bus.0.client.clone(),
        reply,
        settled: AtomicBool::new(false),
        permit: Mutex::new(Some(permit)),
    });

    let outcome = if metadata.deliveries > spec.max_deliveries {
        Outcome::Refuse { reason: format!("it was delivered {} times and never done with", metadata.deliveries) }
    } else {
        let tries = again_and_again(bus, spec, shutdown, handler, &message, &metadata, &acker);
        keep_patient(spec, &acker, tries).await
    };
    settle(bus, spec, &message, &metadata, &acker, outcome).await;
    drop(acker.take_permit());
}

/// Runs the handler, again as long as it says [`Outcome::Later`]. All of it is one delivery, so that an outage, however
/// long, uses up none of those that a message has.
#[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
async fn again_and_again<T, F, Fut>(
    bus: &Bus,
    spec: &ConsumerSpec,
    shutdown: &CancellationToken,
    handler: &F,
    message: &jetstream::Message,
    metadata: &Metadata,
    acker: &Arc<Acker>,
) -> Outcome
where
    T: FromMessage,
    F: Fn(Delivery<T>) -> Fut,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    loop {
        let read = match T::from_message(&Raw { subjects: bus.subjects(), message: &message.message }) {
            Err(reason) => return Outcome::Refuse { reason },
            Ok(read) => read,
        };
        let delivery = Delivery {
            message: read,
            deliveries: metadata.deliveries,
            stream_sequence: metadata.stream_sequence,
            stored_at: metadata.stored_at,
            acker: Arc::clone(acker),
        };
        let outcome = AssertUnwindSafe(async { handler(delivery).await }).catch_unwind().await.unwrap_or_else(|_panic| {
            error!(durable = spec.durable, "a message handler panicked");
            Outcome::Retry { after: RETRY_AFTER_FAULT }
        });
        let Outcome::Later { after } = outcome else { return outcome };
        if acker.is_settled() {
            return outcome;
        }
        tokio::select! {
            () = shutdown.cancelled() => return outcome,
            () = sleep(after) => {}
        }
    }
}

/// Tells the server again and again that the message is still worked on.
#[expect(clippy::disallowed_methods, reason = "a lease: the server is told that the message is still worked on")]
async fn keep_patient(spec: &ConsumerSpec, acker: &Acker, work: impl Future<Output = Outcome>) -> Outcome {
    let mut work = std::pin::pin!(work);
    let mut patience = interval_at(Instant::now() + spec.ack_wait / 3, spec.ack_wait / 3);
    patience.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            outcome = &mut work => return outcome,
            _ = patience.tick() => {
                if !acker.is_settled() {
                    acker.in_progress().await;
                }
            }
        }
    }
}

async fn settle(
    bus: &Bus,
    spec: &ConsumerSpec,
    message: &jetstream::Message,
    metadata: &Metadata,
    acker: &Acker,
    outcome: Outcome,
) {
    if acker.is_settled() {
        return;
    }
    let outcome = match outcome {
        Outcome::Retry { .. } if metadata.deliveries >= spec.max_deliveries => {
            Outcome::Refuse { reason: format!("it was tried {} times in vain", metadata.deliveries) }
        }
        outcome => outcome,
    };
    let settled = match &outcome {
        Outcome::Done => acker.settle(Settlement::Ack).await,
        Outcome::Retry { after } | Outcome::Later { after } => acker.settle(Settlement::Nak(*after)).await,
        Outcome::Refuse { reason } => {
            let reason = one_line(reason);
            warn!(durable = spec.durable, subject = %message.subject, reason, "a message was refused");
            // Copied first: taken off a work queue it is gone.
            match bus.publish_dead(&metadata.letter(spec, message, reason.clone())).await {
                Ok(()) => acker.settle(Settlement::Term(&reason)).await,
                Err(error) => {
                    error!(%error, durable = spec.durable, "a dead letter could not be stored; the message stays");
                    acker.settle(Settlement::Nak(RETRY_AFTER_FAULT)).await
                }
            }
        }
    };
    if let Err(error) = settled {
        debug!(%error, durable = spec.durable, subject = %message.subject, "the message may come again");
    }
}

/// An acknowledgement's reason is one line.
fn one_line(reason: &str) -> String {
    reason.chars().map(|character| if character.is_control() { ' ' } else { character }).take(REASON_MAX_CHARACTERS).collect()
}

/// What JetStream tells with a message.
struct Metadata {
    deliveries: i64,
    stream_sequence: u64,
    stored_at: OffsetDateTime,
}

impl Metadata {
    fn of(message: &jetstream::Message) -> Option<Metadata> {
        let info = message.info().ok()?;
        Some(Metadata { deliveries: info.delivered, stream_sequence: info.stream_sequence, stored_at: info.published })
    }

    fn letter(&self, spec: &ConsumerSpec, message: &jetstream::Message, reason: String) -> DeadLetter {
        DeadLetter {
            stream: spec.stream.to_owned(),
            consumer: spec.durable.to_owned(),
            reason,
            subject: message.subject.to_string(),
            stream_sequence: self.stream_sequence,
            deliveries: self.deliveries,
            stored_at: self.stored_at,
            headers: message.headers.as_ref().map(header_list).unwrap_or_default(),
            body: message.payload.clone(),
        }
    }
}

fn header_list(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.as_str().to_owned())))
        .collect()
}
