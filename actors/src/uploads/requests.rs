//! What owners ask about their uploads.

use std::{sync::Arc, time::Duration};

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    Caller, Code, FileId, Page, Problem, UploadId,
    answer::Call,
    operation::Done,
    upload::{AbortUpload, CompleteUpload, CreateUpload, GetUpload, LinkUpload, ListUploads, Status, Transfer, Upload},
};
use bowerbird_storage::{Bucket, ErrorKind};
use sqlx::PgPool;
use tracing::{debug, error};

use super::{
    check,
    links::{self, Links},
    row::{Parts, Row},
    store::{self, New},
};
use crate::{
    cursor::{self, Cursors, List},
    database, files, idempotency,
    ingest::{self, Landing},
};

/// Links that come with a new upload in parts.
const FIRST_LINKS: usize = 100;
/// Missing parts that are named in a sentence.
const NAMED_PARTS: usize = 10;

/// What the operations work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Requests(Arc<Collaborators>);

/// See [`Requests`].
pub(super) struct Collaborators {
    pub(super) pool: PgPool,
    pub(super) bucket: Bucket,
    pub(super) ids: IdSource,
    pub(super) cursors: Cursors,
    pub(super) links: Links,
    pub(super) purger: files::PurgerAddress,
    pub(super) landing: Landing,
    pub(super) limits: Limits,
}

/// What may be uploaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Life of an upload that nothing arrives for.
    pub(super) ttl: Duration,
    /// What is larger goes in parts.
    pub(super) single_limit_bytes: u64,
    /// Length of a part at least.
    pub(super) part_size_bytes: u64,
    pub(super) max_size_bytes: u64,
    /// Uploads that an account may have pending.
    pub(super) max_unfinished: i64,
}

impl Requests {
    /// Operations over these.
    pub(super) fn new(collaborators: Collaborators) -> Self {
        Requests(Arc::new(collaborators))
    }

    /// Announce an object.
    pub(crate) async fn create(self, call: Call<CreateUpload>) -> Result<Upload, Problem> {
        let caller = call.account()?;
        let key = idempotency::Request::new(Some(caller.account_id), "upload.create", call.idempotency_key, &call.fingerprint)?;
        let limits = self.0.limits;
        let request = call.request;
        let sha256 = check::create(&request, limits.max_size_bytes)?;
        let size_bytes = u64::try_from(request.size_bytes).unwrap_or(0);
        let parts = (size_bytes > limits.single_limit_bytes).then(|| Parts::of(size_bytes, limits.part_size_bytes));
        let new = New {
            id: UploadId(self.0.ids.next()),
            account_id: caller.account_id,
            file_id: FileId(self.0.ids.next()),
            file_name: request.file_name,
            size_bytes: request.size_bytes,
            content_type: request.content_type,
            sha256,
            part_size_bytes: parts.and_then(|parts| i64::try_from(parts.part_size_bytes()).ok()),
            ttl: limits.ttl,
            links_for: parts.is_none().then_some(self.0.links.ttl),
        };
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let ticket = match idempotency::begin(&mut transaction, key).await? {
            idempotency::Begun::Done(before) => {
                // Not left to the drop, which comes later: the key stays locked until then.
                transaction.rollback().await.map_err(|error| database::problem(&error))?;
                return self.again(caller, before).await;
            }
            idempotency::Begun::New(ticket) => ticket,
        };
        let row = store::insert(&mut transaction, &new, limits.max_unfinished).await.map_err(problem)?;
        // Without links: they let whoever reads them write, and are no good when the request comes again much later.
        idempotency::finish(&mut transaction, ticket, &row.to_upload()).await?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        Ok(self.with_links(&row).await)
    }

    /// What a request that comes again is answered: the same upload as it is now, with fresh links.
    async fn again(&self, caller: Caller, before: Upload) -> Result<Upload, Problem> {
        match store::find(&self.0.pool, caller.account_id, before.id).await.map_err(problem)? {
            Some(row) if row.status == Status::Pending => Ok(self.with_links(&row).await),
            Some(row) => Ok(row.to_upload()),
            None => Ok(before),
        }
    }

    /// The upload with links; without, when the object store is away: they can be asked for later.
    async fn with_links(&self, row: &Row) -> Upload {
        let transfer = match row.parts() {
            None => self.0.links.single(row).await,
            Some(parts) => self.0.links.parts(row, parts, 0, FIRST_LINKS).await,
        };
        let transfer = transfer.map_err(|error| debug!(%error, "a new upload is answered without links")).ok();
        Upload { transfer, ..row.to_upload() }
    }

    /// One upload.
    pub(crate) async fn get(self, call: Call<GetUpload>) -> Result<Upload, Problem> {
        let caller = call.account()?;
        Ok(self.find(caller, call.request.id).await?.to_upload())
    }

    /// The caller's uploads, newest first.
    pub(crate) async fn list(self, call: Call<ListUploads>) -> Result<Page<Upload>, Problem> {
        let caller = call.account()?;
        let ListUploads { status, limit, cursor } = call.request;
        let limit = cursor::limit(limit)?;
        let filters = [status.map(Status::as_str)];
        let list = List { name: "uploads", account: caller.account_id, filters: &filters };
        let before = cursor.map(|cursor| self.0.cursors.read(&list, &cursor)).transpose()?;
        // One more than asked for says whether there is a next page.
        let mut rows = store::list(&self.0.pool, caller.account_id, status, before, limit + 1).await.map_err(problem)?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next_cursor = rows.last().filter(|_| more).map(|last| self.0.cursors.after(&list, last.id.0));
        Ok(Page { items: rows.iter().map(Row::to_upload).collect(), next_cursor })
    }

    /// Fresh links for what is missing.
    pub(crate) async fn link(self, call: Call<LinkUpload>) -> Result<Transfer, Problem> {
        let caller = call.account()?;
        let (after, limit) = check::page(call.request.after_part, call.request.limit)?;
        let row = self.find(caller, call.request.id).await?;
        if row.status != Status::Pending || row.is_over {
            return Err(links::Error::NotPending.problem());
        }
        let transfer = match row.parts() {
            None => self.0.links.single(&row).await,
            Some(parts) => self.0.links.parts(&row, parts, after, limit).await,
        };
        transfer.map_err(links::Error::problem)
    }

    /// Everything is sent. Of an object in one request nobody needs to say so; then it is looked at now.
    pub(crate) async fn complete(self, call: Call<CompleteUpload>) -> Result<Upload, Problem> {
        let caller = call.account()?;
        let row = self.find(caller, call.request.id).await?;
        match row.status {
            Status::Processing | Status::Completed => return Ok(row.to_upload()),
            Status::Pending => {}
            Status::Failed | Status::Aborted | Status::Expired => return Err(wrong_state(&row, "has ended")),
        }
        if let Some(parts) = row.parts() {
            self.join(&row, parts).await?;
        }
        self.0.landing.look(row.id).await.map_err(looking_failed)?;
        let row = self.find(caller, row.id).await?;
        if row.status == Status::Pending {
            return Err(Problem::new(
                Code::InvalidState,
                "nothing has arrived yet; send the content to the link, then ask again",
            ));
        }
        Ok(row.to_upload())
    }

    /// Make the object of its parts, as the object store lists them.
    async fn join(&self, row: &Row, parts: Parts) -> Result<(), Problem> {
        let Some(storage_upload_id) = &row.storage_upload_id else {
            return Err(incomplete(&(1..=parts.count()).collect::<Vec<_>>()));
        };
        let stored = match self.0.links.stored(row, storage_upload_id).await {
            Ok(stored) => stored,
            // Completed before, perhaps: whether the object is there is looked at next.
            Err(links::Error::Forgotten) => return self.there_or_forgotten(row).await,
            Err(error) => return Err(error.problem()),
        };
        let missing = links::missing(&stored, parts, 0);
        if !missing.is_empty() {
            return Err(incomplete(&missing));
        }
        let listed: Vec<(u32, String)> =
            stored.into_iter().filter(|part| part.number <= parts.count()).map(|part| (part.number, part.etag)).collect();
        match self.0.bucket.complete_multipart_of_links(&row.object_key, storage_upload_id, &listed, row.length()).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NoSuchUpload => self.there_or_forgotten(row).await,
            Err(error) if error.kind() == ErrorKind::InvalidPart => {
                Err(Problem::new(Code::InvalidState, "a part was sent again while the parts were joined; ask again"))
            }
            Err(error) => Err(links::unavailable(&error)),
        }
    }

    async fn there_or_forgotten(&self, row: &Row) -> Result<(), Problem> {
        match self.0.bucket.head(&row.object_key).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(links::forgotten()),
            Err(error) => Err(links::unavailable(&error)),
        }
    }

    /// End an upload that is not finished. Of one that was ended before, the answer is the same again.
    pub(crate) async fn abort(self, call: Call<AbortUpload>) -> Result<Done, Problem> {
        let caller = call.account()?;
        let row = self.find(caller, call.request.id).await?;
        if row.status == Status::Aborted {
            return Ok(Done {});
        }
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let aborted = store::abort(&mut transaction, row.id).await.map_err(problem)?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        let Some(aborted) = aborted else {
            let row = self.find(caller, row.id).await?;
            return if row.status == Status::Aborted { Ok(Done {}) } else { Err(wrong_state(&row, "has ended")) };
        };
        self.0.purger.wake();
        ingest::forget_parts(&self.0.bucket, &aborted).await;
        Ok(Done {})
    }

    async fn find(&self, caller: Caller, id: UploadId) -> Result<Row, Problem> {
        let row = store::find(&self.0.pool, caller.account_id, id).await.map_err(problem)?;
        row.ok_or_else(|| Problem::not_found("upload"))
    }
}

fn incomplete(missing: &[u32]) -> Problem {
    let named: Vec<String> = missing.iter().take(NAMED_PARTS).map(u32::to_string).collect();
    let more = if missing.len() > NAMED_PARTS { " and others" } else { "" };
    let detail = format!(
        "{} parts are missing or not of their length: {}{more}; ask for their links and send them",
        missing.len(),
        named.join(", ")
    );
    Problem::new(Code::InvalidState, detail)
}

fn wrong_state(row: &Row, why: &str) -> Problem {
    Problem::new(Code::InvalidState, format!("the upload {why}: it is {}", row.status.as_str()))
}

fn looking_failed(error: ingest::Error) -> Problem {
    match error {
        ingest::Error::Bucket(error) => links::unavailable(&error),
        ingest::Error::Store(error) => problem(error),
    }
}

pub(super) fn problem(error: store::Error) -> Problem {
    match error {
        store::Error::QuotaExceeded => {
            Problem::new(Code::QuotaExceeded, "the account's storage does not hold it; delete files or ask for more quota")
        }
        store::Error::TooMany => {
            Problem::new(Code::TooMany, "the account has too many unfinished uploads; finish or delete some of them")
        }
        store::Error::Disabled => Problem::new(Code::Forbidden, "the account is disabled"),
        store::Error::Database(error) => database::problem(&error),
        error @ store::Error::Corrupt(_) => {
            error!(%error, "a request about an upload failed");
            Problem::internal()
        }
    }
}
