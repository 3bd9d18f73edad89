//! Consuming: a durable pull consumer worked off with as many messages in hand as there are permits, through lost
//! servers, deleted consumers and wiped streams, until it is told to stop.
//!
//! The pull loop is our own. The library's batch stops hearing after an idle heartbeat, its stream takes 200 messages
//! ahead, and its confirmed acknowledgement believes a refusal.

use std::{future::Future, sync::Arc, time::Duration};

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use crate::delivery::{AckError, Delivery, FromMessage, Outcome, Raw};
use crate::{
    bus::{Bus, Connection, backoff},
    delivery::{ACK_PATIENCE, handle},
    envelope,
    subject::{self, Subject, WorkKind},
    topology::{self, ACK_WAIT},
};

/// How long the server keeps a pull open. Short, as a pull that got lost is missed for as long.
const PULL_EXPIRES: Duration = Duration::from_secs(15);
/// How often the server says that a pull is still open.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Messages of one pull at most.
const BATCH_MAX: usize = 64;
/// How long a stopping consumer waits for messages that are on their way, to hand them back.
const HAND_BACK_PATIENCE: Duration = Duration::from_secs(1);
/// What was delivered as often as this without being done with is not worth another try.
const MAX_DELIVERIES: i64 = 100;

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

    /// The consumer that all processes share to hear that alarms are due.
    pub fn alarm_consumer(&self) -> ConsumerSpec {
        ConsumerSpec {
            stream: topology::ALARMS,
            durable: topology::ALARMS_CONSUMER,
            filter: self.subjects().every_alarm_due(),
            max_deliveries: MAX_DELIVERIES,
            ack_wait: ACK_WAIT,
        }
    }

    /// Works off a consumer until `shutdown`, then waits for the handlers that run. Not more messages are taken than there
    /// are permits; those that are free are held while messages are waited for. A handler may be dropped at every await
    /// when this future is dropped.
    ///
    /// What is deleted on the server meanwhile is put back; what was delivered twice comes twice.
    ///
    /// What it refused and an operator hands back comes to the same handler, one at a time beside the others.
    pub async fn consume<T, F, Fut>(&self, spec: ConsumerSpec, shutdown: CancellationToken, permits: Arc<Semaphore>, handler: F)
    where
        T: FromMessage,
        F: Fn(Delivery<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let spec = Arc::new(spec);
        let of_stream = self.consuming(Source::stream(&spec), Arc::clone(&spec), shutdown.clone(), permits, Arc::clone(&handler));
        if spec.stream == topology::DEAD {
            return Box::pin(of_stream.run_to_its_end()).await;
        }
        // What an operator sends back is one message at a time, beside the others: it must wait for none of their permits,
        // nor hold one of them while nothing comes.
        let own_permit = Arc::new(Semaphore::new(1));
        let of_replays = self.consuming(Source::replays(self, &spec), spec, shutdown, own_permit, handler);
        tokio::join!(Box::pin(of_stream.run_to_its_end()), Box::pin(of_replays.run_to_its_end()));
    }

    fn consuming<T, F>(
        &self,
        source: Source,
        spec: Arc<ConsumerSpec>,
        shutdown: CancellationToken,
        permits: Arc<Semaphore>,
        handler: Arc<F>,
    ) -> Consuming<T, F> {
        Consuming {
            bus: self.clone(),
            source,
            spec,
            shutdown,
            permits,
            handler,
            inbox: self.0.client.new_inbox(),
            pull_no: 0,
            held: Vec::new(),
            handlers: JoinSet::new(),
            message: std::marker::PhantomData::<fn() -> T>,
        }
    }
}

/// A durable consumer that is pulled from.
struct Source {
    stream: &'static str,
    durable: String,
    filter: Subject,
    /// Its messages were refused before, and carry the subject that they came on as a header.
    replays: bool,
}

impl Source {
    fn stream(spec: &ConsumerSpec) -> Source {
        Source { stream: spec.stream, durable: spec.durable.to_owned(), filter: spec.filter.clone(), replays: false }
    }

    /// What this consumer refused and is to handle once more.
    fn replays(bus: &Bus, spec: &ConsumerSpec) -> Source {
        Source {
            stream: topology::REPLAYS,
            durable: format!("{}_{}", spec.stream, spec.durable),
            filter: bus.subjects().replay(spec.stream, spec.durable),
            replays: true,
        }
    }
}

struct Consuming<T, F> {
    bus: Bus,
    source: Source,
    spec: Arc<ConsumerSpec>,
    shutdown: CancellationToken,
    permits: Arc<Semaphore>,
    handler: Arc<F>,
    inbox: String,
    /// Each pull is answered on a subject of its own, so that a late word about one is not taken for a word about another.
    pull_no: u64,
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
    async fn run_to_its_end(mut self) {
        let mut messages = match self.bus.0.client.subscribe(format!("{}.*", self.inbox)).await {
            Ok(messages) => messages,
            Err(error) => {
                // Only a closed client takes no subscription.
                debug!(%error, "the inbox of a consumer could not be opened");
                return;
            }
        };
        self.run(&mut messages).await;
        self.finish(messages).await;
    }

    #[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
    async fn run(&mut self, messages: &mut Subscriber) {
        let mut troubles = 0_u32;
        if let Err(error) = self.put_back(false).await {
            debug!(%error, durable = self.source.durable, "the consumer could not be made yet");
        }
        loop {
            while self.handlers.try_join_next().is_some() {}
            if !self.connected().await || !self.hold_permits().await {
                return;
            }
            let end = match self.ask_for_messages().await {
                Ok(()) => self.receive(messages).await,
                Err(()) => PullEnd::Troubled("the pull could not be sent"),
            };
            self.held.clear();
            match end {
                PullEnd::Spent => {
                    if troubles > 1 {
                        info!(durable = self.source.durable, "messages are consumed again");
                    }
                    troubles = 0;
                    continue;
                }
                PullEnd::Stopping | PullEnd::Closed => return,
                PullEnd::Troubled(reason) => {
                    debug!(durable = self.source.durable, reason, "a pull ended early; pulling again");
                }
                PullEnd::Gone => {
                    if troubles == 1 {
                        warn!(durable = self.source.durable, stream = self.source.stream, "nobody serves this consumer");
                    }
                    // Without leader it looks the same as deleted, so the first miss means nothing.
                    if troubles >= 1
                        && let Err(error) = self.put_back(true).await
                    {
                        debug!(%error, durable = self.source.durable, "the consumer could not be put back yet");
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
        let Source { stream, durable, filter, .. } = &self.source;
        let consumer = topology::Consumer::reading(stream, durable, filter, self.spec.ack_wait, self.bus.0.replicas);
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
        let pull = subject::pull(self.source.stream, &self.source.durable).nats();
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
    #[expect(clippy::disallowed_methods, reason = "a stall: a pull of which nothing is heard")]
    async fn receive(&mut self, messages: &mut Subscriber) -> PullEnd {
        let about_this_pull = format!("{}.{}", self.inbox, self.pull_no);
        let mut connection = self.bus.connection();
        let mut heard = Instant::now();
        while !self.held.is_empty() {
            let message = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return PullEnd::Stopping,
                message = messages.next() => message,
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
                    debug!(%status, description, durable = self.source.durable, "the server ended a pull");
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
    fn begin(&mut self, mut message: Message, permit: Option<OwnedSemaphorePermit>) {
        if self.source.replays
            && let Some(subject) = envelope::get(message.headers.as_ref(), envelope::DEAD_SUBJECT).map(ToOwned::to_owned)
        {
            message.subject = subject.into();
        }
        let (bus, spec, handler, permits) =
            (self.bus.clone(), Arc::clone(&self.spec), Arc::clone(&self.handler), Arc::clone(&self.permits));
        let shutdown = self.shutdown.clone();
        self.handlers.spawn(async move {
            let permit = match permit {
                Some(permit) => permit,
                None => match permits.acquire_owned().await {
                    Ok(permit) => permit,
                    Err(_closed) => return,
                },
            };
            handle(&bus, &spec, &shutdown, &*handler, message, permit).await;
        });
    }

    /// Hands back what is on its way, and waits for what is in hand.
    async fn finish(mut self, mut messages: Subscriber) {
        if messages.drain().await.is_ok() {
            let hand_back = async {
                while let Some(message) = messages.next().await {
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
