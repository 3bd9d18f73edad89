//! Copies of files, and contents that they had before.

use std::time::Duration;

use bowerbird_nats::{
    Code, Problem,
    answer::Call,
    file::{CopyFile, File, FileStatus, FileVersions, ListVersions, OnCollision, RestoreVersion},
};
use bowerbird_storage::ErrorKind;
use tracing::warn;

use super::{
    requests::{Requests, problem, unknown},
    store::{
        change::{self, Place},
        contents::{self, Copied},
        folders, list,
    },
};
use crate::{
    database,
    downloads::check::{self as texts, Faults},
    idempotency,
};

/// How long a copy may take. What is not finished then is cleared away.
const COPY_WITHIN: Duration = Duration::from_hours(1);
/// Versions of a file that are told.
const VERSIONS: i64 = 200;

impl Requests {
    /// Copy a file.
    pub(crate) async fn copy(self, call: Call<CopyFile>) -> Result<File, Problem> {
        let account = call.account()?.account_id;
        let key = idempotency::Request::new(Some(account), "file.copy", call.idempotency_key, &call.fingerprint)?;
        let CopyFile { id, target } = call.request;
        let mut faults = Faults::default();
        if let Some(name) = &target.name {
            texts::file_name(&mut faults, "name", name);
        }
        if let Some(path) = &target.folder {
            texts::folder(&mut faults, "folder", path);
        }
        faults.into_result()?;
        let stored = list::find(&self.0.pool, account, id).await.map_err(problem)?.ok_or_else(unknown)?;
        if stored.file.status != FileStatus::Available {
            return Err(Problem::new(Code::InvalidState, "the content of this file is not available"));
        }

        let (new, prefix, object_key) = contents::place_of_copy(account);
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        // Looked at twice: here so that a repeat copies nothing, and when it is finished, where the key is kept.
        if let idempotency::Begun::Done(before) = idempotency::begin(&mut transaction, key.clone()).await? {
            transaction.rollback().await.map_err(|error| database::problem(&error))?;
            return Ok(before);
        }
        transaction.rollback().await.map_err(|error| database::problem(&error))?;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let size_bytes = stored.file.size_bytes;
        let purge = contents::begin_copy(&mut transaction, account, &prefix, size_bytes, COPY_WITHIN).await.map_err(problem)?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;

        let size = u64::try_from(size_bytes).map_err(|_| Problem::internal())?;
        let etag = stored.file.etag.trim_matches('"');
        let finished = match self.0.bucket.copy(&stored.object_key, &object_key, size, etag).await {
            Ok(copied) => {
                let name = target.name.as_deref().unwrap_or(&stored.file.name);
                let folder = target.folder.as_deref().unwrap_or(&stored.file.folder);
                let on_collision = target.on_collision.unwrap_or(OnCollision::Rename);
                let copied = (purge, new, copied.etag.as_str(), object_key.as_str(), stored.object_key.as_str());
                self.finish_copy(account, id, copied, (folder, name, on_collision), key).await
            }
            Err(error) if matches!(error.kind(), ErrorKind::NoSuchKey | ErrorKind::PreconditionFailed) => Err(changing()),
            Err(error) => {
                warn!(%error, "a file could not be copied");
                Err(Problem::new(Code::StorageUnavailable, "the object store did not copy the file; try again"))
            }
        };
        if finished.is_err() {
            if let Err(error) = contents::give_up_copy(&self.0.pool, purge).await {
                warn!(%error, "a copy that failed is cleared away later");
            }
            self.0.purger.wake();
        }
        finished
    }

    async fn finish_copy(
        &self,
        account: bowerbird_nats::AccountId,
        of: bowerbird_nats::FileId,
        (purge, id, etag, object_key, source_key): (i64, bowerbird_nats::FileId, &str, &str, &str),
        (folder, wanted, on_collision): (&str, &str, OnCollision),
        key: Option<idempotency::Request>,
    ) -> Result<File, Problem> {
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let ticket = match idempotency::begin::<File>(&mut transaction, key).await? {
            // Another try was faster; this copy goes.
            idempotency::Begun::Done(before) => {
                transaction.rollback().await.map_err(|error| database::problem(&error))?;
                contents::give_up_copy(&self.0.pool, purge).await.map_err(problem)?;
                self.0.purger.wake();
                return Ok(before);
            }
            idempotency::Begun::New(ticket) => ticket,
        };
        let folder = folders::hold_path(&mut transaction, account, folder).await.map_err(problem)?;
        let place = change::choose(&mut transaction, folder.id, wanted, on_collision).await.map_err(problem)?;
        let (name, replaced) = match place {
            Place::Free(name) => (name, None),
            Place::Of(replaced) => {
                (folders::free_name(&mut transaction, folder.id, wanted).await.map_err(problem)?, Some(replaced))
            }
        };
        if replaced == Some(of) {
            return Err(Problem::invalid("on_collision", "a file cannot be replaced by a copy of itself"));
        }
        let copied = Copied { purge, id, of, name: &name, folder: folder.id.0, etag, object_key, source_key };
        let file = contents::finish_copy(&mut transaction, account, &copied).await.map_err(problem)?.ok_or_else(changing)?;
        let file = match replaced {
            None => file,
            Some(replaced) => {
                change::replace(&mut transaction, account, replaced, id, self.0.keep_versions).await.map_err(problem)?
            }
        };
        idempotency::finish(&mut transaction, ticket, &file).await?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        Ok(file)
    }

    /// Contents that a file had.
    pub(crate) async fn list_versions(self, call: Call<ListVersions>) -> Result<FileVersions, Problem> {
        let account = call.account()?.account_id;
        let items = contents::versions(&self.0.pool, account, call.request.id, VERSIONS).await.map_err(problem)?;
        Ok(FileVersions { items: items.ok_or_else(unknown)? })
    }

    /// Give a file a content back.
    pub(crate) async fn restore_version(self, call: Call<RestoreVersion>) -> Result<File, Problem> {
        let account = call.account()?.account_id;
        let RestoreVersion { id, version_id } = call.request;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let file = change::hold(&mut transaction, account, id).await.map_err(problem)?.ok_or_else(unknown)?;
        if file.status != FileStatus::Available {
            return Err(Problem::new(Code::InvalidState, "the content of this file is not available"));
        }
        let keep = self.0.keep_versions;
        let restored = contents::bring_back(&mut transaction, account, id, version_id, keep).await.map_err(problem)?;
        let restored = restored.ok_or_else(|| Problem::not_found("version of this file"))?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        Ok(restored)
    }
}

fn changing() -> Problem {
    Problem::unavailable("the file was changed or deleted while it was copied; look at it and try again", 1)
}
