//! The journal of events: written with the change it tells of, delivered until somebody has it, then forgotten.
//!
//! A crash between commit and delivery loses nothing, as the entry is still there; a crash between delivery and
//! forgetting delivers it twice with the same message id, which the bus drops.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use redb::ReadableTable;
use time::OffsetDateTime;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    error::StoreError,
    index::EVENTS,
    receive::blocking,
    record::{EventRecord, decode},
    store::Store,
};
use crate::notification::{Kind, Notification};

/// The message could not be delivered now; it will be tried again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotifyError(pub String);

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where notifications leave to.
pub trait Notifier: Send + Sync + 'static {
    /// Deliver one notification. `Ok` means that it cannot be lost any more. The same `message_id` may come again.
    fn publish(&self, payload: Bytes, message_id: String) -> BoxFuture<'_, Result<(), NotifyError>>;
}

const BATCH: usize = 256;
const IN_FLIGHT: usize = 32;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Deliver what is in the journal until `shutdown`, for ever if need be.
pub(super) async fn deliver(store: Arc<Store>, notifier: Arc<dyn Notifier>, committed: Arc<Notify>, shutdown: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    let mut failing = false;
    loop {
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = deliver_batch(&store, &*notifier) => outcome,
        };
        match outcome {
            Ok(Delivered { failed: None, full }) => {
                if failing {
                    tracing::info!("bucket notifications are delivered again");
                    failing = false;
                }
                pause = FIRST_PAUSE;
                if full {
                    continue;
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = committed.notified() => {}
                }
            }
            Ok(Delivered { failed: Some(why), .. }) => {
                if !failing {
                    tracing::warn!(error = why, "bucket notifications cannot be delivered; they wait in the journal");
                    failing = true;
                }
                wait(&mut pause, &shutdown).await;
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the journal cannot be read");
                wait(&mut pause, &shutdown).await;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
async fn wait(pause: &mut Duration, shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = sleep(*pause) => {}
    }
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}

struct Delivered {
    failed: Option<String>,
    /// Whether there may be more.
    full: bool,
}

async fn deliver_batch(store: &Arc<Store>, notifier: &dyn Notifier) -> Result<Delivered, StoreError> {
    let index = Arc::clone(&store.index);
    let events: Vec<EventRecord> = blocking(move || {
        index.read(|transaction| {
            let events = transaction.open_table(EVENTS)?;
            events.iter()?.take(BATCH).map(|entry| decode(entry?.1.value())).collect()
        })
    })
    .await?;
    let full = events.len() == BATCH;
    let mut delivered = Vec::with_capacity(events.len());
    let mut failed = None;
    let mut outcomes = stream::iter(events)
        .map(|event| async move {
            let message_id = format!("{}/{}#{:x}", event.bucket, event.key, event.version);
            let payload = Bytes::from(notification(&event).to_json());
            (event.version, notifier.publish(payload, message_id).await)
        })
        .buffered(IN_FLIGHT);
    while let Some((version, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => delivered.push(version),
            Err(error) => failed = Some(error.to_string()),
        }
    }
    drop(outcomes);
    if !delivered.is_empty() {
        store
            .committer
            .run(Vec::new(), move |tables| {
                for version in &delivered {
                    tables.events.remove(version)?;
                }
                Ok(())
            })
            .await?;
    }
    Ok(Delivered { failed, full })
}

fn notification(event: &EventRecord) -> Notification {
    let object = event.object.as_ref();
    Notification {
        kind: if object.is_some() { Kind::Created } else { Kind::Removed },
        name: event.name.clone(),
        time: OffsetDateTime::from_unix_timestamp_nanos(i128::from(event.time_ms) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH),
        bucket: event.bucket.clone(),
        key: event.key.clone(),
        size_bytes: object.map(|object| object.size_bytes),
        etag: object.map(|object| object.etag.clone()),
        content_type: object.and_then(|object| object.content_type.clone()),
        metadata: object.map(|object| object.metadata.clone()).unwrap_or_default(),
        sequencer: Some(event.version),
    }
}
