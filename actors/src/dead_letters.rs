//! Dead letters: what was refused, brought from the stream `DEAD` into a table, where operators look at it, send it back
//! to the consumer that refused it, or delete it. The rows outlive everything here.

mod keeper;
mod requests;
mod store;

use bowerbird_lifecycle::{Clock, IdSource};
use bowerbird_nats::{
    Bus,
    answer::{Call, ServiceBuilder},
    dead_letter::{DeleteDeadLetter, GetDeadLetter, ListDeadLetters, ReplayDeadLetter},
};
use sqlx::PgPool;

pub use self::keeper::{Ended, Keeper};
use self::requests::{Collaborators, Requests};
use crate::{
    cursor::Cursors,
    desk::Desk,
    metrics::Meters,
    requests::Pool,
    supervision::{Address, ChildSpec},
};

/// The area.
pub(crate) struct DeadLetters {
    requests: Requests,
    workers: Pool,
    keeper: Keeper,
}

impl DeadLetters {
    /// The area over this database and this bus; nothing runs yet.
    pub(crate) fn new(pool: PgPool, bus: Bus, ids: IdSource, meters: Meters, workers: Pool, master_key: &[u8; 32]) -> Self {
        let cursors = Cursors::new(master_key);
        let requests = Requests::new(Collaborators { pool: pool.clone(), bus: bus.clone(), cursors });
        DeadLetters { requests, workers, keeper: Keeper::new(pool, bus, ids, meters) }
    }

    /// What runs, in the order in which it starts.
    pub(crate) fn children(&self, clock: &Clock) -> Vec<ChildSpec> {
        let keeper = self.keeper.clone();
        vec![self.workers.child(clock), ChildSpec::actor("keeper", &Address::<Ended>::default(), move || (keeper.clone(), ()))]
    }

    /// Add what this area answers.
    pub(crate) fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        let limit = self.workers.endpoint_limit();
        let with = |operation| Desk::new(self.requests.clone(), self.workers.clone(), operation);
        let (list, get) = (with("dead_letter.list"), with("dead_letter.get"));
        let (replay, delete) = (with("dead_letter.replay"), with("dead_letter.delete"));
        service
            .endpoint(limit, move |call: Call<ListDeadLetters>| list.clone().serve(call, Requests::list))
            .endpoint(limit, move |call: Call<GetDeadLetter>| get.clone().serve(call, Requests::get))
            .endpoint(limit, move |call: Call<ReplayDeadLetter>| replay.clone().serve(call, Requests::replay))
            .endpoint(limit, move |call: Call<DeleteDeadLetter>| delete.clone().serve(call, Requests::delete))
    }
}
