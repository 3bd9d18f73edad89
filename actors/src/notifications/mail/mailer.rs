//! The mailer sends what is due in the table `emails`, so many at once.
//!
//! The table outlives it: a row is taken under a lease, and one whose process is lost with it is taken again. What the mail
//! server does not take is tried again by alarm, further apart each time, and given up in the end. An e-mail whose process
//! dies between the server's yes and our commit goes out twice, under the same Message-ID.

use std::time::Duration;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, event,
    notification::{Channel, Delivered, Failed, Notification},
};
use futures_util::{StreamExt as _, future::ready, stream};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::{PgConnection, PgPool};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    letter::{self, Letterhead, MOST_TOLD, To},
    transport::{NotTaken, SEND_PATIENCE, Transport},
};
use crate::{
    alarms::{Due, Kind, WakeError, Wakes},
    downloads::retry::Backoff,
    events::{self, Bell, NewEvent},
    notifications::store::{
        emails::{self, Carries, Leased},
        verifications,
    },
    supervision::{Address, OwnedTasks, Panicked},
};

/// How often it looks by itself.
const POLL: Duration = Duration::from_secs(5);
/// How long an e-mail is ours. Longer than sending takes, and what is read and written around it.
const LEASE: Duration = Duration::from_mins(3);
/// Why an e-mail is given up when there is no mailer.
const IS_OFF: &str = "e-mail is switched off on this server";
/// E-mails taken at once, for each connection.
const BATCH_PER_CONNECTION: usize = 2;

/// Sends e-mails.
#[derive(Clone)]
pub(crate) struct Mailer {
    pub(crate) pool: PgPool,
    pub(crate) ids: IdSource,
    pub(crate) bell: Bell,
    pub(crate) letterhead: Letterhead,
    pub(crate) transport: Transport,
    pub(crate) limits: Limits,
    /// Where to wake it.
    pub(crate) address: MailerAddress,
}

/// How it sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections to the mail server at once.
    pub(crate) connections: usize,
    /// Tries of one e-mail.
    pub(crate) max_attempts: i32,
    pub(crate) backoff: Backoff,
}

/// What it works on.
#[derive(Default)]
pub(crate) struct State {
    tasks: OwnedTasks,
    working: bool,
    /// It was woken while it worked.
    again: bool,
}

/// What it is told.
pub(crate) enum Message {
    /// Look whether something is due.
    Look,
    /// A batch is done, of this many.
    Worked(Result<usize, Panicked>),
}

/// Where to wake it.
#[derive(Clone, Default)]
pub(crate) struct MailerAddress(pub(crate) Address<Message>);

impl MailerAddress {
    /// There may be something to send now.
    pub(crate) fn wake(&self) {
        // One that is not there looks by itself when it starts.
        let _ = self.0.cast(Message::Look);
    }
}

/// E-mails that gathered or waited are due.
pub(crate) struct EmailAlarms(pub(crate) MailerAddress);

impl Wakes for EmailAlarms {
    fn kind(&self) -> Kind {
        Kind::Email
    }

    fn wake<'a>(
        &'a self,
        connection: &'a mut sqlx::PgConnection,
        due: &'a [Due],
    ) -> futures_util::future::BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async move {
            let ids: Vec<_> = due.iter().map(|due| due.subject_id).collect();
            Ok(emails::due(connection, &ids).await?)
        })
    }

    fn committed(&self, _: &[Due]) {
        self.0.wake();
    }
}

impl Actor for Mailer {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    #[expect(clippy::disallowed_methods, reason = "a poll behind the bell and the alarm")]
    async fn pre_start(&self, myself: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        myself.cast(Message::Look)?;
        myself.send_interval(POLL, || Message::Look);
        Ok(State::default())
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look if state.working => state.again = true,
            Message::Look => self.look(&myself, state),
            Message::Worked(Ok(done)) => {
                state.working = false;
                if done > 0 || std::mem::take(&mut state.again) {
                    self.look(&myself, state);
                }
            }
            Message::Worked(Err(panicked)) => return Err(panicked.into()),
        }
        Ok(())
    }
}

/// Why an e-mail is not sent.
enum NotSent {
    /// It may go better later.
    Later(String),
    /// It will not.
    Never(String),
}

impl Mailer {
    fn look(&self, myself: &ActorRef<Message>, state: &mut State) {
        state.working = true;
        state.again = false;
        let batch = self.clone();
        state.tasks.spawn(myself, async move { batch.work().await }, Message::Worked);
    }

    async fn work(&self) -> usize {
        let connections = self.limits.connections;
        let limit = i64::try_from(connections * BATCH_PER_CONNECTION).unwrap_or(1);
        let leased = match emails::lease(&self.pool, LEASE, limit).await {
            Ok(leased) => leased,
            Err(error) => {
                warn!(%error, "the e-mails that are due cannot be read; it is tried again");
                return 0;
            }
        };
        stream::iter(leased)
            .map(|email| self.attempt(email))
            .buffer_unordered(connections)
            .filter(|done| ready(*done))
            .count()
            .await
    }

    /// Send an e-mail and note how it went. True if it needs no more tries.
    async fn attempt(&self, email: Leased) -> bool {
        let outcome = match self.send(&email).await {
            Err(NotSent::Later(why)) if email.attempt >= self.limits.max_attempts => {
                Err(NotSent::Never(format!("given up after {} tries; {why}", email.attempt)))
            }
            outcome => outcome,
        };
        let done = !matches!(outcome, Err(NotSent::Later(_)));
        let noted = match outcome {
            Ok(()) => self.finish(&email, None).await,
            Err(NotSent::Never(why)) => {
                info!(email = %email.id, why, "an e-mail is not sent");
                self.finish(&email, Some(&why)).await
            }
            Err(NotSent::Later(why)) => {
                warn!(email = %email.id, attempt = email.attempt, why, "an e-mail was not taken; it is tried again");
                self.try_again(&email, &why).await
            }
        };
        if let Err(error) = noted {
            // Its lease will lapse, and it is looked at again.
            warn!(email = %email.id, %error, "what became of an e-mail could not be noted");
        }
        done
    }

    async fn send(&self, email: &Leased) -> Result<(), NotSent> {
        let later = |error: sqlx::Error| NotSent::Later(format!("the database failed: {error}"));
        let reader = emails::reader(&self.pool, email.account_id).await.map_err(later)?;
        let reader = reader.ok_or_else(|| NotSent::Never("the account may do nothing any more".into()))?;
        let to = |address| To { email_id: email.id, account_id: email.account_id, address, now: reader.now };
        let message = match &email.carries {
            Carries::Verification(address) => {
                let mut connection = self.pool.acquire().await.map_err(later)?;
                if !verifications::is_waited_for(&mut connection, email.id).await.map_err(later)? {
                    return Err(NotSent::Never("a newer one was asked for, or it was confirmed".into()));
                }
                drop(connection);
                self.letterhead.verification(to(address), &reader.account_name)
            }
            Carries::AddressChanged(address) => self.letterhead.address_changed(to(address), &reader.account_name),
            Carries::Notifications => {
                let address = reader.email.as_deref().filter(|_| reader.email_verified);
                let address = address.ok_or_else(|| NotSent::Never("the account has no verified address".into()))?;
                if !reader.wants_email {
                    return Err(NotSent::Never("its owner wants no e-mail".into()));
                }
                let (told, all) =
                    emails::told(&self.pool, email.id, i64::try_from(MOST_TOLD).unwrap_or(i64::MAX)).await.map_err(later)?;
                if told.is_empty() {
                    return Err(NotSent::Never("what it was to tell is not kept any more".into()));
                }
                self.letterhead.notifications(to(address), &told, all - told.len())
            }
        };
        let message = message.map_err(|error: letter::Error| NotSent::Never(error.to_string()))?;
        self.transport.send(&message).await.map_err(
            |NotTaken { passing, said }| {
                if passing { NotSent::Later(said) } else { NotSent::Never(said) }
            },
        )?;
        debug!(email = %email.id, within = ?SEND_PATIENCE, "an e-mail was taken by the mail server");
        Ok(())
    }

    /// Note its end, and tell of it, in one step.
    async fn finish(&self, email: &Leased, why_not: Option<&str>) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if emails::finish(&mut transaction, email, why_not).await? {
            let events = match why_not {
                None => {
                    let told = emails::all_of(&mut transaction, email.id).await?;
                    told.into_iter()
                        .map(|notification| delivered(self.ids, email.account_id, notification, Channel::Email))
                        .collect()
                }
                Some(reason) => ended_in_vain(&mut transaction, self.ids, email.id, email.account_id, reason).await?,
            };
            events::record_many(&mut transaction, events).await?;
        }
        transaction.commit().await?;
        self.bell.ring();
        Ok(())
    }

    async fn try_again(&self, email: &Leased, why: &str) -> Result<(), sqlx::Error> {
        // Four times as long each time: a mail server is away for a minute, or for a day.
        let after = self.limits.backoff.wait(email.attempt.saturating_mul(2) - 1, None, rand::random::<f64>());
        let mut transaction = self.pool.begin().await?;
        emails::try_again(&mut transaction, email, why, after).await?;
        transaction.commit().await
    }
}

fn delivered(ids: IdSource, account: AccountId, notification: Notification, channel: Channel) -> NewEvent {
    let id = notification.id;
    NewEvent::new(ids, event::NOTIFICATION_DELIVERED, Some(account), id.0, &Delivered { notification, channel })
}

/// An e-mail was given up: what it was to tell waits in the inbox from now on. What is to be told of that.
async fn ended_in_vain(
    connection: &mut PgConnection,
    ids: IdSource,
    email: Uuid,
    account: AccountId,
    reason: &str,
) -> Result<Vec<NewEvent>, sqlx::Error> {
    let told = emails::all_of(connection, email).await?;
    let moved = emails::into_inbox(connection, email).await?;
    let mut events = Vec::with_capacity(2 * told.len());
    for notification in told {
        let failed = Failed { notification_id: notification.id, channel: Channel::Email, reason: reason.to_owned() };
        events.push(NewEvent::new(ids, event::NOTIFICATION_FAILED, Some(account), notification.id.0, &failed));
        if moved.contains(&notification.id.0) {
            events.push(delivered(ids, account, notification, Channel::Inbox));
        }
    }
    Ok(events)
}

/// While e-mail is off: give up what was to be sent and that nobody sends, up to `limit`; how many were.
pub(crate) async fn give_up_unsent(pool: &PgPool, ids: IdSource, bell: &Bell, limit: i64) -> Result<u64, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let given_up = emails::give_up_unsent(&mut transaction, IS_OFF, limit).await?;
    let mut events = Vec::new();
    for (email, account) in &given_up {
        events.extend(ended_in_vain(&mut transaction, ids, *email, *account, IS_OFF).await?);
    }
    events::record_many(&mut transaction, events).await?;
    transaction.commit().await?;
    bell.ring();
    Ok(given_up.len() as u64)
}
