//! What a supervisor knows of a child before it is born: how to start it, when to restart it, how long to wait for it.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use ractor::{Actor, ActorCell, SpawnErr};

use super::{Address, Supervisor, Tree};

type Spawn = Arc<dyn Fn(ActorCell, String, Tree) -> BoxFuture<'static, Result<ActorCell, SpawnErr>> + Send + Sync>;

/// When a child that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always: it should be there as long as its supervisor is.
    Always,
    /// After a failure (an error, a panic, a kill), not after an end of its own.
    OnFailure,
    /// Never.
    Never,
}

/// How often a child may fail before its supervisor gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are tolerated ...
    pub restarts: usize,
    /// ... within this time.
    pub within: Duration,
}

impl Default for Intensity {
    /// With the backoff this outlives some half a minute of permanent failure.
    fn default() -> Self {
        Intensity { restarts: 10, within: Duration::from_mins(1) }
    }
}

/// One child of a supervisor.
#[derive(Clone)]
pub struct ChildSpec {
    name: String,
    restart: Restart,
    intensity: Intensity,
    start_within: Duration,
    stop_within: Duration,
    spawn: Spawn,
}

impl ChildSpec {
    /// An actor that is always there; `make` makes it anew for each life, `address` leads to the living one.
    pub fn actor<A, F>(name: impl Into<String>, address: &Address<A::Msg>, make: F) -> Self
    where
        A: Actor,
        F: Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    {
        let address = address.clone();
        Self::new(
            name.into(),
            Arc::new(move |supervisor, _, _| {
                let (actor, arguments) = make();
                let address = address.clone();
                Box::pin(async move {
                    let (actor, _) = Actor::spawn_linked(None, actor, arguments, supervisor).await?;
                    let cell = actor.get_cell();
                    address.moved_in(actor);
                    Ok(cell)
                })
            }),
        )
    }

    pub(super) fn branch(name: &str, make: impl Fn(String, Tree) -> Supervisor + Send + Sync + 'static) -> Self {
        Self::new(
            name.to_owned(),
            Arc::new(move |supervisor, path, tree: Tree| {
                let branch = make(path, tree.clone());
                Box::pin(async move {
                    let (actor, _) = Actor::spawn_linked(None, branch, tree, supervisor).await?;
                    Ok(actor.get_cell())
                })
            }),
        )
    }

    fn new(name: String, spawn: Spawn) -> Self {
        ChildSpec {
            name,
            restart: Restart::Always,
            intensity: Intensity::default(),
            start_within: Duration::from_mins(1),
            stop_within: Duration::from_secs(10),
            spawn,
        }
    }

    /// When to restart it; always unless said.
    #[must_use]
    pub fn restarted(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How often it may fail.
    #[must_use]
    pub fn tolerated(mut self, intensity: Intensity) -> Self {
        self.intensity = intensity;
        self
    }

    /// How long its `pre_start` may take.
    #[must_use]
    pub fn start_within(mut self, limit: Duration) -> Self {
        self.start_within = limit;
        self
    }

    /// How long it may take to stop before it is killed.
    #[must_use]
    pub fn stop_within(mut self, limit: Duration) -> Self {
        self.stop_within = limit;
        self
    }

    /// Its name within its supervisor.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn restart(&self) -> Restart {
        self.restart
    }

    pub(super) fn intensity(&self) -> Intensity {
        self.intensity
    }

    pub(super) fn start_limit(&self) -> Duration {
        self.start_within
    }

    pub(super) fn stop_limit(&self) -> Duration {
        self.stop_within
    }

    pub(super) fn spawn(
        &self,
        supervisor: ActorCell,
        path: String,
        tree: Tree,
    ) -> BoxFuture<'static, Result<ActorCell, SpawnErr>> {
        (self.spawn)(supervisor, path, tree)
    }
}
