//! One running download: owns the transfer, its lease, and what becomes of it.
//!
//! The row outlives it: what is stored is in the ledger, so whoever claims the row next goes on from there. It is started
//! by the slots with a fresh claim. A crash costs what was not written down yet, about a second.

use std::{sync::Arc, time::Duration};

use bowerbird_nats::{bus::Bus, download::Progress, id::NodeId};
use bowerbird_outbound::Engine;
use bowerbird_storage::Bucket;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    ledger::PostgresLedger,
    retry::Backoff,
    row::Row,
    seal::Seal,
    settle,
    store::{self, Claimed, Renewal},
    transfer,
};
use crate::{
    alarms::AlarmsAddress,
    events::Bell,
    metrics::Meters,
    supervision::{OwnedTasks, Panicked},
};

/// How often whoever watches is told how far it is.
const TELL: Duration = Duration::from_millis(500);
/// Every so many of these the row is told as well.
const TELLS_PER_NOTE: u32 = 2;
/// A transfer that was told to stop may take this long; then it is dropped.
const STOP_WITHIN: Duration = Duration::from_millis(800);
/// A stopping node gives its transfers this long to write down what they have.
const WRITE_DOWN_WITHIN: Duration = Duration::from_secs(2);

/// What all downloads of this node work with.
pub(crate) struct Worker {
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) bucket: Bucket,
    pub(crate) engine: Engine,
    pub(crate) seal: Seal,
    pub(crate) bell: Bell,
    pub(crate) meters: Meters,
    pub(crate) alarms: AlarmsAddress,
    pub(crate) node_id: NodeId,
    pub(crate) lease: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) limits: transfer::Limits,
}

/// One running download.
pub(crate) struct Download {
    pub(crate) worker: Arc<Worker>,
}

/// What it keeps.
pub(crate) struct State {
    row: Row,
    tasks: OwnedTasks,
    cancel: CancellationToken,
    /// Changes to true when the transfer has ended, and what it had was written down.
    ended: watch::Receiver<bool>,
    /// Nobody waits for what becomes of it any more.
    forsaken: bool,
    _slot: OwnedSemaphorePermit,
}

/// What it is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Its owner ended it, somebody says.
    Stop,
    /// What the row says about that.
    Checked(Result<Option<Renewal>, Panicked>),
    /// Another worker has the row, or might.
    LeaseLost,
    /// The transfer was told to stop and has not.
    StopNow,
    /// The transfer ended, well or badly.
    TransferEnded(Box<Result<Result<transfer::Done, transfer::Error>, Panicked>>),
    /// What became of it is in the row.
    Settled(Result<(), Panicked>),
    /// Nobody renews the lease any more.
    KeeperEnded(Result<(), Panicked>),
}

impl Actor for Download {
    type Msg = Message;
    type State = State;
    type Arguments = (Claimed, OwnedSemaphorePermit);

    async fn pre_start(&self, myself: ActorRef<Message>, (claimed, slot): Self::Arguments) -> Result<State, ActorProcessingErr> {
        let row = claimed.row.clone();
        debug!(download = %row.id, fence = row.fence, attempt = row.attempt, "running");
        let (told, progress) = watch::channel(Progress {
            download_id: row.id,
            received_bytes: row.received_bytes,
            size_bytes: row.size_bytes,
            bytes_per_second: 0,
            connections: 0,
        });
        let (over, ended) = watch::channel(false);
        let mut state = State {
            row: row.clone(),
            tasks: OwnedTasks::default(),
            cancel: CancellationToken::new(),
            ended,
            forsaken: false,
            _slot: slot,
        };
        let ledger = Arc::new(PostgresLedger::new(self.worker.pool.clone(), &row, told));
        let (worker, cancel) = (Arc::clone(&self.worker), state.cancel.clone());
        let transfer = async move {
            let outcome = Box::pin(transfer::run(&worker, claimed, ledger, cancel)).await;
            // Whoever waited may be gone.
            let _ = over.send(true);
            outcome
        };
        state.tasks.spawn(&myself, transfer, |ended| Message::TransferEnded(Box::new(ended)));
        let keeper = Keeper { worker: Arc::clone(&self.worker), row, progress };
        state.tasks.spawn(&myself, keeper.keep(), Message::KeeperEnded);
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Stop => self.check(&myself, state),
            // Whoever renews the lease finds out if this could not.
            Message::Checked(Ok(None | Some(Renewal::Renewed))) => {}
            Message::Checked(Ok(Some(Renewal::Lost))) => {
                info!(download = %state.row.id, "stopping, as its owner ended it");
                forsake(&myself, state);
            }
            Message::Checked(Err(panicked)) => return Err(panicked.into()),
            Message::LeaseLost => {
                warn!(download = %state.row.id, fence = state.row.fence, "the lease is lost; stopping at once");
                forsake(&myself, state);
            }
            Message::StopNow => myself.stop(None),
            Message::TransferEnded(ended) => self.transfer_ended(&myself, *ended, state)?,
            Message::Settled(settled) => {
                settled?;
                myself.stop(None);
            }
            // It ends when the row is not ours any more.
            Message::KeeperEnded(ended) => {
                ended?;
                myself.cast(Message::LeaseLost)?;
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.cancel.cancel();
        if !state.forsaken {
            // A node that stops lets the engine write down what is stored. The row is handed back by the slots.
            let _ = timeout(WRITE_DOWN_WITHIN, state.ended.wait_for(|ended| *ended)).await;
        }
        state.tasks.abort_all().await;
        Ok(())
    }
}

/// The row is not ours: stop the transfer, and settle nothing.
#[expect(clippy::disallowed_methods, reason = "a stall: a transfer that does not stop is dropped")]
fn forsake(myself: &ActorRef<Message>, state: &mut State) {
    state.forsaken = true;
    state.cancel.cancel();
    if *state.ended.borrow() {
        myself.stop(None);
    } else {
        myself.send_after(STOP_WITHIN, || Message::StopNow);
    }
}

impl Download {
    /// Ask the row before stopping: the word may be late and mean an earlier try.
    fn check(&self, myself: &ActorRef<Message>, state: &mut State) {
        let (worker, id, fence) = (Arc::clone(&self.worker), state.row.id, state.row.fence);
        let asking = async move { store::renew(&worker.pool, id, fence, worker.lease).await.ok() };
        state.tasks.spawn(myself, asking, Message::Checked);
    }

    fn transfer_ended(
        &self,
        myself: &ActorRef<Message>,
        ended: Result<Result<transfer::Done, transfer::Error>, Panicked>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        // A panic of the engine is this actor's failure; the slots make another try of it.
        let outcome = ended?;
        if state.forsaken {
            myself.stop(None);
            return Ok(());
        }
        let settling = settle::settle(Arc::clone(&self.worker), state.row.clone(), outcome);
        state.tasks.spawn(myself, settling, Message::Settled);
        Ok(())
    }
}

/// Renews the lease, and tells how far it is.
struct Keeper {
    worker: Arc<Worker>,
    row: Row,
    progress: watch::Receiver<Progress>,
}

impl Keeper {
    /// Ends when the row is not this worker's any more, or when nobody can tell for so long that it may not be.
    #[expect(clippy::disallowed_methods, reason = "a lease is renewed")]
    async fn keep(mut self) {
        let lease = self.worker.lease;
        let mut renewed = Instant::now();
        let mut due = renewed + lease / 3;
        let mut ticks = interval(TELL.min(lease / 6));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = *self.progress.borrow();
        let mut noted = told;
        let mut count = 0_u32;
        loop {
            ticks.tick().await;
            count = count.wrapping_add(1);
            let now = *self.progress.borrow_and_update();
            if now != told {
                self.worker.bus.tell_live("download", "progress", self.row.account_id, self.row.id.0, &now);
                told = now;
            }
            if Instant::now() >= due {
                let began = Instant::now();
                let left = (renewed + lease).saturating_duration_since(began);
                match timeout(left, store::renew(&self.worker.pool, self.row.id, self.row.fence, lease)).await {
                    Ok(Ok(Renewal::Renewed)) => {
                        // The database counts from when it heard of it, which was after this.
                        renewed = began;
                        due = renewed + lease / 3;
                    }
                    Ok(Ok(Renewal::Lost)) | Err(_) => return,
                    Ok(Err(error)) => {
                        warn!(download = %self.row.id, %error, "the lease could not be renewed; it is tried again");
                        if renewed.elapsed() >= lease {
                            return;
                        }
                    }
                }
            }
            if count.is_multiple_of(TELLS_PER_NOTE) && now != noted {
                noted = now;
                let noting = store::progress(
                    &self.worker.pool,
                    self.row.id,
                    self.row.fence,
                    now.size_bytes,
                    now.bytes_per_second,
                    now.connections,
                );
                match timeout(lease / 6, noting).await {
                    Ok(Err(store::Error::Fenced)) => return,
                    Ok(Err(error)) => debug!(download = %self.row.id, %error, "the progress could not be noted"),
                    Ok(Ok(())) | Err(_) => {}
                }
            }
        }
    }
}
