//! What the tests stand on: servers of their own, the actors in this process, and a clock that is moved by hand.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bowerbird_actors::{Actors, Parts, issuer, store_admin};
use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, Health, IdSource, Metrics, Shutdown, Status, Tasks};
use bowerbird_nats::{
    AskContext, Bus, Operation, Problem, Verifier,
    account::{Account, Register},
    bus,
    consume::{Delivery, Outcome},
    event::Event,
    id::NodeId,
    session::{Login, TokenPair},
};
use bowerbird_storage::{Bucket, BucketOptions};
use bowerbird_testkit::{NatsServer, TestDatabase, eventually};
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;
use zeroize::Zeroizing;

/// Long enough for a loaded machine; nothing waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const PASSWORD: &str = "correct horse battery staple";
pub(crate) const MASTER_KEY: [u8; 32] = [9; 32];

/// Servers of one test.
pub(crate) struct Servers {
    pub(crate) nats: NatsServer,
    pub(crate) database: TestDatabase,
}

/// A process with actors.
pub(crate) struct Node {
    pub(crate) bus: Bus,
    pub(crate) pool: PgPool,
    pub(crate) clock: Clock,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) verifier: Verifier,
    pub(crate) actors: Actors,
    _following: CancellationToken,
}

impl Servers {
    pub(crate) async fn start() -> Self {
        let (nats, database) = tokio::join!(Box::pin(NatsServer::start()), Box::pin(TestDatabase::new()));
        Servers { nats, database }
    }

    pub(crate) async fn bus(&self) -> Bus {
        let options = bus::Options {
            url: self.nats.url(),
            user: None,
            credentials_file: None,
            prefix: "bowerbird".into(),
            replicas: 1,
            name: "test".into(),
        };
        let bus = Bus::connect(options, PATIENCE).await.unwrap();
        bus.ensure_topology().await.unwrap();
        bus
    }

    /// Start actors with these settings (TOML) over the defaults.
    pub(crate) async fn node(&self, overrides: &str) -> Node {
        self.node_at(overrides, Clock::manual(now())).await
    }

    pub(crate) async fn node_at(&self, overrides: &str, clock: Clock) -> Node {
        let settings = Arc::new(Settings::with_overrides(overrides).unwrap());
        let (bus, pool) = (self.bus().await, self.database.pool());
        let time = clock.clone();
        let verifier = Verifier::new(issuer(&settings), settings.auth.audience.clone(), Arc::new(move || time.now()));
        let (health, metrics) = (Health::default(), Metrics::default());
        let following = CancellationToken::new();
        let component = health.component("keys");
        let (follower, watched, until) = (verifier.clone(), bus.clone(), following.clone());
        let tasks = Tasks::default();
        tasks.spawn(async move {
            let tell = |in_step| if in_step { component.ready() } else { component.not_ready("not in step") };
            follower.follow(&watched, until, tell).await;
        });
        let parts = Parts {
            settings,
            bus: bus.clone(),
            pool: pool.clone(),
            bucket: nowhere(),
            clock: clock.clone(),
            ids: IdSource,
            node_id: NodeId(IdSource.next()),
            health: health.clone(),
            metrics: metrics.clone(),
            shutdown: Shutdown::default(),
            tasks,
            master_key: Zeroizing::new(MASTER_KEY),
            own_listeners: Vec::new(),
            verifier: verifier.clone(),
        };
        let actors = bowerbird_actors::start(parts).await.unwrap();
        let node = Node { bus, pool, clock, health, metrics, verifier, actors, _following: following };
        node.is_ready().await;
        node
    }
}

impl Node {
    pub(crate) async fn is_ready(&self) {
        eventually(PATIENCE, "the node is ready", async || self.health.is_ready().then_some(())).await;
    }

    /// The clock that was moved by hand is not the database's, by which alarms go.
    pub(crate) async fn keys_are_due(&self) {
        let due = "UPDATE alarms SET wake_at = now() WHERE kind = 'key_rotation'";
        assert_eq!(sqlx::query(due).execute(&self.pool).await.unwrap().rows_affected(), 1);
    }

    /// Ask as a stranger.
    pub(crate) async fn ask<O: Operation>(&self, request: &O) -> Result<O::Reply, Problem> {
        self.ask_as(request, None, None).await
    }

    pub(crate) async fn ask_as<O: Operation>(
        &self,
        request: &O,
        token: Option<&str>,
        key: Option<&str>,
    ) -> Result<O::Reply, Problem> {
        let context = AskContext {
            credential: token.map(str::to_owned),
            timeout: Duration::from_secs(30),
            idempotency_key: key.map(str::to_owned),
            request_id: "test".into(),
            traceparent: None,
        };
        Ok(self.bus.ask(request, &context).await?)
    }

    pub(crate) async fn register(&self, account_name: &str) -> Account {
        self.ask(&registration(account_name)).await.unwrap()
    }

    pub(crate) async fn login(&self, account_name: &str) -> TokenPair {
        self.ask(&credentials(account_name, PASSWORD)).await.unwrap()
    }

    /// The access token of a new administrator of this name.
    pub(crate) async fn administrator(&self, account_name: &str) -> String {
        let settings = Settings::with_overrides("").unwrap();
        let password = Zeroizing::new(PASSWORD.to_owned());
        let made = store_admin::create_admin(&self.pool, &settings, &self.clock, IdSource, account_name, password);
        Box::pin(made).await.unwrap();
        Box::pin(self.login(account_name)).await.access_token
    }

    /// Everything that PostgreSQL holds, as text; bytes in hexadecimal.
    pub(crate) async fn dump(&self) -> String {
        let tables: Vec<String> = sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(&self.pool)
            .await
            .unwrap();
        let mut dump = String::new();
        for table in tables {
            let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT t::text FROM {table} AS t")))
                .fetch_all(&self.pool)
                .await
                .unwrap();
            dump.extend(rows);
        }
        dump
    }

    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) fn not_ready(&self) -> Vec<&'static str> {
        self.health.report().into_iter().filter(|(_, status)| *status != Status::Ready).map(|(name, _)| name).collect()
    }
}

/// Whether the proofs are to run at full length.
#[expect(clippy::disallowed_methods, reason = "`make prove` chooses the size of the proof")]
pub(crate) fn proving() -> bool {
    std::env::var("BOWERBIRD_PROVE").is_ok()
}

/// Every event that the stream delivers, in the order of its arrival, for as long as this lives.
pub(crate) struct Heard {
    events: Arc<Mutex<Vec<Event>>>,
    until: CancellationToken,
}

impl Heard {
    pub(crate) fn listen(bus: &Bus, durable: &'static str) -> Self {
        let (events, until): (Arc<Mutex<Vec<Event>>>, _) = (Arc::default(), CancellationToken::new());
        let (heard, stop, bus) = (Arc::clone(&events), until.clone(), bus.clone());
        Tasks::default().spawn_detached(async move {
            let spec = bus.event_consumer(durable, bus.subjects().every_event());
            // One at a time, so that the order of arrival is the order of the stream.
            bus.consume(spec, stop, Arc::new(Semaphore::new(1)), move |delivery: Delivery<Event>| {
                heard.lock().unwrap().push(delivery.message.clone());
                async { Outcome::Done }
            })
            .await;
        });
        Heard { events, until }
    }

    pub(crate) fn so_far(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.until.cancel();
    }
}

#[expect(clippy::disallowed_methods, reason = "where a clock that is moved by hand begins")]
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// A bucket that nobody asks for anything here.
fn nowhere() -> Bucket {
    let endpoint = Url::parse("http://127.0.0.1:1").unwrap();
    Bucket::new(BucketOptions {
        endpoint: endpoint.clone(),
        public_endpoint: endpoint,
        region: "us-east-1".into(),
        bucket: "bowerbird".into(),
        access_key_id: "nobody".into(),
        secret_access_key: "nothing".into(),
        path_style: true,
        clock: Clock::system(),
    })
}

pub(crate) fn registration(account_name: &str) -> Register {
    Register { account_name: account_name.to_owned(), password: PASSWORD.to_owned(), email: None, display_name: None }
}

pub(crate) fn credentials(login: &str, password: &str) -> Login {
    Login { login: login.to_owned(), password: password.to_owned(), device_name: None }
}
