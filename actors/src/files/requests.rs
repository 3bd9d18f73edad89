//! What owners ask about their files.

use std::{sync::Arc, time::Duration};

use bowerbird_nats::{
    Code, Page, Problem,
    answer::Call,
    file::{DeleteFile, File, FileStatus, GetFile, Link, ListFiles, PresignFile},
    operation::Done,
};
use bowerbird_storage::{Audience, Bucket, Disposition, PresignGet};
use sqlx::PgPool;
use tracing::{error, warn};

use super::{PurgerAddress, content_type, store};
use crate::{
    cursor::{self, Cursors, List},
    database,
    downloads::check,
};

/// What the operations work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Requests(Arc<Collaborators>);

/// See [`Requests`].
pub(crate) struct Collaborators {
    pub(crate) pool: PgPool,
    pub(crate) bucket: Bucket,
    pub(crate) cursors: Cursors,
    pub(crate) purger: PurgerAddress,
    /// Life of a link.
    pub(crate) link_ttl: Duration,
}

impl Requests {
    /// Operations over these.
    pub(crate) fn new(collaborators: Collaborators) -> Self {
        Requests(Arc::new(collaborators))
    }

    /// One file.
    pub(crate) async fn get(self, call: Call<GetFile>) -> Result<File, Problem> {
        let caller = call.account()?;
        let stored = store::find(&self.0.pool, caller.account_id, call.request.id).await.map_err(problem)?;
        stored.map(|stored| stored.file).ok_or_else(unknown)
    }

    /// The caller's files, newest first.
    pub(crate) async fn list(self, call: Call<ListFiles>) -> Result<Page<File>, Problem> {
        let caller = call.account()?;
        let ListFiles { folder, q, limit, cursor } = call.request;
        let limit = cursor::limit(limit)?;
        check::search(q.as_deref())?;
        if let Some(folder) = &folder {
            let mut faults = check::Faults::default();
            check::folder(&mut faults, "folder", folder);
            faults.into_result()?;
        }
        let filters = [folder.as_deref(), q.as_deref()];
        let list = List { name: "files", account: caller.account_id, filters: &filters };
        let before = cursor.map(|cursor| self.0.cursors.read(&list, &cursor)).transpose()?;
        let pattern = q.as_deref().filter(|q| !q.is_empty()).map(check::containing);
        // One more than asked for says whether there is a next page.
        let mut files = store::list(&self.0.pool, caller.account_id, folder.as_deref(), pattern.as_deref(), before, limit + 1)
            .await
            .map_err(problem)?;
        let more = files.len() > limit as usize;
        files.truncate(limit as usize);
        let next_cursor = files.last().filter(|_| more).map(|last| self.0.cursors.after(&list, last.id.0));
        Ok(Page { items: files, next_cursor })
    }

    /// Delete a file and its object.
    pub(crate) async fn delete(self, call: Call<DeleteFile>) -> Result<Done, Problem> {
        let caller = call.account()?;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        if !store::delete(&mut transaction, caller.account_id, call.request.id).await.map_err(problem)? {
            return Err(unknown());
        }
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        self.0.purger.wake();
        Ok(Done {})
    }

    /// A short-lived link to the content.
    pub(crate) async fn presign(self, call: Call<PresignFile>) -> Result<Link, Problem> {
        let caller = call.account()?;
        let PresignFile { id, internal } = call.request;
        let stored = store::find(&self.0.pool, caller.account_id, id).await.map_err(problem)?.ok_or_else(unknown)?;
        if stored.file.status != FileStatus::Available {
            return Err(Problem::new(Code::InvalidState, "the content of this file is not available"));
        }
        let how = PresignGet {
            file_name: Some(stored.file.name),
            content_type: Some(content_type::inert(&stored.file.content_type).to_owned()),
            disposition: Disposition::Attachment,
        };
        let audience = if internal { Audience::Internal } else { Audience::Public };
        let link = self.0.bucket.presign_get(&stored.object_key, self.0.link_ttl, &how, audience).await.map_err(|error| {
            warn!(%error, "a link could not be signed");
            Problem::new(Code::StorageUnavailable, "the link could not be signed; try again")
        })?;
        Ok(Link { url: link.url.to_string(), expires_at: link.expires_at })
    }
}

fn unknown() -> Problem {
    Problem::not_found("file")
}

fn problem(error: store::Error) -> Problem {
    match error {
        store::Error::Database(error) => database::problem(&error),
        error => {
            error!(%error, "a request about a file failed");
            Problem::internal()
        }
    }
}
