//! The sweeps: what is kept for a time goes when that time is over, in small batches.
//!
//! Each sweep has an alarm, which one process of all is woken by; arming the next time is part of waking, so a sweep is
//! never forgotten. Sweeping itself comes after that commit: a crash costs one round, and what one misses the next finds.

mod store;

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use bowerbird_nats::{
    Problem,
    answer::{Call, ServiceBuilder},
    sweep::{ListSweeps, RunSweep, Sweeps, Swept},
};
use futures_util::future::BoxFuture;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::{PgConnection, PgPool};
use tracing::{info, warn};
use uuid::Uuid;

use self::store::SWEEPS;
use crate::{
    alarms::{self, Due, Kind, WakeError, Wakes},
    database,
    desk::Desk,
    metrics::{Meters, SweepName, SweepResult},
    requests::Pool,
    supervision::{Address, OwnedTasks, Panicked},
};

/// How often rows that are over are looked for.
const EVERY: Duration = Duration::from_mins(10);
/// Rows of one statement.
const BATCH: i64 = 1000;

type Run = Arc<dyn Fn() -> BoxFuture<'static, Result<u64, sqlx::Error>> + Send + Sync>;

/// Something that is done again and again.
#[derive(Clone)]
pub(crate) struct Sweep {
    /// What its alarm is about.
    id: Uuid,
    name: &'static str,
    every: Duration,
    run: Run,
}

impl Sweep {
    /// A sweep whose number nobody else has. `run` takes one batch and says how many that were; it is called until it says 0.
    pub(crate) fn new<Fut>(
        number: u128,
        name: &'static str,
        every: Duration,
        run: impl Fn() -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<u64, sqlx::Error>> + Send + 'static,
    {
        Sweep { id: Uuid::from_u128(number), name, every, run: Arc::new(move || Box::pin(run())) }
    }

    /// Until nothing is left, or it fails; what it took.
    async fn sweep(&self, meters: &Meters) -> Result<u64, sqlx::Error> {
        let mut rows = 0;
        let outcome = loop {
            match (self.run)().await {
                Ok(0) => break Ok(rows),
                Ok(swept) => rows += swept,
                Err(error) => {
                    warn!(sweep = self.name, %error, "a sweep failed; it goes on the next time");
                    break Err(error);
                }
            }
        };
        let sweep = self.slug();
        meters.0.sweep_rows.get_or_create(&SweepName { sweep: sweep.clone() }).inc_by(rows);
        let result = if outcome.is_ok() { "ok" } else { "failed" };
        meters.0.sweep_runs.get_or_create(&SweepResult { sweep, result }).inc();
        if rows > 0 {
            info!(sweep = self.name, rows, "swept");
        }
        outcome
    }

    /// Its name as part of a path.
    fn slug(&self) -> String {
        self.name.replace(' ', "-")
    }
}

/// Sweeps.
#[derive(Clone)]
pub(crate) struct Janitor {
    pool: PgPool,
    sweeps: Arc<[Sweep]>,
    meters: Meters,
    address: Address<Message>,
}

/// What it is told.
pub(crate) enum Message {
    /// It is time for these.
    Sweep(Vec<Uuid>),
    /// This one is done.
    Swept(Uuid, Result<(), Panicked>),
}

/// What it is at.
#[derive(Default)]
pub(crate) struct State {
    tasks: OwnedTasks,
    running: BTreeSet<Uuid>,
}

impl Janitor {
    /// A janitor for this database, with the sweeps of areas that have more to do than to delete rows by their age.
    pub(crate) fn new(pool: PgPool, others: Vec<Sweep>, meters: Meters) -> Self {
        let rows = SWEEPS.iter().map(|(number, name, statement)| {
            let pool = pool.clone();
            Sweep::new(*number, name, EVERY, move || {
                let pool = pool.clone();
                async move { store::sweep(&pool, statement, BATCH).await }
            })
        });
        let sweeps = rows.chain(others).collect();
        Janitor { pool, sweeps, meters, address: Address::default() }
    }

    /// Where it lives.
    pub(crate) fn address(&self) -> &Address<Message> {
        &self.address
    }

    /// What is woken when it is time.
    pub(crate) fn wakes(&self) -> Arc<dyn Wakes> {
        Arc::new(self.clone())
    }

    /// Arm what nobody has armed yet: in a new database, or a sweep that is new in this version.
    async fn arm(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        for sweep in &*self.sweeps {
            alarms::arm_first(&mut connection, Kind::Sweep, sweep.id, Duration::ZERO).await?;
        }
        Ok(())
    }

    /// Add what is asked about sweeps.
    pub(crate) fn endpoints(&self, service: ServiceBuilder, workers: &Pool) -> ServiceBuilder {
        let limit = workers.endpoint_limit();
        let with = |operation| Desk::new(self.clone(), workers.clone(), operation);
        let (list, run) = (with("sweep.list"), with("sweep.run"));
        service
            .endpoint(limit, move |call: Call<ListSweeps>| list.clone().serve(call, Janitor::list))
            .endpoint(limit, move |call: Call<RunSweep>| run.clone().serve(call, Janitor::run))
    }

    /// Which sweeps there are.
    #[expect(clippy::unused_async, reason = "answered like every other request")]
    async fn list(self, _: Call<ListSweeps>) -> Result<Sweeps, Problem> {
        let mut items: Vec<_> = self
            .sweeps
            .iter()
            .map(|sweep| bowerbird_nats::sweep::Sweep {
                name: sweep.slug(),
                every_seconds: i64::try_from(sweep.every.as_secs()).unwrap_or(i64::MAX),
            })
            .collect();
        items.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(Sweeps { items })
    }

    /// Have a sweep come around now, beside its turns.
    async fn run(self, call: Call<RunSweep>) -> Result<Swept, Problem> {
        let name = call.request.name;
        let sweep = self.sweeps.iter().find(|sweep| sweep.slug() == name).ok_or_else(|| Problem::not_found("sweep"))?;
        let rows = sweep.sweep(&self.meters).await.map_err(|error| database::problem(&error))?;
        Ok(Swept { name, rows: i64::try_from(rows).unwrap_or(i64::MAX) })
    }

    fn find(&self, id: Uuid) -> Option<&Sweep> {
        self.sweeps.iter().find(|sweep| sweep.id == id)
    }
}

impl Wakes for Janitor {
    fn kind(&self) -> Kind {
        Kind::Sweep
    }

    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async move {
            // One that this version does not know is not armed again: the version that knows it does that at its start.
            let next = due.iter().filter_map(|due| Some((due.subject_id, due.now + self.find(due.subject_id)?.every)));
            alarms::arm_many(connection, Kind::Sweep, &next.collect::<Vec<_>>()).await?;
            Ok(())
        })
    }

    fn committed(&self, due: &[Due]) {
        // Without a janitor this round is left out.
        let _ = self.address.cast(Message::Sweep(due.iter().map(|due| due.subject_id).collect()));
    }
}

impl Actor for Janitor {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        self.arm().await?;
        Ok(State::default())
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Sweep(due) => {
                for sweep in due.into_iter().filter_map(|id| self.find(id)) {
                    if state.running.insert(sweep.id) {
                        let (id, sweep, meters) = (sweep.id, sweep.clone(), self.meters.clone());
                        // What failed is in the log, and goes on the next time.
                        let work = async move { sweep.sweep(&meters).await.map_or((), |_| ()) };
                        state.tasks.spawn(&myself, work, move |ended| Message::Swept(id, ended));
                    }
                }
            }
            Message::Swept(id, ended) => {
                state.running.remove(&id);
                ended?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bowerbird_testkit::TestDatabase;
    use time::OffsetDateTime;

    use super::*;

    #[tokio::test]
    async fn a_sweep_takes_what_is_over_however_much_and_nothing_else() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        for statement in [
            "INSERT INTO idempotency_keys (scope, operation, key, fingerprint, created_at)
             SELECT gen_random_uuid(), 'test.do', i::text, '', now() - interval '25 hours' FROM generate_series(1, 2500) AS i",
            "INSERT INTO idempotency_keys (scope, operation, key, fingerprint) VALUES (gen_random_uuid(), 'test.do', 'young', '')",
            "INSERT INTO processed_events (consumer, event_id, processed_at)
             VALUES ('test', gen_random_uuid(), now() - interval '121 days'), ('test', gen_random_uuid(), now())",
            "INSERT INTO accounts (id, account_name, role, quota_bytes, created_at, updated_at)
             VALUES ('00000000-0000-7000-8000-000000000001', 'alice', 'user', 0, now(), now())",
            "INSERT INTO sessions (id, account_id, created_at, last_used_at, expires_at)
             SELECT gen_random_uuid(), '00000000-0000-7000-8000-000000000001', now(), now(), now() + d * interval '1 day'
             FROM unnest(ARRAY[-31, -29, 1]) AS d",
            "INSERT INTO refresh_tokens (token_hash, family_id, created_at, expires_at)
             SELECT sha256(id::text::bytea), id, now(), now() FROM sessions",
            "INSERT INTO event_sequences (entity_id, last_sequence, last_recorded_at) SELECT id, 1, now() FROM sessions",
        ] {
            sqlx::query(statement).execute(&pool).await.unwrap();
        }
        let janitor = Janitor::new(pool.clone(), Vec::new(), Meters::register(&bowerbird_lifecycle::Metrics::default()));
        // Twice: the second finds nothing to do.
        for sweep in janitor.sweeps.iter().chain(&*janitor.sweeps) {
            sweep.sweep(&janitor.meters).await.unwrap();
        }
        let left: (i64, i64, i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM idempotency_keys), (SELECT count(*) FROM processed_events),
                    (SELECT count(*) FROM sessions), (SELECT count(*) FROM refresh_tokens), (SELECT count(*) FROM event_sequences)",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(left, (1, 1, 2, 2, 2));
    }

    #[tokio::test]
    async fn waking_a_sweep_arms_its_next_time_and_a_start_arms_only_what_is_not() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let hourly = Sweep::new(0xff, "nothing", Duration::from_hours(1), || async { Ok(0) });
        let janitor =
            Janitor::new(pool.clone(), vec![hourly.clone()], Meters::register(&bowerbird_lifecycle::Metrics::default()));
        janitor.arm().await.unwrap();
        let armed = async || -> Vec<(Uuid, OffsetDateTime, i64)> {
            sqlx::query_as("SELECT subject_id, due_at, version FROM alarms WHERE kind = 'sweep' ORDER BY subject_id")
                .fetch_all(&pool)
                .await
                .unwrap()
        };
        let first = armed().await;
        assert_eq!(first.len(), SWEEPS.len() + 1);
        let now = first[0].1 + Duration::from_mins(5);
        let due = |subject_id| Due { subject_id, due_at: first[0].1, version: 1, now };
        let mut connection = pool.acquire().await.unwrap();
        let strange = Uuid::from_u128(0xdead);
        janitor.wake(&mut connection, &[due(hourly.id), due(strange)]).await.unwrap();
        let second = armed().await;
        janitor.arm().await.unwrap();
        assert_eq!(armed().await, second);
        for (earlier, later) in first.iter().zip(&second) {
            let expected = if later.0 == hourly.id { now + Duration::from_hours(1) } else { earlier.1 };
            assert_eq!(later.1, expected);
        }
        assert_eq!(second.len(), first.len());
    }

    #[test]
    fn no_two_sweeps_have_the_same_number() {
        let numbers: BTreeSet<u128> = SWEEPS.iter().map(|(number, ..)| *number).collect();
        assert_eq!(numbers.len(), SWEEPS.len());
        assert!(numbers.into_iter().all(|number| number < 0x0100), "others begin at 0x0100");
    }
}
