//! What owners ask about their folders.

use bowerbird_nats::{
    Code, Problem,
    answer::Call,
    event,
    file::{File, OnCollision},
    folder::{Changed, CreateFolder, DeleteFolder, Folder, GetFolder, Item, ListFolder, Listing, Renamed, UpdateFolder},
    operation::Done,
};
use uuid::Uuid;

use super::{
    check, page,
    requests::{Requests, changed, does_not_fit, problem},
    store::{change, folders, list, trash},
};
use crate::{
    cursor::{self, List},
    database,
    downloads::check as texts,
    idempotency,
};

impl Requests {
    /// Make a folder, and those above it.
    pub(crate) async fn create_folder(self, call: Call<CreateFolder>) -> Result<Folder, Problem> {
        let account = call.account()?.account_id;
        let key = idempotency::Request::new(Some(account), "folder.create", call.idempotency_key, &call.fingerprint)?;
        let CreateFolder { path, on_collision } = call.request;
        let mut faults = texts::Faults::default();
        texts::folder(&mut faults, "path", &path);
        faults.unless(path != "/", "path", "is the root, which is always there");
        check::not_replace(&mut faults, on_collision);
        faults.into_result()?;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let ticket = match idempotency::begin(&mut transaction, key).await? {
            idempotency::Begun::Done(before) => {
                transaction.rollback().await.map_err(|error| database::problem(&error))?;
                return Ok(before);
            }
            idempotency::Begun::New(ticket) => ticket,
        };
        folders::hold_root(&mut transaction, account).await.map_err(problem)?;
        let (parent, wanted) = folders::split(&path);
        let parent = folders::hold_path(&mut transaction, account, parent).await.map_err(problem)?;
        let name = folders::free_path(&mut transaction, account, &parent.path, wanted).await.map_err(problem)?;
        if name != wanted && on_collision != Some(OnCollision::Rename) {
            return Err(taken());
        }
        let folder = folders::insert(&mut transaction, account, &parent, &name).await.map_err(problem)?;
        let data = Changed { folder: folder.clone() };
        change::tell(&mut transaction, event::FOLDER_CREATED, account, folder.id.0, &data).await.map_err(problem)?;
        idempotency::finish(&mut transaction, ticket, &folder).await?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        Ok(folder)
    }

    /// One folder.
    pub(crate) async fn get_folder(self, call: Call<GetFolder>) -> Result<Folder, Problem> {
        let account = call.account()?.account_id;
        folders::find(&self.0.pool, account, call.request.id).await.map_err(problem)?.ok_or_else(unknown)
    }

    /// What is in a folder: folders first, then files, each by name.
    pub(crate) async fn list_folder(self, call: Call<ListFolder>) -> Result<Listing, Problem> {
        let account = call.account()?.account_id;
        let ListFolder { id, path, limit, cursor } = call.request;
        let limit = cursor::limit(limit)?;
        let folder = match (id, path) {
            (Some(_), Some(_)) => return Err(Problem::invalid("path", "is not taken together with id")),
            (Some(id), None) => folders::find(&self.0.pool, account, id).await.map_err(problem)?,
            (None, path) => {
                let path = path.unwrap_or_else(|| "/".to_owned());
                let mut faults = texts::Faults::default();
                texts::folder(&mut faults, "path", &path);
                faults.into_result()?;
                let found = folders::find_path(&self.0.pool, account, &path).await.map_err(problem)?;
                if found.is_none() && path == "/" { Some(self.root(account).await?) } else { found }
            }
        };
        let folder = folder.ok_or_else(unknown)?;
        let of = folder.id.to_string();
        let of = List { name: "folder", account, filters: &[Some(&of)] };
        let after = cursor.map(|cursor| self.0.cursors.read_value(&of, &cursor)).transpose()?;
        // Which half it ended in, and the name there.
        let (in_files, after) = match &after {
            None => (false, None),
            Some((_, value)) => (value.starts_with('f'), value.get(1..)),
        };
        let limit = limit as usize;
        let mut items: Vec<(String, Uuid, Item)> = Vec::new();
        if !in_files {
            let found = folders::children(&self.0.pool, folder.id, after, wanted(limit + 1)).await.map_err(problem)?;
            let item = |folder: Folder| (format!("d{}", folder.name), folder.id.0, Item { folder: Some(folder), file: None });
            items.extend(found.into_iter().map(item));
        }
        let mut fits = limit;
        if items.len() <= limit {
            let after = if in_files { after } else { None };
            let room = wanted(limit + 1 - items.len());
            let found = list::children(&self.0.pool, folder.id, after, room).await.map_err(problem)?;
            fits = limit.min(items.len() + page::fitting(found.iter()));
            let item = |file: File| (format!("f{}", file.name), file.id.0, Item { folder: None, file: Some(file) });
            items.extend(found.into_iter().map(item));
        }
        let more = items.len() > fits;
        items.truncate(fits);
        let last = items.last().filter(|_| more);
        let next_cursor = last.map(|(value, id, _)| self.0.cursors.after_value(&of, *id, value));
        Ok(Listing { folder, items: items.into_iter().map(|(_, _, item)| item).collect(), next_cursor })
    }

    /// The root of an account that had no folder yet.
    async fn root(&self, account: bowerbird_nats::AccountId) -> Result<Folder, Problem> {
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let root = folders::hold_root(&mut transaction, account).await.map_err(problem)?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        Ok(root)
    }

    /// Rename or move a folder.
    pub(crate) async fn update_folder(self, call: Call<UpdateFolder>) -> Result<Folder, Problem> {
        let account = call.account()?.account_id;
        let UpdateFolder { id, if_version, changes } = call.request;
        check::folder_changes(&changes)?;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        folders::hold_root(&mut transaction, account).await.map_err(problem)?;
        let old = folders::hold(&mut transaction, account, id).await.map_err(problem)?.ok_or_else(unknown)?;
        if let Some(version) = if_version.filter(|version| *version != old.version) {
            return Err(changed(version, old.version));
        }
        let Some(parent_id) = old.parent_id else {
            return Err(Problem::new(Code::InvalidState, "this is the root, which stays where it is"));
        };
        let parent = match &changes.parent {
            Some(path) => {
                // Before anything is made below it.
                if *path == old.path || path.starts_with(&format!("{}/", old.path)) {
                    return Err(Problem::invalid("parent", "is the folder itself or lies in it"));
                }
                folders::hold_path(&mut transaction, account, path).await.map_err(problem)?
            }
            None => folders::hold(&mut transaction, account, parent_id).await.map_err(problem)?.ok_or_else(unknown)?,
        };
        let wanted = changes.name.as_deref().unwrap_or(&old.name);
        if (parent.id, wanted) == (parent_id, old.name.as_str()) {
            return Ok(old);
        }
        let name = folders::free_path(&mut transaction, account, &parent.path, wanted).await.map_err(problem)?;
        if name != wanted && changes.on_collision != Some(OnCollision::Rename) {
            return Err(taken());
        }
        let (depth, bytes) = folders::extent(&mut transaction, account, &old.path).await.map_err(problem)?;
        let path = folders::join(&parent.path, &name);
        if !folders::fits(&path, depth, bytes) {
            let why = does_not_fit();
            return Err(Problem::invalid(if changes.parent.is_some() { "parent" } else { "name" }, why));
        }
        let folder = folders::relocate(&mut transaction, account, &old, &parent, &name).await.map_err(problem)?;
        let data = Renamed { folder: folder.clone(), old_path: old.path };
        change::tell(&mut transaction, event::FOLDER_RENAMED, account, id.0, &data).await.map_err(problem)?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        Ok(folder)
    }

    /// Move a folder with everything in it to the trash.
    pub(crate) async fn delete_folder(self, call: Call<DeleteFolder>) -> Result<Done, Problem> {
        let account = call.account()?.account_id;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        folders::hold_root(&mut transaction, account).await.map_err(problem)?;
        let folder = folders::hold(&mut transaction, account, call.request.id).await.map_err(problem)?.ok_or_else(unknown)?;
        if folder.parent_id.is_none() {
            return Err(Problem::new(Code::InvalidState, "this is the root; delete what is in it"));
        }
        trash::trash_folder(&mut transaction, account, &folder, self.0.trash_grace).await.map_err(problem)?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        self.0.alarms.look();
        Ok(Done {})
    }
}

fn wanted(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

pub(super) fn unknown() -> Problem {
    Problem::not_found("folder")
}

fn taken() -> Problem {
    Problem::new(Code::NameTaken, "there is a folder at this path; choose another name, or say `on_collision`: `rename`")
}
