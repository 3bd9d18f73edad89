//! Long work of an actor: tasks that live in its state, end with it, and come back as a message.

use std::{any::Any, future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use ractor::ActorRef;
use tokio::task::JoinSet;

/// A task panicked; with what it said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task panicked: {0}")]
pub struct Panicked(pub String);

impl Panicked {
    pub(crate) fn of(payload: &(dyn Any + Send)) -> Self {
        let said = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Panicked(said.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".into()))
    }
}

/// The tasks of one actor. Kept in its state: when the actor ends, however, they are aborted.
#[derive(Debug, Default)]
pub struct OwnedTasks(JoinSet<()>);

impl OwnedTasks {
    /// Run `task`; its end, well or by panic, is sent to `owner` as the message that `ended` makes of it.
    pub fn spawn<M, T>(
        &mut self,
        owner: &ActorRef<M>,
        task: impl Future<Output = T> + Send + 'static,
        ended: impl FnOnce(Result<T, Panicked>) -> M + Send + 'static,
    ) where
        M: ractor::Message,
        T: Send + 'static,
    {
        while self.0.try_join_next().is_some() {}
        let owner = owner.clone();
        self.0.spawn(async move {
            let outcome = AssertUnwindSafe(task).catch_unwind().await.map_err(|payload| Panicked::of(&*payload));
            // An owner that is gone does not need to know.
            let _ = owner.cast(ended(outcome));
        });
    }

    /// Abort all of them and wait until they are gone.
    pub async fn abort_all(&mut self) {
        self.0.shutdown().await;
    }
}
