//! Something done to many files. Each stands for itself; many share a transaction, as a commit costs more than what it holds.

use std::collections::{BTreeMap, BTreeSet};

use bowerbird_nats::{
    AccountId, FileId, Problem,
    answer::Call,
    file::{BulkAction, BulkError, BulkFiles, BulkItem, BulkResult, FileChanges, OnCollision},
};
use sqlx::{Acquire as _, PgConnection};

use super::{
    check,
    requests::{Requests, problem, unknown},
    store::{change, trash},
};
use crate::{
    alarms::{self, Kind},
    database,
    downloads::check::{self as texts, Faults},
};

/// Files of one request.
const MOST: usize = 1000;
/// Files of one transaction.
const BATCH: usize = 50;

type Outcomes = BTreeMap<FileId, Result<(), Problem>>;

impl Requests {
    /// Do something to many files.
    pub(crate) async fn bulk(self, call: Call<BulkFiles>) -> Result<BulkResult, Problem> {
        let account = call.account()?.account_id;
        let mut asked = call.request;
        check(&mut asked)?;
        // In the order of ids, so that two who ask for the same files do not wait for each other in a circle.
        let ids: Vec<FileId> = asked.ids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let mut outcomes = Outcomes::new();
        for batch in ids.chunks(BATCH) {
            let mut done = Outcomes::new();
            let worked = match asked.action {
                BulkAction::Trash => self.trash_many(account, batch, &mut done).await,
                BulkAction::Restore => self.restore_many(account, batch, asked.on_collision, &mut done).await,
                BulkAction::Move | BulkAction::Tag | BulkAction::Untag => {
                    self.change_many(account, batch, &asked, &mut done).await
                }
            };
            if let Err(problem) = worked {
                // The transaction is gone, and with it what it had done.
                done = batch.iter().map(|id| (*id, Err(problem.clone()))).collect();
            }
            outcomes.extend(done);
        }
        self.0.alarms.look();
        let item = |id: &FileId| {
            let failed = outcomes.get(id).and_then(|outcome| outcome.as_ref().err());
            BulkItem { id: *id, error: failed.map(|problem| BulkError { code: problem.code, detail: problem.detail.clone() }) }
        };
        Ok(BulkResult { items: asked.ids.iter().map(item).collect() })
    }

    async fn trash_many(&self, account: AccountId, batch: &[FileId], done: &mut Outcomes) -> Result<(), Problem> {
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let ids: Vec<_> = batch.iter().map(|id| id.0).collect();
        let grace = self.0.trash_grace;
        let trashed = trash::trash_files(&mut transaction, Some(account), &ids, grace, false).await.map_err(problem)?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        let trashed: BTreeSet<FileId> = trashed.iter().map(|(_, file)| file.id).collect();
        done.extend(batch.iter().map(|id| (*id, if trashed.contains(id) { Ok(()) } else { Err(unknown()) })));
        Ok(())
    }

    async fn restore_many(
        &self,
        account: AccountId,
        batch: &[FileId],
        on_collision: Option<OnCollision>,
        done: &mut Outcomes,
    ) -> Result<(), Problem> {
        let on_collision = on_collision.unwrap_or(OnCollision::Rename);
        for id in batch {
            // Each on its own: they hold folders in no order.
            let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
            alarms::hold(&mut transaction, Kind::Trash, id.0).await.map_err(|error| database::problem(&error))?;
            let restored = trash::restore(&mut transaction, account, id.0, on_collision).await.map_err(problem);
            let outcome = match restored {
                Ok(Some(_)) => transaction.commit().await.map_err(|error| database::problem(&error)),
                Ok(None) => Err(unknown()),
                Err(problem) => Err(problem),
            };
            done.insert(*id, outcome);
        }
        Ok(())
    }

    async fn change_many(
        &self,
        account: AccountId,
        batch: &[FileId],
        asked: &BulkFiles,
        done: &mut Outcomes,
    ) -> Result<(), Problem> {
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        for id in batch {
            let mut inner = transaction.begin().await.map_err(|error| database::problem(&error))?;
            let outcome = self.change_one(&mut inner, account, *id, asked).await;
            let ended = if outcome.is_ok() { inner.commit().await } else { inner.rollback().await };
            ended.map_err(|error| database::problem(&error))?;
            done.insert(*id, outcome);
        }
        transaction.commit().await.map_err(|error| database::problem(&error))
    }

    async fn change_one(
        &self,
        connection: &mut PgConnection,
        account: AccountId,
        id: FileId,
        asked: &BulkFiles,
    ) -> Result<(), Problem> {
        let mut changes = FileChanges { on_collision: asked.on_collision, ..FileChanges::default() };
        if asked.action == BulkAction::Move {
            changes.folder.clone_from(&asked.folder);
        } else {
            let file = change::hold(connection, account, id).await.map_err(problem)?.ok_or_else(unknown)?;
            let mut tags: BTreeSet<String> = file.tags.iter().cloned().collect();
            for tag in &asked.tags {
                if asked.action == BulkAction::Tag {
                    tags.insert(tag.clone())
                } else {
                    tags.remove(tag)
                };
            }
            let tags: Vec<String> = tags.into_iter().collect();
            if tags == file.tags {
                return Ok(());
            }
            changes.tags = Some(tags);
        }
        self.change(connection, account, id, None, changes).await.map(|_| ())
    }
}

fn check(asked: &mut BulkFiles) -> Result<(), Problem> {
    let mut faults = Faults::default();
    faults.unless((1..=MOST).contains(&asked.ids.len()), "ids", "must be from 1 to 1000");
    let moves = asked.action == BulkAction::Move;
    match &asked.folder {
        Some(path) if moves => texts::folder(&mut faults, "folder", path),
        Some(_) => faults.add("folder", "is only taken for move"),
        None => faults.unless(!moves, "folder", "is missing: where are they to move?"),
    }
    let tags = matches!(asked.action, BulkAction::Tag | BulkAction::Untag);
    check::tags(&mut faults, &mut asked.tags);
    faults.unless(tags != asked.tags.is_empty(), "tags", "must be given for tag and untag, and for nothing else");
    check::not_replace(&mut faults, asked.on_collision);
    faults.into_result()
}
