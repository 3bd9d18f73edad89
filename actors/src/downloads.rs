//! Downloads: jobs that turn a URL into a file. Requests, the dispatcher that decides who runs next, the slots of this node,
//! and one actor for each download that runs. The table `downloads` is the truth; everything here can die at any time.

pub(crate) mod check;
mod dispatcher;
mod download;
mod ledger;
mod requests;
pub(crate) mod retry;
pub(crate) mod row;
mod seal;
mod settle;
mod sink;
mod slots;
pub(crate) mod store;
mod transfer;
mod waiting;

#[cfg(test)]
mod tests;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bowerbird_config::{DigestKind, Settings};
use bowerbird_lifecycle::{Clock, IdSource};
use bowerbird_nats::{
    Bus, Problem,
    answer::{Call, ServiceBuilder},
    download::{CancelDownload, CreateDownload, DeleteDownload, GetDownload, ListDownloads, RetryDownload, UpdateDownload},
    id::NodeId,
};
use bowerbird_outbound::{Client, Engine, MemoryBudget, Patience};
use bowerbird_storage::Bucket;
use sqlx::PgPool;

use self::{
    dispatcher::Dispatcher,
    download::Worker,
    requests::{Collaborators, Limits, Requests},
    retry::Backoff,
    seal::Seal,
    slots::{BEAT, Slots},
    store::Limits as DispatchLimits,
    waiting::Waiting,
};
use crate::{
    alarms::{AlarmsAddress, Wakes},
    cursor::Cursors,
    events::Bell,
    files::PurgerAddress,
    guarded,
    janitor::Sweep,
    metrics::Meters,
    requests::Pool,
    supervision::{Address, ChildSpec},
};

/// A work message that no worker took for this long, while slots were free, was lost.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// How long the slots may take to hand back what runs.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(8);

/// What the area is made of.
pub(crate) struct Foundation<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) bucket: Bucket,
    pub(crate) clock: Clock,
    pub(crate) ids: IdSource,
    pub(crate) node_id: NodeId,
    pub(crate) bell: Bell,
    pub(crate) meters: Meters,
    pub(crate) workers: Pool,
    pub(crate) purger: PurgerAddress,
    pub(crate) alarms: AlarmsAddress,
    pub(crate) master_key: &'a [u8; 32],
    pub(crate) own_listeners: &'a [SocketAddr],
}

/// The area.
pub(crate) struct Downloads {
    requests: Requests,
    workers: Pool,
    dispatcher: Dispatcher,
    dispatcher_address: Address<dispatcher::Message>,
    worker: Arc<Worker>,
    slots: usize,
    slots_address: Address<slots::Message>,
    keep_finished: Duration,
}

/// The area cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The client for the internet cannot be made.
    #[error("the client for downloads cannot be set up: {0}")]
    Client(#[from] bowerbird_outbound::SetupError),
    /// Nothing can be encrypted.
    #[error("sources of downloads cannot be encrypted")]
    Seal,
}

impl Downloads {
    /// The area over this foundation; nothing runs yet.
    pub(crate) fn new(foundation: Foundation<'_>) -> Result<Self, SetupError> {
        let Foundation {
            settings,
            pool,
            bus,
            bucket,
            clock,
            ids,
            node_id,
            bell,
            meters,
            workers,
            purger,
            alarms,
            master_key,
            own_listeners,
        } = foundation;
        let (outbound, downloads) = (&settings.outbound, &settings.downloads);
        let client = Client::new(guarded::options(outbound, own_listeners))?;
        let patience = Patience { min_rate: outbound.min_rate.get(), ..Patience::default() };
        let engine = Engine::new(client.clone(), MemoryBudget::new(downloads.memory_budget.get()), patience, clock);
        let seal = Seal::new(master_key).map_err(|_| SetupError::Seal)?;
        let dispatcher_address = Address::default();
        let requests = Requests::new(Collaborators {
            pool: pool.clone(),
            bus: bus.clone(),
            ids,
            seal: seal.clone(),
            cursors: Cursors::new(master_key),
            client,
            dispatcher: dispatcher_address.clone(),
            purger,
            trash_grace: settings.files.trash_grace.get(),
            limits: Limits {
                max_attempts: downloads.max_attempts,
                max_unfinished_per_account: downloads.max_unfinished_per_account,
            },
        });
        let dispatcher = Dispatcher {
            pool: pool.clone(),
            bus: bus.clone(),
            bell: bell.clone(),
            meters: meters.clone(),
            limits: DispatchLimits {
                per_account: i64::from(downloads.max_running_per_account),
                node_gone_after: BEAT * 4,
                lost_after: LOST_AFTER,
            },
        };
        let worker = Arc::new(Worker {
            pool,
            bus,
            bucket,
            engine,
            seal,
            bell,
            meters,
            alarms,
            node_id,
            lease: settings.leases.duration.get(),
            backoff: Backoff { base: downloads.retry_base.get(), max: downloads.retry_max.get() },
            limits: transfer::Limits {
                max_connections: downloads.max_connections,
                part_size_min_bytes: downloads.part_size.get(),
                max_size_bytes: downloads.max_size.get(),
                digest: downloads.digest == DigestKind::Sha256,
            },
        });
        Ok(Downloads {
            requests,
            workers,
            dispatcher,
            dispatcher_address,
            worker,
            slots: downloads.slots,
            slots_address: Address::default(),
            keep_finished: downloads.keep_finished.get(),
        })
    }

    /// What runs, in the order in which it starts. The slots stop first.
    pub(crate) fn children(&self, clock: &Clock) -> Vec<ChildSpec> {
        let dispatcher = self.dispatcher.clone();
        let (worker, number, dispatcher_address) = (Arc::clone(&self.worker), self.slots, self.dispatcher_address.clone());
        vec![
            self.workers.child(clock),
            ChildSpec::actor("dispatcher", &self.dispatcher_address, move || (dispatcher.clone(), ())),
            ChildSpec::actor("slots", &self.slots_address, move || {
                (Slots { worker: Arc::clone(&worker), number, dispatcher: dispatcher_address.clone() }, ())
            })
            .stop_within(HAND_BACK_WITHIN),
        ]
    }

    /// What is woken when downloads may run.
    pub(crate) fn wakes(&self) -> Arc<dyn Wakes> {
        Arc::new(Waiting { dispatcher: self.dispatcher_address.clone() })
    }

    /// What goes after a time.
    pub(crate) fn sweep(&self) -> Sweep {
        waiting::tidying(self.worker.pool.clone(), self.keep_finished)
    }

    /// Add what this area answers.
    pub(crate) fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        let limit = self.workers.endpoint_limit();
        let with = |operation| Desk { requests: self.requests.clone(), workers: self.workers.clone(), operation };
        let (create, get, list, update) =
            (with("download.create"), with("download.get"), with("download.list"), with("download.update"));
        let (cancel, retry, delete) = (with("download.cancel"), with("download.retry"), with("download.delete"));
        service
            .endpoint(limit, move |call: Call<CreateDownload>| create.clone().serve(call, Requests::create))
            .endpoint(limit, move |call: Call<GetDownload>| get.clone().serve(call, Requests::get))
            .endpoint(limit, move |call: Call<ListDownloads>| list.clone().serve(call, Requests::list))
            .endpoint(limit, move |call: Call<UpdateDownload>| update.clone().serve(call, Requests::update))
            .endpoint(limit, move |call: Call<CancelDownload>| cancel.clone().serve(call, Requests::cancel))
            .endpoint(limit, move |call: Call<RetryDownload>| retry.clone().serve(call, Requests::retry))
            .endpoint(limit, move |call: Call<DeleteDownload>| delete.clone().serve(call, Requests::delete))
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
