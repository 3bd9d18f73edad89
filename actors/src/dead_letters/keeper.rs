//! The keeper: brings what `DEAD` holds into the table, each letter once, and counts what nobody has dealt with.
//!
//! It refuses nothing: what it cannot write down now stays in the stream and comes again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    Bus, DeadLetterId,
    consume::{Delivery, Outcome},
    dead::Buried,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::store;
use crate::{
    metrics::{Consumer, Meters},
    supervision::{OwnedTasks, Panicked},
};

/// Name of the durable consumer.
const DURABLE: &str = "dead_letters";
/// Letters that are written down at once.
const AT_ONCE: usize = 16;
/// A letter that the database did not take comes again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How often what waits is counted.
const COUNT_EVERY: Duration = Duration::from_secs(15);

/// Keeps the letters.
#[derive(Clone)]
pub struct Keeper {
    pool: PgPool,
    bus: Bus,
    ids: IdSource,
    meters: Meters,
}

/// One of its loops has ended, which none should.
pub struct Ended(&'static str, Option<Panicked>);

impl Keeper {
    /// A keeper over this database and this bus.
    pub fn new(pool: PgPool, bus: Bus, ids: IdSource, meters: Meters) -> Self {
        Keeper { pool, bus, ids, meters }
    }

    async fn consume(self) {
        let (bus, spec) = (self.bus.clone(), self.bus.dead_consumer(DURABLE));
        // The token is never used: the loop ends with the actor that owns it.
        let ends = CancellationToken::new();
        bus.consume(spec, ends, Arc::new(Semaphore::new(AT_ONCE)), move |delivery: Delivery<Buried>| {
            let keeper = self.clone();
            async move { keeper.write_down(delivery).await }
        })
        .await;
    }

    async fn write_down(&self, delivery: Delivery<Buried>) -> Outcome {
        let (id, lies) = (DeadLetterId(self.ids.next()), (delivery.stream_sequence, delivery.stored_at));
        match store::bury(&self.pool, id, &delivery.message, lies).await {
            Ok(is_new) => {
                if is_new {
                    self.meters.0.dead_letters.get_or_create(&Consumer { consumer: delivery.message.consumer.clone() }).inc();
                }
                Outcome::Done
            }
            Err(error) => {
                warn!(%error, "a dead letter could not be written down; it stays in its stream and comes again");
                Outcome::Retry { after: AGAIN_AFTER }
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a poll: a gauge is counted")]
    async fn count(self) {
        let mut ticks = interval(COUNT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shown: HashMap<String, i64> = HashMap::new();
        loop {
            ticks.tick().await;
            let waiting = match store::waiting(&self.pool).await {
                Ok(waiting) => waiting,
                Err(error) => {
                    warn!(%error, "dead letters could not be counted");
                    continue;
                }
            };
            // Those that are all dealt with go back to zero and do not stand still.
            for count in shown.values_mut() {
                *count = 0;
            }
            shown.extend(waiting);
            for (consumer, count) in &shown {
                self.meters.0.dead_letters_waiting.get_or_create(&Consumer { consumer: consumer.clone() }).set(*count);
            }
        }
    }
}

impl Actor for Keeper {
    type Msg = Ended;
    type State = OwnedTasks;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Ended>, (): ()) -> Result<OwnedTasks, ActorProcessingErr> {
        let mut tasks = OwnedTasks::default();
        tasks.spawn(&myself, self.clone().consume(), |ended| Ended("consume", ended.err()));
        tasks.spawn(&myself, self.clone().count(), |ended| Ended("count", ended.err()));
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
