//! The folder: adds every event to the statistics, exactly once however often it comes.
//!
//! Events are handed over one by one and added in batches: a batch, its marks in `processed_events` and its sums are one
//! transaction, and only then are the events acknowledged. What dies with this actor was not acknowledged and comes again.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bowerbird_nats::{
    Bus,
    consume::{ConsumerSpec, Delivery, Outcome},
    event::Event,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    counted::{Counted, Sums},
    store,
};
use crate::{
    alarms::AlarmsAddress,
    database,
    metrics::Meters,
    supervision::{OwnedTasks, Panicked},
};

/// Name of the durable consumer.
const DURABLE: &str = "statistics";
/// Events that are in hand at once, and so of one batch.
const AT_ONCE: usize = 512;
/// An event that the database did not take comes again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A batch is done in milliseconds; what a process held that died is handed out again after this.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked whether a day that is being counted anew is done.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Folds events into statistics.
#[derive(Clone)]
pub struct Folder {
    pool: PgPool,
    bus: Bus,
    meters: Meters,
    alarms: AlarmsAddress,
}

/// One of its loops has ended, which none should.
pub struct Ended(&'static str, Option<Panicked>);

/// An event that waits to be added.
struct Waiting {
    counted: Counted,
    done: oneshot::Sender<Outcome>,
}

impl Folder {
    /// A folder over this database and this bus. It lets go first what is due.
    pub fn new(pool: PgPool, bus: Bus, meters: Meters, alarms: AlarmsAddress) -> Self {
        Folder { pool, bus, meters, alarms }
    }

    async fn consume(self, waiting: mpsc::Sender<Waiting>) {
        let every_event = self.bus.subjects().every_event();
        let spec = ConsumerSpec { ack_wait: ACK_WAIT, ..self.bus.event_consumer(DURABLE, every_event) };
        // The token is never used: the loop ends with the actor that owns it.
        let ends = CancellationToken::new();
        let handler = move |delivery: Delivery<Event>| hand_over(delivery, waiting.clone());
        self.bus.consume(spec, ends, Arc::new(Semaphore::new(AT_ONCE)), handler).await;
    }

    async fn fold_again_and_again(self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(AT_ONCE);
        let mut failing = false;
        while waiting.recv_many(&mut batch, AT_ONCE).await > 0 {
            // What is due goes first.
            self.alarms.calm().await;
            let outcome = match fold(&self.pool, batch.iter().map(|waiting| waiting.counted.clone()).collect()).await {
                Ok(added) => {
                    failing = false;
                    self.meters.0.statistics_events.inc_by(added as u64);
                    Outcome::Done
                }
                Err(error) => {
                    // Once per outage.
                    if !std::mem::replace(&mut failing, true) {
                        warn!(%error, "events could not be counted; they come again");
                    }
                    database::again(&error, AGAIN_AFTER)
                }
            };
            for Waiting { done, .. } in batch.drain(..) {
                // Whoever waited may be gone; then the event comes again and is recognised.
                let _ = done.send(outcome.clone());
            }
        }
    }
}

/// Add a batch; how many of its events had not been counted before.
#[expect(clippy::disallowed_methods, reason = "a pause before a lock is asked for again")]
pub(super) async fn fold(pool: &PgPool, mut batch: Vec<Counted>) -> Result<usize, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    while !store::join(&mut transaction).await? {
        transaction.rollback().await?;
        sleep(LOOK_AGAIN_AFTER).await;
        transaction = pool.begin().await?;
    }
    let mut days: Vec<_> = batch.iter().map(|counted| counted.day).collect();
    days.sort_unstable();
    days.dedup();
    // What was closed holds every event of its day.
    let closed = store::closed_among(&mut transaction, &days).await?;
    batch.retain(|counted| !closed.contains(&counted.day));
    let mut new: HashSet<_> = store::first_times(&mut transaction, &batch).await?.into_iter().collect();
    let added = new.len();
    let mut sums = Sums::default();
    for counted in &batch {
        // Removed: the same event may be in the batch twice.
        if new.remove(&counted.event_id) {
            sums.add(counted);
        }
    }
    store::add(&mut transaction, &sums).await?;
    transaction.commit().await?;
    Ok(added)
}

async fn hand_over(delivery: Delivery<Event>, waiting: mpsc::Sender<Waiting>) -> Outcome {
    let counted = match Counted::of(&delivery.message) {
        Ok(counted) => counted,
        Err(reason) => return Outcome::Refuse { reason },
    };
    let (done, outcome) = oneshot::channel();
    if waiting.send(Waiting { counted, done }).await.is_err() {
        return Outcome::Retry { after: AGAIN_AFTER };
    }
    outcome.await.unwrap_or(Outcome::Retry { after: AGAIN_AFTER })
}

impl Actor for Folder {
    type Msg = Ended;
    type State = OwnedTasks;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Ended>, (): ()) -> Result<OwnedTasks, ActorProcessingErr> {
        let mut tasks = OwnedTasks::default();
        let (sender, receiver) = mpsc::channel(AT_ONCE);
        tasks.spawn(&myself, self.clone().fold_again_and_again(receiver), |ended| Ended("fold", ended.err()));
        tasks.spawn(&myself, self.clone().consume(sender), |ended| Ended("consume", ended.err()));
        Ok(tasks)
    }

    async fn handle(
        &self,
        _: ActorRef<Ended>,
        Ended(name, panicked): Ended,
        _: &mut OwnedTasks,
    ) -> Result<(), ActorProcessingErr> {
        let why = panicked.map_or_else(|| "it returned".to_owned(), |panicked| panicked.to_string());
        Err(format!("{name}: {why}").into())
    }

    async fn post_stop(&self, _: ActorRef<Ended>, tasks: &mut OwnedTasks) -> Result<(), ActorProcessingErr> {
        tasks.abort_all().await;
        Ok(())
    }
}
