//! `bowerbird up`: everything in one process, with servers of its own where the settings name none.
//!
//! Start: data directory and addresses, own servers, database, bus, object store, actors, REST. Stop: the other way round. What
//! outlives the process is the data directory.

use std::path::PathBuf;

use bowerbird_config::{Settings, StorageKind};
use bowerbird_gateway::Parts as GatewayParts;
use bowerbird_nats::{bus::Bus, id::NodeId};
use bowerbird_storage::embedded;
use sqlx::PgPool;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    arguments::UpOptions,
    children::{
        Guardian, Keeper, nats,
        nats::NatsServer,
        postgres::{Cluster, Installed},
    },
    data_dir::{Credentials, DataDir},
    failure::{Failure, chain},
    listeners,
    process::{
        PATIENCE, Process, connect_bucket, connect_bus, connect_database, database_url, http_url, migrate, object_client,
        storage_keys,
    },
    role::{
        actors::{self, Connected, own_listeners, until_stopped},
        store,
    },
};

/// The addresses that are served, bound before anything is started.
struct Listeners {
    api: TcpListener,
    operations: TcpListener,
    /// The embedded object store's, if there is one.
    store: Option<TcpListener>,
}

/// The programs of our own servers, found before anything is written.
struct Programs {
    nats: Option<PathBuf>,
    postgres: Option<Installed>,
}

/// Our own servers. Stopped last.
#[derive(Default)]
struct Servers {
    postgres: Option<Guardian>,
    nats: Option<Guardian>,
}

/// What was started on the servers, in this order.
#[derive(Default)]
struct Started {
    pool: Option<PgPool>,
    bus: Option<Bus>,
    store: Option<embedded::Running>,
    /// Stops the store, which outlives those who write to it.
    store_until: CancellationToken,
    actors: Option<bowerbird_actors::Actors>,
}

/// Run until a signal, or until something gives up.
pub(crate) async fn run(mut settings: Settings, options: UpOptions) -> Result<(), Failure> {
    apply(&mut settings, options)?;
    let programs = Programs::find(&settings).await?;
    let data_dir = DataDir::open(&settings.data_dir)?;
    let listeners = bind(&mut settings).await?;
    settings.fill_in_addresses();
    let process = Process::new(settings)?;
    let mut credentials = data_dir.credentials(process.ids)?;
    // Before there is a database that depends on it.
    let master_key = match process.settings.auth.master_key_file {
        Some(_) => crate::process::master_key(&process.settings)?,
        None => data_dir.master_key()?,
    };
    // Dropped at the very end: with it the kernel stops whatever of ours should still run.
    let keeper = Keeper::start().map_err(|error| Failure::Unavailable(format!("no thread can be started: {error}")))?;
    let (gave_up, mut given_up) = mpsc::channel(2);

    let (mut servers, mut started) = (Servers::default(), Started::default());
    let running = async {
        let starting = async {
            let url = servers.start(&process, programs, &data_dir, &mut credentials, &keeper, &gave_up).await?;
            let starting = started.start(&process, &data_dir, &credentials, master_key, &url, listeners);
            Box::pin(starting).await?;
            process.ready().await
        };
        tokio::select! {
            outcome = process.unless_stopped(starting) => outcome?,
            Some(failure) = given_up.recv() => return Err(failure),
        }
        announce(&process.settings)?;
        match &started.actors {
            Some(actors) => tokio::select! {
                outcome = until_stopped(&process, actors) => outcome,
                Some(failure) = given_up.recv() => Err(failure),
            },
            None => Ok(()),
        }
    };
    let outcome = running.await;
    if let Err(failure) = &outcome {
        tracing::debug!(%failure, "stopping");
    }
    process.shutdown.stop();
    let stopping = async {
        started.stop(&process).await;
        servers.stop().await;
    };
    process.unless_aborted(stopping).await?;
    if outcome.is_ok() {
        crate::print("Bowerbird has stopped\n")?;
    }
    outcome
}

/// Options win over settings.
fn apply(settings: &mut Settings, options: UpOptions) -> Result<(), Failure> {
    if let Some(data_dir) = options.data_dir {
        settings.data_dir = data_dir;
    }
    if let Some(address) = options.listen {
        settings.gateway.listen.set_ip(address);
        settings.storage.listen.set_ip(address);
        let named = options.public_host.is_some()
            || (settings.gateway.public_url.is_some() && settings.storage.public_endpoint.is_some());
        if address.is_unspecified() && !named {
            return Err(Failure::Settings(format!(
                "--listen {address} is every address of this machine, so links need a name that clients can reach: add \
                 --public-host NAME"
            )));
        }
    }
    if let Some(host) = options.public_host {
        let url = |port: u16| {
            Url::parse(&format!("http://{host}:{port}"))
                .map_err(|_| Failure::Settings(format!("--public-host: `{host}` is not a host name or an address")))
        };
        settings.gateway.public_url = Some(url(settings.gateway.listen.port())?);
        if settings.storage.kind == StorageKind::Embedded {
            settings.storage.public_endpoint = Some(url(settings.storage.listen.port())?);
        }
    }
    settings.check()?;
    settings.check_links(true)?;
    Ok(())
}

/// Bind what is served, and put the ports that the system chose into the settings.
async fn bind(settings: &mut Settings) -> Result<Listeners, Failure> {
    let api = listeners::bind("gateway.listen", settings.gateway.listen).await?;
    let operations = listeners::bind("gateway.operations_listen", settings.gateway.operations_listen).await?;
    let store = match settings.storage.kind {
        StorageKind::Embedded => Some(listeners::bind("storage.listen", settings.storage.listen).await?),
        StorageKind::S3 => None,
    };
    settings.gateway.listen = listeners::address(&api, settings.gateway.listen);
    settings.gateway.operations_listen = listeners::address(&operations, settings.gateway.operations_listen);
    if let Some(store) = &store {
        settings.storage.listen = listeners::address(store, settings.storage.listen);
    }
    Ok(Listeners { api, operations, store })
}

/// How often our own NATS server is started on another port, while others take it first.
const NATS_TRIES: u32 = 4;

impl Programs {
    /// Those that the settings need. A start that is refused here has left nothing behind.
    async fn find(settings: &Settings) -> Result<Self, Failure> {
        let nats = match &settings.nats.url {
            Some(_) => None,
            None => Some(nats::find().await?),
        };
        let postgres = match &settings.database.url {
            Some(_) => None,
            None => Some(Installed::look(&settings.data_dir).await?),
        };
        Ok(Programs { nats, postgres })
    }
}

impl Servers {
    /// Start those that the settings do not name. Answers the URL of the database.
    async fn start(
        &mut self,
        process: &Process,
        programs: Programs,
        data_dir: &DataDir,
        credentials: &mut Credentials,
        keeper: &Keeper,
        gave_up: &mpsc::Sender<Failure>,
    ) -> Result<String, Failure> {
        if let Some(program) = programs.nats {
            let mut tries = 0;
            self.nats = loop {
                tries += 1;
                let server = NatsServer::prepare(program.clone(), data_dir, credentials).await?;
                let gave_up = gave_up.clone();
                let told = move |failure| drop(gave_up.try_send(failure));
                match server.start(keeper.clone(), &process.tasks, told).await {
                    Ok(guardian) => break Some(guardian),
                    // Somebody took the port between our look and the server's; the next look moves it.
                    Err(_) if tries < NATS_TRIES && TcpListener::bind(nats::address(credentials)).await.is_err() => {}
                    Err(failure) => return Err(failure),
                }
            };
        }
        let Some(installed) = programs.postgres else { return database_url(&process.settings) };
        let cluster = Cluster::prepare(installed, data_dir, credentials).await?;
        let gave_up = gave_up.clone();
        let told = move |failure| drop(gave_up.try_send(failure));
        let (guardian, url) = cluster.start(keeper.clone(), &process.tasks, told).await?;
        self.postgres = Some(guardian);
        Ok(url)
    }

    async fn stop(self) {
        let nats = async {
            if let Some(nats) = self.nats {
                nats.stop().await;
            }
        };
        let postgres = async {
            if let Some(postgres) = self.postgres {
                postgres.stop().await;
            }
        };
        tokio::join!(nats, postgres);
    }
}

impl Started {
    async fn start(
        &mut self,
        process: &Process,
        data_dir: &DataDir,
        credentials: &Credentials,
        master_key: Zeroizing<[u8; 32]>,
        database_url: &str,
        listeners: Listeners,
    ) -> Result<(), Failure> {
        let settings = &process.settings;
        let pool = connect_database(settings, database_url, PATIENCE).await?;
        self.pool = Some(pool.clone());
        migrate(&pool).await?;

        let own = settings
            .nats
            .url
            .is_none()
            .then(|| (nats::url(credentials), credentials.nats_user.clone(), credentials.nats_password.clone()));
        let own_nats = own.is_some().then(|| nats::address(credentials));
        let bus = connect_bus(settings, "bowerbird up", own).await?;
        self.bus = Some(bus.clone());

        let keys = storage_keys(settings, Some(credentials))?;
        if let Some(listener) = listeners.store {
            let serving = store::serve(process, data_dir, &keys, listener, Some(&bus), self.store_until.clone());
            self.store = Some(serving.await?);
        }
        let bucket = connect_bucket(process, &keys).await?;

        let verifier = process.verifier(&bus);
        let connected = Connected {
            pool,
            bus: bus.clone(),
            bucket,
            verifier: verifier.clone(),
            // The same name each time, so that the leases of a killed predecessor are freed at once.
            node_id: NodeId(credentials.node_id),
            master_key,
            own_listeners: own_listeners(settings).chain(own_nats).collect(),
        };
        self.actors = Some(actors::start(process, connected).await?);

        let parts = GatewayParts {
            settings: settings.clone(),
            bus,
            verifier,
            health: process.health.clone(),
            metrics: process.metrics.clone(),
            shutdown: process.shutdown.clone(),
            tasks: process.tasks.clone(),
            ids: process.ids,
            object_client: object_client(settings)?,
        };
        bowerbird_gateway::serve(parts, listeners.api, listeners.operations)
            .await
            .map_err(|error| Failure::Unavailable(chain(&error)))?;
        Ok(())
    }

    /// Stop what was started, the last first. Every step has an end.
    async fn stop(self, process: &Process) {
        let grace = process.settings.shutdown.grace.get();
        if let Some(actors) = self.actors {
            actors.stop(grace).await;
        }
        if !process.tasks.wait(grace).await {
            tracing::warn!("some requests had not ended within {} s and are cut off", grace.as_secs());
        }
        self.store_until.cancel();
        if let Some(store) = self.store {
            store.stopped(grace).await;
        }
        if let Some(bus) = self.bus {
            bus.close(grace).await;
        }
        if let Some(pool) = self.pool {
            // Our own PostgreSQL ends what is still open; another one is told by the connections' end.
            let _ = tokio::time::timeout(grace, pool.close()).await;
        }
    }
}

/// The last line of a start.
fn announce(settings: &Settings) -> Result<(), Failure> {
    let api = match &settings.gateway.public_url {
        Some(url) => url.clone(),
        None => http_url(settings.gateway.listen)?,
    };
    let api = api.as_str().trim_end_matches('/');
    let objects = match &settings.storage.public_endpoint {
        Some(url) => url.clone(),
        None => http_url(settings.storage.listen)?,
    };
    crate::print(&format!(
        "Bowerbird is ready: API {api}, its docs {api}/docs, object store {}\n",
        objects.as_str().trim_end_matches('/')
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> UpOptions {
        let words = std::iter::once("up").chain(line.split_whitespace());
        match crate::arguments::parse(words.map(Into::into)).unwrap().command {
            crate::arguments::Command::Up(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn listening_for_others_makes_links_for_the_public_name() {
        let mut settings = Settings::defaults().unwrap();
        apply(&mut settings, options("--listen 0.0.0.0 --public-host nas.lan")).unwrap();
        assert_eq!(settings.gateway.listen, "0.0.0.0:8080".parse().unwrap());
        assert_eq!(settings.storage.listen, "0.0.0.0:9000".parse().unwrap());
        assert!(settings.gateway.operations_listen.ip().is_loopback(), "metrics are not for everybody");
        assert_eq!(settings.gateway.public_url.unwrap().as_str(), "http://nas.lan:8080/");
        assert_eq!(settings.storage.public_endpoint.unwrap().as_str(), "http://nas.lan:9000/");
    }

    #[test]
    fn every_address_without_a_name_is_refused() {
        let mut settings = Settings::defaults().unwrap();
        let refused = apply(&mut settings, options("--listen 0.0.0.0")).unwrap_err();
        assert!(matches!(&refused, Failure::Settings(sentence) if sentence.contains("--public-host")), "{refused}");
        apply(&mut settings, options("--listen 192.168.1.5")).unwrap();
    }
}
