//! Webhooks: an account's events, sent to where it wants them, signed as Standard Webhooks says. Requests, the intake that
//! turns events into deliveries, and the sender of this node. The tables are the truth; everything here can die at any time.

mod check;
mod courier;
mod intake;
mod requests;
mod row;
mod schedule;
mod secret;
mod sender;
mod signature;
mod store;
mod wakes;

#[cfg(test)]
mod tests;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bowerbird_config::{Settings, Span};
use bowerbird_lifecycle::{Clock, IdSource};
use bowerbird_nats::{
    Bus, Problem,
    answer::{Call, ServiceBuilder},
    id::NodeId,
    webhook::{
        CreateWebhook, DeleteWebhook, GetWebhook, GetWebhookDelivery, ListWebhookDeliveries, ListWebhooks, RetryWebhookDelivery,
        RotateWebhookSecret, TestWebhook, UpdateWebhook,
    },
};
use bowerbird_outbound::{Client, ClientOptions, Timeouts};
use sqlx::PgPool;

use self::{
    courier::Courier,
    intake::Intake,
    requests::{Collaborators, Requests},
    schedule::Schedule,
    secret::Seal,
    sender::Sender,
};
use crate::{
    alarms::{AlarmsAddress, Wakes},
    cursor::Cursors,
    events::Bell,
    guarded,
    metrics::Meters,
    requests::Pool,
    supervision::{Address, ChildSpec},
};

/// How long the sender may take to let messages arrive that are on their way.
const FINISH_WITHIN: Duration = Duration::from_secs(8);

/// What the area is made of.
pub(crate) struct Foundation<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) clock: Clock,
    pub(crate) ids: IdSource,
    pub(crate) node_id: NodeId,
    pub(crate) bell: Bell,
    pub(crate) meters: Meters,
    pub(crate) workers: Pool,
    /// For tests, which wait for receivers: they must not hold up the other requests.
    pub(crate) test_workers: Pool,
    pub(crate) alarms: AlarmsAddress,
    pub(crate) master_key: &'a [u8; 32],
    pub(crate) own_listeners: &'a [SocketAddr],
}

/// The area.
pub(crate) struct Webhooks {
    requests: Requests,
    workers: Pool,
    test_workers: Pool,
    intake: Intake,
    sender: Sender,
    sender_address: Address<sender::Message>,
}

/// The area cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The client for the internet cannot be made.
    #[error("the client for webhooks cannot be set up: {0}")]
    Client(#[from] bowerbird_outbound::SetupError),
    /// Nothing can be encrypted.
    #[error("secrets of webhooks cannot be encrypted")]
    Seal,
}

impl Webhooks {
    /// The area over this foundation; nothing runs yet.
    pub(crate) fn new(foundation: Foundation<'_>) -> Result<Self, SetupError> {
        let Foundation {
            settings,
            pool,
            bus,
            clock,
            ids,
            node_id,
            bell,
            meters,
            workers,
            test_workers,
            alarms,
            master_key,
            own_listeners,
        } = foundation;
        let webhooks = &settings.webhooks;
        let limit = webhooks.timeout.get();
        let options = guarded::options(&settings.outbound, own_listeners);
        // One end for all of a try; none of its steps is cut short before.
        let timeouts = Timeouts { first_byte: limit, stall: limit, ..options.timeouts };
        let courier = Courier::new(Client::new(ClientOptions { timeouts, ..options })?, clock.clone());
        let seal = Seal::new(master_key).map_err(|_| SetupError::Seal)?;
        let sender_address = Address::default();
        let requests = Requests::new(Collaborators {
            pool: pool.clone(),
            clock,
            ids,
            seal: seal.clone(),
            cursors: Cursors::new(master_key),
            courier: courier.clone(),
            sender: sender_address.clone(),
            limits: requests::Limits {
                max_per_account: webhooks.max_per_account,
                timeout: limit,
                old_secret_for: webhooks.old_secret_for.get(),
            },
        });
        let intake = Intake(Arc::new(intake::Means {
            pool: pool.clone(),
            bus,
            ids,
            sender: sender_address.clone(),
            alarms: alarms.clone(),
            max_pending: i64::from(webhooks.max_pending),
        }));
        let sender = Sender(Arc::new(sender::Means {
            pool,
            courier,
            seal,
            bell,
            alarms,
            meters,
            node_id,
            limits: sender::Limits {
                slots: webhooks.slots,
                per_webhook: webhooks.max_sending_per_webhook,
                timeout: limit,
                lease: limit + settings.leases.duration.get(),
                disable_after: webhooks.disable_after.get(),
            },
            schedule: Schedule(webhooks.retries.iter().copied().map(Span::get).collect()),
        }));
        Ok(Webhooks { requests, workers, test_workers, intake, sender, sender_address })
    }

    /// What alarms wake here.
    pub(crate) fn wakes(&self) -> Vec<Arc<dyn Wakes>> {
        vec![Arc::new(wakes::NextTries(self.sender_address.clone())), Arc::new(wakes::Pauses(self.sender_address.clone()))]
    }

    /// What runs, in the order in which it starts. The intake stops first.
    pub(crate) fn children(&self, clock: &Clock) -> Vec<ChildSpec> {
        let (sender, intake) = (self.sender.clone(), self.intake.clone());
        vec![
            self.workers.child(clock),
            self.test_workers.child(clock),
            ChildSpec::actor("sender", &self.sender_address, move || (sender.clone(), ())).stop_within(FINISH_WITHIN),
            ChildSpec::actor("intake", &Address::default(), move || (intake.clone(), ())),
        ]
    }

    /// Add what this area answers.
    pub(crate) fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        let limit = self.workers.endpoint_limit();
        let with = |operation| Desk { requests: self.requests.clone(), workers: self.workers.clone(), operation };
        let (create, get, list, update) =
            (with("webhook.create"), with("webhook.get"), with("webhook.list"), with("webhook.update"));
        let (delete, rotate) = (with("webhook.delete"), with("webhook.rotate_secret"));
        let (deliveries, delivery, retry) =
            (with("webhook.list_deliveries"), with("webhook.get_delivery"), with("webhook.retry_delivery"));
        let test = Desk { workers: self.test_workers.clone(), ..with("webhook.test") };
        service
            .endpoint(limit, move |call: Call<CreateWebhook>| create.clone().serve(call, Requests::create))
            .endpoint(limit, move |call: Call<GetWebhook>| get.clone().serve(call, Requests::get))
            .endpoint(limit, move |call: Call<ListWebhooks>| list.clone().serve(call, Requests::list))
            .endpoint(limit, move |call: Call<UpdateWebhook>| update.clone().serve(call, Requests::update))
            .endpoint(limit, move |call: Call<DeleteWebhook>| delete.clone().serve(call, Requests::delete))
            .endpoint(limit, move |call: Call<RotateWebhookSecret>| rotate.clone().serve(call, Requests::rotate_secret))
            .endpoint(limit, move |call: Call<ListWebhookDeliveries>| deliveries.clone().serve(call, Requests::list_deliveries))
            .endpoint(limit, move |call: Call<GetWebhookDelivery>| delivery.clone().serve(call, Requests::get_delivery))
            .endpoint(limit, move |call: Call<RetryWebhookDelivery>| retry.clone().serve(call, Requests::retry_delivery))
            .endpoint(self.test_workers.endpoint_limit(), move |call: Call<TestWebhook>| test.clone().serve(call, Requests::test))
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
