//! The intake: takes the object store's notifications, and works on uploads that need a longer look.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bowerbird_nats::{
    Bus, UploadId,
    consume::{ConsumerSpec, Delivery, Outcome},
};
use bowerbird_storage::notification::{Kind, Notification, ParseError};
use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Landing;
use crate::{
    metrics::{Meters, TryResult},
    supervision::{OwnedTasks, Panicked},
};

/// Name of the durable consumer.
const DURABLE: &str = "ingest";
/// Notifications in hand at once: each spends its time waiting for the object store and the database.
const AT_ONCE: usize = 32;
/// Uploads that are worked on at once, and that wait for that. More than wait are found by their alarms.
const WORKED_ON: usize = 8;
const WAITING_MOST: usize = 10_000;
/// A notification that could not be acted on this often is left to the comparison of rows and objects.
const TRIES: i64 = 12;
/// Longest wait between two tries.
const AGAIN_MOST: Duration = Duration::from_mins(1);

/// Takes in.
#[derive(Clone)]
pub(super) struct Intake {
    pub(super) bus: Bus,
    pub(super) bucket_name: Arc<str>,
    pub(super) landing: Landing,
    pub(super) meters: Meters,
}

/// What it is told.
pub(super) enum Message {
    /// Work on these.
    Look(Vec<UploadId>),
    /// This one is done for now.
    Looked(UploadId, Result<(), Panicked>),
    /// The consumer has ended, which it should not.
    Ended(Option<Panicked>),
}

/// What it works on.
pub(super) struct State {
    tasks: OwnedTasks,
    busy: HashSet<UploadId>,
    permits: Arc<Semaphore>,
}

impl Intake {
    async fn consume(self) {
        let spec = ConsumerSpec { max_deliveries: i64::MAX, ..self.bus.object_consumer(DURABLE) };
        // The token is never used: the loop ends with the actor that owns it.
        let (ends, bus) = (CancellationToken::new(), self.bus.clone());
        let handler = move |delivery: Delivery<Bytes>| {
            let intake = self.clone();
            async move { intake.notified(&delivery.message, delivery.deliveries).await }
        };
        bus.consume(spec, ends, Arc::new(Semaphore::new(AT_ONCE)), handler).await;
    }

    /// Never refused: a dead letter would keep the whole message, and some object stores put credentials of whoever wrote
    /// the object into it.
    async fn notified(&self, message: &[u8], deliveries: i64) -> Outcome {
        let records = match Notification::read_all(message) {
            Ok(records) => records,
            Err(error) => {
                warn!(%error, bytes = message.len(), "a message of the object store is no notification and is dropped");
                self.count("malformed");
                return Outcome::Done;
            }
        };
        let mut again = false;
        for record in records {
            let record = match record {
                Ok(record) if *record.bucket == *self.bucket_name => record,
                Ok(_) | Err(ParseError::OtherKind(_) | ParseError::Empty) => {
                    self.count("ignored");
                    continue;
                }
                Err(error) => {
                    warn!(%error, "a record of a notification cannot be read and is dropped");
                    self.count("malformed");
                    continue;
                }
            };
            let acted = match record.kind {
                Kind::Created => self.landing.created(&record.key).await,
                Kind::Removed => self.landing.removed(&record.key).await,
            };
            match acted {
                Ok(true) => self.count("acted_on"),
                Ok(false) => self.count("nothing_new"),
                Err(error) => {
                    debug!(%error, deliveries, "a notification could not be acted on yet");
                    again = true;
                }
            }
        }
        if !again {
            return Outcome::Done;
        }
        self.count("failed");
        if deliveries >= TRIES {
            warn!("a notification could not be acted on; what it told of is found when rows and objects are compared");
            return Outcome::Done;
        }
        let doublings = u32::try_from(deliveries).unwrap_or(0).min(10);
        Outcome::Retry { after: Duration::from_millis(250 << doublings).min(AGAIN_MOST) }
    }

    fn count(&self, result: &'static str) {
        self.meters.0.object_notifications.get_or_create(&TryResult { result }).inc();
    }

    fn begin(&self, myself: &ActorRef<Message>, id: UploadId, state: &mut State) {
        if state.busy.len() >= WAITING_MOST || !state.busy.insert(id) {
            return;
        }
        let (landing, permits) = (self.landing.clone(), Arc::clone(&state.permits));
        let work = async move {
            let Ok(_permit) = permits.acquire().await else { return };
            if let Err(error) = landing.work(id).await {
                warn!(upload = %id, %error, "an upload could not be looked at; it is tried again");
            }
        };
        state.tasks.spawn(myself, work, move |ended| Message::Looked(id, ended));
    }
}

impl Actor for Intake {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        let mut tasks = OwnedTasks::default();
        tasks.spawn(&myself, self.clone().consume(), |ended| Message::Ended(ended.err()));
        Ok(State { tasks, busy: HashSet::new(), permits: Arc::new(Semaphore::new(WORKED_ON)) })
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look(ids) => ids.into_iter().for_each(|id| self.begin(&myself, id, state)),
            Message::Looked(id, ended) => {
                state.busy.remove(&id);
                ended?;
            }
            Message::Ended(panicked) => {
                let why = panicked.map_or_else(|| "it returned".to_owned(), |panicked| panicked.to_string());
                return Err(format!("the consumer of notifications: {why}").into());
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.tasks.abort_all().await;
        Ok(())
    }
}
