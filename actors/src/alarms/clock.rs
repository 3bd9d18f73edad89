//! The alarm actor: one root timer for this process, and a lane for each kind.
//!
//! It looks when JetStream says so, when an area says so, when the earliest alarm it knows of comes due, and every now and
//! then; the table outlives it. Looking costs two entries of an index for each kind. Of all processes that look, each alarm
//! is woken by one.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use bowerbird_nats::{Bus, Delivery, Outcome, alarm::Look};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tokio::{
    sync::Semaphore,
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info, warn};

use super::{
    Kind, Wakes,
    guard::Guard,
    lane::Lane,
    rush::Rush,
    store::due::{self as store, Next},
};
use crate::{
    database,
    events::Bell,
    metrics::{AlarmKind, Meters},
    supervision::{Address, ChildSpec, OwnedTasks, Panicked},
};

/// Messages of JetStream in hand at once.
const HEARD_AT_ONCE: usize = 16;
/// The time between two looks is at least this.
const SOONEST: Duration = Duration::from_millis(1);
/// How often what is due is counted.
const COUNTING: Duration = Duration::from_secs(15);
/// When a message of JetStream comes again that the database could not be asked about.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Wakes the areas. Every process has one.
#[derive(Clone)]
pub struct Alarms {
    pool: PgPool,
    bus: Bus,
    bell: Bell,
    meters: Meters,
    wakes: BTreeMap<Kind, Arc<dyn Wakes>>,
    pace: Pace,
    address: AlarmsAddress,
}

/// How the alarms are kept.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How far ahead JetStream knows what is due.
    pub horizon: Duration,
    /// How often a process looks by itself: how late an alarm is at most when nobody said that it was armed.
    pub poll: Duration,
}

/// Where to say that something was armed which is due soon. Cheap to clone.
#[derive(Clone, Default)]
pub struct AlarmsAddress(pub Address<Message>, pub(super) Rush);

impl AlarmsAddress {
    /// Something may be due before the next look. To be called after the commit; a hint, which may be lost.
    pub fn look(&self) {
        // One that is not there looks by itself when it starts.
        let _ = self.0.cast(Message::Look);
    }

    /// Resolves when this process has not much due at once, after two seconds at the latest. For work that may come a moment
    /// later than what is due, and takes the same processor and database.
    pub async fn calm(&self) {
        self.1.over().await;
    }
}

/// What the actor is told.
#[derive(Debug)]
pub enum Message {
    /// Something may be due.
    Look,
    /// What there is to do.
    Looked(Result<Result<Vec<Next>, sqlx::Error>, Panicked>),
    /// Nothing is left of this kind, of which this many were woken.
    Drained(Kind, Result<usize, Panicked>),
    /// One of the loops has ended, which none should.
    Ended(&'static str, Option<Panicked>),
}

/// What it is at.
pub struct State {
    tasks: OwnedTasks,
    looking: bool,
    /// It was told to look while it looked.
    again: bool,
    /// Kinds that are being worked off, and whether there was more to do when somebody looked meanwhile.
    busy: BTreeMap<Kind, bool>,
    timer: Option<AbortHandle>,
    failing: bool,
    _until: DropGuard,
}

impl Alarms {
    /// Alarms of these areas. `address` is where areas will find this process's actor.
    pub fn new(
        pool: PgPool,
        bus: Bus,
        bell: Bell,
        meters: Meters,
        wakes: Vec<Arc<dyn Wakes>>,
        pace: Pace,
        address: AlarmsAddress,
    ) -> Self {
        let wakes = wakes.into_iter().map(|wakes| (wakes.kind(), wakes)).collect();
        Alarms { pool, bus, bell, meters, wakes, pace, address }
    }

    /// As a child of the tree.
    pub fn child(self) -> ChildSpec {
        let address = self.address.0.clone();
        ChildSpec::actor("alarms", &address, move || (self.clone(), ()))
    }

    fn kinds(&self) -> Vec<Kind> {
        self.wakes.keys().copied().collect()
    }

    fn look(&self, myself: &ActorRef<Message>, state: &mut State) {
        if state.looking {
            state.again = true;
            return;
        }
        (state.looking, state.again) = (true, false);
        let (pool, kinds) = (self.pool.clone(), self.kinds());
        state.tasks.spawn(myself, async move { store::next(&pool, &kinds).await }, Message::Looked);
    }

    fn looked(&self, myself: &ActorRef<Message>, state: &mut State, found: Result<Vec<Next>, sqlx::Error>) {
        state.looking = false;
        let mut pause = self.pace.poll;
        match found {
            Ok(found) => {
                state.failing = false;
                for next in found {
                    if next.is_due {
                        self.drain(myself, state, next.kind);
                    }
                    pause = pause.min(next.due_in.unwrap_or(Duration::MAX));
                }
            }
            Err(error) => {
                // Once per outage.
                if !state.failing {
                    warn!(%error, "what is due cannot be looked up; trying again");
                }
                state.failing = true;
            }
        }
        Self::set_timer(myself, state, pause);
        if std::mem::take(&mut state.again) {
            self.look(myself, state);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the timer under everything that waits")]
    fn set_timer(myself: &ActorRef<Message>, state: &mut State, pause: Duration) {
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        state.timer = Some(myself.send_after(pause.max(SOONEST), || Message::Look).abort_handle());
    }

    fn drain(&self, myself: &ActorRef<Message>, state: &mut State, kind: Kind) {
        let Some(wakes) = self.wakes.get(&kind) else { return };
        if let Some(more) = state.busy.get_mut(&kind) {
            *more = true;
            return;
        }
        state.busy.insert(kind, false);
        let lane = Lane {
            pool: self.pool.clone(),
            bus: self.bus.clone(),
            bell: self.bell.clone(),
            meters: self.meters.clone(),
            wakes: Arc::clone(wakes),
            rush: self.address.1.clone(),
        };
        state.tasks.spawn(myself, lane.drain(), move |drained| Message::Drained(kind, drained));
    }

    /// What JetStream says.
    async fn hear(self, until: CancellationToken) {
        let (address, pool) = (self.address.clone(), self.pool.clone());
        let permits = Arc::new(Semaphore::new(HEARD_AT_ONCE));
        let handler = move |delivery: Delivery<Look>| {
            let (address, pool) = (address.clone(), pool.clone());
            async move {
                if let Look::Again { kind, subject_id } = &delivery.message {
                    match store::again(&pool, kind, *subject_id).await {
                        Ok(found) => info!(kind, subject = %subject_id, found, "an alarm that was given up is asked for again"),
                        Err(error) => {
                            warn!(%error, "an alarm that was given up could not be armed again; trying again");
                            return database::again(&error, AGAIN_AFTER);
                        }
                    }
                }
                address.look();
                Outcome::Done
            }
        };
        self.bus.consume(self.bus.alarm_consumer(), until, permits, handler).await;
    }

    #[expect(clippy::disallowed_methods, reason = "a poll: gauges are counted")]
    async fn count(self) {
        let mut ticks = interval(COUNTING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match store::backlog(&self.pool).await {
                Ok(backlog) => {
                    self.meters.0.alarms_due.clear();
                    let mut unknown = 0;
                    for (kind, due) in backlog {
                        if !Kind::ALL.iter().any(|known| known.as_str() == kind) {
                            unknown += due;
                        }
                        self.meters.0.alarms_due.get_or_create(&AlarmKind { kind }).set(due);
                    }
                    self.meters.0.alarms_unknown.set(unknown);
                }
                Err(error) => warn!(%error, "what is due could not be counted"),
            }
        }
    }

    fn run(
        myself: &ActorRef<Message>,
        tasks: &mut OwnedTasks,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        tasks.spawn(myself, task, move |ended| Message::Ended(name, ended.err()));
    }
}

impl Actor for Alarms {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        let mut tasks = OwnedTasks::default();
        let until = CancellationToken::new();
        let guard = Guard {
            pool: self.pool.clone(),
            bus: self.bus.clone(),
            meters: self.meters.clone(),
            kinds: self.kinds(),
            horizon: self.pace.horizon,
        };
        Alarms::run(&myself, &mut tasks, "guard", guard.run());
        Alarms::run(&myself, &mut tasks, "hearing", self.clone().hear(until.clone()));
        Alarms::run(&myself, &mut tasks, "counting", self.clone().count());
        myself.cast(Message::Look)?;
        Ok(State {
            tasks,
            looking: false,
            again: false,
            busy: BTreeMap::new(),
            timer: None,
            failing: false,
            _until: until.drop_guard(),
        })
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look => self.look(&myself, state),
            Message::Looked(Ok(found)) => self.looked(&myself, state, found),
            Message::Drained(kind, Ok(woken)) => {
                let more = state.busy.remove(&kind).unwrap_or_default();
                // With nothing woken somebody else is at it, or it was moved back: the timer is soon enough.
                if woken > 0 || more {
                    self.look(&myself, state);
                }
            }
            Message::Looked(Err(panicked)) | Message::Drained(_, Err(panicked)) => return Err(panicked.into()),
            Message::Ended(name, panicked) => {
                let why = panicked.map_or_else(|| "it returned".to_owned(), |panicked| panicked.to_string());
                error!(alarms.task = name, why, "a loop of the alarms ended");
                return Err(why.into());
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        state.tasks.abort_all().await;
        Ok(())
    }
}
