//! The trash: what owners ask about it, and what its alarms do.

use std::{sync::Arc, time::Duration};

use bowerbird_nats::{
    Page, Problem,
    answer::Call,
    file::OnCollision,
    operation::Done,
    trash::{ListTrash, PurgeTrashed, RestoreTrashed, Restored, Trashed},
};
use futures_util::future::BoxFuture;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    PurgerAddress, check, page,
    requests::{Requests, problem},
    store::{self, trash},
};
use crate::{
    alarms::{self, Due, Kind, WakeError, Wakes},
    cursor::{self, List},
    database,
    downloads::check::Faults,
};

impl Requests {
    /// What is in the trash.
    pub(crate) async fn list_trash(self, call: Call<ListTrash>) -> Result<Page<Trashed>, Problem> {
        let account = call.account()?.account_id;
        let limit = cursor::limit(call.request.limit)?;
        let of = List { name: "trash", account, filters: &[] };
        let before = call.request.cursor.map(|cursor| page::read_time(&self.0.cursors, &of, &cursor)).transpose()?;
        let mut items = trash::list(&self.0.pool, account, before, limit + 1).await.map_err(problem)?;
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let last = items.last().filter(|_| more);
        let next_cursor = last.map(|last| page::after_time(&self.0.cursors, &of, last.deleted_at, last.id));
        Ok(Page { items, next_cursor })
    }

    /// Take something out of the trash.
    pub(crate) async fn restore(self, call: Call<RestoreTrashed>) -> Result<Restored, Problem> {
        let account = call.account()?.account_id;
        let RestoreTrashed { id, on_collision } = call.request;
        let mut faults = Faults::default();
        check::not_replace(&mut faults, on_collision);
        faults.into_result()?;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        // If it is just being given up, this waits, and sees so.
        alarms::hold(&mut transaction, Kind::Trash, id).await.map_err(|error| database::problem(&error))?;
        let on_collision = on_collision.unwrap_or(OnCollision::Rename);
        let restored = trash::restore(&mut transaction, account, id, on_collision).await.map_err(problem)?.ok_or_else(unknown)?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        Ok(restored)
    }

    /// Purge something in the trash now.
    pub(crate) async fn purge(self, call: Call<PurgeTrashed>) -> Result<Done, Problem> {
        let account = call.account()?.account_id;
        let id = call.request.id;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        alarms::hold(&mut transaction, Kind::Trash, id).await.map_err(|error| database::problem(&error))?;
        if trash::give_up(&mut transaction, Some(account), &[id]).await.map_err(problem)? == 0 {
            return Err(unknown());
        }
        alarms::cancel(&mut transaction, Kind::Trash, id).await.map_err(|error| database::problem(&error))?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        self.0.purger.wake();
        Ok(Done {})
    }
}

fn unknown() -> Problem {
    Problem::not_found("thing in the trash")
}

/// An area cannot be woken.
pub(super) fn failed(error: store::Error) -> WakeError {
    match error {
        store::Error::Database(error) => WakeError::Database(error),
        error => WakeError::Failed(error.to_string()),
    }
}

/// Wakes what has been in the trash for long enough.
pub(super) struct Over(pub(super) PurgerAddress);

impl Wakes for Over {
    fn kind(&self) -> Kind {
        Kind::Trash
    }

    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async move {
            let ids: Vec<Uuid> = due.iter().map(|due| due.subject_id).collect();
            trash::give_up(connection, None, &ids).await.map_err(failed)?;
            // Should the database's clock have gone back since.
            let later = trash::not_over(connection, &ids).await.map_err(failed)?;
            alarms::arm_many(connection, Kind::Trash, &later).await?;
            Ok(())
        })
    }

    fn committed(&self, _: &[Due]) {
        self.0.wake();
    }
}

/// Wakes files whose time is over: they move to the trash.
pub(super) struct Expired {
    pub(super) trash_grace: Duration,
}

impl Expired {
    /// As one of those that are woken.
    pub(super) fn wakes(trash_grace: Duration) -> Arc<dyn Wakes> {
        Arc::new(Expired { trash_grace })
    }
}

impl Wakes for Expired {
    fn kind(&self) -> Kind {
        Kind::FileExpiry
    }

    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async move {
            let ids: Vec<Uuid> = due.iter().map(|due| due.subject_id).collect();
            trash::trash_files(connection, None, &ids, self.trash_grace, true).await.map_err(failed)?;
            let later = trash::not_expired(connection, &ids).await.map_err(failed)?;
            alarms::arm_many(connection, Kind::FileExpiry, &later).await?;
            Ok(())
        })
    }
}
