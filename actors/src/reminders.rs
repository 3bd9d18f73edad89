//! Reminders: what to tell an account at a time, again and again, or when something happens. The table `reminders` is the
//! truth about each; when it is looked at next is in `alarms`.

mod check;
mod life;
mod requests;
mod row;
mod rule;
mod schedule;
mod store;
mod things;
mod triggers;
mod waking;
mod zone;
mod zone_rules;

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc};

use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, IdSource};
use bowerbird_nats::{
    Bus, Problem,
    answer::{Call, ServiceBuilder},
    reminder::{
        CancelReminder, CompleteReminder, CreateReminder, GetReminder, ListReminders, SkipReminder, SnoozeReminder,
        UpdateReminder,
    },
};
use sqlx::PgPool;
use time::Duration;

use self::{
    requests::{Collaborators, Requests},
    triggers::Triggers,
    waking::Waking,
    zone_rules::ZoneRules,
};
use crate::{
    alarms::{AlarmsAddress, Wakes},
    cursor::Cursors,
    events::Bell,
    janitor::Sweep,
    metrics::Meters,
    requests::Pool,
    supervision::{Address, ChildSpec},
};

/// What the area is made of.
pub(crate) struct Foundation<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) ids: IdSource,
    pub(crate) bell: Bell,
    pub(crate) meters: Meters,
    pub(crate) workers: Pool,
    pub(crate) alarms: AlarmsAddress,
    pub(crate) master_key: &'a [u8; 32],
}

/// The area.
pub(crate) struct Reminders {
    requests: Requests,
    workers: Pool,
    waking: Arc<Waking>,
    triggers: Triggers,
    zone_rules: ZoneRules,
}

impl Reminders {
    /// The area over this foundation; nothing runs yet.
    pub(crate) fn new(foundation: Foundation<'_>) -> Self {
        let Foundation { settings, pool, bus, ids, bell, meters, workers, alarms, master_key } = foundation;
        let settings = &settings.reminders;
        let catch_up = Duration::try_from(settings.catch_up.get()).unwrap_or(Duration::MAX);
        let requests = Requests::new(Collaborators {
            pool: pool.clone(),
            ids,
            cursors: Cursors::new(master_key),
            alarms,
            max_scheduled_per_account: settings.max_scheduled_per_account,
            catch_up,
        });
        Reminders {
            requests,
            workers,
            waking: Arc::new(Waking { ids, bell: bell.clone(), meters, catch_up }),
            triggers: Triggers { pool: pool.clone(), bus, bell: bell.clone(), ids, catch_up },
            zone_rules: ZoneRules { pool, bell, ids },
        }
    }

    /// What its alarms wake.
    pub(crate) fn wakes(&self) -> Arc<dyn Wakes> {
        Arc::clone(&self.waking) as Arc<dyn Wakes>
    }

    /// What is done again and again.
    pub(crate) fn sweep(&self) -> Sweep {
        self.zone_rules.sweep()
    }

    /// What runs, in the order in which it starts.
    pub(crate) fn children(&self, clock: &Clock) -> Vec<ChildSpec> {
        let (triggers, zone_rules) = (self.triggers.clone(), self.zone_rules.clone());
        vec![
            self.workers.child(clock),
            ChildSpec::actor("triggers", &Address::default(), move || (triggers.clone(), ())),
            ChildSpec::actor("zone-rules", &Address::default(), move || (zone_rules.clone(), ())),
        ]
    }

    /// Add what this area answers.
    pub(crate) fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        let limit = self.workers.endpoint_limit();
        let with = |operation| Desk { requests: self.requests.clone(), workers: self.workers.clone(), operation };
        let (create, get, list, update) =
            (with("reminder.create"), with("reminder.get"), with("reminder.list"), with("reminder.update"));
        let (snooze, skip, complete, cancel) =
            (with("reminder.snooze"), with("reminder.skip"), with("reminder.complete"), with("reminder.cancel"));
        service
            .endpoint(limit, move |call: Call<CreateReminder>| create.clone().serve(call, Requests::create))
            .endpoint(limit, move |call: Call<GetReminder>| get.clone().serve(call, Requests::get))
            .endpoint(limit, move |call: Call<ListReminders>| list.clone().serve(call, Requests::list))
            .endpoint(limit, move |call: Call<UpdateReminder>| update.clone().serve(call, Requests::update))
            .endpoint(limit, move |call: Call<SnoozeReminder>| snooze.clone().serve(call, Requests::snooze))
            .endpoint(limit, move |call: Call<SkipReminder>| skip.clone().serve(call, Requests::skip))
            .endpoint(limit, move |call: Call<CompleteReminder>| complete.clone().serve(call, Requests::complete))
            .endpoint(limit, move |call: Call<CancelReminder>| cancel.clone().serve(call, Requests::cancel))
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
