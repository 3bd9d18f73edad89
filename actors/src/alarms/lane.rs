//! A lane: works off what is due of one kind, batch by batch. Each kind has its own, so a slow one holds up no other.
//!
//! A batch that fails is rolled back and halved until what fails is alone: one bad alarm among a thousand costs some twenty
//! small transactions. What fails alone is moved back, and given up in the end.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bowerbird_nats::{Bus, alarm::Refused};
use futures_util::FutureExt as _;
use sqlx::PgPool;
use tokio::time::{Instant, timeout};
use tracing::{error, warn};
use uuid::Uuid;

use super::{
    BATCH, Due, WakeError, Wakes,
    rush::{Rush, Rushing},
    store::due::{self as store},
};
use crate::{database, events::Bell, metrics::Meters, supervision::Panicked};

/// How long waking a batch may take; it is rolled back then.
const WAKE_WITHIN: Duration = Duration::from_secs(30);
/// First and longest wait after a failure.
const PUT_BACK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// An alarm whose waking failed as often as this is given up: after some eight and a half minutes.
const ATTEMPTS_MAX: i32 = 10;
/// How long a dead letter may take to be stored. The alarm is tried once more when it is not.
const LETTER_WITHIN: Duration = Duration::from_secs(5);
/// Longest error that is kept.
const ERROR_MAX_CHARACTERS: usize = 500;

/// Works off one kind.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) pool: PgPool,
    pub(super) bus: Bus,
    pub(super) bell: Bell,
    pub(super) meters: Meters,
    pub(super) wakes: Arc<dyn Wakes>,
    pub(super) rush: Rush,
}

/// A batch was rolled back.
enum Failure {
    /// The database cannot be worked with; nothing is wrong with the alarms.
    Database(sqlx::Error),
    /// Waking these failed.
    Waking { due: Vec<Due>, error: String },
}

impl Lane {
    /// Until nothing is left that is due, or the database fails; how many were woken. While there is more than a batch, two
    /// are worked off side by side.
    pub(super) async fn drain(self) -> usize {
        let mut woken = 0;
        let mut rushing: Option<Rushing> = None;
        loop {
            let outcomes = if rushing.is_some() {
                let (one, other) = tokio::join!(self.batch(None), self.batch(None));
                vec![one, other]
            } else {
                vec![self.batch(None).await]
            };
            let mut goes_on = false;
            for outcome in outcomes {
                match outcome {
                    Ok(taken) => {
                        woken += taken;
                        if taken == BATCH {
                            goes_on = true;
                            rushing.get_or_insert_with(|| self.rush.begin());
                        }
                    }
                    Err(Failure::Database(error)) => {
                        warn!(kind = %self.wakes.kind(), %error, "alarms cannot be woken; trying again");
                        return woken;
                    }
                    Err(Failure::Waking { due, error }) => match self.apart(due, error).await {
                        Ok(taken) => {
                            woken += taken;
                            goes_on = true;
                        }
                        Err(error) => {
                            warn!(kind = %self.wakes.kind(), %error, "alarms that failed could not be moved back; trying again");
                            return woken;
                        }
                    },
                }
            }
            if !goes_on {
                return woken;
            }
        }
    }

    /// One transaction: claim what is due, or what of `these` is, wake, commit.
    async fn batch(&self, these: Option<&[Uuid]>) -> Result<usize, Failure> {
        let kind = self.wakes.kind();
        let mut transaction = self.pool.begin().await.map_err(Failure::Database)?;
        let claimed = match these {
            None => store::claim(&mut transaction, kind, BATCH).await,
            Some(subjects) => store::claim_these(&mut transaction, kind, subjects).await,
        };
        let due = claimed.map_err(Failure::Database)?;
        if due.is_empty() {
            transaction.rollback().await.map_err(Failure::Database)?;
            return Ok(0);
        }
        let began = Instant::now();
        let waking = AssertUnwindSafe(self.wakes.wake(&mut transaction, &due)).catch_unwind();
        let error = match timeout(WAKE_WITHIN, waking).await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(WakeError::Database(error)))) if database::is_away(&error) => return Err(Failure::Database(error)),
            Ok(Ok(Err(error))) => Some(error.to_string()),
            Ok(Err(panic)) => Some(panicked(&*panic)),
            Err(_elapsed) => Some(format!("it took longer than {WAKE_WITHIN:?}")),
        };
        if let Some(error) = error {
            // A connection on which something was cut short is of no use to the next.
            drop(transaction);
            return Err(Failure::Waking { due, error });
        }
        transaction.commit().await.map_err(Failure::Database)?;
        self.bell.ring();
        self.count(&due, began.elapsed());
        self.wakes.committed(&due);
        Ok(due.len())
    }

    fn count(&self, due: &[Due], took: Duration) {
        let lateness = self.meters.0.alarm_lateness_seconds.clone();
        for alarm in due {
            lateness.observe((alarm.now - alarm.due_at).as_seconds_f64().max(0.0) + took.as_secs_f64());
        }
        self.meters.0.alarms_woken.get_or_create(&self.label()).inc_by(due.len() as u64);
    }

    fn label(&self) -> crate::metrics::AlarmKind {
        crate::metrics::AlarmKind { kind: self.wakes.kind().as_str().into() }
    }

    /// Find out which of these fail, and move them back; how many were woken. `error` is what failed of all together.
    async fn apart(&self, due: Vec<Due>, error: String) -> Result<usize, sqlx::Error> {
        let mut woken = 0;
        let mut failed = vec![(due, error)];
        while let Some((due, error)) = failed.pop() {
            if let [alone] = due.as_slice() {
                self.put_back(alone, &error).await?;
                continue;
            }
            for half in due.chunks(due.len().div_ceil(2).max(1)) {
                let subjects: Vec<Uuid> = half.iter().map(|alarm| alarm.subject_id).collect();
                match self.batch(Some(&subjects)).await {
                    Ok(taken) => woken += taken,
                    Err(Failure::Database(error)) => return Err(error),
                    Err(Failure::Waking { due, error }) => failed.push((due, error)),
                }
            }
        }
        Ok(woken)
    }

    async fn put_back(&self, alarm: &Due, error: &str) -> Result<(), sqlx::Error> {
        let kind = self.wakes.kind();
        let error: String = error.chars().filter(|character| *character != '\0').take(ERROR_MAX_CHARACTERS).collect();
        self.meters.0.alarm_failures.get_or_create(&self.label()).inc();
        let Some(attempts) = store::put_back(&self.pool, kind, alarm, &error, PUT_BACK).await? else { return Ok(()) };
        if attempts < ATTEMPTS_MAX {
            warn!(%kind, subject = %alarm.subject_id, attempts, error, "an alarm could not be woken; it is tried again");
            return Ok(());
        }
        let (subject_id, due_at) = (alarm.subject_id, alarm.due_at);
        let letter = Refused { kind: kind.as_str(), subject_id, due_at, version: alarm.version, attempts, reason: &error };
        match timeout(LETTER_WITHIN, self.bus.publish_dead_alarm(&letter)).await {
            Ok(Ok(())) => {
                store::refuse(&self.pool, kind, alarm).await?;
                self.meters.0.alarms_refused.get_or_create(&self.label()).inc();
                error!(%kind, subject = %subject_id, attempts, error, "an alarm was given up");
            }
            // Not without a letter. It is tried again, and given up then.
            Ok(Err(error)) => warn!(%kind, subject = %subject_id, %error, "the dead letter of an alarm could not be stored"),
            Err(_elapsed) => warn!(%kind, subject = %subject_id, "the dead letter of an alarm was not stored in time"),
        }
        Ok(())
    }
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    Panicked::of(panic).to_string()
}
