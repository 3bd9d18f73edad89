//! Consuming: a durable pull consumer worked off with as many messages in hand as there are permits, through lost
//! servers, deleted consumers and wiped streams, until it is told to stop.
//!
//! The pull loop is our own. The library's batch stops hearing after an idle heartbeat, its stream takes 200 messages
//! ahead, and its confirmed acknowledgement believes a refusal.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{HeaderMap, Message, RequestErrorKind, StatusCode, Subscriber, jetstream};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    bus::{Bus, Connection, backoff},
    download, envelope,
    event::Event,
    publish::DeadLetter,
    subject::{self, Meaning, Subject, Subjects, WorkKind},
    topology::{self, ACK_WAIT},
};

/// How long the server keeps a pull open. Short, as a pull that got lost is missed for as long.
const PULL_EXPIRES: Duration = Duration::from_secs(15);
/// How often the server says that a pull is still open.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Messages of one pull at most.
const BATCH_MAX: usize = 64;
/// How long an acknowledgement is waited for.
const ACK_PATIENCE: Duration = Duration::from_secs(5);
/// When a message comes again whose handler panicked or whose dead letter could not be written.
const RETRY_AFTER_FAULT: Duration = Duration::from_secs(5);
/// How long a stopping consumer waits for messages that are on their way, to hand them back.
const HAND_BACK_PATIENCE: Duration = Duration::from_secs(1);
/// What was delivered as often as this without being done with is not worth another try.
const MAX_DELIVERIES: i64 = 100;
/// Longest reason that is written down.
const REASON_MAX_CHARACTERS: usize = 500;

/// What becomes of a message. Decided on the line that knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done with.
    Done,
    /// It may go better later.
    Retry {
        /// How much later.
        after: Duration,
    },
    /// It will never go better. It is put among the dead with the reason.
    Refuse {
        /// For operators.
        reason: String,
    },
}

/// A durable consumer and how it is worked off.
#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    /// The stream that it reads.
    pub stream: &'static str,
    /// Its durable name. Processes with the same share the messages.
    pub durable: &'static str,
    /// What it reads of the stream.
    pub filter: Subject,
    /// A message that comes more often than this is put among the dead without being looked at.
    pub max_deliveries: i64,
    /// How long a message may be with a process that is not heard of before it is handed out again.
    pub ack_wait: Duration,
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

#[derive(Serialize)]
struct PullRequest {
    batch: usize,
    /// Nanoseconds, as all of JetStream's.
    expires: u128,
    idle_heartbeat: u128,
}

/// Why a pull is over.
enum PullEnd {
    /// As many messages came as were asked for, or none came in time.
    Spent,
    /// Something is off that passes by itself: no leader, no heartbeat, a new connection.
    Troubled(&'static str),
    /// Nobody serves this consumer.
    Gone,
    /// The consumer is to stop.
    Stopping,
    /// The client is closed.
    Closed,
}

impl Bus {
    /// The consumer that all workers of this kind share.
    pub fn work_consumer(&self, kind: WorkKind) -> ConsumerSpec {
        ConsumerSpec {
            stream: kind.stream(),
            durable: kind.consumer(),
            filter: self.subjects().every_work(kind),
            max_deliveries: MAX_DELIVERIES,
            ack_wait: ACK_WAIT,
        }
    }

    /// A consumer of facts. It begins with the oldest that the stream holds, so it must recognise repeats.
    pub fn event_consumer(&self, durable: &'static str, filter: Subject) -> ConsumerSpec {
        ConsumerSpec { stream: topology::EVENTS, durable, filter, max_deliveries: MAX_DELIVERIES, ack_wait: ACK_WAIT }
    }

    /// A consumer of the object store's notifications.
    pub fn object_consumer(&self, durable: &'static str) -> ConsumerSpec {
        ConsumerSpec {
            stream: topology::OBJECTS,
            durable,
            filter: self.subjects().every_object(),
            max_deliveries: MAX_DELIVERIES,
            ack_wait: ACK_WAIT,
        }
    }

    /// Works off a consumer until `shutdown`, then waits for the handlers that run. Not more messages are taken than there
    /// are permits; those that are free are held while messages are waited for. A handler may be dropped at every await
    /// when this future is dropped.
    ///
    /// What is deleted on the server meanwhile is put back; what was delivered twice comes twice.
    pub async fn consume<T, F, Fut>(&self, spec: ConsumerSpec, shutdown: CancellationToken, permits: Arc<Semaphore>, handler: F)
    where
        T: FromMessage,
        F: Fn(Delivery<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let inbox = self.0.client.new_inbox();
        let messages = loop {
            match self.0.client.subscribe(format!("{inbox}.*")).await {
                Ok(messages) => break messages,
                Err(error) => {
                    debug!(%error, "the inbox of a consumer could not be opened");
                    return;
                }
            }
        };
        let mut consuming = Consuming {
            bus: self.clone(),
            spec: Arc::new(spec),
            shutdown,
            permits,
            handler: Arc::new(handler),
            inbox,
            pull_no: 0,
            messages,
            held: Vec::new(),
            handlers: JoinSet::new(),
            message: std::marker::PhantomData::<fn() -> T>,
        };
        consuming.run().await;
        consuming.finish().await;
    }
}

struct Consuming<T, F> {
    bus: Bus,
    spec: Arc<ConsumerSpec>,
    shutdown: CancellationToken,
    permits: Arc<Semaphore>,
    handler: Arc<F>,
    inbox: String,
    /// Each pull is answered on a subject of its own, so that a late word about one is not taken for a word about another.
    pull_no: u64,
    messages: Subscriber,
    /// Permits for messages that were asked for and have not come.
    held: Vec<OwnedSemaphorePermit>,
    handlers: JoinSet<()>,
    message: std::marker::PhantomData<fn() -> T>,
}

impl<T, F, Fut> Consuming<T, F>
where
    T: FromMessage,
    F: Fn(Delivery<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    async fn run(&mut self) {
        let mut troubles = 0_u32;
        if let Err(error) = self.put_back(false).await {
            debug!(%error, durable = self.spec.durable, "the consumer could not be made yet");
        }
        loop {
            while self.handlers.try_join_next().is_some() {}
            if !self.connected().await || !self.hold_permits().await {
                return;
            }
            let end = match self.ask_for_messages().await {
                Ok(()) => self.receive().await,
                Err(()) => PullEnd::Troubled("the pull could not be sent"),
            };
            self.held.clear();
            match end {
                PullEnd::Spent => {
                    if troubles > 1 {
                        info!(durable = self.spec.durable, "messages are consumed again");
                    }
                    troubles = 0;
                    continue;
                }
                PullEnd::Stopping | PullEnd::Closed => return,
                PullEnd::Troubled(reason) => {
                    debug!(durable = self.spec.durable, reason, "a pull ended early; pulling again");
                }
                PullEnd::Gone => {
                    if troubles == 1 {
                        warn!(durable = self.spec.durable, stream = self.spec.stream, "nobody serves this consumer");
                    }
                    // Without leader it looks the same as deleted, so the first miss means nothing.
                    if troubles >= 1
                        && let Err(error) = self.put_back(true).await
                    {
                        debug!(%error, durable = self.spec.durable, "the consumer could not be put back yet");
                    }
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = sleep(backoff(troubles)) => {}
            }
            troubles = troubles.saturating_add(1);
        }
    }

    /// Makes the consumer if it is missing; with `all`, what it stands on as well.
    async fn put_back(&self, all: bool) -> Result<(), topology::Error> {
        if all {
            self.bus.restore_topology().await?;
        }
        let spec = &self.spec;
        let consumer = topology::Consumer::reading(spec.stream, spec.durable, &spec.filter, spec.ack_wait, self.bus.0.replicas);
        topology::ensure_consumer(&self.bus.0.jetstream, &consumer).await
    }

    /// Waits for the server: a pull that is queued while it is away would come on top of the next. False when it is time
    /// to stop.
    async fn connected(&self) -> bool {
        let mut connection = self.bus.connection();
        tokio::select! {
            () = self.shutdown.cancelled() => false,
            state = connection.wait_for(|state| !matches!(state, Connection::Disconnected { .. })) => {
                matches!(state.as_deref(), Ok(Connection::Connected))
            }
        }
    }

    /// Waits for a permit and takes what else is free. False when it is time to stop.
    async fn hold_permits(&mut self) -> bool {
        let first = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return false,
            permit = Arc::clone(&self.permits).acquire_owned() => permit,
        };
        let Ok(first) = first else { return false };
        self.held.push(first);
        while self.held.len() < BATCH_MAX
            && let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned()
        {
            self.held.push(permit);
        }
        true
    }

    async fn ask_for_messages(&mut self) -> Result<(), ()> {
        self.pull_no += 1;
        let request =
            PullRequest { batch: self.held.len(), expires: PULL_EXPIRES.as_nanos(), idle_heartbeat: HEARTBEAT.as_nanos() };
        let body = serde_json::to_vec(&request).map_err(|_| ())?;
        let pull = subject::pull(self.spec.stream, self.spec.durable).nats();
        let client = self.bus.0.client.clone();
        let publish = client.publish_with_reply(pull, format!("{}.{}", self.inbox, self.pull_no), body.into());
        tokio::select! {
            () = self.shutdown.cancelled() => Err(()),
            sent = timeout(ACK_PATIENCE, publish) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(()),
            },
        }
    }

    /// Takes what the pull brings.
    async fn receive(&mut self) -> PullEnd {
        let about_this_pull = format!("{}.{}", self.inbox, self.pull_no);
        let mut connection = self.bus.connection();
        connection.mark_unchanged();
        let mut heard = Instant::now();
        while !self.held.is_empty() {
            let message = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return PullEnd::Stopping,
                message = self.messages.next() => message,
                changed = connection.changed() => {
                    // The server forgot the pull with the connection.
                    if changed.is_err() || *connection.borrow() == Connection::Closed {
                        return PullEnd::Closed;
                    }
                    if connection.wait_for(|state| *state == Connection::Connected).await.is_err() {
                        return PullEnd::Closed;
                    }
                    return PullEnd::Troubled("the connection is new");
                }
                () = sleep_until(heard + 2 * HEARTBEAT + HEARTBEAT / 2) => return PullEnd::Troubled("no heartbeat"),
            };
            let Some(message) = message else { return PullEnd::Closed };
            heard = Instant::now();
            match message.status {
                None | Some(StatusCode::OK) => {
                    let permit = self.held.pop();
                    self.begin(message, permit);
                }
                Some(_) if *message.subject != *about_this_pull => {}
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => return PullEnd::Spent,
                Some(StatusCode::NO_RESPONDERS) => return PullEnd::Gone,
                Some(status) => {
                    let description = message.description.unwrap_or_default().to_ascii_lowercase();
                    debug!(%status, description, durable = self.spec.durable, "the server ended a pull");
                    return if description.contains("consumer deleted") || description.contains("consumer is push") {
                        PullEnd::Gone
                    } else if description.contains("batch completed") {
                        PullEnd::Spent
                    } else {
                        PullEnd::Troubled("the server ended it")
                    };
                }
            }
        }
        PullEnd::Spent
    }

    /// Starts the handler of a message. Without a permit (the message of a pull that was given up) it waits for one.
    fn begin(&mut self, message: Message, permit: Option<OwnedSemaphorePermit>) {
        let (bus, spec, handler, permits) =
            (self.bus.clone(), Arc::clone(&self.spec), Arc::clone(&self.handler), Arc::clone(&self.permits));
        self.handlers.spawn(async move {
            let permit = match permit {
                Some(permit) => permit,
                None => match permits.acquire_owned().await {
                    Ok(permit) => permit,
                    Err(_closed) => return,
                },
            };
            handle(&bus, &spec, &*handler, message, permit).await;
        });
    }

    /// Hands back what is on its way, and waits for what is in hand.
    async fn finish(&mut self) {
        if self.messages.drain().await.is_ok() {
            let hand_back = async {
                while let Some(message) = self.messages.next().await {
                    if let (None | Some(StatusCode::OK), Some(reply)) = (message.status, message.reply) {
                        let _ = self.bus.0.client.publish(reply, Bytes::from_static(b"-NAK")).await;
                    }
                }
            };
            let _ = timeout(HAND_BACK_PATIENCE, hand_back).await;
        }
        while self.handlers.join_next().await.is_some() {}
    }
}

async fn handle<T, F, Fut>(bus: &Bus, spec: &ConsumerSpec, handler: &F, message: Message, permit: OwnedSemaphorePermit)
where
    T: FromMessage,
    F: Fn(Delivery<T>) -> Fut,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    let message = jetstream::Message { message, context: bus.0.jetstream.clone() };
    let Some(delivery) = Metadata::of(&message) else {
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

    let outcome = if delivery.deliveries > spec.max_deliveries {
        Outcome::Refuse { reason: format!("it was delivered {} times and never done with", delivery.deliveries) }
    } else {
        match T::from_message(&Raw { subjects: bus.subjects(), message: &message.message }) {
            Err(reason) => Outcome::Refuse { reason },
            Ok(read) => {
                let delivery = Delivery {
                    message: read,
                    deliveries: delivery.deliveries,
                    stream_sequence: delivery.stream_sequence,
                    stored_at: delivery.stored_at,
                    acker: Arc::clone(&acker),
                };
                run(spec, handler, delivery, &acker).await
            }
        }
    };
    settle(bus, spec, &message, &delivery, &acker, outcome).await;
    drop(acker.take_permit());
}

/// Runs the handler, and keeps the server patient meanwhile.
async fn run<T, F, Fut>(spec: &ConsumerSpec, handler: &F, delivery: Delivery<T>, acker: &Acker) -> Outcome
where
    F: Fn(Delivery<T>) -> Fut,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    let work = AssertUnwindSafe(async { handler(delivery).await }).catch_unwind();
    let mut work = std::pin::pin!(work);
    let mut patience = interval_at(Instant::now() + spec.ack_wait / 3, spec.ack_wait / 3);
    patience.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            outcome = &mut work => return outcome.unwrap_or_else(|_panic| {
                error!(durable = spec.durable, "a message handler panicked");
                Outcome::Retry { after: RETRY_AFTER_FAULT }
            }),
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
        Outcome::Retry { after } => acker.settle(Settlement::Nak(*after)).await,
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
