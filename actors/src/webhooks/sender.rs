//! The sender of this node: takes messages as long as a slot is free, hands them over, and writes down how that went.
//!
//! The row is the truth: a claim is committed before anything is sent, and what became of it is written under its fence.
//! When this process dies in between, the lease ends and the message is sent again, with the same id. The sender is woken
//! when something was queued or a slot came free, and looks by itself as a backstop.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bowerbird_nats::{WebhookDeliveryId, id::NodeId};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tokio::{sync::Semaphore, time::timeout};
use tracing::{info, warn};
use url::Url;

use super::{
    courier::{Courier, Parcel, Verdict},
    row::Tried,
    schedule::{self, Schedule},
    secret::{self, Seal},
    store::{self, After, Claimed, HandedBack, Room, Rules},
};
use crate::{
    alarms::AlarmsAddress,
    database,
    events::Bell,
    metrics::{Meters, TryResult},
    supervision::{OwnedTasks, Panicked},
};

/// How often it looks by itself.
const POLL: Duration = Duration::from_secs(1);
/// How long messages that are on their way may take when the process stops. The rest is handed back, and sent again.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// How often it is tried to write down how a try went; then the lease ends, and the message is sent again.
const WRITE_TRIES: u32 = 4;
/// The wait between these, doubled each time.
const WRITE_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Sends.
#[derive(Clone)]
pub(crate) struct Sender(pub(crate) Arc<Means>);

/// What it works with.
pub(crate) struct Means {
    pub(crate) pool: PgPool,
    pub(crate) courier: Courier,
    pub(crate) seal: Seal,
    pub(crate) bell: Bell,
    pub(crate) alarms: AlarmsAddress,
    pub(crate) meters: Meters,
    pub(crate) node_id: NodeId,
    pub(crate) limits: Limits,
    pub(crate) schedule: Schedule,
}

/// What it goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Messages that this node sends at once.
    pub(crate) slots: usize,
    /// Messages that are on their way to one webhook at once, over all nodes.
    pub(crate) per_webhook: u32,
    /// Longest try.
    pub(crate) timeout: Duration,
    /// How long a claim is good for; longer than the longest try.
    pub(crate) lease: Duration,
    /// A webhook that only failed for this long is disabled.
    pub(crate) disable_after: Duration,
}

/// What it keeps.
pub(crate) struct State {
    tasks: OwnedTasks,
    /// Each that is being sent, and whether its receiver had failed before.
    sending: HashMap<WebhookDeliveryId, bool>,
    /// One permit for each message that is being sent, so that their end can be waited for.
    running: Arc<Semaphore>,
    looking: bool,
    /// It was woken while it looked.
    again: bool,
}

/// What it is told.
pub(crate) enum Message {
    /// Something was queued, or a slot came free.
    Look,
    /// A look is over; these are ours.
    Looked(Result<Vec<Claimed>, Panicked>),
    /// A try of this one is over.
    Sent(WebhookDeliveryId, Result<(), Panicked>),
}

impl Actor for Sender {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    #[expect(clippy::disallowed_methods, reason = "a poll behind the alarm")]
    async fn pre_start(&self, myself: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        let handed_back = self.hand_back(true).await?;
        if handed_back.queued > 0 {
            info!(messages = handed_back.queued, "took back what this node sent before it was restarted");
        }
        myself.cast(Message::Look)?;
        myself.send_interval(POLL, || Message::Look);
        Ok(State {
            tasks: OwnedTasks::default(),
            sending: HashMap::new(),
            running: Arc::new(Semaphore::new(self.0.limits.slots)),
            looking: false,
            again: false,
        })
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look if state.looking => state.again = true,
            Message::Look => self.look(&myself, state),
            Message::Looked(looked) => {
                state.looking = false;
                let claimed = looked?;
                let more = !claimed.is_empty() || std::mem::take(&mut state.again);
                for claimed in claimed {
                    self.send(&myself, claimed, state);
                }
                if more {
                    self.look(&myself, state);
                }
            }
            Message::Sent(id, sent) => {
                state.sending.remove(&id);
                self.count(state);
                if let Err(panicked) = sent {
                    // Its lease ends by itself; one message must not stop the others.
                    warn!(delivery = %id, %panicked, "sending a message panicked");
                }
                if state.looking {
                    state.again = true;
                } else {
                    self.look(&myself, state);
                }
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        let slots = u32::try_from(self.0.limits.slots).unwrap_or(u32::MAX);
        if timeout(FINISH_WITHIN, state.running.acquire_many(slots)).await.is_err() {
            info!("some messages are still on their way; they are handed back");
        }
        // Nothing may be claimed after what follows.
        state.tasks.abort_all().await;
        let handed_back = self.hand_back(false).await?;
        if handed_back.queued > 0 {
            info!(messages = handed_back.queued, "handed back messages that were on their way; they are sent again");
        }
        Ok(())
    }
}

impl Sender {
    fn look(&self, myself: &ActorRef<Message>, state: &mut State) {
        let slots = self.0.limits.slots;
        let failing = state.sending.values().filter(|is_failing| **is_failing).count();
        let room = Room {
            free: count(slots.saturating_sub(state.sending.len())),
            // So that receivers that are slow to fail cannot take every slot.
            free_for_failing: count((slots / 2).saturating_sub(failing)),
            per_webhook: i64::from(self.0.limits.per_webhook),
        };
        state.again = false;
        if room.free == 0 {
            return;
        }
        state.looking = true;
        let means = Arc::clone(&self.0);
        state.tasks.spawn(myself, async move { means.look(room).await }, Message::Looked);
    }

    fn send(&self, myself: &ActorRef<Message>, claimed: Claimed, state: &mut State) {
        let (means, running, id) = (Arc::clone(&self.0), Arc::clone(&state.running), claimed.id);
        state.sending.insert(id, claimed.is_failing);
        self.count(state);
        let sending = async move {
            let _permit = running.acquire_owned().await;
            means.send(claimed).await;
        };
        state.tasks.spawn(myself, sending, move |sent| Message::Sent(id, sent));
    }

    fn count(&self, state: &State) {
        self.0.meters.0.webhooks_sending.set(count(state.sending.len()));
    }

    async fn hand_back(&self, crashed: bool) -> Result<HandedBack, store::Error> {
        let mut transaction = self.0.pool.begin().await?;
        let handed_back = store::hand_back(&mut transaction, self.0.node_id, crashed).await?;
        transaction.commit().await?;
        Ok(handed_back)
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Means {
    async fn look(&self, room: Room) -> Vec<Claimed> {
        self.take(room).await.unwrap_or_else(|error| {
            warn!(%error, "messages for webhooks could not be claimed; it is tried again");
            Vec::new()
        })
    }

    async fn take(&self, room: Room) -> Result<Vec<Claimed>, store::Error> {
        if !store::due(&self.pool).await? {
            return Ok(Vec::new());
        }
        let mut transaction = self.pool.begin().await?;
        let reaped = store::reap(&mut transaction).await?;
        transaction.commit().await?;
        if reaped != HandedBack::default() {
            warn!(queued = reaped.queued, given_up = reaped.failed, "took back messages whose sender was lost");
        }
        let mut transaction = self.pool.begin().await?;
        let claimed = store::claim(&mut transaction, self.node_id, self.limits.lease, room).await?;
        transaction.commit().await?;
        Ok(claimed)
    }

    async fn send(&self, claimed: Claimed) {
        let (tried, verdict, origin) = match self.hand_over(&claimed).await {
            Ok(handed_over) => handed_over,
            Err(error) => {
                // A master key that does not fit: nothing to tell the receiver's owner; the lease ends, and it is tried again.
                warn!(delivery = %claimed.id, %error, "a message cannot be sent");
                return;
            }
        };
        let result = tried.failure.as_ref().map_or("received", |failure| failure.code.as_str());
        self.meters.0.webhook_tries.get_or_create(&TryResult { result }).inc();
        let after = self.after(&claimed, verdict);
        self.settle(&claimed, &tried, after, &origin).await;
    }

    async fn hand_over(&self, claimed: &Claimed) -> Result<(Tried, Verdict, String), secret::Error> {
        let url = self.seal.open_url(claimed.webhook_id, &claimed.url_sealed)?;
        let sealed = std::iter::once(&claimed.secret_sealed).chain(&claimed.old_secret_sealed);
        let secrets = sealed.map(|sealed| self.seal.open_secret(claimed.webhook_id, sealed)).collect::<Result<Vec<_>, _>>()?;
        let parcel = Parcel { id: claimed.id, url: &url, body: &claimed.body, secrets: &secrets };
        let (tried, verdict) = self.courier.deliver(&parcel, self.limits.timeout).await;
        Ok((tried, verdict, origin(&url)))
    }

    fn after(&self, claimed: &Claimed, verdict: Verdict) -> After {
        match verdict {
            Verdict::Received => After::Received,
            Verdict::Gone => After::Gone,
            Verdict::Missed { retry_after } => After::Missed {
                wait: self.schedule.wait(claimed.attempt, retry_after, rand::random()),
                pause: schedule::pause(retry_after),
            },
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a pause before PostgreSQL is asked again")]
    async fn settle(&self, claimed: &Claimed, tried: &Tried, after: After, origin: &str) {
        let mut wait = WRITE_AGAIN_AFTER;
        for left in (0..WRITE_TRIES).rev() {
            match self.write(claimed, tried, after, origin).await {
                Ok(()) => return,
                Err(store::Error::Fenced) => {
                    info!(delivery = %claimed.id, "a message was sent by somebody else meanwhile; its receiver may have it twice");
                    return;
                }
                Err(store::Error::Database(error)) if left > 0 && database::is_passing(&error) => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(error) => {
                    warn!(delivery = %claimed.id, %error, "how a message was received could not be written down; it is sent again");
                    return;
                }
            }
        }
    }

    async fn write(&self, claimed: &Claimed, tried: &Tried, after: After, origin: &str) -> Result<(), store::Error> {
        let rules = Rules { disable_after: self.limits.disable_after, origin };
        let mut transaction = self.pool.begin().await?;
        let settled = store::settle(&mut transaction, claimed, tried, after, rules).await?;
        transaction.commit().await?;
        if after != After::Received {
            self.alarms.look();
        }
        if let Some(reason) = settled.disabled {
            info!(webhook = %claimed.webhook_id, reason = reason.as_str(), "a webhook was disabled");
            self.meters.0.webhooks_disabled.inc();
        }
        if settled.given_up {
            self.bell.ring();
        }
        Ok(())
    }
}

/// Scheme and host of a URL: its path and query may hold a secret.
fn origin(url: &str) -> String {
    Url::parse(url).map_or_else(|_| String::new(), |url| url.origin().ascii_serialization())
}
