//! Notifications: what accounts are told of what happens. The inbox hears every event and writes down what its owner wants
//! to be told, the mailer sends what is to go by e-mail; the tables `notifications`, `notification_settings`, `emails` and
//! `email_verifications` are all of it.

mod choices;
mod inbox;
pub(crate) mod mail;
mod requests;
mod store;
mod telling;
mod verification;
mod wall_clock;

use std::{future::Future, sync::Arc, time::Duration};

use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, IdSource};
use bowerbird_nats::{
    Bus, Problem,
    account::{RequestEmailVerification, VerifyEmail},
    answer::{Call, ServiceBuilder},
    notification::{ChangeSettings, GetSettings, ListNotifications, ReadAllNotifications, ReadNotification, Unsubscribe},
};
use sqlx::PgPool;

pub(crate) use self::store::verifications::address_changed;
use self::{
    inbox::{Inbox, Limits},
    mail::{
        Mail, SetupError,
        mailer::{EmailAlarms, Mailer},
        tokens::Tokens,
    },
    requests::{Collaborators, Requests},
};
use crate::{
    alarms::{AlarmsAddress, Wakes},
    cursor::Cursors,
    events::Bell,
    janitor::Sweep,
    requests::Pool,
    supervision::{Address, ChildSpec},
};

/// Numbers of the sweeps.
const NOTIFICATIONS_SWEEP: u128 = 0x6e01;
const EMAILS_SWEEP: u128 = 0x6e02;
const UNSENT_SWEEP: u128 = 0x6e03;
/// How often what is too old is looked for.
const SWEEP_EVERY: Duration = Duration::from_mins(10);
/// Rows of one statement.
const SWEEP_BATCH: i64 = 1000;
/// E-mails of one transaction, each with what it was to tell.
const UNSENT_BATCH: i64 = 50;

/// What the area is made of.
pub(crate) struct Foundation<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) ids: IdSource,
    pub(crate) bell: Bell,
    pub(crate) alarms: AlarmsAddress,
    pub(crate) workers: Pool,
    pub(crate) master_key: &'a [u8; 32],
}

/// The area.
pub(crate) struct Notifications {
    requests: Requests,
    workers: Pool,
    inbox: Inbox,
    mailer: Option<Mailer>,
}

impl Notifications {
    /// The area over this foundation; nothing runs yet.
    pub(crate) fn new(foundation: Foundation<'_>) -> Result<Self, SetupError> {
        let Foundation { settings, pool, bus, ids, bell, alarms, workers, master_key } = foundation;
        let tokens = Tokens::new(master_key);
        let mail = Mail::new(settings, tokens.clone())?;
        let mailer = mail.clone().map(|mail| Mailer {
            pool: pool.clone(),
            ids,
            bell: bell.clone(),
            letterhead: mail.letterhead,
            transport: mail.transport,
            limits: mail.limits,
            address: mail.mailer,
        });
        let requests = Requests::new(Collaborators {
            pool: pool.clone(),
            ids,
            cursors: Cursors::new(master_key),
            tokens,
            mail: mail.clone(),
        });
        let limits = Limits {
            keep: settings.notifications.keep.get(),
            most_per_account: i64::from(settings.notifications.max_per_account),
        };
        Ok(Notifications { requests, workers, inbox: Inbox { pool, bus, ids, bell, alarms, limits, mail }, mailer })
    }

    /// What runs, in the order in which it starts.
    pub(crate) fn children(&self, clock: &Clock) -> Vec<ChildSpec> {
        let inbox = self.inbox.clone();
        let mut children = vec![self.workers.child(clock)];
        children.extend(self.mailer.clone().map(|mailer| {
            let address = mailer.address.0.clone();
            ChildSpec::actor("mailer", &address, move || (mailer.clone(), ()))
        }));
        children.push(ChildSpec::actor("inbox", &Address::default(), move || (inbox.clone(), ())));
        children
    }

    /// What alarms of this area do.
    pub(crate) fn wakes(&self) -> Arc<dyn Wakes> {
        // Without a mailer what is due stays due, until there is one or it is given up by sweep.
        Arc::new(EmailAlarms(self.mailer.as_ref().map(|mailer| mailer.address.clone()).unwrap_or_default()))
    }

    /// What is kept for a time.
    pub(crate) fn sweeps(&self) -> Vec<Sweep> {
        let (keep, pool, of_emails) = (self.inbox.limits.keep, self.inbox.pool.clone(), self.inbox.pool.clone());
        let inbox = self.inbox.clone();
        vec![
            Sweep::new(NOTIFICATIONS_SWEEP, "old notifications", SWEEP_EVERY, move || {
                let pool = pool.clone();
                async move { store::sweep(&pool, keep, SWEEP_BATCH).await }
            }),
            Sweep::new(EMAILS_SWEEP, "e-mails that ended", SWEEP_EVERY, move || {
                let pool = of_emails.clone();
                async move { store::emails::sweep(&pool, SWEEP_BATCH).await }
            }),
            Sweep::new(UNSENT_SWEEP, "e-mails that nobody sends", SWEEP_EVERY, move || {
                let inbox = inbox.clone();
                async move { inbox.give_up_unsent(UNSENT_BATCH).await }
            }),
        ]
    }

    /// Add what this area answers.
    pub(crate) fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        let limit = self.workers.endpoint_limit();
        let with = |operation| Desk { requests: self.requests.clone(), workers: self.workers.clone(), operation };
        let (list, read, read_all) = (with("notification.list"), with("notification.read"), with("notification.read_all"));
        let (request, verify) = (with("account.request_email_verification"), with("account.verify_email"));
        let unsubscribe = with("notification.unsubscribe");
        let (get, change) = (with("notification.get_settings"), with("notification.change_settings"));
        service
            .endpoint(limit, move |call: Call<ListNotifications>| list.clone().serve(call, Requests::list))
            .endpoint(limit, move |call: Call<ReadNotification>| read.clone().serve(call, Requests::read))
            .endpoint(limit, move |call: Call<ReadAllNotifications>| read_all.clone().serve(call, Requests::read_all))
            .endpoint(limit, move |call: Call<GetSettings>| get.clone().serve(call, Requests::get_settings))
            .endpoint(limit, move |call: Call<ChangeSettings>| change.clone().serve(call, Requests::change_settings))
            .endpoint(limit, move |call: Call<RequestEmailVerification>| {
                request.clone().serve(call, Requests::request_email_verification)
            })
            .endpoint(limit, move |call: Call<VerifyEmail>| verify.clone().serve(call, Requests::verify_email))
            .endpoint(limit, move |call: Call<Unsubscribe>| unsubscribe.clone().serve(call, Requests::unsubscribe))
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
