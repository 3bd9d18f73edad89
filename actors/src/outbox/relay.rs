//! One pass of the relay: take shards, publish what waits in them, mark what was acknowledged.
//!
//! Events of one thing are stored in their order, and none after one that did not get through. A pass that dies anywhere
//! marks nothing; what it had published is published again under the same id, which JetStream drops within its duplicate
//! window and every consumer drops for ever.

use bowerbird_nats::{Bus, EventId};
use sqlx::PgPool;
use tracing::warn;

use super::store;
use crate::metrics::Meters;

/// Events of one pass: what JetStream takes as one batch, and so with one sync.
const BATCH: usize = 1000;

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pass {
    /// Events that JetStream acknowledged.
    pub(super) published: usize,
    /// Events that it did not.
    pub(super) failed: usize,
    /// There was more than one pass takes.
    pub(super) more: bool,
}

/// Publish up to a batch.
pub(super) async fn pass(pool: &PgPool, bus: &Bus, meters: &Meters) -> Result<Pass, sqlx::Error> {
    if !bus.is_connected() {
        return Ok(Pass::default());
    }
    let mut transaction = pool.begin().await?;
    let shards = store::take_shards(&mut transaction).await?;
    let events = store::waiting(&mut transaction, &shards, BATCH).await?;
    if events.is_empty() {
        transaction.rollback().await?;
        return Ok(Pass::default());
    }
    let total = events.len();
    let mut acknowledged: Vec<EventId> = Vec::with_capacity(total);
    let mut told = false;
    for (event, outcome) in events.iter().zip(bus.publish_events(&events).await) {
        match outcome {
            Ok(()) => acknowledged.push(event.id),
            // The first speaks for those that failed with it or were kept back after it.
            Err(error) if !std::mem::replace(&mut told, true) => {
                warn!(event.id = %event.id, event.kind = %event.event_type, %error, "an event was not published; trying again");
            }
            Err(_) => {}
        }
    }
    store::published(&mut transaction, &acknowledged).await?;
    transaction.commit().await?;
    let result = Pass { published: acknowledged.len(), failed: total - acknowledged.len(), more: total == BATCH };
    meters.0.outbox_published.inc_by(result.published as u64);
    meters.0.outbox_failures.inc_by(result.failed as u64);
    Ok(result)
}
