//! The purger deletes in the bucket what the table `object_purges` names, and with a deleted file its row.
//!
//! The table outlives it: whoever makes objects useless writes a row in the same transaction. A crash costs nothing: a
//! taken row is due again after a while. Everything it does may be done twice, so purgers of several nodes may meet. What is
//! to go later, and what is tried again, it is woken for by an alarm.

use std::time::Duration;

use bowerbird_storage::{self as bucket, Bucket};
use futures_util::{
    StreamExt as _,
    future::{BoxFuture, ready},
    stream,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::store::{self, DuePurge};
use crate::{
    alarms::{Due, Kind, WakeError, Wakes},
    events::Bell,
    metrics::Meters,
    supervision::{Address, OwnedTasks, Panicked},
};

/// How often it looks by itself: for what a purger that died had taken, and what nobody woke it for.
const POLL: Duration = Duration::from_secs(30);
/// A purge that was taken is due again after this, should its purger die with it.
const RETRY_AFTER: Duration = Duration::from_mins(2);
/// Longest wait after failures.
const RETRY_MOST: Duration = Duration::from_hours(1);
/// Purges taken at once.
const BATCH: i64 = 32;
/// Purges carried out beside each other, so that a slow one does not hold up a cancel.
const AT_ONCE: usize = 8;
/// Objects listed at once.
const PAGE: usize = 500;
/// Times that a prefix is listed before what is still there is a reason to wait.
const LOOKS: usize = 3;
/// Longest single purge.
const PURGE_LIMIT: Duration = Duration::from_mins(1);

/// Deletes what is no longer wanted.
#[derive(Clone)]
pub(crate) struct Purger {
    pub(crate) pool: PgPool,
    pub(crate) bucket: Bucket,
    pub(crate) bell: Bell,
    pub(crate) meters: Meters,
}

/// What it works on.
#[derive(Default)]
pub(crate) struct State {
    tasks: OwnedTasks,
    working: bool,
    /// It was woken while it worked.
    again: bool,
}

/// What it is told.
pub(crate) enum Message {
    /// Look whether something is due.
    Look,
    /// A batch is done, of this many.
    Worked(Result<usize, Panicked>),
}

/// Where to wake it.
#[derive(Clone, Default)]
pub(crate) struct PurgerAddress(pub(crate) Address<Message>);

impl PurgerAddress {
    /// There may be something to do now.
    pub(crate) fn wake(&self) {
        // One that is not there looks by itself when it starts.
        let _ = self.0.cast(Message::Look);
    }
}

/// Wakes the purger of this node.
pub(super) struct Waiting(pub(super) PurgerAddress);

impl Wakes for Waiting {
    fn kind(&self) -> Kind {
        Kind::Purge
    }

    /// The row of the purge says that it is due; carrying it out is no matter of a transaction.
    fn wake<'a>(&'a self, _: &'a mut PgConnection, _: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async { Ok(()) })
    }

    fn committed(&self, _: &[Due]) {
        self.0.wake();
    }
}

impl Actor for Purger {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    #[expect(clippy::disallowed_methods, reason = "a poll behind the alarm")]
    async fn pre_start(&self, myself: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        myself.cast(Message::Look)?;
        myself.send_interval(POLL, || Message::Look);
        Ok(State::default())
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look if state.working => state.again = true,
            Message::Look => self.look(&myself, state),
            Message::Worked(Ok(done)) => {
                state.working = false;
                if done > 0 || std::mem::take(&mut state.again) {
                    self.look(&myself, state);
                }
            }
            Message::Worked(Err(panicked)) => return Err(panicked.into()),
        }
        Ok(())
    }
}

impl Purger {
    fn look(&self, myself: &ActorRef<Message>, state: &mut State) {
        state.working = true;
        state.again = false;
        let batch = self.clone();
        state.tasks.spawn(myself, async move { batch.work().await }, Message::Worked);
    }
}

/// Why a purge is tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the object store failed: {0}")]
    Bucket(#[from] bucket::Error),
    #[error("the object store still shows what was deleted")]
    StillThere,
    #[error("it took too long")]
    TimedOut,
}

impl Purger {
    pub(super) async fn work(&self) -> usize {
        let due = match store::take_purges(&self.pool, RETRY_AFTER, BATCH).await {
            Ok(due) => due,
            Err(error) => {
                warn!(%error, "what is to be deleted cannot be read; it is tried again");
                return 0;
            }
        };
        stream::iter(due).map(|purge| self.attempt(purge)).buffer_unordered(AT_ONCE).filter(|done| ready(*done)).count().await
    }

    /// Carry a purge out and note how it went. True if it is done.
    async fn attempt(&self, purge: DuePurge) -> bool {
        let outcome = timeout(PURGE_LIMIT, self.purge(&purge)).await.unwrap_or(Err(Error::TimedOut));
        let done = outcome.is_ok();
        let noted = match outcome {
            Ok(()) => self.purged(&purge).await,
            Err(error) => {
                warn!(%error, attempt = purge.attempt, "objects could not be deleted; it is tried again");
                let doublings = u32::try_from(purge.attempt).unwrap_or(0).min(12);
                let after = Duration::from_secs(1 << doublings).min(RETRY_MOST);
                store::not_purged(&self.pool, purge.id, &error.to_string(), after).await
            }
        };
        if let Err(error) = noted {
            // The row is still there and due again by itself.
            warn!(%error, "a purge could not be noted");
        }
        done
    }

    /// Uploads first: one that is completed in between leaves an object, which the listing after it finds. Done is what the
    /// bucket no longer shows.
    async fn purge(&self, purge: &DuePurge) -> Result<(), Error> {
        if let Some(key) = &purge.object_key {
            self.bucket.delete(key).await?;
            return if self.bucket.head(key).await?.is_none() { Ok(()) } else { Err(Error::StillThere) };
        }
        loop {
            let uploads = self.bucket.list_uploads(&purge.prefix, PAGE).await?;
            for upload in &uploads {
                debug!(key = upload.key, "aborting an abandoned upload");
                self.bucket.abort_multipart(&upload.key, &upload.upload_id).await?;
            }
            if uploads.len() < PAGE {
                break;
            }
        }
        for _ in 0..LOOKS {
            if self.delete_all(purge).await? == 0 {
                return Ok(());
            }
        }
        Err(Error::StillThere)
    }

    /// Delete what a listing shows; how much that was.
    async fn delete_all(&self, purge: &DuePurge) -> Result<usize, Error> {
        let (mut after, mut deleted): (Option<String>, usize) = (None, 0);
        loop {
            let page = self.bucket.list(&purge.prefix, after.as_deref(), PAGE).await?;
            for object in page.iter().filter(|object| purge.keep_key.as_deref() != Some(object.key.as_str())) {
                self.bucket.delete(&object.key).await?;
                deleted += 1;
            }
            after = page.last().map(|object| object.key.clone());
            if page.len() < PAGE {
                return Ok(deleted);
            }
        }
    }

    async fn purged(&self, purge: &DuePurge) -> Result<(), store::Error> {
        let mut transaction = self.pool.begin().await?;
        store::purged(&mut transaction, purge.id).await?;
        transaction.commit().await?;
        self.meters.0.objects_purged.inc();
        self.bell.ring();
        Ok(())
    }
}
