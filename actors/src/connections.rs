//! What this process stands on: PostgreSQL and the bus, as readiness sees them, and the row that says that the node lives.
//!
//! A connection that is lost is not a failure of any actor: each waits or answers `unavailable` by itself. Here it is only
//! told to `/readyz`.

mod store;

use std::time::Duration;

use bowerbird_lifecycle::Component;
use bowerbird_nats::{Bus, bus::Connection, id::NodeId};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::supervision::OwnedTasks;

/// How often the database is asked whether it is there.
const ASK: Duration = Duration::from_secs(2);
/// How long it may take to say so.
const PATIENCE: Duration = Duration::from_secs(5);

/// Watches the connections.
#[derive(Clone)]
pub(crate) struct Connections {
    /// The database.
    pub(crate) pool: PgPool,
    /// The bus.
    pub(crate) bus: Bus,
    /// This node.
    pub(crate) node_id: NodeId,
    /// Readiness of the database.
    pub(crate) database: Component,
    /// Readiness of the bus.
    pub(crate) bus_health: Component,
}

/// One of the loops has ended, which none should.
pub(crate) struct Ended(String);

impl Connections {
    #[expect(clippy::disallowed_methods, reason = "a poll of the health of the connections")]
    async fn watch_database(self) {
        let mut ticks = interval(ASK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut there = None;
        loop {
            ticks.tick().await;
            let answer = match timeout(PATIENCE, store::seen(&self.pool, self.node_id)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {PATIENCE:?}")),
            };
            match &answer {
                None => self.database.ready(),
                Some(why) => self.database.not_ready(format!("PostgreSQL does not answer: {why}")),
            }
            let now = answer.is_none();
            match (there.replace(now), answer) {
                (Some(true), Some(why)) => warn!(why, "the database is lost"),
                (Some(false), None) => info!("the database is back"),
                _ => {}
            }
        }
    }

    async fn watch_bus(self) {
        let mut connection = self.bus.connection();
        loop {
            match *connection.borrow_and_update() {
                Connection::Connected => self.bus_health.ready(),
                Connection::Disconnected { .. } => self.bus_health.not_ready("the connection to NATS is lost and tried again"),
                Connection::Closed => self.bus_health.not_ready("the connection to NATS was closed"),
            }
            if connection.changed().await.is_err() {
                // The bus is gone for good; the process is ending.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Actor for Connections {
    type Msg = Ended;
    type State = OwnedTasks;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Ended>, (): ()) -> Result<OwnedTasks, ActorProcessingErr> {
        store::started(&self.pool, self.node_id).await?;
        let mut tasks = OwnedTasks::default();
        let ended = |name: &'static str| {
            move |ended: Result<(), crate::supervision::Panicked>| {
                Ended(ended.err().map_or_else(|| format!("the watch over the {name} returned"), |panicked| panicked.to_string()))
            }
        };
        tasks.spawn(&myself, self.clone().watch_database(), ended("database"));
        tasks.spawn(&myself, self.clone().watch_bus(), ended("bus"));
        Ok(tasks)
    }

    async fn handle(&self, _: ActorRef<Ended>, Ended(why): Ended, _: &mut OwnedTasks) -> Result<(), ActorProcessingErr> {
        Err(why.into())
    }

    async fn post_stop(&self, _: ActorRef<Ended>, tasks: &mut OwnedTasks) -> Result<(), ActorProcessingErr> {
        tasks.abort_all().await;
        // Not said is no harm: the node is then one that was killed.
        let _ = timeout(PATIENCE, store::stopped(&self.pool, self.node_id)).await;
        Ok(())
    }
}
