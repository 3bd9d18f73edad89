//! The inbox: hears every event, and writes down what the account that it concerns wants to be told.
//!
//! Events are taken in batches, as one transaction for each would be one fsync for each. A batch, what is told of it and the
//! marks that it was told are one transaction, and an event is acknowledged after the commit: one that comes again finds
//! its mark. Nothing is lost with this actor: what it had in hand is delivered again.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    mem,
    sync::Arc,
    time::Duration,
};

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, Bus, NotificationId,
    consume::{Delivery, Outcome},
    event::{self, Event},
    notification::{Channel, Delivered, Notification},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    choices::Choices,
    mail::{Mail, mailer},
    store::{self, Addressee, New, emails},
    telling,
};
use crate::{
    alarms::AlarmsAddress,
    database,
    events::{self, Bell, NewEvent},
    supervision::{OwnedTasks, Panicked},
};

/// Name of the durable consumer, and of the marks.
const CONSUMER: &str = "inbox";
/// Events in hand at once.
const IN_HAND: usize = 256;
/// Events of one transaction.
const BATCH: usize = 128;
/// Longest transaction.
const TELL_WITHIN: Duration = Duration::from_secs(20);
/// A reminder is gathered with others only beyond so many times what other e-mails are: one that fires each minute must not fill a
/// mailbox faster than its owner can read.
const URGENT_TIMES: i64 = 6;
/// What could not be told because the database was away comes again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// What is older is not sent by e-mail any more: it waits in the inbox.
const EMAIL_WITHIN: Duration = Duration::from_hours(48);
/// When what is beyond an account's e-mails of an hour is sent.
const CALM_AFTER: Duration = Duration::from_hours(1);
/// How long a stopping inbox may take to finish what it has in hand.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// Writes down what is told.
#[derive(Clone)]
pub(crate) struct Inbox {
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) ids: IdSource,
    pub(crate) bell: Bell,
    pub(crate) alarms: AlarmsAddress,
    pub(crate) limits: Limits,
    /// `None` when e-mail is off.
    pub(crate) mail: Option<Mail>,
}

/// What an inbox holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long notifications are kept.
    pub(crate) keep: Duration,
    /// Notifications of one account.
    pub(crate) most_per_account: i64,
}

/// What it keeps.
pub(crate) struct State {
    _tasks: OwnedTasks,
    consuming: CancellationToken,
    finished: Option<oneshot::Receiver<()>>,
}

/// What it is told.
pub(crate) enum Message {
    /// Nobody hears events or works on them any more; neither ends by itself.
    Deaf(Result<(), Panicked>),
}

/// What an account is told, and where.
struct Told {
    account_id: AccountId,
    notification: Notification,
    in_inbox: bool,
    by_email: bool,
    /// When the e-mail is sent, if not now.
    held_until: Option<OffsetDateTime>,
    /// It goes although many went before it.
    is_urgent: bool,
    now: OffsetDateTime,
}

/// An event in hand, and who waits for what becomes of it.
struct InHand {
    event: Event,
    outcome: oneshot::Sender<Outcome>,
}

impl Actor for Inbox {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        let (mut tasks, consuming) = (OwnedTasks::default(), CancellationToken::new());
        let (to_worker, in_hand) = mpsc::channel(BATCH);
        let (finishing, finished) = oneshot::channel();
        let (hearing, working) = (self.clone(), self.clone());
        let until = consuming.clone();
        tasks.spawn(
            &myself,
            async move {
                hearing.hear(to_worker, until).await;
                // Whoever stops waits for it; if nobody does, nobody needs to know.
                let _ = finishing.send(());
            },
            Message::Deaf,
        );
        tasks.spawn(&myself, async move { working.work(in_hand).await }, Message::Deaf);
        Ok(State { _tasks: tasks, consuming, finished: Some(finished) })
    }

    async fn handle(&self, _: ActorRef<Message>, message: Message, _: &mut State) -> Result<(), ActorProcessingErr> {
        let Message::Deaf(ended) = message;
        ended?;
        Err("events are not heard any more".into())
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.consuming.cancel();
        if let Some(finished) = state.finished.take() {
            // What is not finished by then is delivered again, to whoever is there.
            let _ = timeout(FINISH_WITHIN, finished).await;
        }
        Ok(())
    }
}

impl Inbox {
    async fn hear(self, to_worker: mpsc::Sender<InHand>, until: CancellationToken) {
        let spec = self.bus.event_consumer(CONSUMER, self.bus.subjects().every_event());
        let bus = self.bus.clone();
        bus.consume(spec, until, Arc::new(Semaphore::new(IN_HAND)), move |delivery: Delivery<Event>| {
            let to_worker = to_worker.clone();
            async move {
                if !concerns_somebody(&delivery.message) {
                    return Outcome::Done;
                }
                let (outcome, decided) = oneshot::channel();
                if to_worker.send(InHand { event: delivery.message, outcome }).await.is_err() {
                    return Outcome::Retry { after: AGAIN_AFTER };
                }
                decided.await.unwrap_or(Outcome::Retry { after: AGAIN_AFTER })
            }
        })
        .await;
    }

    async fn work(self, mut in_hand: mpsc::Receiver<InHand>) {
        let mut batch = Vec::with_capacity(BATCH);
        while in_hand.recv_many(&mut batch, BATCH).await > 0 {
            // What is due goes first.
            self.alarms.calm().await;
            let (events, outcomes): (Vec<Event>, Vec<_>) =
                mem::take(&mut batch).into_iter().map(|in_hand| (in_hand.event, in_hand.outcome)).unzip();
            for (outcome, decided) in outcomes.into_iter().zip(self.settle(&events).await) {
                // A handler that is gone needs no word: its event comes again and is recognised.
                let _ = outcome.send(decided);
            }
        }
    }

    /// Tell of these events; one outcome for each.
    async fn settle(&self, events: &[Event]) -> Vec<Outcome> {
        match self.tell_in_time(events).await {
            Ok(()) => vec![Outcome::Done; events.len()],
            Err(error) if database::is_passing(&error) => {
                warn!(%error, events = events.len(), "events could not be told of; they come again");
                vec![database::again(&error, AGAIN_AFTER); events.len()]
            }
            Err(_) => {
                // One of them is at fault; the others must not suffer.
                let mut outcomes = Vec::with_capacity(events.len());
                for event in events {
                    outcomes.push(self.settle_alone(event).await);
                }
                outcomes
            }
        }
    }

    async fn settle_alone(&self, event: &Event) -> Outcome {
        match self.tell_in_time(std::slice::from_ref(event)).await {
            Ok(()) => Outcome::Done,
            Err(error) if database::is_passing(&error) => database::again(&error, AGAIN_AFTER),
            Err(error) => Outcome::Refuse { reason: format!("it could not be told of: {error}") },
        }
    }

    async fn tell_in_time(&self, events: &[Event]) -> Result<(), sqlx::Error> {
        timeout(TELL_WITHIN, self.tell(events)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn tell(&self, events: &[Event]) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let ids: Vec<_> = events.iter().map(|event| event.id).collect();
        let mut fresh: HashSet<_> = events::first_times(&mut transaction, CONSUMER, &ids).await?;
        // The same event twice in a batch is told once.
        let events: Vec<&Event> = events.iter().filter(|event| fresh.remove(&event.id)).collect();
        let accounts: BTreeSet<_> = events.iter().filter_map(|event| event.account_id).map(|account| account.0).collect();
        let accounts: Vec<_> = accounts.into_iter().collect();
        let addressees = store::addressees(&mut transaction, &accounts).await?;

        let mut told = Vec::new();
        for event in events {
            let Some((account_id, addressee)) = event.account_id.and_then(|id| Some((id, addressees.get(&id)?))) else {
                continue;
            };
            told.extend(self.told(account_id, addressee, event));
        }
        let by_email = told.iter().any(|told| told.by_email);
        let mut new = self.put_into_emails(&mut transaction, told).await?;
        if !new.is_empty() {
            store::insert(&mut transaction, &new).await?;
            store::keep_newest(&mut transaction, &accounts, self.limits.most_per_account).await?;
            new.retain(|new| new.in_inbox);
            let delivered = new.into_iter().map(|new| self.delivered(new)).collect();
            events::record_many(&mut transaction, delivered).await?;
        }
        transaction.commit().await?;
        self.bell.ring();
        if let Some(mail) = self.mail.as_ref().filter(|_| by_email) {
            mail.mailer.wake();
        }
        Ok(())
    }

    /// What this account is told of this event, if anything.
    fn told(&self, account_id: AccountId, addressee: &Addressee, event: &Event) -> Option<Told> {
        let route = addressee.choices.route(event);
        let age = addressee.now - event.time;
        let reachable = self.mail.is_some() && addressee.email.is_some() && addressee.email_verified && addressee.choices.email;
        let by_email = route.email && reachable && age <= EMAIL_WITHIN;
        // What cannot go where its owner wanted it must not be lost. A stream that was made again brings what is long past.
        let nowhere_else = !by_email && (route.email || (route.webhook && !addressee.has_webhook));
        let in_inbox = (route.inbox || nowhere_else) && age <= self.limits.keep;
        if !in_inbox && !by_email {
            return None;
        }
        let telling = telling::tell(event);
        let notification = Notification {
            id: NotificationId(self.ids.next()),
            event_id: event.id,
            event_type: event.event_type.as_str().to_owned(),
            entity_id: event.entity_id,
            title: telling.title,
            body: telling.body,
            occurred_at: event.time,
            created_at: addressee.now,
            read_at: None,
        };
        let held_until = addressee.choices.held_until(event, addressee.now);
        let is_urgent = Choices::is_urgent(event);
        Some(Told { account_id, notification, in_inbox, by_email, held_until, is_urgent, now: addressee.now })
    }

    /// Each that goes by e-mail into one of its own, or into one that gathers: what is held back, and what is too much for
    /// an hour.
    async fn put_into_emails(&self, connection: &mut PgConnection, told: Vec<Told>) -> Result<Vec<New>, sqlx::Error> {
        let by_email: BTreeSet<_> = told.iter().filter(|told| told.by_email).map(|told| told.account_id.0).collect();
        let (mut begun, mut gathering, mut of_email) = (Vec::new(), HashMap::new(), HashMap::new());
        if let Some(mail) = self.mail.as_ref().filter(|_| !by_email.is_empty()) {
            let accounts: Vec<_> = by_email.into_iter().collect();
            let mut within_an_hour = emails::within_an_hour(connection, &accounts).await?;
            for told in told.iter().filter(|told| told.by_email) {
                let sent = within_an_hour.entry(told.account_id).or_default();
                let most = if told.is_urgent { mail.most_an_hour.saturating_mul(URGENT_TIMES) } else { mail.most_an_hour };
                let too_many = *sent >= most;
                let held_until = told.held_until.or_else(|| too_many.then(|| told.now + CALM_AFTER));
                if let Some(held_until) = held_until {
                    gathering.entry(told.account_id).or_insert(held_until);
                } else {
                    *sent += 1;
                    let id = self.ids.next();
                    begun.push((id, told.account_id));
                    of_email.insert(told.notification.id, id);
                }
            }
            emails::insert(connection, &begun).await?;
        }
        let gathered =
            if gathering.is_empty() { HashMap::new() } else { emails::gather(connection, self.ids, &gathering).await? };
        let new = told.into_iter().map(|told| {
            let own = of_email.get(&told.notification.id).copied();
            let email_id = own.or_else(|| if told.by_email { gathered.get(&told.account_id).copied() } else { None });
            New { account_id: told.account_id, notification: told.notification, in_inbox: told.in_inbox, email_id }
        });
        Ok(new.collect())
    }

    /// If e-mail is off: move what was to go by e-mail to the inbox, up to so many e-mails; how many were.
    pub(crate) async fn give_up_unsent(&self, limit: i64) -> Result<u64, sqlx::Error> {
        if self.mail.is_some() {
            return Ok(0);
        }
        mailer::give_up_unsent(&self.pool, self.ids, &self.bell, limit).await
    }

    fn delivered(&self, new: New) -> NewEvent {
        let (account_id, id) = (new.account_id, new.notification.id);
        let told = Delivered { notification: new.notification, channel: Channel::Inbox };
        NewEvent::new(self.ids, event::NOTIFICATION_DELIVERED, Some(account_id), id.0, &told)
    }
}

/// What tells of notifications is not told by one.
fn concerns_somebody(event: &Event) -> bool {
    event.account_id.is_some() && event.event_type.area() != "notification"
}
