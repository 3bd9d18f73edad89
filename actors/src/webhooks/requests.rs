//! What owners ask about their webhooks. Each operation is one transaction; the sender is told after the commit and would
//! find out by itself if the word got lost.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bowerbird_lifecycle::{Clock, IdSource};
use bowerbird_nats::{
    AccountId, Code, Page, Problem, WebhookDeliveryId, WebhookId,
    answer::Call,
    operation::Done,
    webhook::{
        CreateWebhook, DeleteWebhook, Delivery, DeliveryStatus, GetWebhook, GetWebhookDelivery, ListWebhookDeliveries,
        ListWebhooks, Message, RetryWebhookDelivery, RotateWebhookSecret, Status, TEST, TestWebhook, UpdateWebhook, Webhook,
    },
};
use bowerbird_outbound::target;
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::time::Instant;
use tracing::{error, info};
use url::Url;

use super::{
    check,
    courier::{Courier, Parcel},
    row::{DeliveryRow, WebhookRow},
    secret::{self, Seal, Secret},
    sender,
    store::{self, Change, New},
};
use crate::{
    cursor::{self, Cursors, List},
    database, idempotency,
    supervision::Address,
};

/// What is left of a request's time for writing down how a test went.
const TIME_TO_WRITE: Duration = Duration::from_secs(1);

/// What the operations work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Requests(Arc<Collaborators>);

/// See [`Requests`].
pub(crate) struct Collaborators {
    pub(crate) pool: PgPool,
    pub(crate) clock: Clock,
    pub(crate) ids: IdSource,
    pub(crate) seal: Seal,
    pub(crate) cursors: Cursors,
    pub(crate) courier: Courier,
    pub(crate) sender: Address<sender::Message>,
    pub(crate) limits: Limits,
}

/// What an owner may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Webhooks of an account.
    pub(crate) max_per_account: u32,
    /// Longest test.
    pub(crate) timeout: Duration,
    /// After a rotation, how long messages are signed with the old secret as well.
    pub(crate) old_secret_for: Duration,
}

/// The answer to a request that shows a secret, as it is kept for its repeats: with the secret and the URL, which often
/// holds one, encrypted.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Without its URL.
    webhook: Webhook,
    /// Base64.
    secret_sealed: String,
    /// Base64.
    url_sealed: String,
}

impl Requests {
    /// Operations over these.
    pub(crate) fn new(collaborators: Collaborators) -> Self {
        Requests(Arc::new(collaborators))
    }

    /// Add a webhook.
    pub(crate) async fn create(self, call: Call<CreateWebhook>) -> Result<Webhook, Problem> {
        let caller = call.account()?;
        let key = idempotency::Request::new(Some(caller.account_id), "webhook.create", call.idempotency_key, &call.fingerprint)?;
        let request = call.request;
        check::create(&request)?;
        let url = self.judge(&request.url)?;
        let id = WebhookId(self.0.ids.next());
        let secret = Secret::random().map_err(|error| unsealed(&error))?;
        let new = New {
            id,
            account_id: caller.account_id,
            url_sealed: self.0.seal.close_url(id, url.as_str()).map_err(|error| unsealed(&error))?,
            event_types: check::distinct(request.event_types),
            description: request.description,
            secret_sealed: self.0.seal.close_secret(id, &secret).map_err(|error| unsealed(&error))?,
        };
        let mut transaction = self.begin().await?;
        let ticket = match idempotency::begin(&mut transaction, key).await? {
            idempotency::Begun::Done(before) => return self.again(transaction, before).await,
            idempotency::Begun::New(ticket) => ticket,
        };
        let most = i64::from(self.0.limits.max_per_account);
        let row = store::add(&mut transaction, &new, most).await.map_err(problem)?;
        self.finish(transaction, ticket, &row).await
    }

    /// One webhook.
    pub(crate) async fn get(self, call: Call<GetWebhook>) -> Result<Webhook, Problem> {
        let caller = call.account()?;
        let row = store::find(&self.0.pool, caller.account_id, call.request.id).await.map_err(problem)?;
        self.view(&row.ok_or_else(unknown)?)
    }

    /// The caller's webhooks, newest first.
    pub(crate) async fn list(self, call: Call<ListWebhooks>) -> Result<Page<Webhook>, Problem> {
        let caller = call.account()?;
        let ListWebhooks { limit, cursor } = call.request;
        let limit = cursor::limit(limit)?;
        let list = List { name: "webhooks", account: caller.account_id, filters: &[] };
        let before = cursor.map(|cursor| self.0.cursors.read(&list, &cursor)).transpose()?;
        // One more than asked for says whether there is a next page.
        let mut rows = store::list(&self.0.pool, caller.account_id, before, limit + 1).await.map_err(problem)?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next_cursor = rows.last().filter(|_| more).map(|last| self.0.cursors.after(&list, last.id.0));
        Ok(Page { items: rows.iter().map(|row| self.view(row)).collect::<Result<_, _>>()?, next_cursor })
    }

    /// Change a webhook.
    pub(crate) async fn update(self, call: Call<UpdateWebhook>) -> Result<Webhook, Problem> {
        let caller = call.account()?;
        let request = call.request;
        check::update(&request)?;
        let url = request.url.as_deref().map(|url| self.judge(url)).transpose()?;
        let url_sealed = url.map(|url| self.0.seal.close_url(request.id, url.as_str())).transpose();
        let change = Change {
            url_sealed: url_sealed.map_err(|error| unsealed(&error))?,
            event_types: request.event_types.map(check::distinct),
            description: request.description,
            status: request.status,
        };
        let mut transaction = self.begin().await?;
        let row = self.locked(&mut transaction, caller.account_id, request.id).await?;
        let row = store::change(&mut transaction, &row, &change).await.map_err(problem)?;
        commit(transaction).await?;
        self.wake();
        self.view(&row)
    }

    /// Take a webhook away.
    pub(crate) async fn delete(self, call: Call<DeleteWebhook>) -> Result<Done, Problem> {
        let caller = call.account()?;
        let mut transaction = self.begin().await?;
        let row = self.locked(&mut transaction, caller.account_id, call.request.id).await?;
        store::delete(&mut transaction, row.id).await.map_err(problem)?;
        commit(transaction).await?;
        Ok(Done {})
    }

    /// Sign with a new secret.
    pub(crate) async fn rotate_secret(self, call: Call<RotateWebhookSecret>) -> Result<Webhook, Problem> {
        let caller = call.account()?;
        let key =
            idempotency::Request::new(Some(caller.account_id), "webhook.rotate_secret", call.idempotency_key, &call.fingerprint)?;
        let id = call.request.id;
        let secret = Secret::random().map_err(|error| unsealed(&error))?;
        let sealed = self.0.seal.close_secret(id, &secret).map_err(|error| unsealed(&error))?;
        let mut transaction = self.begin().await?;
        let ticket = match idempotency::begin(&mut transaction, key).await? {
            idempotency::Begun::Done(before) => return self.again(transaction, before).await,
            idempotency::Begun::New(ticket) => ticket,
        };
        let row = self.locked(&mut transaction, caller.account_id, id).await?;
        let row = store::rotate(&mut transaction, row.id, &sealed, self.0.limits.old_secret_for).await.map_err(problem)?;
        self.finish(transaction, ticket, &row).await
    }

    /// Send a test message now, and tell how that went.
    pub(crate) async fn test(self, call: Call<TestWebhook>) -> Result<Delivery, Problem> {
        let caller = call.account()?;
        let row = store::find(&self.0.pool, caller.account_id, call.request.id).await.map_err(problem)?.ok_or_else(unknown)?;
        let left = call.deadline.saturating_duration_since(Instant::now()).saturating_sub(TIME_TO_WRITE);
        let id = WebhookDeliveryId(self.0.ids.next());
        let data = serde_json::json!({ "webhook_id": row.id });
        let message = Message { kind: TEST.to_owned(), timestamp: self.0.clock.now(), data };
        let body = serde_json::to_string(&message).map_err(|_| Problem::internal())?;
        let (url, secrets) = self.open(&row).map_err(|error| unsealed(&error))?;
        let parcel = Parcel { id, url: &url, body: &body, secrets: &secrets };
        let (tried, _) = self.0.courier.deliver(&parcel, self.0.limits.timeout.min(left)).await;
        let mut transaction = self.begin().await?;
        // It may have been taken away meanwhile, and then there is nothing to write down.
        self.locked(&mut transaction, caller.account_id, row.id).await?;
        let row = store::record_test(&mut transaction, row.id, id, &body, &tried).await.map_err(problem)?;
        commit(transaction).await?;
        self.whole(row).await
    }

    /// Deliveries of a webhook, newest first.
    pub(crate) async fn list_deliveries(self, call: Call<ListWebhookDeliveries>) -> Result<Page<Delivery>, Problem> {
        let caller = call.account()?;
        let ListWebhookDeliveries { webhook_id, status, limit, cursor } = call.request;
        let limit = cursor::limit(limit)?;
        let (of, in_status) = (webhook_id.to_string(), status.map(word));
        let filters = [Some(of.as_str()), in_status];
        let list = List { name: "webhook deliveries", account: caller.account_id, filters: &filters };
        let before = cursor.map(|cursor| self.0.cursors.read(&list, &cursor)).transpose()?;
        store::find(&self.0.pool, caller.account_id, webhook_id).await.map_err(problem)?.ok_or_else(unknown)?;
        let mut rows = store::list_deliveries(&self.0.pool, webhook_id, status, before, limit + 1).await.map_err(problem)?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next_cursor = rows.last().filter(|_| more).map(|last| self.0.cursors.after(&list, last.id.0));
        Ok(Page { items: rows.into_iter().map(DeliveryRow::into_delivery).collect(), next_cursor })
    }

    /// One delivery with its body and its log.
    pub(crate) async fn get_delivery(self, call: Call<GetWebhookDelivery>) -> Result<Delivery, Problem> {
        let caller = call.account()?;
        let GetWebhookDelivery { webhook_id, id } = call.request;
        let row = store::find_delivery(&self.0.pool, caller.account_id, webhook_id, id).await.map_err(problem)?;
        self.whole(row.ok_or_else(unknown_delivery)?).await
    }

    /// Send a message again.
    pub(crate) async fn retry_delivery(self, call: Call<RetryWebhookDelivery>) -> Result<Delivery, Problem> {
        let caller = call.account()?;
        let RetryWebhookDelivery { webhook_id, id } = call.request;
        let mut transaction = self.begin().await?;
        let webhook = self.locked(&mut transaction, caller.account_id, webhook_id).await?;
        let before = store::find_delivery(&mut *transaction, caller.account_id, webhook_id, id).await.map_err(problem)?;
        before.ok_or_else(unknown_delivery)?;
        if webhook.status == Status::Disabled {
            return Err(Problem::new(Code::InvalidState, "the webhook is disabled; enable it first"));
        }
        let row = store::retry(&mut transaction, webhook_id, id).await.map_err(problem)?;
        let row =
            row.ok_or_else(|| Problem::new(Code::InvalidState, "the message is being sent right now; wait for how that goes"))?;
        commit(transaction).await?;
        self.wake();
        Ok(row.into_delivery())
    }

    async fn begin(&self) -> Result<Transaction<'static, Postgres>, Problem> {
        self.0.pool.begin().await.map_err(|error| database::problem(&error))
    }

    async fn locked(
        &self,
        transaction: &mut Transaction<'static, Postgres>,
        account: AccountId,
        id: WebhookId,
    ) -> Result<WebhookRow, Problem> {
        store::find_locked(transaction, account, id).await.map_err(problem)?.ok_or_else(unknown)
    }

    /// Keep the answer of a request that shows a secret, commit, and give the answer.
    async fn finish(
        &self,
        mut transaction: Transaction<'static, Postgres>,
        ticket: idempotency::Ticket,
        row: &WebhookRow,
    ) -> Result<Webhook, Problem> {
        let kept = Kept {
            webhook: Webhook { url: String::new(), ..self.view(row)? },
            secret_sealed: STANDARD.encode(&row.secret_sealed),
            url_sealed: STANDARD.encode(&row.url_sealed),
        };
        let answer = self.with_secret(&kept)?;
        idempotency::finish(&mut transaction, ticket, &kept).await?;
        commit(transaction).await?;
        Ok(answer)
    }

    /// The answer that such a request got before.
    async fn again(&self, transaction: Transaction<'static, Postgres>, kept: Kept) -> Result<Webhook, Problem> {
        // Not left to the drop, which comes later: the key stays locked until then.
        transaction.rollback().await.map_err(|error| database::problem(&error))?;
        self.with_secret(&kept)
    }

    fn with_secret(&self, kept: &Kept) -> Result<Webhook, Problem> {
        let sealed = |text: &str| STANDARD.decode(text).map_err(|_| unsealed(&secret::Error::Open));
        let id = kept.webhook.id;
        let secret = self.0.seal.open_secret(id, &sealed(&kept.secret_sealed)?).map_err(|error| unsealed(&error))?;
        let url = self.0.seal.open_url(id, &sealed(&kept.url_sealed)?).map_err(|error| unsealed(&error))?;
        Ok(Webhook { url, secret: Some(secret.text()), ..kept.webhook.clone() })
    }

    fn view(&self, row: &WebhookRow) -> Result<Webhook, Problem> {
        row.to_webhook(&self.0.seal).map_err(|error| unsealed(&error))
    }

    async fn whole(&self, row: DeliveryRow) -> Result<Delivery, Problem> {
        let body = store::body(&self.0.pool, row.id).await.map_err(problem)?;
        let attempts = store::attempts(&self.0.pool, row.id).await.map_err(problem)?;
        Ok(row.into_whole(body, attempts))
    }

    fn open(&self, row: &WebhookRow) -> Result<(String, Vec<Secret>), secret::Error> {
        let url = self.0.seal.open_url(row.id, &row.url_sealed)?;
        let sealed = std::iter::once(&row.secret_sealed).chain(&row.old_secret_sealed);
        let secrets = sealed.map(|sealed| self.0.seal.open_secret(row.id, sealed)).collect::<Result<_, _>>()?;
        Ok((url, secrets))
    }

    /// May this be dialled, as far as its text tells? Judged again with each message, by its addresses too.
    fn judge(&self, text: &str) -> Result<Url, Problem> {
        self.0.courier.client().check_url(text).map_err(|refused| {
            if refused.is_blocked() {
                let (host, reason) = (Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned)), refused.to_string());
                info!(host, reason, "a webhook was refused; if the receiver is yours, add its network to outbound.allow and its port to outbound.ports");
                Problem::at_field(Code::BlockedTarget, "url", refused.to_string())
            } else if refused == target::Error::UserInfo {
                Problem::invalid(
                    "url",
                    "user name and password do not belong in the URL; messages are signed, by which the receiver knows them",
                )
            } else {
                Problem::invalid("url", refused.to_string())
            }
        })
    }

    fn wake(&self) {
        // A sender that is not there looks by itself when it starts.
        let _ = self.0.sender.cast(sender::Message::Look);
    }
}

async fn commit(transaction: Transaction<'static, Postgres>) -> Result<(), Problem> {
    transaction.commit().await.map_err(|error| database::problem(&error))
}

/// As it is written, for the code of a cursor.
fn word(status: DeliveryStatus) -> &'static str {
    match status {
        DeliveryStatus::Pending => "pending",
        DeliveryStatus::Sending => "sending",
        DeliveryStatus::Succeeded => "succeeded",
        DeliveryStatus::Failed => "failed",
    }
}

fn unknown() -> Problem {
    Problem::not_found("webhook")
}

fn unknown_delivery() -> Problem {
    Problem::not_found("delivery")
}

fn unsealed(error: &secret::Error) -> Problem {
    error!(%error, "a webhook cannot be read or written");
    Problem::internal()
}

/// What the store said, as the caller is told.
fn problem(error: store::Error) -> Problem {
    match error {
        store::Error::TooMany => Problem::new(Code::TooMany, "the account has as many webhooks as it may; delete one first"),
        store::Error::Disabled => Problem::new(Code::Forbidden, "this account may do nothing; ask whoever runs this server"),
        store::Error::Database(error) => database::problem(&error),
        error @ (store::Error::Fenced | store::Error::Corrupt(_)) => {
            error!(%error, "a request about a webhook failed");
            Problem::internal()
        }
    }
}
