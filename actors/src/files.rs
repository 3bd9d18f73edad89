//! Files: what accounts own. Requests about them, and the purger that deletes in the bucket what is no longer wanted.

mod content_type;
mod purger;
mod requests;
pub(crate) mod store;

use std::{future::Future, sync::Arc};

use bowerbird_config::Settings;
use bowerbird_lifecycle::Clock;
use bowerbird_nats::{
    Problem,
    answer::{Call, ServiceBuilder},
    file::{DeleteFile, GetFile, ListFiles, PresignFile},
};
use bowerbird_storage::Bucket;
use sqlx::PgPool;

#[cfg(test)]
pub(crate) use self::content_type::inert;
use self::{purger::Purger, requests::Collaborators};
pub(crate) use self::{purger::PurgerAddress, requests::Requests};
use crate::{alarms::Wakes, cursor::Cursors, events::Bell, metrics::Meters, requests::Pool, supervision::ChildSpec};

/// The area.
pub(crate) struct Files {
    pub(crate) requests: Requests,
    workers: Pool,
    purger: Purger,
    address: PurgerAddress,
}

impl Files {
    /// The area over this database and this bucket; nothing runs yet.
    pub(crate) fn new(
        settings: &Settings,
        pool: PgPool,
        bucket: Bucket,
        bell: Bell,
        meters: Meters,
        workers: Pool,
        master_key: &[u8; 32],
    ) -> Self {
        let address = PurgerAddress::default();
        let requests = Requests::new(Collaborators {
            pool: pool.clone(),
            bucket: bucket.clone(),
            cursors: Cursors::new(master_key),
            purger: address.clone(),
            link_ttl: settings.storage.presign_get_ttl.get(),
        });
        Files { requests, workers, purger: Purger { pool, bucket, bell, meters }, address }
    }

    /// Where to wake the purger.
    pub(crate) fn purger(&self) -> PurgerAddress {
        self.address.clone()
    }

    /// What runs, in the order in which it starts.
    pub(crate) fn children(&self, clock: &Clock) -> Vec<ChildSpec> {
        let purger = self.purger.clone();
        vec![self.workers.child(clock), ChildSpec::actor("purger", &self.address.0, move || (purger.clone(), ()))]
    }

    /// What is woken when something is to be deleted in the bucket.
    pub(crate) fn wakes(&self) -> Arc<dyn Wakes> {
        Arc::new(purger::Waiting(self.address.clone()))
    }

    /// Add what this area answers.
    pub(crate) fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        let limit = self.workers.endpoint_limit();
        let with = |operation| Desk { requests: self.requests.clone(), workers: self.workers.clone(), operation };
        let (get, list, delete, presign) = (with("file.get"), with("file.list"), with("file.delete"), with("file.presign"));
        service
            .endpoint(limit, move |call: Call<GetFile>| get.clone().serve(call, Requests::get))
            .endpoint(limit, move |call: Call<ListFiles>| list.clone().serve(call, Requests::list))
            .endpoint(limit, move |call: Call<DeleteFile>| delete.clone().serve(call, Requests::delete))
            .endpoint(limit, move |call: Call<PresignFile>| presign.clone().serve(call, Requests::presign))
    }
}

/// Has an operation done by a worker of the area.
#[derive(Clone)]
struct Desk {
    requests: Requests,
    workers: Pool,
    operation: &'static str,
}

impl Desk {
    async fn serve<O, T, Fut>(self, call: Call<O>, operation: impl FnOnce(Requests, Call<O>) -> Fut) -> Result<T, Problem>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let (account, deadline) = (call.caller.map(|caller| caller.account_id), call.deadline);
        self.workers.run(self.operation, account, deadline, operation(self.requests, call)).await
    }
}
