//! Ending in two steps: a first signal asks for an orderly stop within a grace time, a second one ends at once.

use std::{future::Future, io, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// The two steps, as tokens that every loop watches. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    stopping: CancellationToken,
    aborting: CancellationToken,
}

impl Shutdown {
    /// Resolves when an orderly stop was asked for.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Resolves when the process must end at once.
    pub async fn aborting(&self) {
        self.aborting.cancelled().await;
    }

    /// Whether an orderly stop was asked for.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// A token that is cancelled with the orderly stop, to hand to something that wants one.
    pub fn token(&self) -> CancellationToken {
        self.stopping.child_token()
    }

    /// Ask for an orderly stop.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// End at once.
    pub fn abort(&self) {
        self.stopping.cancel();
        self.aborting.cancel();
    }

    /// Listen to SIGTERM and SIGINT from now on, until the process ends: the first stops, the second aborts.
    pub fn listen_to_signals(&self, tasks: &Tasks) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        tasks.spawn_detached(async move {
            let mut signals = 0_u32;
            loop {
                let received = tokio::select! {
                    received = terminate.recv() => received,
                    received = interrupt.recv() => received,
                };
                if received.is_none() {
                    return;
                }
                signals += 1;
                if signals == 1 {
                    info!("stopping; a second signal ends at once");
                    shutdown.stop();
                } else {
                    warn!("ending at once");
                    shutdown.abort();
                    return;
                }
            }
        });
        Ok(())
    }
}

/// The tasks that a shutdown waits for. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// Run a task that shutdown waits for. It must watch [`Shutdown::stopping`] itself.
    #[expect(clippy::disallowed_methods, reason = "this is the spawn that is tracked")]
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        tokio::spawn(self.0.track_future(task))
    }

    /// Run a task that ends with the process and that nobody waits for.
    #[expect(clippy::disallowed_methods, reason = "named so that a reader sees that nobody waits for it")]
    pub fn spawn_detached<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        tokio::spawn(task)
    }

    /// Wait until every task has ended. False if some had not within `grace`.
    pub async fn wait(&self, grace: Duration) -> bool {
        self.0.close();
        tokio::time::timeout(grace, self.0.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_tracked_tasks_but_not_for_ever() {
        let (shutdown, tasks) = (Shutdown::default(), Tasks::default());
        let watched = shutdown.clone();
        tasks.spawn(async move { watched.stopping().await });
        shutdown.stop();
        assert!(tasks.wait(Duration::from_secs(5)).await);

        let stuck = Tasks::default();
        stuck.spawn(std::future::pending::<()>());
        assert!(!stuck.wait(Duration::from_millis(20)).await);
    }
}
