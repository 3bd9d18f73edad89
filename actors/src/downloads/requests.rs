//! What owners ask about their downloads. Each operation is one transaction with its events; what runs is told after the
//! commit and would find out by itself if the word got lost.

use std::{sync::Arc, time::Duration};

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    Bus, Code, DownloadId, FileId, Page, Problem,
    answer::Call,
    download::{
        CancelDownload, CreateDownload, DeleteDownload, Download, GetDownload, ListDownloads, RetryDownload, Status, Stop,
        UpdateDownload,
    },
    operation::Done,
};
use bowerbird_outbound::Client;
use sqlx::PgPool;
use tracing::{error, info};
use url::Url;

use super::{
    check, dispatcher,
    row::Row,
    seal::{self, Seal, Source},
    store::{self, Change, New, Retried},
};
use crate::{
    cursor::{self, Cursors, List},
    database, files, idempotency,
    supervision::Address,
};

/// What the operations work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Requests(Arc<Collaborators>);

/// See [`Requests`].
pub(crate) struct Collaborators {
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) ids: IdSource,
    pub(crate) seal: Seal,
    pub(crate) cursors: Cursors,
    /// Judges URLs.
    pub(crate) client: Client,
    pub(crate) dispatcher: Address<dispatcher::Message>,
    pub(crate) purger: files::PurgerAddress,
    /// How long the trash is kept.
    pub(crate) trash_grace: Duration,
    pub(crate) limits: Limits,
}

/// What an owner may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Tries when the owner does not say.
    pub(crate) max_attempts: u32,
    /// Downloads that wait or run.
    pub(crate) max_unfinished_per_account: u32,
}

impl Requests {
    /// Operations over these.
    pub(crate) fn new(collaborators: Collaborators) -> Self {
        Requests(Arc::new(collaborators))
    }

    /// Ask for a download.
    pub(crate) async fn create(self, call: Call<CreateDownload>) -> Result<Download, Problem> {
        let caller = call.account()?;
        let key = idempotency::Request::new(Some(caller.account_id), "download.create", call.idempotency_key, &call.fingerprint)?;
        let request = call.request;
        check::create(&request)?;
        let url = self.judge(&request.url)?;
        let id = DownloadId(self.0.ids.next());
        let source = Source { url: url.to_string(), headers: request.headers };
        let new = New {
            id,
            account_id: caller.account_id,
            file_id: FileId(self.0.ids.next()),
            source_sealed: self.0.seal.close(id, &source).map_err(|error| unsealed(&error))?,
            display_url: shown(&url),
            asked_name: request.file_name,
            folder: request.folder.unwrap_or_else(|| "/".to_owned()),
            checksum: request.checksum.as_ref().and_then(|checksum| Some((checksum.algorithm, check::digest(checksum)?))),
            max_connections: request.max_connections.and_then(|connections| i32::try_from(connections).ok()),
            priority: request.priority.map_or(DEFAULT_PRIORITY, i16::from),
            max_attempts: i32::try_from(request.max_attempts.unwrap_or(self.0.limits.max_attempts)).unwrap_or(i32::MAX),
            start_at: request.start_at,
        };
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let ticket = match idempotency::begin(&mut transaction, key).await? {
            idempotency::Begun::Done(before) => {
                // Not left to the drop, which comes later: the key stays locked until then.
                transaction.rollback().await.map_err(|error| database::problem(&error))?;
                return Ok(before);
            }
            idempotency::Begun::New(ticket) => ticket,
        };
        let row = store::insert(&mut transaction, &new, self.max_unfinished()).await.map_err(problem)?;
        let download = row.to_download();
        idempotency::finish(&mut transaction, ticket, &download).await?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        self.wake();
        Ok(download)
    }

    /// One download.
    pub(crate) async fn get(self, call: Call<GetDownload>) -> Result<Download, Problem> {
        let caller = call.account()?;
        let row = store::find(&self.0.pool, caller.account_id, call.request.id).await.map_err(problem)?;
        row.map(|row| row.to_download()).ok_or_else(unknown)
    }

    /// The caller's downloads, newest first.
    pub(crate) async fn list(self, call: Call<ListDownloads>) -> Result<Page<Download>, Problem> {
        let caller = call.account()?;
        let ListDownloads { status, q, limit, cursor } = call.request;
        let limit = cursor::limit(limit)?;
        check::search(q.as_deref())?;
        let filters = [status.map(Status::as_str), q.as_deref()];
        let list = List { name: "downloads", account: caller.account_id, filters: &filters };
        let before = cursor.map(|cursor| self.0.cursors.read(&list, &cursor)).transpose()?;
        let pattern = q.as_deref().filter(|q| !q.is_empty()).map(check::containing);
        // One more than asked for says whether there is a next page.
        let mut rows =
            store::list(&self.0.pool, caller.account_id, status, pattern.as_deref(), before, limit + 1).await.map_err(problem)?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next_cursor = rows.last().filter(|_| more).map(|last| self.0.cursors.after(&list, last.id.0));
        Ok(Page { items: rows.iter().map(Row::to_download).collect(), next_cursor })
    }

    /// Change the link or the priority of a download that does not run.
    pub(crate) async fn update(self, call: Call<UpdateDownload>) -> Result<Download, Problem> {
        let caller = call.account()?;
        let UpdateDownload { id, url, priority } = call.request;
        let mut faults = check::Faults::default();
        if let Some(url) = &url {
            check::url(&mut faults, url);
        }
        faults.unless(priority.is_none_or(|priority| priority <= 9), "priority", "must be from 0 (low) to 9 (high)");
        faults.into_result()?;
        let url = url.map(|url| self.judge(&url)).transpose()?;

        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let row = store::find_locked(&mut transaction, caller.account_id, id).await.map_err(problem)?.ok_or_else(unknown)?;
        if matches!(row.status, Status::Running | Status::Completed) {
            return Err(wrong_state(&row, "cannot be changed"));
        }
        let source = match url {
            Some(url) => {
                let before = self.0.seal.open(id, &row.source_sealed).map_err(|error| unsealed(&error))?;
                let source = Source { url: url.to_string(), headers: before.headers };
                Some((self.0.seal.close(id, &source).map_err(|error| unsealed(&error))?, shown(&url)))
            }
            None => None,
        };
        let row =
            store::change(&mut transaction, id, &Change { source, priority: priority.map(i16::from) }).await.map_err(problem)?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        self.wake();
        Ok(row.to_download())
    }

    /// End a download that is not finished. Of one that was canceled before, the answer is the same again.
    pub(crate) async fn cancel(self, call: Call<CancelDownload>) -> Result<Download, Problem> {
        let caller = call.account()?;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let row = store::find_locked(&mut transaction, caller.account_id, call.request.id)
            .await
            .map_err(problem)?
            .ok_or_else(unknown)?;
        if row.status == Status::Canceled {
            return Ok(row.to_download());
        }
        if !store::is_unfinished(row.status) {
            return Err(wrong_state(&row, "has ended"));
        }
        let canceled = store::cancel(&mut transaction, &row).await.map_err(problem)?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        self.stop_worker(&row).await;
        Ok(canceled.to_download())
    }

    /// Try a failed or canceled download again.
    pub(crate) async fn retry(self, call: Call<RetryDownload>) -> Result<Download, Problem> {
        let caller = call.account()?;
        let key = idempotency::Request::new(Some(caller.account_id), "download.retry", call.idempotency_key, &call.fingerprint)?;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let ticket = match idempotency::begin(&mut transaction, key).await? {
            idempotency::Begun::Done(before) => {
                // Not left to the drop, which comes later: the key stays locked until then.
                transaction.rollback().await.map_err(|error| database::problem(&error))?;
                return Ok(before);
            }
            idempotency::Begun::New(ticket) => ticket,
        };
        let row = store::find_locked(&mut transaction, caller.account_id, call.request.id)
            .await
            .map_err(problem)?
            .ok_or_else(unknown)?;
        if !matches!(row.status, Status::Failed | Status::Canceled) {
            return Err(wrong_state(&row, "has neither failed nor been canceled"));
        }
        let retried = Retried { fresh_file_id: FileId(self.0.ids.next()) };
        let row = store::requeue(&mut transaction, &row, &retried, self.max_unfinished()).await.map_err(problem)?;
        let download = row.to_download();
        idempotency::finish(&mut transaction, ticket, &download).await?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        self.wake();
        Ok(download)
    }

    /// Take a download off the list; one that is not finished is canceled first.
    pub(crate) async fn delete(self, call: Call<DeleteDownload>) -> Result<Done, Problem> {
        let caller = call.account()?;
        let DeleteDownload { id, with_file } = call.request;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let before = store::find_locked(&mut transaction, caller.account_id, id).await.map_err(problem)?.ok_or_else(unknown)?;
        let row = if store::is_unfinished(before.status) {
            store::cancel(&mut transaction, &before).await.map_err(problem)?
        } else {
            before.clone()
        };
        store::delete(&mut transaction, &row).await.map_err(problem)?;
        if with_file && row.status == Status::Completed {
            // A file that its owner deleted before is gone already, and that is what is asked for.
            files::store::trash::trash_file(&mut transaction, caller.account_id, row.file_id, self.0.trash_grace)
                .await
                .map_err(|error| problem(error.into()))?;
        }
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        self.stop_worker(&before).await;
        Ok(Done {})
    }

    /// May this be fetched, as far as its text tells?
    fn judge(&self, text: &str) -> Result<Url, Problem> {
        self.0.client.check_url(text).map_err(|refused| {
            if refused.is_blocked() {
                let (host, reason) = (Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned)), refused.to_string());
                info!(host, reason, "a download was refused; if the target is yours, add its network to outbound.allow and its port to outbound.ports");
                Problem::at_field(Code::BlockedTarget, "url", refused.to_string())
            } else {
                Problem::invalid("url", refused.to_string())
            }
        })
    }

    fn max_unfinished(&self) -> i64 {
        i64::from(self.0.limits.max_unfinished_per_account)
    }

    fn wake(&self) {
        // A dispatcher that is not there looks by itself when it starts.
        let _ = self.0.dispatcher.cast(dispatcher::Message::Look);
    }

    /// Tell the node that runs it, so that it stops at once; and have what it stored deleted.
    async fn stop_worker(&self, row: &Row) {
        self.0.purger.wake();
        if let (Status::Running, Some(node_id)) = (row.status, row.worker) {
            let stop = Stop { node_id, download_id: row.id };
            if let Err(error) = self.0.bus.tell_node(node_id, "download", "stop", &stop).await {
                info!(download = %row.id, %error, "the node that runs a canceled download could not be told; it finds out when it renews its lease");
            }
        }
        self.wake();
    }
}

/// Priority when the owner does not say.
const DEFAULT_PRIORITY: i16 = 5;

/// A URL as it may be shown and searched: without what could be a secret in it.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Neither can fail for a URL with a host; the guard took no other.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

fn unknown() -> Problem {
    Problem::not_found("download")
}

fn wrong_state(row: &Row, why: &str) -> Problem {
    Problem::new(Code::InvalidState, format!("the download is {} and {why}", row.status.as_str()))
}

fn unsealed(error: &seal::Error) -> Problem {
    error!(%error, "a source cannot be read or written");
    Problem::internal()
}

/// What the store said, as the caller is told.
fn problem(error: store::Error) -> Problem {
    match error {
        store::Error::TooMany => {
            Problem::new(Code::TooMany, "the account has as many unfinished downloads as it may; wait for some or cancel some")
        }
        store::Error::Disabled => Problem::new(Code::Forbidden, "this account may do nothing; ask whoever runs this server"),
        store::Error::QuotaExceeded => {
            Problem::new(Code::QuotaExceeded, "the account's storage is full; delete files or ask for more quota")
        }
        store::Error::Database(error) => database::problem(&error),
        error @ (store::Error::Fenced | store::Error::Corrupt(_)) => {
            error!(%error, "a request about a download failed");
            Problem::internal()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        let url = Url::parse("https://user:word@example.org:8443/a/b?token=secret#part").unwrap();
        assert_eq!(shown(&url), "https://example.org:8443/a/b");
    }
}
