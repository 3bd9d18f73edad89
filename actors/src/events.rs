//! Facts: written in the transaction of the change that they tell of, published by the outbox, heard once.

mod bell;
mod store;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{AccountId, EventId, event::EventType};
use serde::Serialize;
use uuid::Uuid;

pub(crate) use self::store::read;
pub use self::{
    bell::Bell,
    store::{first_time, first_times, record, record_many},
};

/// Shards of the outbox. An event's shard follows from its entity, and one relay at a time works on a shard.
pub(crate) const SHARDS: i16 = 16;

/// A fact that is about to be recorded. Time and sequence are the database's to give.
#[derive(Debug)]
pub struct NewEvent {
    id: EventId,
    event_type: EventType,
    account_id: Option<AccountId>,
    entity_id: Uuid,
    data: Result<serde_json::Value, serde_json::Error>,
    traceparent: Option<String>,
}

impl NewEvent {
    /// That `event_type` happened to `entity_id`, a thing of `account_id` (`None` where no account is concerned). `data`
    /// is the struct that the type names.
    pub fn new<T: Serialize>(
        ids: IdSource,
        event_type: EventType,
        account_id: Option<AccountId>,
        entity_id: impl Into<Uuid>,
        data: &T,
    ) -> Self {
        NewEvent {
            id: EventId(ids.next()),
            event_type,
            account_id,
            entity_id: entity_id.into(),
            data: serde_json::to_value(data),
            traceparent: None,
        }
    }

    /// The trace of the request that caused it.
    #[must_use]
    pub fn caused_by(mut self, traceparent: Option<String>) -> Self {
        self.traceparent = traceparent;
        self
    }

    /// Its identifier.
    pub fn id(&self) -> EventId {
        self.id
    }
}

/// The shard of what happens to this thing. The last byte of a UUIDv7 is random.
fn shard_of(entity_id: &Uuid) -> i16 {
    i16::from(entity_id.as_bytes()[15]) % SHARDS
}
