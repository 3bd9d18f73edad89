//! The time of reminders has come: all that are due together fire in a few statements, in the transaction that takes their
//! alarms away.

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::reminder::Status;
use futures_util::{FutureExt as _, future::BoxFuture};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    life::{Happened, MakeUp},
    row::{Corrupt, Row},
    store,
};
use crate::{
    alarms::{self, Due, Kind, WakeError, Wakes},
    events::{self, Bell, NewEvent},
    metrics::{Meters, ReminderResult},
};

/// How long reckoning what passed may take in one transaction: PostgreSQL ends one that stands still, and others are due.
const RECKONING: std::time::Duration = std::time::Duration::from_millis(500);

/// Fires reminders.
#[derive(Clone)]
pub(crate) struct Waking {
    pub(crate) ids: IdSource,
    pub(crate) bell: Bell,
    pub(crate) meters: Meters,
    /// What is missed longer than this is not made up for.
    pub(crate) catch_up: Duration,
}

impl From<store::Error> for WakeError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Database(error) => WakeError::Database(error),
            store::Error::Corrupt(error) => error.into(),
        }
    }
}

impl From<Corrupt> for WakeError {
    fn from(error: Corrupt) -> Self {
        WakeError::Failed(error.to_string())
    }
}

impl Wakes for Waking {
    fn kind(&self) -> Kind {
        Kind::Reminder
    }

    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        self.fire(connection, due).boxed()
    }

    fn committed(&self, _due: &[Due]) {
        self.bell.ring();
    }
}

impl Waking {
    async fn fire(&self, connection: &mut PgConnection, due: &[Due]) -> Result<(), WakeError> {
        let Some(now) = due.first().map(|due| due.now) else { return Ok(()) };
        let ids: Vec<Uuid> = due.iter().map(|due| due.subject_id).collect();
        let mut rows = store::locked(connection, &ids).await?;
        let guarded: Vec<Uuid> = rows
            .iter()
            .filter(|row| row.unless_event.as_ref().is_some_and(|watch| watch.after.is_some()))
            .map(|row| row.id.0)
            .collect();
        // Asked of what is written, as the event may not have been delivered yet.
        let void = store::happened_to(connection, &guarded).await?;
        let accounts: Vec<Uuid> = rows.iter().map(|row| row.account_id.0).collect();
        let disabled = store::disabled_among(connection, &accounts).await?;
        let mut armed: Vec<(Uuid, OffsetDateTime)> = Vec::new();
        let mut told: Vec<NewEvent> = Vec::new();
        let mut results: Vec<&'static str> = Vec::new();
        // After an outage, counting the occurrences that passed takes the time; who needs none of that goes first.
        let is_long = |row: &Row| row.timing.rrule.is_some() && row.next_fire_at.is_some_and(|due| now - due >= Duration::MINUTE);
        rows.sort_by_key(is_long);
        let began = Instant::now();
        for row in &mut rows {
            if !is_long(row) || began.elapsed() < RECKONING {
                let happened = row.wake(now, MakeUp::of(&disabled, row.account_id, self.catch_up), void.contains(&row.id))?;
                results.extend(happened.iter().filter_map(result));
                told.extend(happened.iter().map(|happened| row.tell(self.ids, happened)));
            }
            // One that repeats, that is not due, or for which there was no time and which is next: its row says so, and
            // the row is right.
            if let (Status::Scheduled, Some(at)) = (row.status, row.next_fire_at) {
                armed.push((row.id.0, at));
            }
            if is_long(row) {
                // Others of this thread come in between.
                tokio::task::yield_now().await;
            }
        }
        store::progress(connection, &rows).await?;
        alarms::arm_many(connection, Kind::Reminder, &armed).await?;
        events::record_many(connection, told).await?;
        // Before the commit, which seldom fails; what is done again then is counted again.
        for result in results {
            self.meters.0.reminders_due.get_or_create(&ReminderResult { result }).inc();
        }
        Ok(())
    }
}

/// As the meters name it.
fn result(happened: &Happened) -> Option<&'static str> {
    match happened {
        Happened::Fired(fired) if fired.late => Some("late"),
        Happened::Fired(_) => Some("fired"),
        Happened::Missed(_) => Some("missed"),
        Happened::Canceled(_) => Some("canceled"),
        _ => None,
    }
}
