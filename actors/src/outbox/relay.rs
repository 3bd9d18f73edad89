//! One pass of the relay: take shards, publish what waits in them, mark what was acknowledged.
//!
//! Events of one thing leave one after the other: the second is sent when the first is acknowledged. Events of different
//! things are pipelined. A pass that dies anywhere marks nothing; what it had published is published again under the same
//! id, which JetStream drops within its duplicate window and every consumer drops for ever.

use std::collections::{HashMap, HashSet};

use bowerbird_nats::{Bus, EventId, event::Event};
use sqlx::PgPool;
use tracing::warn;
use uuid::Uuid;

use super::store;
use crate::metrics::Meters;

/// Events of one pass.
const BATCH: usize = 512;

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
    let (mut result, total) = (Pass { more: events.len() == BATCH, ..Pass::default() }, events.len());
    let mut acknowledged: Vec<EventId> = Vec::with_capacity(total);
    let mut stuck: HashSet<Uuid> = HashSet::new();
    for mut wave in waves(events) {
        wave.retain(|event| !stuck.contains(&event.entity_id));
        for (event, outcome) in wave.iter().zip(bus.publish_events(&wave).await) {
            match outcome {
                Ok(()) => acknowledged.push(event.id),
                Err(error) => {
                    if stuck.is_empty() {
                        warn!(event.id = %event.id, event.kind = %event.event_type, %error, "an event was not published; trying again");
                    }
                    stuck.insert(event.entity_id);
                }
            }
        }
    }
    store::published(&mut transaction, &acknowledged).await?;
    transaction.commit().await?;
    result.published = acknowledged.len();
    result.failed = total - acknowledged.len();
    meters.0.outbox_published.inc_by(result.published as u64);
    meters.0.outbox_failures.inc_by(result.failed as u64);
    Ok(result)
}

/// Split what is in order into waves: the first of each thing, then the second of each, and so on.
fn waves(events: Vec<Event>) -> Vec<Vec<Event>> {
    let mut seen: HashMap<Uuid, usize> = HashMap::new();
    let mut waves: Vec<Vec<Event>> = Vec::new();
    for event in events {
        let depth = seen.entry(event.entity_id).or_default();
        if waves.len() == *depth {
            waves.push(Vec::new());
        }
        waves[*depth].push(event);
        *depth += 1;
    }
    waves
}

#[cfg(test)]
mod tests {
    use bowerbird_lifecycle::IdSource;
    use bowerbird_nats::event::DOWNLOAD_QUEUED;
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn no_two_events_of_a_thing_are_in_one_wave_and_their_order_holds() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let event = |entity_id, entity_sequence| Event {
            id: EventId(IdSource.next()),
            event_type: DOWNLOAD_QUEUED,
            account_id: None,
            entity_id,
            entity_sequence,
            time: OffsetDateTime::UNIX_EPOCH,
            data: serde_json::Value::Null,
            traceparent: None,
        };
        let split = waves(vec![event(a, 1), event(a, 2), event(b, 7), event(a, 3), event(b, 8)]);
        let shape: Vec<Vec<(Uuid, i64)>> =
            split.iter().map(|wave| wave.iter().map(|event| (event.entity_id, event.entity_sequence)).collect()).collect();
        assert_eq!(shape, [vec![(a, 1), (b, 7)], vec![(a, 2), (b, 8)], vec![(a, 3)]]);
    }
}
