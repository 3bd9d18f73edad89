//! The guard: sees to it that JetStream holds a schedule for every second of the horizon in which something is due.
//!
//! Nobody tells it what was armed. It looks: at the next minute on every round, and through the whole horizon bit by bit.
//! What it had JetStream store is in the table `alarm_buckets`; when the stream was lost, those rows are forgotten and
//! everything is scheduled again. So it does not matter who dies when. One process at a time does it.

use std::time::Duration;

use bowerbird_nats::{Bus, alarm::Bucket, topology};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{Kind, store::bucket as store};
use crate::{metrics::Meters, outbox};

/// How often it looks.
const ROUND: Duration = Duration::from_secs(1);
/// What it looks at on every round.
const NEAR: Duration = Duration::from_mins(1);
/// Rounds in which it gets through the horizon when there is nothing to do.
const ROUNDS: u32 = 300;
/// What it looks at at once when nothing is known of the horizon yet; at most as many buckets as seconds.
const STRIDE: Duration = Duration::from_secs(2000);
/// Buckets of one transaction: some tenths of a second, and no more to do again when it fails.
const CHUNK: usize = 200;
/// How often the stream is compared with its mark.
const COMPARE: Duration = Duration::from_secs(3);

/// Guards the horizon.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) pool: PgPool,
    pub(super) bus: Bus,
    pub(super) meters: Meters,
    pub(super) kinds: Vec<Kind>,
    /// How far ahead JetStream knows what is due.
    pub(super) horizon: Duration,
}

/// Where a guard is.
#[derive(Debug, Default)]
struct Place {
    /// How far into the horizon it has looked.
    looked: Duration,
    /// Buckets that were stored on the way.
    stored: usize,
    /// Through the horizon without a pause, as nothing is known of it yet.
    at_once: bool,
    /// And once more after that, as it was interrupted.
    again: bool,
    compared: Option<Instant>,
    failing: bool,
}

impl Place {
    /// JetStream or the database was away for a while, in which much may have been armed. What was stored is known, so it
    /// goes on where it was, and then begins once more.
    fn interrupt(&mut self) {
        self.compared = None;
        if !self.at_once {
            (self.looked, self.stored) = (Duration::ZERO, 0);
        }
        (self.at_once, self.again) = (true, !self.looked.is_zero());
    }
}

/// The horizon cannot be guarded.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the stream cannot be looked at: {0}")]
    Stream(#[from] topology::Error),
    #[error("a schedule was not stored: {0}")]
    Publish(#[from] bowerbird_nats::publish::Error),
}

impl Guard {
    /// For ever.
    #[expect(clippy::disallowed_methods, reason = "the round of the guard, a poll")]
    pub(super) async fn run(self) {
        let mut place = Place { at_once: true, ..Place::default() };
        loop {
            let mut goes_on = false;
            if self.bus.is_connected() {
                match self.round(&mut place).await {
                    Ok(more) => (place.failing, goes_on) = (false, more),
                    Err(error) => {
                        // Once per outage.
                        if !place.failing {
                            warn!(%error, "JetStream could not be told what is due; this process looks by itself meanwhile");
                        }
                        place.failing = true;
                        place.interrupt();
                    }
                }
            } else {
                place.interrupt();
            }
            if !goes_on {
                sleep(ROUND).await;
            }
        }
    }

    /// True if it goes on without a pause.
    async fn round(&self, place: &mut Place) -> Result<bool, Error> {
        let mut transaction = self.pool.begin().await?;
        if !store::take_turn(&mut transaction).await? {
            // Whoever has the turn does it all.
            (place.at_once, place.again) = (false, false);
            return Ok(false);
        }
        if place.compared.is_none_or(|compared| compared.elapsed() >= COMPARE) {
            if self.is_another_stream(&mut transaction).await? {
                store::forget_all(&mut transaction).await?;
                (place.looked, place.stored, place.at_once, place.again) = (Duration::ZERO, 0, true, false);
                self.meters.0.alarm_horizon_seconds.set(0);
                warn!("the stream of the alarms was lost or went back; all that is due within the horizon is scheduled again");
            }
            place.compared = Some(Instant::now());
            self.meters.0.alarm_buckets.set(store::trim(&mut transaction).await?);
        }
        let now = store::this_second(&mut transaction).await?;
        let mut buckets = store::unguarded(&mut transaction, &self.kinds, now, now + NEAR).await?;
        let length = if place.at_once { STRIDE } else { whole_seconds(self.horizon / ROUNDS) };
        let (begins, ends) = (now + place.looked, now + (place.looked + length).min(self.horizon));
        buckets.extend(store::unguarded(&mut transaction, &self.kinds, begins, ends).await?);
        buckets.sort_unstable();
        buckets.dedup();
        let is_all = buckets.len() <= CHUNK;
        buckets.truncate(CHUNK);
        let (stored, failure) = self.schedule(&buckets).await;
        store::guarded(&mut transaction, &stored).await?;
        transaction.commit().await?;
        self.meters.0.alarm_buckets_armed.inc_by(stored.len() as u64);
        if let Some(error) = failure {
            return Err(error.into());
        }
        place.stored += stored.len();
        if !is_all {
            // Up to the last of these; the rest is next.
            let upto = buckets.last().map_or(0, |last| last.0 - now.unix_timestamp());
            place.looked = place.looked.max(Duration::from_secs(u64::try_from(upto).unwrap_or(0)));
            return Ok(true);
        }
        place.looked += length;
        if place.looked >= self.horizon {
            if place.at_once && place.stored > 0 {
                info!(buckets = place.stored, "all that is due within the horizon is scheduled");
            }
            (place.looked, place.stored, place.at_once, place.again) = (Duration::ZERO, 0, place.again, false);
            self.meters.0.alarm_horizon_seconds.set(i64::try_from(self.horizon.as_secs()).unwrap_or(i64::MAX));
        }
        Ok(place.at_once)
    }

    /// Those that are stored, and why others are not.
    async fn schedule(&self, buckets: &[Bucket]) -> (Vec<Bucket>, Option<bowerbird_nats::publish::Error>) {
        let mut stored = Vec::with_capacity(buckets.len());
        let mut failure = None;
        for (bucket, result) in buckets.iter().zip(self.bus.schedule_buckets(buckets).await) {
            match result {
                Ok(()) => stored.push(*bucket),
                Err(error) => failure = Some(error),
            }
        }
        (stored, failure)
    }

    /// Whether JetStream has lost schedules since somebody last looked.
    async fn is_another_stream(&self, connection: &mut sqlx::PgConnection) -> Result<bool, Error> {
        let mut state = self.bus.stream_state(topology::ALARMS).await?;
        if state.is_none() {
            self.bus.ensure_topology().await?;
            state = self.bus.stream_state(topology::ALARMS).await?;
        }
        let Some(state) = state else { return Ok(false) };
        let last_sequence = i64::try_from(state.last_sequence).unwrap_or(i64::MAX);
        let mark = outbox::mark(connection, topology::ALARMS).await?;
        outbox::set_mark(connection, topology::ALARMS, state.created_at, last_sequence).await?;
        Ok(mark.is_some_and(|(created_at, sequence)| outbox::is_another(created_at, sequence, state.created_at, last_sequence)))
    }
}

fn whole_seconds(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_loses_no_place_and_has_the_horizon_looked_at_once_more() {
        let looked = Duration::from_hours(3);
        let mut midway = Place { looked, at_once: true, ..Place::default() };
        midway.interrupt();
        midway.interrupt();
        assert_eq!((midway.looked, midway.at_once, midway.again), (looked, true, true));
        let mut at_leisure = Place { looked, ..Place::default() };
        at_leisure.interrupt();
        at_leisure.interrupt();
        assert_eq!((at_leisure.looked, at_leisure.at_once, at_leisure.again), (Duration::ZERO, true, false));
    }
}
