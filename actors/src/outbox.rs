//! The way out: what is committed in PostgreSQL reaches JetStream. The tables `events` and `outbox` outlive this actor.
//!
//! Two loops run as its tasks: the relay (at once when the [`Bell`] rings, else every [`POLL`]) and the watch over the
//! stream `EVENTS` (a stream that was lost and made again gets everything that it should still hold). Partitions are made
//! when it starts; a sweep makes the next, and drops those that are over. A crash costs nothing: what was not marked is published by the next life, or by another process.

mod relay;
mod store;

use std::{future::Future, time::Duration};

use bowerbird_nats::{Bus, topology};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

pub(crate) use self::store::{mark, set_mark};
use crate::{
    analytics,
    events::Bell,
    janitor::Sweep,
    metrics::Meters,
    supervision::{OwnedTasks, Panicked},
};

/// How often the relay looks without being rung for: the backstop for bells that were not rung and for other processes.
const POLL: Duration = Duration::from_millis(100);
/// Pause after a pass in which something failed.
const PAUSE: Duration = Duration::from_millis(500);
/// How often the stream is compared with its mark.
const WATCH: Duration = Duration::from_secs(3);
/// How long a relay that stops goes on publishing what waits.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);
/// How often partitions are looked after.
const UPKEEP: Duration = Duration::from_hours(1);
/// The sweep's place among all sweeps.
const SWEEP: u128 = 0x0e01;
/// Days that have a partition ahead of time.
const DAYS_AHEAD: i64 = 7;
/// Days that events are kept; longer than the stream keeps them.
const DAYS_KEPT: i64 = 90;
/// Seconds that the stream keeps events: what has to be published again when it was lost.
const STREAM_KEEPS_SECONDS: i64 = 30 * 24 * 3600;

/// Publishes what is committed.
#[derive(Clone)]
pub struct Outbox {
    pool: PgPool,
    bus: Bus,
    bell: Bell,
    meters: Meters,
}

/// One of the loops has ended, which none should.
pub struct Ended(&'static str, Option<Panicked>);

/// The stream cannot be compared with its mark.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// JetStream did not say.
    #[error("the stream cannot be looked at: {0}")]
    Stream(#[from] topology::Error),
}

impl Outbox {
    /// An outbox over this database and this bus.
    pub fn new(pool: PgPool, bus: Bus, bell: Bell, meters: Meters) -> Self {
        Outbox { pool, bus, bell, meters }
    }

    #[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
    async fn relay(self) {
        let mut failing = false;
        loop {
            match relay::pass(&self.pool, &self.bus, &self.meters).await {
                Ok(pass) => {
                    failing = false;
                    if pass.failed > 0 {
                        sleep(PAUSE).await;
                    } else if !pass.more {
                        let _ = timeout(POLL, self.bell.rung()).await;
                    }
                }
                Err(error) => {
                    // Once per outage.
                    if !failing {
                        warn!(%error, "the outbox cannot be read; trying again");
                    }
                    failing = true;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a poll: whether the stream is still the same")]
    async fn watch(self) {
        let mut ticks = interval(WATCH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = self.bus.connection();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = connection.changed() => {}
            }
            if self.bus.is_connected()
                && let Err(error) = self.compare().await
            {
                warn!(%error, "the stream of events could not be checked; trying again");
            }
            match self.backlog().await {
                Ok((pending, age_seconds)) => {
                    self.meters.0.outbox_pending.set(pending);
                    self.meters.0.outbox_age_seconds.set(age_seconds);
                }
                Err(error) => warn!(%error, "the outbox could not be counted"),
            }
        }
    }

    async fn backlog(&self) -> Result<(i64, i64), sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        store::backlog(&mut connection).await
    }

    /// If the stream was made again, or went back, since somebody last looked: publish again what it should still hold.
    /// How many events that are.
    pub async fn compare(&self) -> Result<u64, WatchError> {
        let mut transaction = self.pool.begin().await?;
        // Under the lock: two processes that look at different times must not take each other's mark for the future.
        if !store::take_turn(&mut transaction, store::COMPARING).await? {
            return Ok(0);
        }
        let mut state = self.bus.stream_state(topology::EVENTS).await?;
        if state.is_none() {
            self.bus.ensure_topology().await?;
            state = self.bus.stream_state(topology::EVENTS).await?;
        }
        let Some(state) = state else { return Ok(0) };
        let last_sequence = i64::try_from(state.last_sequence).unwrap_or(i64::MAX);
        let mut queued = 0;
        if let Some((created_at, sequence)) = store::mark(&mut transaction, topology::EVENTS).await?
            && is_another(created_at, sequence, state.created_at, last_sequence)
        {
            queued = store::requeue_since(&mut transaction, STREAM_KEEPS_SECONDS).await?;
            warn!(events = queued, "the stream of events was lost or went back; what it should hold is published again");
        }
        store::set_mark(&mut transaction, topology::EVENTS, state.created_at, last_sequence).await?;
        transaction.commit().await?;
        self.meters.0.outbox_republished.inc_by(queued);
        self.bell.ring();
        Ok(queued)
    }

    /// Makes partitions ahead of time, and drops those that are over.
    pub(crate) fn sweep(&self) -> Sweep {
        let outbox = self.clone();
        Sweep::new(SWEEP, "partitions of events", UPKEEP, move || {
            let outbox = outbox.clone();
            async move { outbox.keep_partitions().await.map(|()| 0) }
        })
    }

    async fn keep_partitions(&self) -> Result<(), sqlx::Error> {
        self.make_partitions().await?;
        self.drop_partitions().await
    }

    async fn make_partitions(&self) -> Result<(), sqlx::Error> {
        let today = store::today(&self.pool).await?;
        for ahead in 0..=DAYS_AHEAD {
            let mut transaction = self.pool.begin().await?;
            if !store::take_turn(&mut transaction, store::PARTITIONING).await? {
                return Ok(());
            }
            store::be_modest(&mut transaction).await?;
            let Some(day) = today.checked_add(time::Duration::days(ahead)) else { return Ok(()) };
            match store::make_partition(&mut transaction, day).await {
                Ok(()) => transaction.commit().await?,
                // Events of this day came before their partition; they stay where they are.
                Err(error) if is_check_violation(&error) => transaction.rollback().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn drop_partitions(&self) -> Result<(), sqlx::Error> {
        // The database's day, as its times are in the rows: a node whose clock is wrong must not drop anybody's history.
        let today = store::today(&self.pool).await?;
        let Some(first_kept) = today.checked_sub(time::Duration::days(DAYS_KEPT)) else { return Ok(()) };
        for day in store::days_before(&self.pool, first_kept).await? {
            // Before the events go, they are counted for the last time.
            analytics::close(&self.pool, day).await?;
            let mut transaction = self.pool.begin().await?;
            store::be_modest(&mut transaction).await?;
            store::drop_partition(&mut transaction, day).await?;
            transaction.commit().await?;
            info!(%day, "the events of a day were dropped");
        }
        Ok(())
    }

    async fn flush(&self) {
        let deadline = Instant::now() + FLUSH_WITHIN;
        while Instant::now() < deadline {
            match relay::pass(&self.pool, &self.bus, &self.meters).await {
                Ok(pass) if pass.more => {}
                // Another process, or the next life of this one, publishes what is left.
                _ => return,
            }
        }
    }

    fn run(
        myself: &ActorRef<Ended>,
        tasks: &mut OwnedTasks,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        tasks.spawn(myself, task, move |ended| Ended(name, ended.err()));
    }
}

/// Put what the stream of events should hold into the outbox again, for the relays that run; how many events that are.
pub async fn requeue(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let queued = store::requeue_since(&mut transaction, STREAM_KEEPS_SECONDS).await?;
    transaction.commit().await?;
    Ok(queued)
}

/// Whether a stream is not the one of the mark any more, or lost its end.
pub(crate) fn is_another(
    marked_at: time::OffsetDateTime,
    marked_sequence: i64,
    created_at: time::OffsetDateTime,
    last_sequence: i64,
) -> bool {
    // PostgreSQL keeps microseconds, JetStream nanoseconds.
    (created_at - marked_at).abs() > time::Duration::milliseconds(1) || last_sequence < marked_sequence
}

fn is_check_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_check_violation)
}

impl Actor for Outbox {
    type Msg = Ended;
    type State = OwnedTasks;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Ended>, (): ()) -> Result<OwnedTasks, ActorProcessingErr> {
        let mut tasks = OwnedTasks::default();
        // Only what a start needs: days that are over are closed and dropped by the sweep, which may take minutes.
        if let Err(error) = self.make_partitions().await {
            warn!(%error, "partitions of events could not be made; events go to the default one until the next try");
        }
        Outbox::run(&myself, &mut tasks, "relay", self.clone().relay());
        Outbox::run(&myself, &mut tasks, "watch", self.clone().watch());
        Ok(tasks)
    }

    async fn handle(
        &self,
        _: ActorRef<Ended>,
        Ended(name, panicked): Ended,
        _: &mut OwnedTasks,
    ) -> Result<(), ActorProcessingErr> {
        let why = panicked.map_or_else(|| "it returned".to_owned(), |panicked| panicked.to_string());
        error!(outbox.task = name, why, "a loop of the outbox ended");
        Err(why.into())
    }

    async fn post_stop(&self, _: ActorRef<Ended>, tasks: &mut OwnedTasks) -> Result<(), ActorProcessingErr> {
        tasks.abort_all().await;
        self.flush().await;
        Ok(())
    }
}
