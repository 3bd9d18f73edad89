//! Statistics: every event counted once, by account and day. The counts outlive the events: before the events of a day are
//! dropped, the day is counted for the last time and closed.

mod counted;
mod folder;
mod rebuild;
mod requests;
mod store;

use bowerbird_lifecycle::Clock;
use bowerbird_nats::{
    Bus,
    answer::{Call, ServiceBuilder},
    statistics::{GetStatistics, GetSystemStatistics},
};
use sqlx::PgPool;

pub(crate) use self::rebuild::close;
use self::requests::Requests;
pub use self::{
    folder::{Ended, Folder},
    rebuild::{Rebuilt, rebuild},
};
use crate::{
    alarms::AlarmsAddress,
    desk::Desk,
    metrics::Meters,
    requests::Pool,
    supervision::{Address, ChildSpec},
};

/// The area.
pub(crate) struct Analytics {
    requests: Requests,
    workers: Pool,
    folder: Folder,
}

impl Analytics {
    /// The area over this database and this bus; nothing runs yet.
    pub(crate) fn new(pool: PgPool, bus: Bus, meters: Meters, alarms: AlarmsAddress, workers: Pool) -> Self {
        Analytics { requests: Requests { pool: pool.clone() }, workers, folder: Folder::new(pool, bus, meters, alarms) }
    }

    /// What runs, in the order in which it starts.
    pub(crate) fn children(&self, clock: &Clock) -> Vec<ChildSpec> {
        let folder = self.folder.clone();
        vec![self.workers.child(clock), ChildSpec::actor("folder", &Address::<Ended>::default(), move || (folder.clone(), ()))]
    }

    /// Add what this area answers.
    pub(crate) fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        let limit = self.workers.endpoint_limit();
        let with = |operation| Desk::new(self.requests.clone(), self.workers.clone(), operation);
        let (get, system) = (with("statistics.get"), with("statistics.system"));
        service
            .endpoint(limit, move |call: Call<GetStatistics>| get.clone().serve(call, Requests::get))
            .endpoint(limit, move |call: Call<GetSystemStatistics>| system.clone().serve(call, Requests::system))
    }
}
