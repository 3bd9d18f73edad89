//! How late alarms are, and what a million of them cost: the alarms and the outbox in this process, PostgreSQL and
//! nats-server given from outside (`alarms.py` starts both, every write synced), an area whose effect is an event.
//!
//! Late is from when an alarm was due to when JetStream stored its event. All on one machine, so on one clock.

#![expect(clippy::disallowed_methods, reason = "pauses of a measurement")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bowerbird_actors::{
    alarms::{self, Alarms, AlarmsAddress, Due, Kind, Pace, WakeError, Wakes},
    events::{self, Bell, NewEvent},
    metrics::Meters,
    outbox::Outbox,
    supervision::{self, Address, ChildSpec, Root},
};
use bowerbird_lifecycle::{Clock, IdSource, Metrics};
use bowerbird_nats::{Bus, Delivery, Event, Outcome, bus, event::DOWNLOAD_QUEUED, topology};
use futures_util::future::BoxFuture;
use serde_json::json;
use sqlx::{PgConnection, PgPool, postgres::PgPoolOptions};
use time::OffsetDateTime;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Alarms of one statement when many are armed.
const ARM_BATCH: usize = 1000;
const PATIENCE: Duration = Duration::from_mins(10);
const HORIZON: Duration = Duration::from_hours(24);

/// The area: says in an event that an alarm woke, as reminders do.
struct Area;

impl Wakes for Area {
    fn kind(&self) -> Kind {
        Kind::Reminder
    }

    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async move {
            let fired = due.iter().map(|due| {
                let body = json!({"due_at": due.due_at.unix_timestamp_nanos().to_string(), "title": "Take the bread out"});
                NewEvent::new(IdSource, DOWNLOAD_QUEUED, None, due.subject_id, &body)
            });
            Ok(events::record_many(connection, fired.collect()).await?)
        })
    }
}

struct Node {
    root: Root,
    metrics: Metrics,
    started: Instant,
}

async fn node(pool: &PgPool, bus: &Bus) -> Result<Node> {
    let started = Instant::now();
    let (metrics, bell, address) = (Metrics::default(), Bell::default(), AlarmsAddress::default());
    let meters = Meters::register(&metrics);
    let outbox = Outbox::new(pool.clone(), bus.clone(), bell.clone(), meters.clone());
    let pace = Pace { horizon: HORIZON, poll: Duration::from_secs(1) };
    let alarms = Alarms::new(pool.clone(), bus.clone(), bell, meters, vec![Arc::new(Area)], pace, address);
    let children = vec![ChildSpec::actor("outbox", &Address::default(), move || (outbox.clone(), ())), alarms.child()];
    let root = supervision::start("bench", children, Clock::system()).await?;
    Ok(Node { root, metrics, started })
}

impl Node {
    /// Until it has seen to it that JetStream knows all that is due within the horizon; how long that took.
    async fn guarded(&self) -> Result<Duration> {
        wait("the horizon is guarded", async || {
            Ok(self.metrics.encode().lines().any(|line| line == format!("bowerbird_alarm_horizon_seconds {}", HORIZON.as_secs())))
        })
        .await?;
        Ok(self.started.elapsed())
    }
}

/// Run `what`: `late <alarms> <spread seconds>` or `pending <alarms>`.
pub(crate) async fn run(arguments: &[String]) -> Result<()> {
    let pool = PgPoolOptions::new().max_connections(16).connect(&environment("BENCH_DATABASE")?).await?;
    bowerbird_migrations::migrate(&pool).await?;
    let options = bus::Options {
        url: environment("BENCH_NATS")?,
        prefix: "bowerbird".to_owned(),
        replicas: 1,
        name: "bench".to_owned(),
        ..bus::Options::default()
    };
    let bus = Bus::connect(options, Duration::from_secs(20)).await?;
    bus.ensure_topology().await?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["late", number, spread] => late(&pool, &bus, number.parse()?, spread.parse()?).await,
        ["pending", number] => pending(&pool, &bus, number.parse()?).await,
        _ => bail!("usage: bowerbird-bench alarms late <alarms> <spread seconds>|pending <alarms>"),
    }
}

async fn arm(pool: &PgPool, alarms: &[(Uuid, OffsetDateTime)]) -> Result<Duration> {
    let began = Instant::now();
    for batch in alarms.chunks(ARM_BATCH) {
        let mut transaction = pool.begin().await?;
        alarms::arm_many(&mut transaction, Kind::Reminder, batch).await?;
        transaction.commit().await?;
    }
    Ok(began.elapsed())
}

/// So many alarms within so many seconds (0: all at the same instant); how late each event was stored.
async fn late(pool: &PgPool, bus: &Bus, number: usize, spread: u32) -> Result<()> {
    let node = node(pool, bus).await?;
    node.guarded().await?;
    let begin = second(now() + Duration::from_secs(10));
    let alarms: Vec<(Uuid, OffsetDateTime)> = (0..number)
        .map(|_| {
            let offset = Duration::from_secs(u64::from(spread)).mul_f64(rand::random::<f64>());
            (IdSource.next(), begin + Duration::from_millis(u64::try_from(offset.as_millis()).unwrap_or_default()))
        })
        .collect();
    let took = arm(pool, &alarms).await?;
    let heard = hear(bus, number).await?;
    let due: HashMap<Uuid, OffsetDateTime> = alarms.into_iter().collect();
    let mut lateness: Vec<f64> =
        heard.iter().filter_map(|(subject, stored)| Some((*stored - *due.get(subject)?).as_seconds_f64())).collect();
    lateness.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rank")]
        let rank = (share * lateness.len() as f64).ceil() as usize;
        lateness.get(rank.clamp(1, lateness.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    };
    say(&json!({
        "what": "late", "alarms": number, "spread_s": spread, "heard": lateness.len(), "armed_s": took.as_secs_f64(),
        "min_s": at(0.0), "p50_s": at(0.5), "p99_s": at(0.99), "max_s": at(1.0),
    }));
    node.root.stop(Duration::from_secs(10)).await;
    Ok(())
}

/// The first event of each of so many things, with the time at which JetStream stored it.
async fn hear(bus: &Bus, number: usize) -> Result<Vec<(Uuid, OffsetDateTime)>> {
    let heard: Arc<Mutex<HashMap<Uuid, OffsetDateTime>>> = Arc::default();
    let (until, events, twice) = (CancellationToken::new(), Arc::clone(&heard), Arc::new(AtomicUsize::new(0)));
    let (listening, stop, repeated) = (bus.clone(), until.clone(), Arc::clone(&twice));
    let mut hearing = JoinSet::new();
    hearing.spawn(async move {
        let spec = listening.event_consumer("bench", listening.subjects().every_event());
        listening
            .consume(spec, stop, Arc::new(Semaphore::new(256)), move |delivery: Delivery<Event>| {
                let mut events = events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if events.insert(delivery.message.entity_id, delivery.stored_at).is_some() {
                    repeated.fetch_add(1, Ordering::Relaxed);
                }
                std::future::ready(Outcome::Done)
            })
            .await;
    });
    let count = || heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len();
    wait("every event was heard", async || Ok(count() >= number)).await?;
    until.cancel();
    hearing.join_all().await;
    let twice = twice.load(Ordering::Relaxed);
    if twice > 0 {
        bail!("{twice} alarms woke twice");
    }
    let heard = heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(heard.iter().map(|(subject, stored)| (*subject, *stored)).collect())
}

/// What so many alarms cost that wait: half of them spread over the horizon, the others over a year.
async fn pending(pool: &PgPool, bus: &Bus, number: usize) -> Result<()> {
    let begin = second(now() + Duration::from_mins(30));
    let alarms: Vec<(Uuid, OffsetDateTime)> = (0..number)
        .map(|index| {
            let span =
                if index % 2 == 0 { HORIZON.saturating_sub(Duration::from_mins(35)) } else { Duration::from_hours(365 * 24) };
            let offset = span.mul_f64(rand::random());
            (IdSource.next(), begin + Duration::from_secs(offset.as_secs()))
        })
        .collect();
    let armed = arm(pool, &alarms).await?;
    say(&json!({"what": "armed", "alarms": number, "armed_s": armed.as_secs_f64(), "process_kib": rss("self")?}));
    let first = node(pool, bus).await?;
    let guarded = first.guarded().await?;
    let buckets: i64 = sqlx::query_scalar("SELECT count(*) FROM alarm_buckets").fetch_one(pool).await?;
    report("guarded for the first time", guarded, buckets)?;
    first.root.stop(Duration::from_secs(10)).await;

    let second = node(pool, bus).await?;
    report("guarded after a restart", second.guarded().await?, buckets)?;
    // What it costs to have them wait.
    let before = cpu(pool).await?;
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(30));
    ticks.tick().await;
    ticks.tick().await;
    let after = cpu(pool).await?;
    let seconds = began.elapsed().as_secs_f64();
    say(&json!({
        "what": "idle", "alarms": number, "seconds": seconds, "process_cpu_percent": 100.0 * (after.0 - before.0) / seconds,
        "postgres_cpu_percent": 100.0 * (after.1 - before.1) / seconds,
    }));
    second.root.stop(Duration::from_secs(10)).await;

    sqlx::query("DELETE FROM alarm_buckets").execute(pool).await?;
    let third = node(pool, bus).await?;
    report("guarded after JetStream was lost", third.guarded().await?, buckets)?;
    third.root.stop(Duration::from_secs(10)).await;
    let state = bus.stream_state(topology::ALARMS).await?.context("no stream")?;
    let table: i64 = sqlx::query_scalar("SELECT pg_total_relation_size('alarms')").fetch_one(pool).await?;
    say(&json!({"what": "sizes", "last_sequence": state.last_sequence, "table_and_indexes_bytes": table}));
    Ok(())
}

fn report(what: &str, took: Duration, buckets: i64) -> Result<()> {
    let nats = environment("BENCH_NATS_PID").and_then(|pid| rss(&pid)).ok();
    say(&json!({
        "what": what, "seconds": took.as_secs_f64(), "buckets": buckets, "process_kib": rss("self")?, "nats_kib": nats,
    }));
    Ok(())
}

/// Resident memory in KiB.
fn rss(process: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Seconds of processor time of this process, and of the server processes that work for it.
async fn cpu(pool: &PgPool) -> Result<(f64, f64)> {
    let pids: Vec<i32> =
        sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE datname = current_database()").fetch_all(pool).await?;
    let of = |process: &str| -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(ticks / 100.0)
    };
    Ok((of("self").context("no stat")?, pids.iter().filter_map(|pid| of(&pid.to_string())).sum()))
}

async fn wait(what: &str, mut probe: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while Instant::now() < deadline {
        ticks.tick().await;
        if probe().await? {
            return Ok(());
        }
    }
    bail!("not within {PATIENCE:?}: {what}")
}

fn environment(name: &str) -> Result<String> {
    #[expect(clippy::disallowed_methods, reason = "secrets do not go on a command line")]
    let value = std::env::var(name);
    value.with_context(|| format!("{name} is not set"))
}

fn now() -> OffsetDateTime {
    #[expect(clippy::disallowed_methods, reason = "measured against the clock of the servers")]
    OffsetDateTime::now_utc()
}

/// The whole second before.
fn second(at: OffsetDateTime) -> OffsetDateTime {
    at - Duration::from_nanos(u64::from(at.nanosecond()))
}

#[expect(clippy::print_stdout, reason = "a command line tool")]
fn say(line: &serde_json::Value) {
    println!("{line}");
}
