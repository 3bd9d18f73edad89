//! From events to deliveries: a consumer of the stream `EVENTS` that all nodes share.
//!
//! What it writes commits together with the mark that the event was seen, so an event makes one delivery for each webhook
//! that wants it, however often it comes.

use std::sync::Arc;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, Bus, Event, WebhookDeliveryId,
    consume::{Delivery, Outcome},
    webhook::Message as Body,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    sender,
    store::{self, Matching},
};
use crate::{
    alarms::AlarmsAddress,
    database, events,
    supervision::{Address, OwnedTasks, Panicked},
};

/// Its name among the consumers of the stream, and in `processed_events`.
const DURABLE: &str = "webhooks";
/// Events that are worked on at once.
const AT_ONCE: usize = 16;
/// An event that the database could not be asked about comes again after this.
const ASK_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_secs(1);
/// An event of this type goes by what its own body says as well.
const REMINDER_FIRED: &str = "reminder.fired";
/// Of messages that were not received no messages are made: they would go the same way.
const WEBHOOK_FAILED: &str = "webhook.failed";

/// Turns events into deliveries.
#[derive(Clone)]
pub(crate) struct Intake(pub(crate) Arc<Means>);

/// What it works with.
pub(crate) struct Means {
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) ids: IdSource,
    pub(crate) sender: Address<sender::Message>,
    pub(crate) alarms: AlarmsAddress,
    /// Messages that may wait for one webhook.
    pub(crate) max_pending: i64,
}

/// What it keeps.
pub(crate) struct State {
    _tasks: OwnedTasks,
    consuming: CancellationToken,
}

/// Nobody consumes any more, which does not end by itself.
pub(crate) struct Deaf(Result<(), Panicked>);

impl Actor for Intake {
    type Msg = Deaf;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Deaf>, (): ()) -> Result<State, ActorProcessingErr> {
        let (means, consuming) = (Arc::clone(&self.0), CancellationToken::new());
        let stopping = consuming.clone();
        let mut tasks = OwnedTasks::default();
        let consume = async move {
            let bus = means.bus.clone();
            let events = bus.event_consumer(DURABLE, bus.subjects().every_event());
            let permits = Arc::new(Semaphore::new(AT_ONCE));
            bus.consume(events, stopping, permits, move |delivery: Delivery<Event>| {
                let means = Arc::clone(&means);
                async move { take(&means, delivery.message).await }
            })
            .await;
        };
        tasks.spawn(&myself, consume, Deaf);
        Ok(State { _tasks: tasks, consuming })
    }

    async fn handle(&self, _: ActorRef<Deaf>, Deaf(ended): Deaf, _: &mut State) -> Result<(), ActorProcessingErr> {
        ended?;
        Err("events are not consumed any more".into())
    }

    async fn post_stop(&self, _: ActorRef<Deaf>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.consuming.cancel();
        Ok(())
    }
}

/// Nothing of this event can be sent.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the body of the event cannot be written as JSON: {0}")]
    Body(#[from] serde_json::Error),
}

pub(super) async fn take(means: &Means, event: Event) -> Outcome {
    let Some(account) = event.account_id.filter(|_| event.event_type.as_str() != WEBHOOK_FAILED) else {
        return Outcome::Done;
    };
    // What is due goes first.
    means.alarms.calm().await;
    match deliveries_of(means, account, &event).await {
        Ok(0) => Outcome::Done,
        Ok(_) => {
            // A sender that is not there looks by itself when it starts.
            let _ = means.sender.cast(sender::Message::Look);
            Outcome::Done
        }
        Err(Error::Store(store::Error::Database(error))) if database::is_passing(&error) => {
            warn!(event = %event.id, %error, "an event could not be turned into deliveries; it comes again");
            database::again(&error, ASK_AGAIN_AFTER)
        }
        Err(error) => {
            error!(event = %event.id, %error, "an event could not be turned into deliveries");
            Outcome::Refuse { reason: error.to_string() }
        }
    }
}

/// How many were made.
async fn deliveries_of(means: &Means, account: AccountId, event: &Event) -> Result<usize, Error> {
    // Most accounts have no webhook. An event that came before the first one is not owed to it, so it needs no mark.
    if !store::interested(&means.pool, account).await? {
        return Ok(0);
    }
    let mut transaction = means.pool.begin().await.map_err(store::Error::from)?;
    if !events::first_time(&mut transaction, DURABLE, event.id).await.map_err(store::Error::from)? {
        return Ok(0);
    }
    let for_all = is_meant_for_webhooks(event);
    let matching = store::matching(&mut transaction, account, &event.event_type, for_all, event.time, means.max_pending).await?;
    if !matching.is_empty() {
        let deliveries: Vec<(WebhookDeliveryId, Matching)> =
            matching.iter().map(|matching| (WebhookDeliveryId(means.ids.next()), *matching)).collect();
        store::insert(&mut transaction, event.id, &event.event_type, &body_of(event)?, &deliveries).await?;
    }
    transaction.commit().await.map_err(store::Error::from)?;
    Ok(matching.len())
}

/// Whether it goes to every webhook, whatever the webhook asked for: a reminder whose channels name webhooks.
fn is_meant_for_webhooks(event: &Event) -> bool {
    event.event_type.as_str() == REMINDER_FIRED
        && event.data["channels"].as_array().is_some_and(|channels| channels.iter().any(|channel| channel == "webhook"))
}

/// The body of each message that tells of this event.
fn body_of(event: &Event) -> Result<String, serde_json::Error> {
    let kind = event.event_type.as_str().to_owned();
    serde_json::to_string(&Body { kind, timestamp: event.time, data: event.data.clone() })
}
