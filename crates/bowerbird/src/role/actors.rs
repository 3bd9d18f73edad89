//! `bowerbird actors`: the work alone.

use std::net::SocketAddr;

use bowerbird_actors::{Actors, Parts, StartError};
use bowerbird_config::Settings;
use bowerbird_nats::{bus::Bus, credential::Verifier, id::NodeId};
use bowerbird_storage::Bucket;
use sqlx::PgPool;
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, chain},
    listeners,
    process::{
        PATIENCE, Process, connect_bucket, connect_bus, connect_database, database_url, generated, master_key, migrate, nats_url,
        storage_keys,
    },
};

/// What the actors stand on beside the process itself.
pub(crate) struct Connected {
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) bucket: Bucket,
    pub(crate) verifier: Verifier,
    /// Names this process among those that take leases.
    pub(crate) node_id: NodeId,
    pub(crate) master_key: Zeroizing<[u8; 32]>,
    /// Addresses that nobody's download may dial.
    pub(crate) own_listeners: Vec<SocketAddr>,
}

/// Work until a signal, or until a part of the tree gives up.
pub(crate) async fn run(mut settings: Settings) -> Result<(), Failure> {
    // What is missing is said before what is taken.
    settings.check_links(false)?;
    let url = database_url(&settings)?;
    nats_url(&settings)?;
    let master_key = master_key(&settings)?;
    let keys = storage_keys(&settings, generated(&settings.data_dir).as_ref())?;
    let operations = listeners::bind("gateway.operations_listen", settings.gateway.operations_listen).await?;
    settings.gateway.operations_listen = listeners::address(&operations, settings.gateway.operations_listen);
    settings.fill_in_addresses();
    let process = Process::new(settings)?;
    let settings = process.settings.clone();
    bowerbird_gateway::serve_operations(process.operations(), operations);
    let grace = settings.shutdown.grace.get();

    let connecting = async {
        let pool = connect_database(&settings, &url, PATIENCE).await?;
        migrate(&pool).await?;
        let bus = connect_bus(&settings, "bowerbird actors", None).await?;
        let bucket = connect_bucket(&process, &keys).await?;
        let verifier = process.verifier(&bus);
        // A node of its own each time: processes share nothing that a name could be kept in.
        let node_id = NodeId(process.ids.next());
        tracing::info!(node.id = %node_id, "this process takes leases under this name");
        let own_listeners = own_listeners(&settings).collect();
        Ok(Connected { pool, bus, bucket, verifier, node_id, master_key, own_listeners })
    };
    let connected = process.unless_stopped(Box::pin(connecting)).await?;
    let (pool, bus) = (connected.pool.clone(), connected.bus.clone());
    let actors = start(&process, connected).await?;
    let ready = async {
        process.ready().await?;
        crate::print("Bowerbird's actors work\n")
    };
    let outcome = match process.unless_stopped(ready).await {
        Ok(()) => until_stopped(&process, &actors).await,
        Err(failure) => Err(failure),
    };
    process.shutdown.stop();
    let stopping = async {
        actors.stop(grace).await;
        process.tasks.wait(grace).await;
        bus.close(grace).await;
        pool.close().await;
    };
    process.unless_aborted(stopping).await?;
    outcome
}

/// Start the tree.
pub(crate) async fn start(process: &Process, connected: Connected) -> Result<Actors, Failure> {
    let parts = Parts {
        settings: process.settings.clone(),
        bus: connected.bus,
        pool: connected.pool,
        bucket: connected.bucket,
        clock: process.clock.clone(),
        ids: process.ids,
        node_id: connected.node_id,
        health: process.health.clone(),
        metrics: process.metrics.clone(),
        shutdown: process.shutdown.clone(),
        tasks: process.tasks.clone(),
        master_key: connected.master_key,
        own_listeners: connected.own_listeners,
        verifier: connected.verifier,
    };
    bowerbird_actors::start(parts).await.map_err(|error| match error {
        StartError::Mail(_) | StartError::Ingest(_) => Failure::Settings(chain(&error)),
        error => Failure::Unavailable(chain(&error)),
    })
}

/// Resolves with `Ok` when a signal asks to stop, with the reason when the tree gives up.
pub(crate) async fn until_stopped(process: &Process, actors: &Actors) -> Result<(), Failure> {
    tokio::select! {
        () = process.shutdown.stopping() => Ok(()),
        why = actors.failed() => Err(Failure::GaveUp(format!("a part of the tree failed too often, so Bowerbird gave up: {why}"))),
    }
}

/// The addresses of these settings that no download may dial, whatever is allowed.
pub(crate) fn own_listeners(settings: &Settings) -> impl Iterator<Item = SocketAddr> {
    [settings.gateway.listen, settings.gateway.operations_listen, settings.storage.listen].into_iter()
}
