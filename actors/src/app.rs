//! The composition root of this room: what runs, in the order in which it starts. Read it from top to bottom.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, Health, IdSource, Metrics, Shutdown, Tasks};
use bowerbird_nats::{Bus, answer, answer::RunningService, credential::Verifier, id::NodeId};
use bowerbird_storage::Bucket;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    accounts::{
        Accounts,
        hashing::{BadParameters, Hashing},
    },
    alarms::{Alarms, AlarmsAddress, Pace},
    analytics::Analytics,
    connections::Connections,
    dead_letters::DeadLetters,
    downloads::{self, Downloads, Foundation},
    events::Bell,
    files::{self, Files},
    ingest::{self, Ingest},
    janitor::Janitor,
    keyring::{self, Keyring},
    metrics::Meters,
    notifications::{self, Notifications},
    outbox::Outbox,
    reminders::{self, Reminders},
    requests::{Limits, Pool},
    sessions::Sessions,
    supervision::{self, Address, ChildSpec, GaveUp, Root, Supervisor, Tree},
    uploads::{self, Uploads},
    webhooks::{self, Webhooks},
};

/// How long the requests that are being answered may take once no new ones come.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What the process hands in.
#[derive(Clone)]
pub struct Parts {
    /// The settings, checked.
    pub settings: Arc<Settings>,
    /// The bus, its topology in place.
    pub bus: Bus,
    /// The database, migrated.
    pub pool: PgPool,
    /// The bucket, tried.
    pub bucket: Bucket,
    /// The time of day.
    pub clock: Clock,
    /// New identifiers.
    pub ids: IdSource,
    /// This node, the same after a restart.
    pub node_id: NodeId,
    /// Where parts report themselves.
    pub health: Health,
    /// Where meters are registered.
    pub metrics: Metrics,
    /// The end of the process.
    pub shutdown: Shutdown,
    /// Tasks that the shutdown waits for.
    pub tasks: Tasks,
    /// What secrets at rest are encrypted with.
    pub master_key: Zeroizing<[u8; 32]>,
    /// Addresses that this process listens on; never dialled.
    pub own_listeners: Vec<SocketAddr>,
    /// Verifies access tokens; the process keeps its keys in step with the bucket `KEYS`.
    pub verifier: Verifier,
}

/// The actors do not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no usable signing key.
    #[error(transparent)]
    Keyring(#[from] keyring::Error),
    /// Settings that hashing refuses.
    #[error(transparent)]
    Hashing(#[from] BadParameters),
    /// The client for the internet cannot be made.
    #[error(transparent)]
    Downloads(#[from] downloads::SetupError),
    /// Nothing can be taken in as the settings say.
    #[error(transparent)]
    Ingest(#[from] ingest::SetupError),
    /// Nothing can be sent to webhooks.
    #[error(transparent)]
    Webhooks(#[from] webhooks::SetupError),
    /// E-mail cannot be sent as the settings say.
    #[error(transparent)]
    Mail(#[from] notifications::mail::SetupError),
    /// An actor failed too often.
    #[error(transparent)]
    Tree(#[from] supervision::StartError),
    /// The bus did not take the subscriptions.
    #[error("requests cannot be answered: {0}")]
    Service(#[from] answer::Error),
}

/// The running actors.
pub struct Actors {
    root: Root,
    service: RunningService,
    answering: CancellationToken,
}

/// Start everything; returns when requests are answered.
pub async fn start(parts: Parts) -> Result<Actors, StartError> {
    // Everything is made here, which is much to carry around.
    Box::pin(assemble(parts)).await
}

async fn assemble(parts: Parts) -> Result<Actors, StartError> {
    let Parts { settings, bus, pool, clock, ids, .. } = parts.clone();
    let meters = Meters::register(&parts.metrics);
    let bell = Bell::default();
    let alarms_address = AlarmsAddress::default();
    let workers = |area| Pool::new(area, Limits::default(), meters.clone(), bell.clone());

    let connections = Connections {
        pool: pool.clone(),
        bus: bus.clone(),
        node_id: parts.node_id,
        database: parts.health.component("database"),
        bus_health: parts.health.component("bus"),
    };
    let outbox = Outbox::new(pool.clone(), bus.clone(), bell.clone(), meters.clone());
    let keyring = Keyring::new(
        pool.clone(),
        bus.clone(),
        clock.clone(),
        ids,
        &settings.auth,
        &parts.master_key,
        meters.clone(),
        parts.health.component("keyring"),
    )?;
    // Before the tree: a master key that does not fit is no reason to try ten times.
    keyring.refresh().await?;

    let hashing = Hashing::new(&settings.auth, meters.clone())?;
    let (account_workers, session_workers) = (workers("account"), workers("session"));
    let accounts = Accounts::new(
        Arc::clone(&settings),
        pool.clone(),
        clock.clone(),
        ids,
        hashing.clone(),
        account_workers.clone(),
        &parts.master_key,
    );
    let sessions = Sessions::new(
        &settings.auth,
        issuer(&settings),
        pool.clone(),
        clock.clone(),
        ids,
        hashing.clone(),
        keyring.signer(),
        parts.verifier.clone(),
        session_workers.clone(),
    );

    let files = Files::new(files::Foundation {
        settings: &settings,
        pool: pool.clone(),
        bucket: parts.bucket.clone(),
        bell: bell.clone(),
        meters: meters.clone(),
        workers: workers("file"),
        strangers: workers("stranger"),
        alarms: alarms_address.clone(),
        hashing,
        clock: clock.clone(),
        master_key: &parts.master_key,
    });
    let downloads = Downloads::new(Foundation {
        settings: &settings,
        pool: pool.clone(),
        bus: bus.clone(),
        bucket: parts.bucket.clone(),
        clock: clock.clone(),
        ids,
        node_id: parts.node_id,
        bell: bell.clone(),
        meters: meters.clone(),
        workers: workers("download"),
        purger: files.purger(),
        alarms: alarms_address.clone(),
        master_key: &parts.master_key,
        own_listeners: &parts.own_listeners,
    })?;

    // Comparing takes as long as the bucket is large, so few may wait for it.
    let comparing = Limits { workers: 2, queue: 8, per_account: 2 };
    let ingest = Ingest::new(ingest::Foundation {
        settings: &settings,
        pool: pool.clone(),
        bus: bus.clone(),
        bucket: parts.bucket.clone(),
        bell: bell.clone(),
        meters: meters.clone(),
        workers: Pool::new("sweep", comparing, meters.clone(), bell.clone()),
        purger: files.purger(),
    })?;
    let uploads = Uploads::new(uploads::Foundation {
        settings: &settings,
        pool: pool.clone(),
        bucket: parts.bucket.clone(),
        ids,
        workers: workers("upload"),
        purger: files.purger(),
        landing: ingest.landing(),
        master_key: &parts.master_key,
    });

    let analytics = Analytics::new(pool.clone(), bus.clone(), meters.clone(), alarms_address.clone(), workers("statistics"));
    let dead_letters =
        DeadLetters::new(pool.clone(), bus.clone(), ids, meters.clone(), workers("dead_letter"), &parts.master_key);
    let reminders = Reminders::new(reminders::Foundation {
        settings: &settings,
        pool: pool.clone(),
        bus: bus.clone(),
        ids,
        bell: bell.clone(),
        meters: meters.clone(),
        workers: workers("reminder"),
        alarms: alarms_address.clone(),
        master_key: &parts.master_key,
    });

    // Few, and few of one account, as each may wait for a receiver.
    let tests = Limits { workers: 8, queue: 32, per_account: 2 };
    let webhooks = Webhooks::new(webhooks::Foundation {
        settings: &settings,
        pool: pool.clone(),
        bus: bus.clone(),
        clock: clock.clone(),
        ids,
        node_id: parts.node_id,
        bell: bell.clone(),
        meters: meters.clone(),
        workers: workers("webhook"),
        test_workers: Pool::new("webhook_test", tests, meters.clone(), bell.clone()),
        alarms: alarms_address.clone(),
        master_key: &parts.master_key,
        own_listeners: &parts.own_listeners,
    })?;

    let notifications = Notifications::new(notifications::Foundation {
        settings: &settings,
        pool: pool.clone(),
        bus: bus.clone(),
        ids,
        bell: bell.clone(),
        alarms: alarms_address.clone(),
        workers: workers("notification"),
        master_key: &parts.master_key,
    })?;

    let mut sweeps = vec![outbox.sweep(), downloads.sweep(), reminders.sweep(), ingest.sweep()];
    sweeps.extend(notifications.sweeps());
    sweeps.extend(files.sweeps());
    let janitor = Janitor::new(pool.clone(), sweeps, meters.clone());
    let sweep_workers = workers("sweep");
    let keyring_address = Address::default();
    // What is woken when its time has come: one for each kind of alarm.
    let mut wakes = vec![
        Keyring::wakes(&keyring_address),
        downloads.wakes(),
        ingest.wakes(),
        reminders.wakes(),
        notifications.wakes(),
        janitor.wakes(),
    ];
    wakes.extend(webhooks.wakes());
    wakes.extend(files.wakes());
    let pace = Pace { horizon: settings.alarms.horizon.get(), poll: settings.alarms.poll.get() };
    let alarms = Alarms::new(pool.clone(), bus.clone(), bell.clone(), meters.clone(), wakes, pace, alarms_address);
    let (janitor_address, of_janitor) = (janitor.address().clone(), janitor.clone());

    let children = vec![
        ChildSpec::actor("connections", &Address::default(), move || (connections.clone(), ())),
        ChildSpec::actor("outbox", &Address::default(), move || (outbox.clone(), ())),
        ChildSpec::actor("keyring", &keyring_address, move || (keyring.clone(), ())),
        area("sessions", &clock, vec![session_workers.child(&clock)]),
        area("accounts", &clock, vec![account_workers.child(&clock)]),
        area("files", &clock, files.children(&clock)),
        area("downloads", &clock, downloads.children(&clock)),
        area("uploads", &clock, uploads.children(&clock)),
        area("ingest", &clock, ingest.children(&clock)),
        area("webhooks", &clock, webhooks.children(&clock)),
        area("reminders", &clock, reminders.children(&clock)),
        area("analytics", &clock, analytics.children(&clock)),
        area("dead_letters", &clock, dead_letters.children(&clock)),
        area("notifications", &clock, notifications.children(&clock)),
        area("sweeps", &clock, vec![sweep_workers.child(&clock)]),
        ChildSpec::actor("janitor", &janitor_address, move || (janitor.clone(), ())),
        alarms.child(),
    ];
    let root = supervision::start("actors", children, clock.clone()).await?;

    let answering = CancellationToken::new();
    let service = bus.service("Everything that Bowerbird does.", env!("CARGO_PKG_VERSION"), parts.verifier.clone());
    let service = sessions.endpoints(service);
    let service = accounts.endpoints(service);
    let service = files.endpoints(service);
    let service = downloads.endpoints(service);
    let service = uploads.endpoints(service);
    let service = ingest.endpoints(service);
    let service = webhooks.endpoints(service);
    let service = reminders.endpoints(service);
    let service = analytics.endpoints(service);
    let service = dead_letters.endpoints(service);
    let service = notifications.endpoints(service);
    let service = of_janitor.endpoints(service, &sweep_workers);
    match service.start(answering.clone()).await {
        Ok(service) => Ok(Actors { root, service, answering }),
        Err(error) => {
            root.stop(ANSWER_WITHIN).await;
            Err(error.into())
        }
    }
}

impl Actors {
    /// Stop: no new requests, then the actors in reverse order, all within `grace`. False if some had to be killed.
    pub async fn stop(self, grace: Duration) -> bool {
        self.answering.cancel();
        let answered = self.service.stop(ANSWER_WITHIN.min(grace)).await;
        self.root.stop(grace).await && answered
    }

    /// Resolves when restarting did not help: the process must end with an exit code of failure.
    pub async fn failed(&self) -> GaveUp {
        self.root.failed().await
    }

    /// The live picture of the tree.
    pub fn tree(&self) -> &Tree {
        self.root.tree()
    }
}

/// What tokens name as their issuer. Whoever makes the verifier must say the same.
pub fn issuer(settings: &Settings) -> String {
    settings.auth.issuer.clone().unwrap_or_else(|| public_url(settings))
}

/// Where people reach the gateway, without a slash at the end.
pub(crate) fn public_url(settings: &Settings) -> String {
    let url = settings.gateway.public_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
    url.unwrap_or_else(|| format!("http://{}", settings.gateway.listen))
}

fn area(name: &str, clock: &Clock, children: Vec<ChildSpec>) -> ChildSpec {
    Supervisor::child(name, clock.clone(), move || children.clone())
}
