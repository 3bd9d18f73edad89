//! The slots of this node: takes work as long as one is free, and keeps one `Download` actor for each that is taken.
//!
//! A worker's claim is committed before its message is acknowledged, and from then on the lease in the row counts, so
//! nothing is lost with this actor. When it starts it hands back what its predecessor held; when it stops it lets the
//! transfers write down what they have, and hands all of them back in one transaction.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bowerbird_nats::{
    DownloadId,
    consume::{Delivery, Outcome},
    download::{Stop, Work},
    subject::WorkKind,
};
use futures_util::StreamExt as _;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use sqlx::PgPool;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    dispatcher,
    download::{self, Download, Worker},
    store::{self, Claimed},
};
use crate::{
    database,
    supervision::{Address, OwnedTasks, Panicked},
};

/// How often this node says that it is there.
pub(super) const BEAT: Duration = Duration::from_secs(2);
/// How long a stopping transfer may take to write down what it has.
const WRITE_DOWN_WITHIN: Duration = Duration::from_secs(3);
/// A work message that the database could not be asked about comes again after this.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Keeps the slots.
pub(crate) struct Slots {
    pub(crate) worker: Arc<Worker>,
    /// Downloads that run at once.
    pub(crate) number: usize,
    pub(crate) dispatcher: Address<dispatcher::Message>,
}

/// What it keeps.
pub(crate) struct State {
    running: HashMap<DownloadId, Running>,
    tasks: OwnedTasks,
    consuming: CancellationToken,
}

struct Running {
    actor: ActorRef<download::Message>,
    fence: i64,
}

/// What it is told.
pub(crate) enum Message {
    /// This download is ours now.
    Claimed { claimed: Box<Claimed>, permit: OwnedSemaphorePermit },
    /// Its owner ended this download.
    Stop(DownloadId),
    /// Say that this node is there.
    Beat,
    /// Something that had to be written was, or is tried again by itself.
    Noted(Result<(), Panicked>),
    /// Nobody takes work any more, or nobody hears what other nodes say; neither ends by itself.
    Deaf(Result<(), Panicked>),
}

impl Actor for Slots {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    #[expect(clippy::disallowed_methods, reason = "a heartbeat of this node")]
    async fn pre_start(&self, myself: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        let worker = &self.worker;
        let mut transaction = worker.pool.begin().await?;
        let freed = store::hand_back(&mut transaction, worker.node_id, true).await?;
        transaction.commit().await?;
        if !freed.is_empty() {
            info!(downloads = freed.len(), "took back what this node ran before it was restarted");
            worker.bell.ring();
        }
        beat(worker, self.number).await?;
        let mut state = State { running: HashMap::new(), tasks: OwnedTasks::default(), consuming: CancellationToken::new() };
        let told = worker.bus.listen_node::<Stop>(worker.node_id, "download", "stop").await?;
        let listener = myself.clone();
        state.tasks.spawn(
            &myself,
            async move {
                let mut told = std::pin::pin!(told);
                while let Some(stop) = told.next().await {
                    if listener.cast(Message::Stop(stop.download_id)).is_err() {
                        return;
                    }
                }
            },
            Message::Deaf,
        );
        state.tasks.spawn(&myself, self.consume(myself.clone(), state.consuming.clone()), Message::Deaf);
        myself.send_interval(BEAT, || Message::Beat);
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Claimed { claimed, permit } => self.start(&myself, *claimed, permit, state).await?,
            Message::Stop(id) => {
                if let Some(running) = state.running.get(&id) {
                    // One that is gone needs no stopping.
                    let _ = running.actor.cast(download::Message::Stop);
                }
            }
            Message::Beat => {
                let (worker, number) = (Arc::clone(&self.worker), self.number);
                let beat = async move {
                    if let Ok(Err(error)) = timeout(BEAT, beat(&worker, number)).await {
                        warn!(%error, "this node could not say that it is there; it is tried again");
                    }
                };
                state.tasks.spawn(&myself, beat, Message::Noted);
            }
            Message::Noted(noted) => noted?,
            Message::Deaf(ended) => {
                ended?;
                return Err("work or orders are not taken any more".into());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, _, reason) => self.ended(&myself, &who, reason, state),
            SupervisionEvent::ActorFailed(who, error) => self.ended(&myself, &who, Some(error.to_string()), state),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.consuming.cancel();
        if let Err(error) = beat(&self.worker, 0).await {
            warn!(%error, "this node could not say that it stops");
        }
        let mut stopping = JoinSet::new();
        for (_, running) in state.running.drain() {
            stopping.spawn(async move { running.actor.stop_and_wait(None, Some(WRITE_DOWN_WITHIN)).await.is_ok() });
        }
        while stopping.join_next().await.is_some() {}
        let worker = &self.worker;
        let mut transaction = worker.pool.begin().await?;
        let handed_back = store::hand_back(&mut transaction, worker.node_id, false).await?;
        transaction.commit().await?;
        worker.bell.ring();
        info!(downloads = handed_back.len(), "handed back what ran here");
        Ok(())
    }
}

impl Slots {
    /// Takes work as long as a slot is free. A slot is held from before its message is pulled until its actor has ended.
    fn consume(&self, myself: ActorRef<Message>, stopping: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let (worker, slots) = (Arc::clone(&self.worker), Arc::new(Semaphore::new(self.number)));
        async move {
            let bus = worker.bus.clone();
            bus.consume(bus.work_consumer(WorkKind::Downloads), stopping, slots, move |delivery: Delivery<Work>| {
                let (worker, myself) = (Arc::clone(&worker), myself.clone());
                async move { take(&worker, &myself, delivery).await }
            })
            .await;
        }
    }

    async fn start(
        &self,
        myself: &ActorRef<Message>,
        claimed: Claimed,
        permit: OwnedSemaphorePermit,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (id, fence) = (claimed.row.id, claimed.row.fence);
        let (actor, _) =
            Actor::spawn_linked(None, Download { worker: Arc::clone(&self.worker) }, (claimed, permit), myself.get_cell())
                .await?;
        if let Some(before) = state.running.insert(id, Running { actor, fence }) {
            // Our own lease had lapsed and the row came back to us; the fence has made the older one void.
            let _ = before.actor.cast(download::Message::LeaseLost);
        }
        self.count(state);
        Ok(())
    }

    fn count(&self, state: &State) {
        self.worker.meters.0.downloads_running.set(i64::try_from(state.running.len()).unwrap_or(i64::MAX));
    }

    fn ended(&self, myself: &ActorRef<Message>, who: &ActorCell, failure: Option<String>, state: &mut State) {
        let Some((id, fence)) = state
            .running
            .iter()
            .find(|(_, running)| running.actor.get_id() == who.get_id())
            .map(|(id, running)| (*id, running.fence))
        else {
            return;
        };
        state.running.remove(&id);
        self.count(state);
        let (worker, dispatcher) = (Arc::clone(&self.worker), self.dispatcher.clone());
        let note = async move {
            if let Some(failure) = failure {
                warn!(download = %id, failure, "a download's actor failed; another try is made");
                if let Err(error) = lose(&worker.pool, id, fence).await {
                    warn!(download = %id, %error, "it could not be queued again; its lease will lapse");
                }
                worker.bell.ring();
            }
            // One that is not there looks by itself when it starts.
            let _ = dispatcher.cast(dispatcher::Message::Look);
        };
        state.tasks.spawn(myself, note, Message::Noted);
    }
}

async fn beat(worker: &Worker, slots: usize) -> Result<(), store::Error> {
    store::beat(&worker.pool, worker.node_id, i32::try_from(slots).unwrap_or(i32::MAX)).await
}

async fn lose(pool: &PgPool, id: DownloadId, fence: i64) -> Result<(), store::Error> {
    let mut transaction = pool.begin().await?;
    store::lose(&mut transaction, id, fence).await?;
    transaction.commit().await?;
    Ok(())
}

/// Claim and commit; then the message is done with, and the lease counts.
async fn take(worker: &Worker, slots: &ActorRef<Message>, delivery: Delivery<Work>) -> Outcome {
    let work = delivery.message;
    let claimed = match claim(worker, work).await {
        Ok(Some(claimed)) => claimed,
        // Claimed before, canceled, or handed out anew since.
        Ok(None) => return Outcome::Done,
        Err(error) => {
            warn!(download = %work.download_id, %error, "a download could not be claimed");
            return match &error {
                store::Error::Database(error) if database::is_passing(error) => database::again(error, ASK_AGAIN_AFTER),
                error => Outcome::Refuse { reason: error.to_string() },
            };
        }
    };
    worker.bell.ring();
    if let Some(permit) = delivery.take_permit() {
        // Slots that are stopping hand the row back in the database.
        let _ = slots.cast(Message::Claimed { claimed: Box::new(claimed), permit });
    }
    Outcome::Done
}

async fn claim(worker: &Worker, work: Work) -> Result<Option<Claimed>, store::Error> {
    let mut transaction = worker.pool.begin().await?;
    let claimed = store::claim(&mut transaction, work, worker.node_id, worker.lease).await?;
    transaction.commit().await?;
    Ok(claimed)
}
