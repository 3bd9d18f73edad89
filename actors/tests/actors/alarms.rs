//! The alarms: each takes effect once and in time, whatever is killed, cut off or late.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bowerbird_actors::{
    alarms::{self, Alarms, AlarmsAddress, Due, Kind, Pace, WakeError, Wakes},
    events::Bell,
    metrics::Meters,
    supervision::{self, Intensity, Root},
};
use bowerbird_lifecycle::{Clock, IdSource, Metrics};
use bowerbird_nats::{Delivery, Outcome, dead::Replay, topology::ALARMS};
use bowerbird_testkit::eventually;
use futures_util::future::BoxFuture;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::stand::{PATIENCE, Servers, now, proving};

/// An area whose effect is a row in a table of the test.
#[derive(Clone)]
struct Area {
    kind: Kind,
    /// Cannot be woken: these fail, those that are true panic.
    poison: Arc<Mutex<HashMap<Uuid, bool>>>,
    /// Armed once more when they wake, this much later.
    recurring: Arc<Mutex<HashMap<Uuid, time::Duration>>>,
}

impl Area {
    fn of(kind: Kind) -> Self {
        Area { kind, poison: Arc::default(), recurring: Arc::default() }
    }
}

impl Wakes for Area {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async move {
            let (subjects, at): (Vec<Uuid>, Vec<OffsetDateTime>) = due.iter().map(|due| (due.subject_id, due.due_at)).unzip();
            sqlx::query("INSERT INTO woken SELECT *, clock_timestamp() FROM unnest($1::uuid[], $2::timestamptz[])")
                .bind(subjects)
                .bind(at)
                .execute(&mut *connection)
                .await?;
            let again: Vec<(Uuid, OffsetDateTime)> = {
                let mut recurring = self.recurring.lock().unwrap();
                due.iter().filter_map(|due| Some((due.subject_id, due.due_at + recurring.remove(&due.subject_id)?))).collect()
            };
            alarms::arm_many(connection, self.kind, &again).await?;
            let poisoned = due.iter().find_map(|due| self.poison.lock().unwrap().get(&due.subject_id).copied());
            assert_ne!(poisoned, Some(true), "a poisoned alarm");
            if poisoned.is_some() { Err(WakeError::Failed("no such cake".into())) } else { Ok(()) }
        })
    }
}

/// A process with alarms and nothing else.
struct Process {
    root: Root,
    address: AlarmsAddress,
    metrics: Metrics,
}

/// Looks by itself often, and tells JetStream a day ahead.
const PACE: Pace = Pace { horizon: Duration::from_hours(24), poll: Duration::from_millis(500) };

async fn process(servers: &Servers, areas: &[Area], pace: Pace) -> Process {
    let (metrics, address) = (Metrics::default(), AlarmsAddress::default());
    let wakes = areas.iter().map(|area| Arc::new(area.clone()) as Arc<dyn Wakes>).collect();
    let meters = Meters::register(&metrics);
    let (pool, bus) = (servers.database.pool(), servers.bus().await);
    let alarms = Alarms::new(pool, bus, Bell::default(), meters, wakes, pace, address.clone());
    let often = Intensity { restarts: 1000, within: Duration::from_mins(1) };
    let root = supervision::start("root", vec![alarms.child().tolerated(often)], Clock::system()).await.unwrap();
    Process { root, address, metrics }
}

async fn servers() -> Servers {
    let servers = Servers::start().await;
    sqlx::query("CREATE TABLE woken (subject_id uuid NOT NULL, due_at timestamptz NOT NULL, woken_at timestamptz NOT NULL)")
        .execute(&servers.database.pool())
        .await
        .unwrap();
    servers
}

/// What woke, each with when it was due and how late it was.
async fn woken(pool: &PgPool) -> Vec<(Uuid, OffsetDateTime, f64)> {
    sqlx::query_as("SELECT subject_id, due_at, extract(epoch FROM woken_at - due_at)::float8 FROM woken ORDER BY woken_at")
        .fetch_all(pool)
        .await
        .unwrap_or_default()
}

async fn wait_until_woken(pool: &PgPool, subjects: &[Uuid]) {
    eventually(PATIENCE, "all are woken", async || {
        let woken: HashSet<Uuid> = woken(pool).await.into_iter().map(|(subject, ..)| subject).collect();
        subjects.iter().all(|subject| woken.contains(subject)).then_some(())
    })
    .await;
}

async fn arm(pool: &PgPool, kind: Kind, alarms: &[(Uuid, OffsetDateTime)]) {
    alarms::arm_many(&mut pool.acquire().await.unwrap(), kind, alarms).await.unwrap();
}

async fn pending(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM alarms").fetch_one(pool).await.unwrap()
}

fn ids(number: usize) -> Vec<Uuid> {
    (0..number).map(|_| IdSource.next()).collect()
}

fn in_millis(millis: i64) -> OffsetDateTime {
    now() + time::Duration::milliseconds(millis)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_past_wakes_at_once_what_is_ahead_in_time_and_what_is_years_ahead_stays() {
    let servers = servers().await;
    let pool = servers.database.pool();
    let (past, soon, far) = (IdSource.next(), IdSource.next(), IdSource.next());
    let days = |days| now() + time::Duration::days(days);
    arm(&pool, Kind::Reminder, &[(past, days(-400)), (far, days(40 * 365))]).await;
    let process = process(&servers, &[Area::of(Kind::Reminder)], PACE).await;
    wait_until_woken(&pool, &[past]).await;
    arm(&pool, Kind::Reminder, &[(soon, in_millis(1500))]).await;
    process.address.look();
    wait_until_woken(&pool, &[soon]).await;
    let woken = woken(&pool).await;
    assert_eq!(woken.iter().map(|woken| woken.0).collect::<Vec<_>>(), [past, soon]);
    let late = woken[1].2;
    println!("an alarm that was armed 1.5 s ahead was {late:.3} s late");
    assert!((0.0..5.0).contains(&late), "{late}");
    assert_eq!(pending(&pool).await, 1);
    assert!(process.root.stop(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_processes_each_alarm_is_woken_by_one() {
    let servers = servers().await;
    let pool = servers.database.pool();
    let subjects = ids(5000);
    let mut processes = Vec::new();
    for _ in 0..10 {
        processes.push(process(&servers, &[Area::of(Kind::Reminder)], PACE).await);
    }
    let due = in_millis(1000);
    let spread = |index: usize| due + time::Duration::milliseconds(i64::try_from(index % 500).unwrap());
    let armed: Vec<_> = subjects.iter().enumerate().map(|(index, subject)| (*subject, spread(index))).collect();
    arm(&pool, Kind::Reminder, &armed).await;
    wait_until_woken(&pool, &subjects).await;
    for process in &processes {
        process.address.look();
    }
    assert_eq!((woken(&pool).await.len(), pending(&pool).await), (5000, 0));
    for process in processes {
        assert!(process.root.stop(PATIENCE).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canceling_while_it_comes_due_has_one_outcome_of_two() {
    let servers = servers().await;
    let pool = servers.database.pool();
    let processes =
        [process(&servers, &[Area::of(Kind::Reminder)], PACE).await, process(&servers, &[Area::of(Kind::Reminder)], PACE).await];
    let subjects = ids(races());
    let begin = in_millis(500);
    let due_of = |index: usize| begin + time::Duration::microseconds(i64::try_from(index * 2000).unwrap());
    let armed: Vec<_> = subjects.iter().enumerate().map(|(index, subject)| (*subject, due_of(index))).collect();
    arm(&pool, Kind::Reminder, &armed).await;
    let mut canceling = JoinSet::new();
    for (worker, chunk) in armed.chunks(armed.len().div_ceil(4)).enumerate() {
        let (pool, chunk) = (pool.clone(), chunk.to_vec());
        canceling.spawn(async move {
            let mut canceled = Vec::new();
            for (index, (subject, due)) in chunk.into_iter().enumerate() {
                let ahead = due - now();
                // Some a little before, some while it is claimed, some after.
                let aim = ahead + time::Duration::milliseconds(i64::try_from((index * 7 + worker) % 9).unwrap() - 5);
                tokio::time::sleep(aim.try_into().unwrap_or(Duration::ZERO)).await;
                let mut transaction = pool.begin().await.unwrap();
                if alarms::cancel(&mut transaction, Kind::Reminder, subject).await.unwrap() {
                    canceled.push(subject);
                }
                transaction.commit().await.unwrap();
            }
            canceled
        });
    }
    let canceled: HashSet<Uuid> = canceling.join_all().await.into_iter().flatten().collect();
    eventually(PATIENCE, "nothing is pending", async || (pending(&pool).await == 0).then_some(())).await;
    let woken: Vec<Uuid> = woken(&pool).await.into_iter().map(|woken| woken.0).collect();
    let woken_once: HashSet<Uuid> = woken.iter().copied().collect();
    println!("of {} alarms {} were canceled and {} woke", subjects.len(), canceled.len(), woken.len());
    assert_eq!(woken_once.len(), woken.len(), "none woke twice");
    assert!(canceled.is_disjoint(&woken_once), "none had both outcomes");
    assert_eq!(canceled.len() + woken.len(), subjects.len(), "none had no outcome");
    assert!(!canceled.is_empty() && !woken.is_empty(), "there was a race");
    for process in processes {
        assert!(process.root.stop(PATIENCE).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_while_it_comes_due_wakes_it_at_one_of_the_two_times() {
    let servers = servers().await;
    let pool = servers.database.pool();
    let processes =
        [process(&servers, &[Area::of(Kind::Reminder)], PACE).await, process(&servers, &[Area::of(Kind::Reminder)], PACE).await];
    let subjects = ids(races());
    let begin = in_millis(500);
    let due_of = |index: usize| begin + time::Duration::microseconds(i64::try_from(index * 2000).unwrap());
    let armed: Vec<_> = subjects.iter().enumerate().map(|(index, subject)| (*subject, due_of(index))).collect();
    arm(&pool, Kind::Reminder, &armed).await;
    let mut moving = JoinSet::new();
    for (worker, chunk) in armed.chunks(armed.len().div_ceil(4)).enumerate() {
        let (pool, chunk) = (pool.clone(), chunk.to_vec());
        moving.spawn(async move {
            let mut moved = Vec::new();
            for (index, (subject, due)) in chunk.into_iter().enumerate() {
                let aim = due - now() + time::Duration::milliseconds(i64::try_from((index * 7 + worker) % 9).unwrap() - 5);
                tokio::time::sleep(aim.try_into().unwrap_or(Duration::ZERO)).await;
                let mut transaction = pool.begin().await.unwrap();
                // As an area does: what has woken is not armed again.
                if alarms::hold(&mut transaction, Kind::Reminder, subject).await.unwrap() {
                    let later = due + time::Duration::seconds(2);
                    alarms::arm(&mut transaction, Kind::Reminder, subject, later).await.unwrap();
                    moved.push(subject);
                }
                transaction.commit().await.unwrap();
            }
            moved
        });
    }
    let moved: HashSet<Uuid> = moving.join_all().await.into_iter().flatten().collect();
    eventually(PATIENCE, "nothing is pending", async || (pending(&pool).await == 0).then_some(())).await;
    let due: HashMap<Uuid, OffsetDateTime> = armed.into_iter().collect();
    let woken = woken(&pool).await;
    println!("of {} alarms {} were moved in time", subjects.len(), moved.len());
    assert_eq!(woken.len(), subjects.len(), "each woke once");
    for (subject, at, late) in woken {
        let by = if moved.contains(&subject) { 2 } else { 0 };
        // PostgreSQL keeps microseconds.
        assert!((at - due[&subject] - time::Duration::seconds(by)).abs() < time::Duration::microseconds(2), "at {at}");
        assert!(late >= 0.0, "never before its time");
    }
    assert!(!moved.is_empty() && moved.len() < subjects.len(), "there was a race");
    for process in processes {
        assert!(process.root.stop(PATIENCE).await);
    }
}

/// Races of one test.
fn races() -> usize {
    if proving() { 10_000 } else { 1000 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_wakes_a_process_that_would_not_have_looked() {
    let servers = servers().await;
    let pool = servers.database.pool();
    let pace = Pace { poll: Duration::from_mins(10), ..PACE };
    let process = process(&servers, &[Area::of(Kind::Reminder)], pace).await;
    eventually(PATIENCE, "the horizon was looked at", async || {
        let marks = sqlx::query_scalar("SELECT count(*) FROM stream_marks WHERE stream = 'ALARMS'").fetch_one(&pool).await;
        matches!(marks, Ok(1_i64)).then_some(())
    })
    .await;
    // Nobody says that it was armed, and its own timer is far away.
    let subject = IdSource.next();
    arm(&pool, Kind::Reminder, &[(subject, in_millis(4000))]).await;
    wait_until_woken(&pool, &[subject]).await;
    println!("woken by JetStream {:.3} s late", woken(&pool).await[0].2);
    assert!(process.root.stop(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_wake_while_nats_is_away_and_the_horizon_is_guarded_when_it_is_back() {
    let mut servers = servers().await;
    let pool = servers.database.pool();
    let process = process(&servers, &[Area::of(Kind::Reminder)], PACE).await;
    servers.nats.kill9();
    let (during, ahead) = (ids(100), ids(50));
    let armed: Vec<_> = during.iter().map(|subject| (*subject, in_millis(300))).collect();
    arm(&pool, Kind::Reminder, &armed).await;
    let hours = |index| now() + time::Duration::minutes(10 * i64::try_from(index).unwrap() + 60);
    let armed: Vec<_> = ahead.iter().enumerate().map(|(index, subject)| (*subject, hours(index))).collect();
    arm(&pool, Kind::Reminder, &armed).await;
    wait_until_woken(&pool, &during).await;
    assert_eq!(woken(&pool).await.len(), 100);
    servers.nats.restart().await;
    wait_until_guarded(&pool, 50).await;
    // The whole store is lost: everything is scheduled again.
    let before = servers.bus().await.stream_state(ALARMS).await.unwrap().unwrap();
    servers.nats.wipe_jetstream().await;
    let after = eventually(PATIENCE, "all is scheduled again", async || {
        let bus = servers.bus().await;
        let state = bus.stream_state(ALARMS).await.ok().flatten()?;
        (state.created_at > before.created_at && state.last_sequence >= 50).then_some(state)
    })
    .await;
    println!("{} schedules after the stream was lost", after.last_sequence);
    wait_until_guarded(&pool, 50).await;
    assert!(process.root.stop(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_seconds_than_one_transaction_takes_are_all_guarded() {
    let servers = servers().await;
    let pool = servers.database.pool();
    let subjects = ids(1000);
    let each = |index: usize| now() + time::Duration::seconds(3600 + 2 * i64::try_from(index).unwrap());
    let armed: Vec<_> = subjects.iter().enumerate().map(|(index, subject)| (*subject, each(index))).collect();
    arm(&pool, Kind::Reminder, &armed).await;
    let process = process(&servers, &[Area::of(Kind::Reminder)], PACE).await;
    wait_until_guarded(&pool, 1000).await;
    let together: i64 =
        sqlx::query_scalar("SELECT max(n) FROM (SELECT count(*) AS n FROM alarm_buckets GROUP BY xmin::text) AS transactions")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(together <= 200, "{together} in one transaction");
    assert!(process.root.stop(PATIENCE).await);
}

async fn wait_until_guarded(pool: &PgPool, buckets: i64) {
    eventually(PATIENCE, "the horizon is guarded", async || {
        let found = sqlx::query_scalar("SELECT count(*) FROM alarm_buckets WHERE fires_at > now() + interval '30 min'");
        (found.fetch_one(pool).await.ok() == Some(buckets)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_actors_and_a_database_that_goes_away_lose_nothing_and_do_nothing_twice() {
    let servers = servers().await;
    let pool = servers.database.pool();
    let processes =
        [process(&servers, &[Area::of(Kind::Reminder)], PACE).await, process(&servers, &[Area::of(Kind::Reminder)], PACE).await];
    let subjects = ids(3000);
    let armed: Vec<_> =
        subjects.iter().enumerate().map(|(index, subject)| (*subject, in_millis(200 + i64::try_from(index).unwrap()))).collect();
    arm(&pool, Kind::Reminder, &armed).await;
    for turn in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        processes[turn % 2].kill();
        if turn % 7 == 3 {
            // As a restart of the server: every connection of this database is cut.
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
            let _ = sqlx::query(cut).execute(&pool).await;
        }
    }
    wait_until_woken(&pool, &subjects).await;
    assert_eq!((woken(&pool).await.len(), pending(&pool).await), (3000, 0));
    for process in processes {
        assert!(process.root.stop(PATIENCE).await);
    }
}

impl Process {
    /// The actor is gone in the middle of what it does; its supervisor starts another.
    fn kill(&self) {
        if let Ok(actor) = self.address.0.get() {
            actor.kill();
        }
    }

    fn meter(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|found| found == format!("bowerbird_{line}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_that_cannot_be_woken_holds_up_nobody_and_is_given_up_with_a_letter() {
    let servers = servers().await;
    let pool = servers.database.pool();
    let area = Area::of(Kind::Reminder);
    let process = process(&servers, std::slice::from_ref(&area), PACE).await;
    let subjects = ids(1000);
    let (failing, panicking) = (subjects[300], subjects[700]);
    area.poison.lock().unwrap().extend([(failing, false), (panicking, true)]);
    let due = in_millis(300);
    let armed: Vec<_> = subjects.iter().map(|subject| (*subject, due)).collect();
    arm(&pool, Kind::Reminder, &armed).await;
    let sound: Vec<Uuid> = subjects.iter().copied().filter(|subject| ![failing, panicking].contains(subject)).collect();
    wait_until_woken(&pool, &sound).await;
    let worst = woken(&pool).await.iter().map(|woken| woken.2).fold(0.0, f64::max);
    println!("998 beside two that fail: the last {worst:.3} s late");
    assert_eq!(woken(&pool).await.len(), 998, "what fails leaves nothing behind");

    // They are tried again, and given up at last.
    let errors = async || -> Vec<(Uuid, i32, String, bool)> {
        sqlx::query_as("SELECT subject_id, attempt, last_error, refused_at IS NOT NULL FROM alarms ORDER BY subject_id")
            .fetch_all(&pool)
            .await
            .unwrap()
    };
    eventually(PATIENCE, "both are tried again", async || errors().await.iter().all(|error| error.1 >= 2).then_some(())).await;
    sqlx::query("UPDATE alarms SET attempt = 9, wake_at = now()").execute(&pool).await.unwrap();
    process.address.look();
    eventually(PATIENCE, "both are given up", async || errors().await.iter().all(|error| error.3).then_some(())).await;
    let said: Vec<String> = errors().await.into_iter().map(|error| error.2).collect();
    assert_eq!(said[0], "no such cake");
    assert!(said[1].contains("a poisoned alarm"), "{}", said[1]);
    assert!(process.meter("alarms_refused_total{kind=\"reminder\"} 2"), "{}", process.metrics.encode());

    let bus = servers.bus().await;
    let again = |subject| bus.subjects().alarm_again("reminder", subject).to_string();
    let letters = bowerbird_nats::consume::ConsumerSpec {
        stream: "DEAD",
        durable: "test",
        filter: bus.subjects().every_dead(),
        max_deliveries: 10,
        ack_wait: Duration::from_secs(30),
    };
    let (until, told) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
    let (stop, noted, listening) = (until.clone(), Arc::clone(&told), bus.clone());
    let reading = JoinSet::from_iter([async move {
        let note = move |delivery: Delivery<bytes::Bytes>| {
            noted.lock().unwrap().push(delivery.message.clone());
            async { Outcome::Done }
        };
        listening.consume(letters, stop, Arc::new(Semaphore::new(1)), note).await;
    }]);
    eventually(PATIENCE, "there are two letters", async || (told.lock().unwrap().len() == 2).then_some(())).await;
    let operator = async_nats::jetstream::new(async_nats::connect(servers.nats.url()).await.unwrap());
    // A letter is sent again before its cause is gone: given up again, the alarm has another one.
    operator.publish(again(panicking), "".into()).await.unwrap().await.unwrap();
    let tried = "SELECT count(*) FROM alarms WHERE subject_id = $1 AND refused_at IS NULL AND attempt > 0";
    eventually(PATIENCE, "it is tried again", async || {
        let tried: i64 = sqlx::query_scalar(tried).bind(panicking).fetch_one(&pool).await.unwrap();
        (tried == 1).then_some(())
    })
    .await;
    let last = "UPDATE alarms SET attempt = 9, wake_at = now() WHERE subject_id = $1";
    sqlx::query(last).bind(panicking).execute(&pool).await.unwrap();
    process.address.look();
    eventually(PATIENCE, "both are given up", async || errors().await.iter().all(|error| error.3).then_some(())).await;
    eventually(PATIENCE, "there is a third letter", async || (told.lock().unwrap().len() == 3).then_some(())).await;
    until.cancel();
    reading.join_all().await;

    // The cause is gone, and the letter is handed back as administrators do it.
    area.poison.lock().unwrap().clear();
    let (subject, body) = (again(failing), bytes::Bytes::new());
    let replay = Replay { stream: ALARMS, consumer: "alarms", subject: &subject, headers: &[], body: &body };
    servers.bus().await.replay(replay).await.unwrap();
    wait_until_woken(&pool, &[failing]).await;
    assert_eq!(pending(&pool).await, 1, "the other is still given up");
    assert!(process.root.stop(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_that_is_armed_while_it_wakes_stays_and_one_of_an_unknown_kind_is_left_alone() {
    let servers = servers().await;
    let pool = servers.database.pool();
    let (area, other) = (Area::of(Kind::Reminder), Area::of(Kind::Email));
    let (subject, beside) = (IdSource.next(), IdSource.next());
    area.recurring.lock().unwrap().insert(subject, time::Duration::seconds(1));
    let past = now() - time::Duration::seconds(10);
    arm(&pool, Kind::Reminder, &[(subject, past)]).await;
    arm(&pool, Kind::Email, &[(beside, past)]).await;
    for statement in [
        "INSERT INTO alarms (kind, subject_id, due_at, wake_at)
         SELECT 'a_later_kind', gen_random_uuid(), now() - interval '1 day', now() - interval '1 day' FROM generate_series(1, 300)",
        // The one thing that this version knows of it.
        "INSERT INTO alarms (kind, subject_id, due_at, wake_at) VALUES ('zebra', gen_random_uuid(), now() + interval '1 day', now() + interval '1 day')",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let process = process(&servers, &[area, other], PACE).await;
    eventually(PATIENCE, "it woke twice", async || (woken(&pool).await.len() == 3).then_some(())).await;
    let mut times: BTreeMap<Uuid, Vec<OffsetDateTime>> = BTreeMap::new();
    for (subject, due, _) in woken(&pool).await {
        times.entry(subject).or_default().push(due);
    }
    assert_eq!(times[&subject][1] - times[&subject][0], time::Duration::seconds(1));
    eventually(PATIENCE, "they are counted", async || process.meter("alarms_unknown 300").then_some(())).await;
    assert_eq!(pending(&pool).await, 301);
    assert!(process.root.stop(PATIENCE).await);
}
