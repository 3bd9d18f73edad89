//! What every serving role is made of: settings, clock, ids, life, health, metrics; and how each connects.
//!
//! Connecting is tried again for a while, since the servers of a cluster start at their own pace. What is missing is then
//! named in one sentence.

use std::{net::SocketAddr, path::Path, str::FromStr, sync::Arc, time::Duration};

use bowerbird_config::{Secret, Settings, StorageKind};
use bowerbird_lifecycle::{Clock, Component, Health, IdSource, Metrics, Shutdown, Tasks};
use bowerbird_nats::{
    bus::{Bus, Options},
    credential::Verifier,
};
use bowerbird_outbound::{Client, Timeouts};
use bowerbird_storage::{Bucket, BucketOptions, SetUp};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    data_dir::Credentials,
    failure::{Failure, chain},
};

/// How long a server may take to answer at the start of a process.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// Oldest PostgreSQL, as it tells its version.
const OLDEST_POSTGRES: u32 = 15_00_00;
/// Shortest and longest time for which a process that stands still in a transaction keeps its locks.
const KEEPS_LOCKS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// The surroundings of a role. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Clock,
    pub(crate) ids: IdSource,
    pub(crate) health: Health,
    /// Not ready until every part was started: until then, the parts that report themselves are not all there.
    started: Component,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
    pub(crate) tasks: Tasks,
}

/// Key id and secret of the bucket.
pub(crate) struct StorageKeys {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret,
}

impl Process {
    /// What the operations listener of a role without an API is made of.
    pub(crate) fn operations(&self) -> bowerbird_gateway::Operations {
        bowerbird_gateway::Operations {
            settings: self.settings.clone(),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
            tasks: self.tasks.clone(),
            ids: self.ids,
        }
    }

    /// Listen to signals from now on.
    pub(crate) fn new(settings: Settings) -> Result<Self, Failure> {
        let health = Health::default();
        let process = Process {
            started: health.component("start"),
            settings: Arc::new(settings),
            clock: Clock::system(),
            ids: IdSource,
            health,
            metrics: Metrics::default(),
            shutdown: Shutdown::default(),
            tasks: Tasks::default(),
        };
        process
            .shutdown
            .listen_to_signals(&process.tasks)
            .map_err(|error| Failure::Unavailable(format!("signals cannot be listened to: {error}")))?;
        Ok(process)
    }

    /// Do `starting` unless a signal asks to stop first.
    pub(crate) async fn unless_stopped<T>(&self, starting: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            outcome = starting => outcome,
            () = self.shutdown.stopping() => Err(Failure::Stopped),
        }
    }

    /// Do `stopping` unless a second signal asks to end at once.
    pub(crate) async fn unless_aborted(&self, stopping: impl Future<Output = ()>) -> Result<(), Failure> {
        tokio::select! {
            () = stopping => Ok(()),
            () = self.shutdown.aborting() => Err(Failure::Aborted),
        }
    }

    /// Every part was started: from now on readiness is theirs alone.
    pub(crate) fn started(&self) {
        self.started.ready();
    }

    /// Wait until every part says that it is ready.
    #[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
    pub(crate) async fn ready(&self) -> Result<(), Failure> {
        self.started();
        let every_part = async {
            while !self.health.is_ready() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, every_part).await.is_ok() {
            return Ok(());
        }
        let missing: Vec<String> = self
            .health
            .report()
            .into_iter()
            .filter_map(|(name, status)| match status {
                bowerbird_lifecycle::Status::Ready => None,
                bowerbird_lifecycle::Status::NotReady(why) => Some(format!("{name} ({why})")),
            })
            .collect();
        Err(Failure::Unavailable(format!("not ready within {} s: {}", PATIENCE.as_secs(), missing.join(", "))))
    }

    /// Verifies access tokens once its keys are in step, which `keys` of the readiness tells.
    pub(crate) fn verifier(&self, bus: &Bus) -> Verifier {
        let clock = self.clock.clone();
        let auth = &self.settings.auth;
        let issuer = auth.issuer.clone().unwrap_or_default();
        let verifier = Verifier::new(issuer, auth.audience.clone(), Arc::new(move || clock.now()));
        let (following, bus, token) = (verifier.clone(), bus.clone(), self.shutdown.token());
        let keys = self.health.component("keys");
        self.tasks.spawn(async move {
            let report = move |in_step| {
                if in_step { keys.ready() } else { keys.not_ready("the signing keys are not in step with the bus") }
            };
            following.follow(&bus, token, report).await;
        });
        verifier
    }
}

/// A pool of connections to PostgreSQL, one of which has been made and is new enough.
///
/// While it does not answer it is tried again for `patience`.
#[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
pub(crate) async fn connect_database(settings: &Settings, url: &str, patience: Duration) -> Result<PgPool, Failure> {
    let idle_limit = settings.leases.duration.get().clamp(KEEPS_LOCKS.0, KEEPS_LOCKS.1);
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| Failure::Settings(format!("database.url is not a URL of a PostgreSQL database: {error}")))?
        .application_name("bowerbird")
        .options([
            ("statement_timeout", settings.database.statement_timeout.get().as_millis().to_string()),
            // A process that is frozen or cut off in a transaction must not keep its locks from the others for longer than
            // its leases. The few transactions that wait for the bus as well ask for more time themselves.
            ("idle_in_transaction_session_timeout", idle_limit.as_millis().to_string()),
            ("tcp_keepalives_idle", "15".to_owned()),
            ("tcp_keepalives_interval", "5".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
        ]);
    let pool = PgPoolOptions::new()
        .max_connections(settings.database.max_connections)
        .acquire_timeout(settings.database.acquire_timeout.get())
        .connect_lazy_with(options);
    let deadline = tokio::time::Instant::now() + patience;
    let mut pause = Duration::from_millis(50);
    let connection = loop {
        let error = match pool.acquire().await {
            Ok(connection) => break connection,
            Err(error) => error,
        };
        let refused = error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| {
            // Wrong password, or no such database: patience does not help.
            code.starts_with("28") || code == "3D000"
        });
        if refused || tokio::time::Instant::now() > deadline {
            return Err(Failure::Unavailable(format!(
                "the database that database.url names does not let us in: {}; start it or correct database.url",
                chain(&error)
            )));
        }
        if pause == Duration::from_millis(200) {
            tracing::info!("waiting for the database: {}", chain(&error));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    };
    match connection.server_version_num() {
        Some(version) if version < OLDEST_POSTGRES => Err(Failure::Unavailable(format!(
            "PostgreSQL {} at database.url is too old, {} or newer is needed; upgrade it or name another",
            version / 10_000,
            OLDEST_POSTGRES / 10_000
        ))),
        _ => {
            drop(connection);
            Ok(pool)
        }
    }
}

/// `database.url`, which every role but `up` needs that works with the database.
pub(crate) fn database_url(settings: &Settings) -> Result<String, Failure> {
    settings.database.url.as_ref().map(|url| url.expose().to_owned()).ok_or_else(|| missing("database.url"))
}

/// `nats.url`, which every role but `up` needs that is on the bus.
pub(crate) fn nats_url(settings: &Settings) -> Result<String, Failure> {
    settings.nats.url.as_ref().map(|url| url.expose().to_owned()).ok_or_else(|| missing("nats.url"))
}

/// Bring the database up to date.
pub(crate) async fn migrate(pool: &PgPool) -> Result<bowerbird_migrations::Outcome, Failure> {
    bowerbird_migrations::migrate(pool).await.map_err(|error| Failure::Unavailable(error.to_string()))
}

/// The bus, with everything on it that we need. `own` is the server that `up` started: its URL, user and password.
pub(crate) async fn connect_bus(settings: &Settings, name: &str, own: Option<(String, String, String)>) -> Result<Bus, Failure> {
    let nats = &settings.nats;
    let (url, user) = if let Some((url, user, password)) = own {
        (url, Some((user, password)))
    } else {
        let password = nats.password.as_ref().map(|password| password.expose().to_owned());
        (nats_url(settings)?, nats.user.clone().zip(password))
    };
    let options = Options {
        url,
        user,
        credentials_file: nats.credentials_file.clone(),
        prefix: nats.prefix.clone(),
        replicas: nats.replicas,
        name: name.to_owned(),
    };
    let bus = Box::pin(Bus::connect(options, PATIENCE)).await.map_err(|error| Failure::Unavailable(chain(&error)))?;
    Box::pin(bus.ensure_topology()).await.map_err(|error| Failure::Unavailable(chain(&error)))?;
    Ok(bus)
}

/// The keys of the bucket: from the settings, else those that were generated in the data directory of this machine.
pub(crate) fn storage_keys(settings: &Settings, generated: Option<&Credentials>) -> Result<StorageKeys, Failure> {
    let storage = &settings.storage;
    if let (Some(id), Some(secret)) = (&storage.access_key_id, &storage.secret_access_key) {
        return Ok(StorageKeys { access_key_id: id.clone(), secret_access_key: secret.clone() });
    }
    match generated {
        Some(generated) if storage.kind == StorageKind::Embedded => Ok(StorageKeys {
            access_key_id: generated.storage_access_key_id.clone(),
            secret_access_key: Secret::new(generated.storage_secret_access_key.clone()),
        }),
        _ => Err(Failure::Settings(
            "storage.access_key_id and storage.secret_access_key are not set; set both to the keys of the object store".into(),
        )),
    }
}

/// Where this process reaches the bucket.
pub(crate) fn storage_endpoint(settings: &Settings) -> Result<Url, Failure> {
    let storage = &settings.storage;
    match (storage.kind, &storage.endpoint) {
        (_, Some(endpoint)) => Ok(endpoint.clone()),
        (StorageKind::Embedded, None) => {
            let mut address = storage.listen;
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
            }
            http_url(address)
        }
        (StorageKind::S3, None) => Err(missing("storage.endpoint")),
    }
}

/// The bucket, tried out.
pub(crate) async fn connect_bucket(process: &Process, keys: &StorageKeys) -> Result<Bucket, Failure> {
    let storage = &process.settings.storage;
    let endpoint = storage_endpoint(&process.settings)?;
    let options = BucketOptions {
        public_endpoint: storage.public_endpoint.clone().unwrap_or_else(|| endpoint.clone()),
        endpoint,
        region: storage.region.clone(),
        bucket: storage.bucket.clone(),
        access_key_id: keys.access_key_id.clone(),
        secret_access_key: keys.secret_access_key.expose().to_owned(),
        path_style: storage.path_style,
        clock: process.clock.clone(),
    };
    let bucket = Bucket::connect(options, PATIENCE).await.map_err(|error| Failure::Unavailable(chain(&error)))?;
    // Our own store lets every page in and tells by itself.
    if storage.kind == StorageKind::S3 {
        let wish = SetUp {
            cors_origins: storage.cors_origins.clone().unwrap_or_else(|| process.settings.gateway.cors_origins.clone()),
            notify_target: storage.notify_target.clone(),
        };
        let report = bucket.set_up(&wish).await;
        for rule in report.changed {
            tracing::info!(bucket = bucket.name(), "a rule of the bucket was made: {rule}");
        }
        for sentence in report.refused {
            tracing::warn!("{sentence}");
        }
    }
    Ok(bucket)
}

/// The client that streams objects through the gateway: it dials the bucket and nothing else.
pub(crate) fn object_client(settings: &Settings) -> Result<Client, Failure> {
    let outbound = &settings.outbound;
    let timeouts = Timeouts {
        dns: outbound.dns_timeout.get(),
        connect: outbound.connect_timeout.get(),
        first_byte: outbound.first_byte_timeout.get(),
        stall: outbound.stall_timeout.get(),
    };
    Client::internal(&storage_endpoint(settings)?, timeouts)
        .map_err(|error| Failure::Settings(format!("storage.endpoint: {}", chain(&error))))
}

/// The key that signing keys are encrypted with, where no data directory of `up` has one.
pub(crate) fn master_key(settings: &Settings) -> Result<Zeroizing<[u8; 32]>, Failure> {
    match &settings.auth.master_key_file {
        Some(file) => crate::data_dir::read_master_key(file),
        None => Err(missing("auth.master_key_file")),
    }
}

/// What `up` generated in the data directory of these settings, if it ever ran there and this user may read it.
pub(crate) fn generated(data_dir: &Path) -> Option<Credentials> {
    Credentials::read(data_dir).ok().flatten()
}

/// `http://<address>`
pub(crate) fn http_url(address: SocketAddr) -> Result<Url, Failure> {
    Url::parse(&format!("http://{address}")).map_err(|error| Failure::Settings(format!("{address} makes no URL: {error}")))
}

/// The sentence for a setting that a role cannot do without.
pub(crate) fn missing(key: &str) -> Failure {
    Failure::Settings(format!(
        "{key} is not set; set it, or run `bowerbird up`, which starts everything that is needed by itself"
    ))
}
