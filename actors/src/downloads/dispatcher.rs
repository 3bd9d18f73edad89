//! The dispatcher: decides what runs next, and hands about twice as much of it to JetStream as there are free slots.
//!
//! Every node has one; in the database one decides at a time. It keeps nothing: rows are the queue, so a crash costs a
//! moment. It is woken when something was queued or a slot came free, and looks by itself twice a second; it also queues
//! what was scheduled, takes back what lapsed leases hold, hands out again what JetStream lost, and tidies old rows.

use std::time::Duration;

use bowerbird_nats::{Bus, subject::WorkKind};
use futures_util::future::join_all;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::store::{self, HandOut, Limits};
use crate::{
    events::Bell,
    metrics::Meters,
    supervision::{OwnedTasks, Panicked},
};

/// How often it looks by itself.
const POLL: Duration = Duration::from_millis(500);
/// How often it looks for lapsed leases and due schedules.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often it tidies what ended long ago.
const TIDYING: Duration = Duration::from_mins(10);
/// How long what a failed download stored waits for a `retry`.
const KEEP_PARTS: Duration = Duration::from_hours(24);
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
    /// How long finished downloads stay in the list.
    pub(crate) keep_finished: Duration,
}

/// What it is at.
#[derive(Default)]
pub(crate) struct State {
    tasks: OwnedTasks,
    working: bool,
    /// It was woken while it worked.
    again: bool,
    kept_house: Option<Instant>,
    tidied: Option<Instant>,
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

    async fn pre_start(&self, myself: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        myself.cast(Message::Tick)?;
        myself.send_interval(POLL, || Message::Tick);
        Ok(State::default())
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look | Message::Tick if state.working => state.again = true,
            Message::Look => self.look(&myself, state, Chores::default()),
            Message::Tick => {
                let chores = Chores { house: due(&mut state.kept_house, HOUSEKEEPING), tidy: due(&mut state.tidied, TIDYING) };
                self.look(&myself, state, chores);
            }
            Message::Looked(Ok(())) => {
                state.working = false;
                if std::mem::take(&mut state.again) {
                    self.look(&myself, state, Chores::default());
                }
            }
            Message::Looked(Err(panicked)) => return Err(panicked.into()),
        }
        Ok(())
    }
}

/// What a pass does beyond handing out.
#[derive(Clone, Copy, Default)]
struct Chores {
    house: bool,
    tidy: bool,
}

fn due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}

impl Dispatcher {
    fn look(&self, myself: &ActorRef<Message>, state: &mut State, chores: Chores) {
        state.working = true;
        state.again = false;
        let pass = self.clone();
        state.tasks.spawn(myself, async move { pass.pass(chores).await }, Message::Looked);
    }

    async fn pass(&self, chores: Chores) {
        if chores.house
            && let Err(error) = self.keep_house().await
        {
            warn!(%error, "lapsed leases and due schedules could not be looked for; it is tried again");
        }
        if chores.tidy
            && let Err(error) = self.tidy().await
        {
            warn!(%error, "old downloads could not be tidied; it is tried again");
        }
        if let Err(error) = self.hand_out().await {
            warn!(%error, "downloads could not be handed out; it is tried again");
        }
    }

    async fn keep_house(&self) -> Result<(), store::Error> {
        let mut transaction = self.pool.begin().await?;
        let promoted = store::promote(&mut transaction).await?;
        transaction.commit().await?;
        let mut transaction = self.pool.begin().await?;
        let reaped = store::reap(&mut transaction).await?;
        transaction.commit().await?;
        for row in &reaped {
            self.meters.0.download_leases_lost.inc();
            warn!(download = %row.id, fence = row.fence, "its worker did not renew the lease; it goes on from what is stored");
        }
        if promoted > 0 || !reaped.is_empty() {
            self.bell.ring();
        }
        Ok(())
    }

    async fn tidy(&self) -> Result<(), store::Error> {
        loop {
            let mut transaction = self.pool.begin().await?;
            let touched = store::trim(&mut transaction, KEEP_PARTS, self.keep_finished).await?;
            transaction.commit().await?;
            if touched == 0 {
                return Ok(());
            }
            info!(downloads = touched, "tidied downloads that ended long ago");
        }
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
