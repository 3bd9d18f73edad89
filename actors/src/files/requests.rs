//! What owners ask about their files.

use std::{sync::Arc, time::Duration};

use bowerbird_lifecycle::Clock;
use bowerbird_nats::{
    AccountId, Code, FileId, Page, Problem,
    answer::Call,
    event,
    file::{
        Changed, Clearable, DeleteFile, File, FileChanges, FileStatus, GetFile, Link, ListFiles, Order, PresignFile, Renamed,
        Sort, UpdateFile,
    },
    operation::Done,
};
use bowerbird_storage::{Audience, Bucket, Disposition, PresignGet};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tracing::{error, warn};

use super::{
    PurgerAddress, check, content_type, page,
    shares::Seals,
    store::{
        self,
        change::{self, New, Place},
        folders,
        list::{self, Filters},
        trash,
    },
};
pub(super) use crate::downloads::check::changed;
use crate::{
    accounts::hashing::Hashing,
    alarms::{self, AlarmsAddress, Kind},
    cursor::{self, Cursors, List},
    database,
    downloads::check as texts,
};

/// What the operations work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Requests(pub(super) Arc<Collaborators>);

/// See [`Requests`].
pub(crate) struct Collaborators {
    pub(crate) pool: PgPool,
    pub(crate) bucket: Bucket,
    pub(crate) cursors: Cursors,
    pub(crate) purger: PurgerAddress,
    /// To be told of what is due soon.
    pub(crate) alarms: AlarmsAddress,
    /// Life of a link.
    pub(crate) link_ttl: Duration,
    /// How long the trash is kept.
    pub(crate) trash_grace: Duration,
    /// How long a replaced content is kept.
    pub(crate) keep_versions: Duration,
    /// Passwords of shares.
    pub(crate) hashing: Hashing,
    /// Tickets and grants.
    pub(crate) seals: Seals,
    pub(crate) clock: Clock,
    /// Where links lead: no slash at the end.
    pub(crate) public_url: String,
}

impl Requests {
    /// Operations over these.
    pub(crate) fn new(collaborators: Collaborators) -> Self {
        Requests(Arc::new(collaborators))
    }

    /// One file.
    pub(crate) async fn get(self, call: Call<GetFile>) -> Result<File, Problem> {
        let caller = call.account()?;
        let stored = list::find(&self.0.pool, caller.account_id, call.request.id).await.map_err(problem)?;
        stored.map(|stored| stored.file).ok_or_else(unknown)
    }

    /// The caller's files, as they are asked for.
    pub(crate) async fn list(self, call: Call<ListFiles>) -> Result<Page<File>, Problem> {
        let caller = call.account()?;
        let mut asked = call.request;
        let limit = cursor::limit(asked.limit)?;
        check::list(&mut asked)?;
        let cursor = asked.cursor.take();
        asked.limit = None;
        let sort = asked.sort.unwrap_or_default();
        let descending = asked.order.map_or(sort != Sort::Name, |order| order == Order::Desc);
        // All of it together is which list this is.
        let narrowed = json!(asked).to_string();
        let of = List { name: "files", account: caller.account_id, filters: &[Some(&narrowed)] };
        let after = cursor.map(|cursor| page::read(&self.0.cursors, &of, &cursor, sort)).transpose()?;
        let folder = match &asked.folder {
            None => None,
            Some(path) => match folders::find_path(&self.0.pool, caller.account_id, path).await.map_err(problem)? {
                Some(folder) => Some(folder.id),
                None => return Ok(Page { items: Vec::new(), next_cursor: None }),
            },
        };
        let pattern = asked.q.as_deref().filter(|q| !q.is_empty()).map(texts::containing);
        let filters = Filters {
            folder,
            pattern: pattern.as_deref(),
            content_type: asked.content_type.as_deref(),
            tags: &asked.tags,
            min_size_bytes: asked.min_size_bytes,
            max_size_bytes: asked.max_size_bytes,
            created_after: asked.created_after,
            created_before: asked.created_before,
            updated_after: asked.updated_after,
            updated_before: asked.updated_before,
            status: asked.status,
        };
        // One more than asked for says whether there is a next page.
        let order = list::Order { sort, descending, after: after.as_ref() };
        let listed = list::list(&self.0.pool, caller.account_id, &filters, order, limit + 1).await;
        let (mut listed, beyond) = listed.map_err(problem)?;
        let fits = page::fitting(listed.iter().map(|(file, _)| file)).min(limit as usize);
        let more = listed.len() > fits;
        listed.truncate(fits);
        // A page that is not full goes on behind what was looked at for it.
        let end = listed.last().filter(|_| more).map(|(_, mark)| mark).or(beyond.as_ref());
        let next_cursor = end.map(|mark| page::after(&self.0.cursors, &of, mark));
        Ok(Page { items: listed.into_iter().map(|(file, _)| file).collect(), next_cursor })
    }

    /// Change a file.
    pub(crate) async fn update(self, call: Call<UpdateFile>) -> Result<File, Problem> {
        let account = call.account()?.account_id;
        let UpdateFile { id, if_version, changes } = call.request;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let timed = is_timed(&changes);
        let file = self.change(&mut transaction, account, id, if_version, changes).await?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        if timed {
            self.0.alarms.look();
        }
        Ok(file)
    }

    /// Change a file in a transaction of the caller's.
    pub(super) async fn change(
        &self,
        connection: &mut PgConnection,
        account: AccountId,
        id: FileId,
        if_version: Option<i64>,
        mut changes: FileChanges,
    ) -> Result<File, Problem> {
        let now = store::now(connection).await.map_err(problem)?;
        check::changes(&mut changes, now)?;
        let there = change::folder_of(connection, account, id).await.map_err(problem)?.ok_or_else(unknown)?;
        let timed = is_timed(&changes);
        if timed {
            alarms::hold(connection, Kind::FileExpiry, id.0).await.map_err(|error| database::problem(&error))?;
        }
        let moved = changes.name.is_some() || changes.folder.is_some();
        let folder = match &changes.folder {
            _ if !moved => None,
            Some(path) => Some(folders::hold_path(connection, account, path).await.map_err(problem)?),
            None => folders::hold(connection, account, there).await.map_err(problem)?,
        };
        let old = change::hold(connection, account, id).await.map_err(problem)?.ok_or_else(unknown)?;
        if let Some(version) = if_version.filter(|version| *version != old.version) {
            return Err(changed(version, old.version));
        }
        // Somebody moved it between the two looks at it.
        if moved && changes.folder.is_none() && folder.as_ref().map(|folder| folder.id) != old.folder_id {
            return Err(Problem::unavailable("the file is being moved by somebody else; try again", 1));
        }
        let mut place = Place::Free(old.name.clone());
        let folder_id = folder.as_ref().map(|folder| folder.id).or(old.folder_id).ok_or_else(Problem::internal)?;
        let wanted = changes.name.clone().unwrap_or_else(|| old.name.clone());
        if wanted != old.name || Some(folder_id) != old.folder_id {
            let on_collision = changes.on_collision.unwrap_or_default();
            place = change::choose(connection, folder_id, &wanted, on_collision).await.map_err(problem)?;
        }
        let file = match place {
            Place::Of(replaced) => {
                if moves_more_than_content(&changes) {
                    return Err(Problem::invalid(
                        "on_collision",
                        "replace keeps what the other file says of itself: change tags, description and expiry there",
                    ));
                }
                if old.status != FileStatus::Available {
                    // The good content would become a version that cannot be had back.
                    return Err(Problem::new(Code::InvalidState, "only a file that is available can replace another"));
                }
                change::replace(connection, account, replaced, id, self.0.keep_versions).await.map_err(problem)?
            }
            Place::Free(name) => {
                let tags = changes.tags.as_ref().unwrap_or(&old.tags);
                let cleared = |what| changes.clear.contains(&what);
                let description = if cleared(Clearable::Description) {
                    None
                } else {
                    changes.description.as_ref().or(old.description.as_ref())
                };
                let expires_at = if cleared(Clearable::ExpiresAt) { None } else { changes.expires_at.or(old.expires_at) };
                let new = New { name: &name, folder: folder_id, tags, description: description.map(String::as_str), expires_at };
                let file = change::change(connection, id, &new).await.map_err(problem)?;
                if timed {
                    match file.expires_at {
                        Some(at) => alarms::arm(connection, Kind::FileExpiry, id.0, at).await,
                        None => alarms::cancel(connection, Kind::FileExpiry, id.0).await.map(|_| ()),
                    }
                    .map_err(|error| database::problem(&error))?;
                }
                self.tell(connection, account, &old, &file).await?;
                file
            }
        };
        Ok(file)
    }

    async fn tell(&self, connection: &mut PgConnection, account: AccountId, old: &File, file: &File) -> Result<(), Problem> {
        if (&old.name, &old.folder) != (&file.name, &file.folder) {
            let data = Renamed { file: file.clone(), old_name: old.name.clone(), old_folder: old.folder.clone() };
            change::tell(connection, event::FILE_RENAMED, account, file.id.0, &data).await.map_err(problem)?;
        }
        if (&old.tags, &old.description, old.expires_at) != (&file.tags, &file.description, file.expires_at) {
            let data = Changed { file: file.clone() };
            change::tell(connection, event::FILE_UPDATED, account, file.id.0, &data).await.map_err(problem)?;
        }
        Ok(())
    }

    /// Move a file to the trash.
    pub(crate) async fn delete(self, call: Call<DeleteFile>) -> Result<Done, Problem> {
        let caller = call.account()?;
        self.trash_file(caller.account_id, call.request.id).await?;
        Ok(Done {})
    }

    async fn trash_file(&self, account: AccountId, id: FileId) -> Result<(), Problem> {
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        if !trash::trash_file(&mut transaction, account, id, self.0.trash_grace).await.map_err(problem)? {
            return Err(unknown());
        }
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        // With no grace at all it is due now.
        self.0.alarms.look();
        Ok(())
    }

    /// A short-lived link to the content.
    pub(crate) async fn presign(self, call: Call<PresignFile>) -> Result<Link, Problem> {
        let caller = call.account()?;
        let PresignFile { id, internal } = call.request;
        let stored = list::find(&self.0.pool, caller.account_id, id).await.map_err(problem)?.ok_or_else(unknown)?;
        if stored.file.status != FileStatus::Available {
            return Err(Problem::new(Code::InvalidState, "the content of this file is not available"));
        }
        let audience = if internal { Audience::Internal } else { Audience::Public };
        self.link(&stored.object_key, &stored.file, self.0.link_ttl, audience).await
    }

    /// A link to the content of a file, under a type that runs nothing, as an attachment.
    pub(super) async fn link(&self, key: &str, file: &File, ttl: Duration, audience: Audience) -> Result<Link, Problem> {
        let how = PresignGet {
            file_name: Some(file.name.clone()),
            content_type: Some(content_type::inert(&file.content_type).to_owned()),
            disposition: Disposition::Attachment,
        };
        let link = self.0.bucket.presign_get(key, ttl, &how, audience).await.map_err(|error| {
            warn!(%error, "a link could not be signed");
            Problem::new(Code::StorageUnavailable, "the link could not be signed; try again")
        })?;
        Ok(Link { url: link.url.to_string(), expires_at: link.expires_at })
    }
}

/// Whether its alarm is to be moved.
fn is_timed(changes: &FileChanges) -> bool {
    changes.expires_at.is_some() || changes.clear.contains(&Clearable::ExpiresAt)
}

/// A file that takes another one's place brings its content and nothing else.
fn moves_more_than_content(changes: &FileChanges) -> bool {
    changes.tags.is_some() || changes.description.is_some() || changes.expires_at.is_some() || !changes.clear.is_empty()
}

pub(super) fn unknown() -> Problem {
    Problem::not_found("file")
}

/// Why a folder cannot be there.
pub(super) fn does_not_fit() -> String {
    format!(
        "what is in the folder would lie deeper than {} folders, or have a path of more than {} bytes; shorten a name above it first",
        folders::MAX_DEPTH,
        folders::MAX_PATH_BYTES
    )
}

pub(super) fn problem(error: store::Error) -> Problem {
    match error {
        store::Error::Database(error) => database::problem(&error),
        store::Error::NameTaken => Problem::new(
            Code::NameTaken,
            "something in this folder has this name; choose another, or say with `on_collision` what is to be done",
        ),
        store::Error::QuotaExceeded => Problem::new(
            Code::QuotaExceeded,
            "the account's storage does not hold it; purge files in the trash or ask for more quota",
        ),
        store::Error::DoesNotFit => Problem::new(Code::InvalidState, does_not_fit()),
        store::Error::TooLarge => Problem::new(
            Code::TooMany,
            format!(
                "the folder holds more than {} files, which is more than one step may move; do it folder by folder",
                trash::SUBTREE_MAX
            ),
        ),
        error => {
            error!(%error, "a request about a file failed");
            Problem::internal()
        }
    }
}
