//! What owners ask about their notifications, and choose.

use std::sync::Arc;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, Code, Page, Problem,
    answer::Call,
    notification::{
        ChangeSettings, EmailStatus, GetSettings, ListNotifications, Notification, ReadAllNotifications, ReadNotification,
        Settings,
    },
    operation::Done,
};
use sqlx::{PgConnection, PgPool};

use super::{
    choices::Choices,
    mail::{Mail, tokens::Tokens},
    store::{self, Addressee, emails},
};
use crate::{
    cursor::{self, Cursors, List},
    database,
};

/// What the operations work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Requests(Arc<Collaborators>);

/// See [`Requests`].
pub(crate) struct Collaborators {
    pub(crate) pool: PgPool,
    pub(crate) ids: IdSource,
    pub(crate) cursors: Cursors,
    pub(crate) tokens: Tokens,
    /// `None` when e-mail is off.
    pub(crate) mail: Option<Mail>,
}

impl Requests {
    /// Operations over these.
    pub(crate) fn new(collaborators: Collaborators) -> Self {
        Requests(Arc::new(collaborators))
    }

    pub(super) fn collaborators(&self) -> &Collaborators {
        &self.0
    }

    /// The caller's notifications, newest first.
    pub(crate) async fn list(self, call: Call<ListNotifications>) -> Result<Page<Notification>, Problem> {
        let account = call.account()?.account_id;
        let ListNotifications { unread, limit, cursor } = call.request;
        let limit = cursor::limit(limit)?;
        let filters = [unread.map(|unread| if unread { "unread" } else { "read" })];
        let list = List { name: "notifications", account, filters: &filters };
        let before = cursor.map(|cursor| self.0.cursors.read(&list, &cursor)).transpose()?;
        // One more than asked for says whether there is a next page.
        let mut items = store::list(&self.0.pool, account, unread, before, limit + 1).await.map_err(|error| problem(&error))?;
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next_cursor = items.last().filter(|_| more).map(|last| self.0.cursors.after(&list, last.id.0));
        Ok(Page { items, next_cursor })
    }

    /// A notification was read.
    pub(crate) async fn read(self, call: Call<ReadNotification>) -> Result<Notification, Problem> {
        let account = call.account()?.account_id;
        let read = store::read(&self.0.pool, account, call.request.id).await.map_err(|error| problem(&error))?;
        read.ok_or_else(|| Problem::not_found("notification"))
    }

    /// All of them were read.
    pub(crate) async fn read_all(self, call: Call<ReadAllNotifications>) -> Result<Done, Problem> {
        let account = call.account()?.account_id;
        store::read_all(&self.0.pool, account).await.map_err(|error| problem(&error))?;
        Ok(Done {})
    }

    /// What the caller chose, or the defaults.
    pub(crate) async fn get_settings(self, call: Call<GetSettings>) -> Result<Settings, Problem> {
        let account = call.account()?.account_id;
        let mut connection = self.0.pool.acquire().await.map_err(|error| problem(&error))?;
        let addressee = store::addressees(&mut connection, &[account.0]).await.map_err(|error| problem(&error))?.remove(&account);
        Ok(self.view(addressee.ok_or_else(not_any_more)?))
    }

    /// Replace what the caller chose.
    pub(crate) async fn change_settings(self, call: Call<ChangeSettings>) -> Result<Settings, Problem> {
        let account = call.account()?.account_id;
        let choices = Choices::checked(call.request)?;
        let mut transaction = self.0.pool.begin().await.map_err(|error| problem(&error))?;
        let addressee = self.choose(&mut transaction, account, &choices).await.map_err(|error| problem(&error))?;
        let addressee = addressee.ok_or_else(not_any_more)?;
        transaction.commit().await.map_err(|error| problem(&error))?;
        Ok(self.view(addressee))
    }

    /// Write down what the account chose. What gathers for it is sent when it would be by what it chose now.
    async fn choose(
        &self,
        connection: &mut PgConnection,
        account: AccountId,
        choices: &Choices,
    ) -> Result<Option<Addressee>, sqlx::Error> {
        let gathering = emails::hold_gathering(connection, account).await?;
        if !store::choose(connection, account, choices).await? {
            return Ok(None);
        }
        let addressee = store::addressees(connection, &[account.0]).await?.remove(&account);
        if let (Some(email), Some(addressee)) = (gathering, &addressee) {
            let due = choices.held_at(addressee.now).unwrap_or(addressee.now);
            emails::move_gathering(connection, email, due).await?;
        }
        Ok(addressee)
    }

    fn view(&self, addressee: Addressee) -> Settings {
        let email_status = match &addressee {
            _ if self.0.mail.is_none() => EmailStatus::Off,
            Addressee { email: None, .. } => EmailStatus::NoAddress,
            Addressee { email_verified: false, .. } => EmailStatus::Unverified,
            addressee if !addressee.choices.email => EmailStatus::Disabled,
            _ => EmailStatus::On,
        };
        let Choices { events, email, quiet_hours, digest } = addressee.choices;
        Settings { events, email, email_status, quiet_hours, digest }
    }
}

pub(super) fn problem(error: &sqlx::Error) -> Problem {
    database::problem(error)
}

/// The token was good, the account is disabled or gone.
pub(super) fn not_any_more() -> Problem {
    Problem::new(Code::Unauthorized, "this account may not do anything any more")
}
