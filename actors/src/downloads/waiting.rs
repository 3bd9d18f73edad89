//! Downloads that wait for a time: those that were asked for later, and those whose next try is later. An alarm says when;
//! the row says whether.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{dispatcher, store};
use crate::{
    alarms::{Due, Kind, WakeError, Wakes},
    janitor::Sweep,
    supervision::Address,
};

/// How often finished downloads are tidied.
const TIDYING: Duration = Duration::from_mins(10);
/// How long what a failed download stored waits for a `retry`.
const KEEP_PARTS: Duration = Duration::from_hours(24);
/// The sweep's place among all sweeps.
const SWEEP: u128 = 0x0d01;

/// Has downloads run when their time has come.
pub(super) struct Waiting {
    pub(super) dispatcher: Address<dispatcher::Message>,
}

impl Wakes for Waiting {
    fn kind(&self) -> Kind {
        Kind::Download
    }

    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async move {
            let ids: Vec<Uuid> = due.iter().map(|due| due.subject_id).collect();
            store::begin(connection, &ids).await?;
            Ok(())
        })
    }

    fn committed(&self, _: &[Due]) {
        // One that is not there looks when it starts.
        let _ = self.dispatcher.cast(dispatcher::Message::Look);
    }
}

impl From<store::Error> for WakeError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Database(error) => WakeError::Database(error),
            other => WakeError::Failed(other.to_string()),
        }
    }
}

/// Takes finished downloads off their lists after `keep_finished`, and what failed ones have stored after a day.
pub(super) fn tidying(pool: PgPool, keep_finished: Duration) -> Sweep {
    Sweep::new(SWEEP, "downloads that ended long ago", TIDYING, move || {
        let pool = pool.clone();
        async move {
            let mut transaction = pool.begin().await?;
            let touched = store::trim(&mut transaction, KEEP_PARTS, keep_finished).await.map_err(|error| match error {
                store::Error::Database(error) => error,
                other => sqlx::Error::Decode(other.into()),
            })?;
            transaction.commit().await?;
            Ok(touched as u64)
        }
    })
}
