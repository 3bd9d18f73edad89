//! Events that reminders wait for: a consumer of what happens to downloads and files.
//!
//! The rows outlive it. An event that comes again finds nobody who still waits for it; one that happened before a reminder
//! was made is told apart by its place in the life of its thing, not by a clock.

use std::{sync::Arc, time::Duration as Patience};

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    Bus, Event, Outcome,
    consume::Delivery,
    reminder::{CancelReason, Status},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    life::MakeUp,
    row::{Row, Watch},
    store::{self, Happening},
};
use crate::{
    alarms::{self, Kind},
    database,
    events::{self, Bell},
    supervision::{OwnedTasks, Panicked},
};

/// Areas whose events can be waited for, with the name of the consumer of each.
const AREAS: [(&str, &str); 2] = [("download", "reminders_download"), ("file", "reminders_file")];
/// Under which name it is noted what was heard.
const CONSUMER: &str = "reminders";
/// Events that are looked at together, of each area.
const AT_ONCE: usize = 8;
/// Reminders of one transaction.
const MOST_TOGETHER: usize = 500;
/// How often a transaction is begun anew because a reminder was changed meanwhile. Then the database is to break the circle,
/// if there is one.
const MOST_TURNS: usize = 10;
/// An event that the database could not be asked about comes again after this.
const ASK_AGAIN_AFTER: Patience = Patience::from_secs(1);

/// Fires and cancels reminders at events.
#[derive(Clone)]
pub(crate) struct Triggers {
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) bell: Bell,
    pub(crate) ids: IdSource,
    /// What happened longer ago than this is not made up for.
    pub(crate) catch_up: Duration,
}

/// What it keeps.
pub(crate) struct State {
    tasks: OwnedTasks,
    consuming: CancellationToken,
}

/// A consumer has ended, which it does not by itself.
pub(crate) struct Deaf(Result<(), Panicked>);

impl Actor for Triggers {
    type Msg = Deaf;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Deaf>, (): ()) -> Result<State, ActorProcessingErr> {
        let mut state = State { tasks: OwnedTasks::default(), consuming: CancellationToken::new() };
        for (area, durable) in AREAS {
            let spec = self.bus.event_consumer(durable, self.bus.subjects().events_of_area(area));
            let (triggers, consuming) = (self.clone(), state.consuming.clone());
            let consume = async move {
                let bus = triggers.bus.clone();
                let heard = move |delivery: Delivery<Event>| {
                    let triggers = triggers.clone();
                    async move { triggers.heard(&delivery.message).await }
                };
                bus.consume(spec, consuming, Arc::new(Semaphore::new(AT_ONCE)), heard).await;
            };
            state.tasks.spawn(&myself, consume, Deaf);
        }
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<Deaf>, Deaf(ended): Deaf, _: &mut State) -> Result<(), ActorProcessingErr> {
        ended?;
        Err("events are not heard any more".into())
    }

    async fn post_stop(&self, _: ActorRef<Deaf>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.consuming.cancel();
        state.tasks.abort_all().await;
        Ok(())
    }
}

impl Triggers {
    async fn heard(&self, event: &Event) -> Outcome {
        match self.act(event).await {
            Ok(()) => Outcome::Done,
            Err(store::Error::Database(error)) => {
                warn!(%error, event = %event.id, "reminders could not be told of an event; it is tried again");
                database::again(&error, ASK_AGAIN_AFTER)
            }
            Err(store::Error::Corrupt(error)) => {
                error!(%error, event = %event.id, "reminders that wait for an event cannot be read");
                Outcome::Refuse { reason: error.to_string() }
            }
        }
    }

    /// Fire and cancel who waits for this event, so many in a transaction. Who was told in one that was committed waits no
    /// more, so an event that comes again goes on where it was.
    pub(super) async fn act(&self, event: &Event) -> Result<(), store::Error> {
        let mut place = Place::default();
        while let Some(reached) = self.act_on_some(event, place).await? {
            place = reached;
        }
        Ok(())
    }

    /// One transaction of these; `None` after the last.
    async fn act_on_some(&self, event: &Event, place: Place) -> Result<Option<Place>, store::Error> {
        let happening =
            Happening { event_type: event.event_type.as_str(), thing: event.entity_id, sequence: event.entity_sequence };
        let mut transaction = self.pool.begin().await?;
        let waiting = store::waiting_for(&mut transaction, happening, place.after, MOST_TOGETHER).await?;
        let is_last = waiting.len() < MOST_TOGETHER;
        if waiting.is_empty() || (is_last && !events::first_time(&mut transaction, CONSUMER, event.id).await?) {
            return Ok(None);
        }
        let held = alarms::hold_many(&mut transaction, Kind::Reminder, &waiting).await?;
        let rows = store::locked(&mut transaction, &waiting).await?;
        // One got a time while its row was waited for. Its alarm is to be held first, or who wakes it is met halfway.
        if place.turns < MOST_TURNS && rows.iter().any(|row| row.next_fire_at.is_some() && !held.contains(&row.id.0)) {
            transaction.rollback().await?;
            return Ok(Some(Place { turns: place.turns + 1, ..place }));
        }
        let accounts: Vec<uuid::Uuid> = rows.iter().map(|row| row.account_id.0).collect();
        let disabled = store::disabled_among(&mut transaction, &accounts).await?;
        let now = store::clock(&mut transaction).await?;
        let waits = |watch: &Option<Watch>| {
            watch.as_ref().is_some_and(|watch| {
                watch.trigger.event_type == happening.event_type
                    && watch.trigger.id == happening.thing
                    && watch.after.is_some_and(|after| after < happening.sequence)
            })
        };
        let mut changed: Vec<Row> = Vec::new();
        let mut told = Vec::new();
        for mut row in rows.into_iter().filter(|row| row.status == Status::Scheduled) {
            let happened = if waits(&row.unless_event) {
                vec![row.cancel(now, CancelReason::Event)]
            } else if waits(&row.on_event) {
                row.on_event(now, event.time, MakeUp::of(&disabled, row.account_id, self.catch_up))
            } else {
                continue;
            };
            told.extend(happened.iter().map(|happened| row.tell(self.ids, happened)));
            changed.push(row);
        }
        store::progress(&mut transaction, &changed).await?;
        let ended: Vec<uuid::Uuid> = changed.iter().map(|row| row.id.0).collect();
        alarms::cancel_many(&mut transaction, Kind::Reminder, &ended).await?;
        events::record_many(&mut transaction, told).await?;
        transaction.commit().await?;
        self.bell.ring();
        Ok(waiting.last().filter(|_| !is_last).map(|last| Place { after: *last, turns: 0 }))
    }
}

/// How far an event has come.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// All up to this reminder know of it.
    after: uuid::Uuid,
    /// How often these were begun anew.
    turns: usize,
}
