//! `bowerbird rebuild-statistics` and `bowerbird rebuild-streams`: make again from the recorded events what was made from
//! them before. Both are safe while everything runs.

use bowerbird_actors::store_admin;
use bowerbird_config::Settings;

use super::admin::database;
use crate::{
    failure::{Failure, chain},
    process::migrate,
};

/// Count every day anew whose events are still there.
pub(crate) async fn statistics(settings: &Settings) -> Result<(), Failure> {
    let pool = database(settings).await?;
    let rebuilt = async {
        migrate(&pool).await?;
        store_admin::rebuild_statistics(&pool).await.map_err(|error| Failure::Unavailable(chain(&error)))
    };
    let rebuilt = rebuilt.await;
    pool.close().await;
    let rebuilt = rebuilt?;
    crate::print(&format!("{} days counted anew, {} events\n", rebuilt.days, rebuilt.events))
}

/// Have the running actors publish again what the stream of events should hold.
pub(crate) async fn streams(settings: &Settings) -> Result<(), Failure> {
    let pool = database(settings).await?;
    let queued = async {
        migrate(&pool).await?;
        store_admin::requeue_events(&pool).await.map_err(|error| Failure::Unavailable(chain(&error)))
    };
    let queued = queued.await;
    pool.close().await;
    crate::print(&format!("{} events are published again by the actors that run\n", queued?))
}
