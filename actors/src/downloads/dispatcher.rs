//! The dispatcher: decides what runs next, and hands about twice as much of it to JetStream as there are free slots.
//!
//! Every node has one; in the database one decides at a time. It keeps nothing: rows are the queue, so a crash costs a
//! moment. It is woken when something was queued, an alarm said that something may run, or a slot came free, and looks by
//! itself twice a second; it also takes back what lapsed leases hold, and hands out again what JetStream lost.

use std::time::Duration;

use bowerbird_nats::{Bus, subject::WorkKind};
use futures_util::future::join_all;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::store::{self, HandOut, Limits};
use crate::{
    events::Bell,
    metrics::Meters,
    supervision::{OwnedTasks, Panicked},
};

/// How often it looks by itself.
const POLL: Duration = Duration::from_millis(500);
/// How often it looks for lapsed leases.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long JetStream may take to take a message. What it did not take is handed out again.
const PUBLISH_LIMIT: Duration = Duration::from_secs(5);

/// Decides what runs next.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) bell: Bell,
    pub(crate) meters: Meters,
    pub(crate) limits: Limits,
}

/// What it is at.
#[derive(Default)]
pub(crate) struct State {
    tasks: OwnedTasks,
    working: bool,
    /// It was woken while it worked.
    again: bool,
    kept_house: Option<Instant>,
}

/// What it is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something was queued, or a slot came free.
    Look,
    /// Time to look by itself.
    Tick,
    /// A pass is over.
    Looked(Result<(), Panicked>),
}

impl Actor for Dispatcher {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    #[expect(clippy::disallowed_methods, reason = "a poll behind the bell")]
    async fn pre_start(&self, myself: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        myself.cast(Message::Tick)?;
        myself.send_interval(POLL, || Message::Tick);
        Ok(State::default())
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look | Message::Tick if state.working => state.again = true,
            Message::Look => self.look(&myself, state, false),
            Message::Tick => {
                let keeps_house = state.kept_house.is_none_or(|last| last.elapsed() >= HOUSEKEEPING);
                if keeps_house {
                    state.kept_house = Some(Instant::now());
                }
                self.look(&myself, state, keeps_house);
            }
            Message::Looked(Ok(())) => {
                state.working = false;
                if std::mem::take(&mut state.again) {
                    self.look(&myself, state, false);
                }
            }
            Message::Looked(Err(panicked)) => return Err(panicked.into()),
        }
        Ok(())
    }
}

impl Dispatcher {
    fn look(&self, myself: &ActorRef<Message>, state: &mut State, keeps_house: bool) {
        state.working = true;
        state.again = false;
        let pass = self.clone();
        state.tasks.spawn(myself, async move { pass.pass(keeps_house).await }, Message::Looked);
    }

    async fn pass(&self, keeps_house: bool) {
        if keeps_house && let Err(error) = self.keep_house().await {
            warn!(%error, "lapsed leases could not be looked for; it is tried again");
        }
        if let Err(error) = self.hand_out().await {
            warn!(%error, "downloads could not be handed out; it is tried again");
        }
    }

    async fn keep_house(&self) -> Result<(), store::Error> {
        let mut transaction = self.pool.begin().await?;
        let reaped = store::reap(&mut transaction).await?;
        transaction.commit().await?;
        for row in &reaped {
            self.meters.0.download_leases_lost.inc();
            warn!(download = %row.id, fence = row.fence, "its worker did not renew the lease; it goes on from what is stored");
        }
        if !reaped.is_empty() {
            self.bell.ring();
        }
        Ok(())
    }

    async fn hand_out(&self) -> Result<(), store::Error> {
        if !store::due(&self.pool, self.limits).await? {
            return Ok(());
        }
        let mut transaction = self.pool.begin().await?;
        let hand_outs = store::dispatch(&mut transaction, self.limits).await?;
        // Before publishing: a message must never be ahead of its row.
        transaction.commit().await?;
        let published = join_all(hand_outs.iter().map(|hand_out| self.publish(*hand_out))).await;
        let failed: Vec<HandOut> =
            hand_outs.iter().zip(published).filter(|(_, published)| !published).map(|(hand_out, _)| *hand_out).collect();
        if !failed.is_empty() {
            warn!(downloads = failed.len(), "JetStream did not take what was handed out; it is handed out again");
            store::forget_hand_outs(&self.pool, &failed).await?;
        }
        Ok(())
    }

    async fn publish(&self, hand_out: HandOut) -> bool {
        let publishing = self.bus.publish_work(WorkKind::Downloads, &hand_out.id.0, hand_out.dispatch_no);
        matches!(timeout(PUBLISH_LIMIT, publishing).await, Ok(Ok(())))
    }
}
