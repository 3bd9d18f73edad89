//! New time zone rules: what is ahead is scheduled anew by them.
//!
//! A release brings the rules. When it starts, every reminder that was scheduled by older ones is looked at again, in
//! batches, and moved if its clocks will show its time at another instant. While nodes of two releases run beside each
//! other the older may still schedule by its rules; so a sweep looks again each hour.

use std::time::Duration as Interval;

use bowerbird_lifecycle::IdSource;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tracing::{error, info, warn};

use super::{life::Happened, store, zone};
use crate::{
    alarms::{self, Kind},
    events::{self, Bell},
    janitor::Sweep,
    supervision::{OwnedTasks, Panicked},
};

/// Number of the sweep, which is in the database.
const SWEEP: u128 = 21;
/// How often is looked for what a node of an older release scheduled.
const EVERY: Interval = Interval::from_hours(1);
/// Reminders of one transaction.
const BATCH: i64 = 500;

/// Schedules anew what older rules scheduled.
#[derive(Clone)]
pub(crate) struct ZoneRules {
    pub(crate) pool: PgPool,
    pub(crate) bell: Bell,
    pub(crate) ids: IdSource,
}

/// It has looked.
pub(crate) struct Looked(Result<(), Panicked>);

impl Actor for ZoneRules {
    type Msg = Looked;
    type State = OwnedTasks;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Looked>, (): ()) -> Result<OwnedTasks, ActorProcessingErr> {
        let rules = self.clone();
        let look = async move {
            if let Err(error) = rules.apply().await {
                warn!(%error, "reminders could not be scheduled by the new time zone rules; the next sweep tries again");
            }
        };
        let mut tasks = OwnedTasks::default();
        tasks.spawn(&myself, look, Looked);
        Ok(tasks)
    }

    async fn handle(&self, _: ActorRef<Looked>, Looked(ended): Looked, _: &mut OwnedTasks) -> Result<(), ActorProcessingErr> {
        Ok(ended?)
    }
}

impl ZoneRules {
    /// For what a node of an older release schedules while it still runs.
    pub(crate) fn sweep(&self) -> Sweep {
        let rules = self.clone();
        Sweep::new(SWEEP, "reminders by older time zone rules", EVERY, move || {
            let rules = rules.clone();
            async move {
                match rules.batch(zone::rules_version()).await {
                    Ok((seen, _)) => Ok(u64::try_from(seen).unwrap_or(u64::MAX)),
                    Err(store::Error::Database(error)) => Err(error),
                    Err(store::Error::Corrupt(error)) => Err(sqlx::Error::Decode(Box::new(error))),
                }
            }
        })
    }

    /// Schedule by the rules of this program what is scheduled by older ones. How many moved.
    pub(crate) async fn apply(&self) -> Result<usize, store::Error> {
        let version = zone::rules_version();
        let (mut seen, mut moved) = (0, 0);
        loop {
            let (batch, of_them_moved) = self.batch(version).await?;
            seen += batch;
            moved += of_them_moved;
            if batch == 0 {
                break;
            }
            self.bell.ring();
        }
        if seen > 0 {
            info!(seen, moved, version, "reminders follow the new time zone rules");
        }
        Ok(moved)
    }

    async fn batch(&self, version: &str) -> Result<(usize, usize), store::Error> {
        let mut transaction = self.pool.begin().await?;
        let ids = store::scheduled_by_older_zone_rules(&mut transaction, version, BATCH).await?;
        alarms::hold_many(&mut transaction, Kind::Reminder, &ids).await?;
        let mut rows = store::locked(&mut transaction, &ids).await?;
        let now = store::clock(&mut transaction).await?;
        let (mut armed, mut told) = (Vec::new(), Vec::new());
        for row in &mut rows {
            match row.follow_zone_rules(now) {
                Ok(false) => {}
                Ok(true) => {
                    told.push(row.tell(self.ids, &Happened::Updated));
                    armed.extend(row.next_fire_at.map(|at| (row.id.0, at)));
                }
                // It stays as it is, and when it is due it is refused with its reason.
                Err(error) => error!(%error, "a reminder cannot follow the new time zone rules"),
            }
        }
        store::progress(&mut transaction, &rows).await?;
        alarms::arm_many(&mut transaction, Kind::Reminder, &armed).await?;
        events::record_many(&mut transaction, told).await?;
        transaction.commit().await?;
        Ok((rows.len(), armed.len()))
    }
}
