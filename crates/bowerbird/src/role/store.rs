//! `bowerbird store`: the embedded object store alone.

use std::sync::Arc;

use bowerbird_config::Settings;
use bowerbird_nats::bus::Bus;
use bowerbird_storage::embedded::{self, BoxFuture, Notifier, NotifyError};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    data_dir::DataDir,
    failure::{Failure, chain},
    listeners,
    process::{Process, StorageKeys, connect_bus, storage_keys},
};

/// Serve until a signal. Tells the bus what happens to objects, if `nats.url` is set.
pub(crate) async fn run(mut settings: Settings) -> Result<(), Failure> {
    let listener = listeners::bind("storage.listen", settings.storage.listen).await?;
    settings.storage.listen = listeners::address(&listener, settings.storage.listen);
    settings.fill_in_addresses();
    let process = Process::new(settings)?;
    let grace = process.settings.shutdown.grace.get();
    let data_dir = DataDir::open(&process.settings.data_dir)?;
    let keys = storage_keys(&process.settings, Some(&data_dir.credentials(process.ids)?))?;

    let bus = match process.settings.nats.url {
        Some(_) => Some(process.unless_stopped(connect_bus(&process.settings, "bowerbird store", None)).await?),
        None => None,
    };
    let running = serve(&process, &data_dir, &keys, listener, bus.as_ref(), process.shutdown.token()).await?;
    crate::print(&format!("Bowerbird's object store serves at http://{}\n", running.address()))?;

    process.shutdown.stopping().await;
    let stopping = async {
        running.stopped(grace).await;
        if let Some(bus) = bus {
            bus.close(grace).await;
        }
    };
    process.unless_aborted(stopping).await
}

/// Serve the objects of a data directory until `until` is cancelled.
pub(crate) async fn serve(
    process: &Process,
    data_dir: &DataDir,
    keys: &StorageKeys,
    listener: TcpListener,
    bus: Option<&Bus>,
    until: CancellationToken,
) -> Result<embedded::Running, Failure> {
    let storage = &process.settings.storage;
    let options = embedded::Options {
        region: storage.region.clone(),
        clock: process.clock.clone(),
        ..embedded::Options::new(
            data_dir.folder("objects")?,
            &keys.access_key_id,
            keys.secret_access_key.expose(),
            &storage.bucket,
        )
    };
    let notifier = bus.map(|bus| Arc::new(ToBus(bus.clone())) as Arc<dyn Notifier>);
    embedded::serve(options, listener, notifier, until).await.map_err(|error| Failure::Unavailable(chain(&error)))
}

/// Notifications of the store leave through the bus.
struct ToBus(Bus);

impl Notifier for ToBus {
    fn publish(&self, payload: Bytes, message_id: String) -> BoxFuture<'_, Result<(), NotifyError>> {
        Box::pin(async move { self.0.publish_object(payload, &message_id).await.map_err(|error| NotifyError(chain(&error))) })
    }
}
