//! `bowerbird gateway`: the REST API alone.

use bowerbird_config::Settings;
use bowerbird_gateway::Parts;

use crate::{
    failure::{Failure, chain},
    listeners,
    process::{Process, connect_bus, nats_url, object_client},
};

/// Serve until a signal.
pub(crate) async fn run(mut settings: Settings) -> Result<(), Failure> {
    // What is missing is said before what is taken.
    nats_url(&settings)?;
    let object_client = object_client(&settings)?;
    let api = listeners::bind("gateway.listen", settings.gateway.listen).await?;
    let operations = listeners::bind("gateway.operations_listen", settings.gateway.operations_listen).await?;
    settings.gateway.listen = listeners::address(&api, settings.gateway.listen);
    settings.fill_in_addresses();
    let process = Process::new(settings)?;
    let grace = process.settings.shutdown.grace.get();

    let bus = process.unless_stopped(connect_bus(&process.settings, "bowerbird gateway", None)).await?;
    let parts = Parts {
        settings: process.settings.clone(),
        verifier: process.verifier(&bus),
        bus: bus.clone(),
        health: process.health.clone(),
        metrics: process.metrics.clone(),
        shutdown: process.shutdown.clone(),
        tasks: process.tasks.clone(),
        ids: process.ids,
        object_client,
    };
    let running = bowerbird_gateway::serve(parts, api, operations).await.map_err(|error| Failure::Unavailable(chain(&error)))?;
    process.started();
    crate::print(&format!("Bowerbird's gateway serves at http://{}\n", running.api))?;

    process.shutdown.stopping().await;
    let stopping = async {
        process.tasks.wait(grace).await;
        bus.close(grace).await;
    };
    process.unless_aborted(stopping).await
}
