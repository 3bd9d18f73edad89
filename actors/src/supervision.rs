//! The tree: children started in order, stopped in reverse order, restarted when they fail, and given up when that does
//! not help. Nothing is registered by name: who needs a child holds its [`Address`], which follows restarts.
//!
//! A supervisor is an actor, so trees nest: a supervisor that gives up fails, and its parent decides about the whole
//! branch. When the root gives up the process ends ([`Root::failed`]). What a crash costs: the messages in the mailbox of
//! the actor that crashed; so nothing may live only there.

mod address;
mod child;
mod task;
mod tree;

use std::{collections::VecDeque, time::Duration};

use bowerbird_lifecycle::Clock;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{sync::watch, time::Instant};
use tracing::{error, info, warn};

pub use self::{
    address::{Address, Gone},
    child::{ChildSpec, Intensity, Restart},
    task::{OwnedTasks, Panicked},
    tree::{Node, State, Tree},
};

/// First wait before a restart; doubled with each restart inside the window.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait before a restart.
const BACKOFF_MOST: Duration = Duration::from_secs(10);
/// How long an actor that was killed may take to notice.
const KILL_WITHIN: Duration = Duration::from_secs(2);

/// A child failed more often than its intensity allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("gave up on {child} after {failures} failures within {within:?}, the last: {last}")]
pub struct GaveUp {
    /// Path of the child in the tree.
    pub child: String,
    /// Failures inside the window.
    pub failures: usize,
    /// The window.
    pub within: Duration,
    /// What the last failure said.
    pub last: String,
}

/// The tree did not start.
#[derive(Debug, thiserror::Error)]
#[error("the actors did not start: {0}")]
pub struct StartError(String);

/// Keeps its children alive. Start the outermost with [`start`], nest others with [`Supervisor::child`].
pub struct Supervisor {
    path: String,
    children: Vec<ChildSpec>,
    tree: Tree,
    clock: Clock,
    /// Only the root has somebody to tell.
    gave_up: Option<watch::Sender<Option<GaveUp>>>,
}

/// What a supervisor is told by itself.
pub enum Message {
    /// The backoff of a child is over.
    Start {
        /// Position of the child.
        index: usize,
    },
}

/// What a supervisor knows of its children.
pub struct Children(Vec<Child>);

#[derive(Default)]
struct Child {
    cell: Option<ActorCell>,
    failures: VecDeque<Instant>,
}

/// The running tree.
pub struct Root {
    cell: ActorCell,
    tree: Tree,
    gave_up: watch::Receiver<Option<GaveUp>>,
}

/// Start a tree; returns when every child has started, in order.
pub async fn start(name: &str, children: Vec<ChildSpec>, clock: Clock) -> Result<Root, StartError> {
    let (sender, gave_up) = watch::channel(None);
    let tree = Tree::default();
    let supervisor = Supervisor { path: name.to_owned(), children, tree: tree.clone(), clock, gave_up: Some(sender) };
    let (root, _) = Actor::spawn(None, supervisor, tree.clone()).await.map_err(|error| StartError(error.to_string()))?;
    Ok(Root { cell: root.get_cell(), tree, gave_up })
}

impl Root {
    /// The live picture of the tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Resolves when the root has given up, or ended in any other way than by [`Root::stop`]: the process must end.
    pub async fn failed(&self) -> GaveUp {
        let mut gave_up = self.gave_up.clone();
        tokio::select! {
            biased;
            Ok(reason) = gave_up.wait_for(Option::is_some) => {
                if let Some(reason) = reason.clone() {
                    return reason;
                }
            }
            _ = self.cell.wait(None) => {}
        }
        if let Some(reason) = self.gave_up.borrow().clone() {
            return reason;
        }
        GaveUp { child: "the root".into(), failures: 1, within: Duration::ZERO, last: "the root supervisor ended".into() }
    }

    /// Stop the children in reverse order, each within its own time, all within `grace`. False if some had to be killed.
    pub async fn stop(&self, grace: Duration) -> bool {
        let stopped = self.cell.stop_and_wait(Some("the process stops".into()), Some(grace)).await.is_ok();
        if !stopped {
            warn!(grace = ?grace, "the actors did not stop in time and are killed");
            let _ = self.cell.kill_and_wait(Some(KILL_WITHIN)).await;
        }
        stopped
    }
}

impl Supervisor {
    /// A branch: a supervisor as the child of another.
    pub fn child(name: &str, clock: Clock, children: impl Fn() -> Vec<ChildSpec> + Send + Sync + 'static) -> ChildSpec {
        // A branch stops its children one after the other, so it needs more time than a leaf.
        ChildSpec::branch(name, move |path, tree| Supervisor {
            path,
            children: children(),
            tree,
            clock: clock.clone(),
            gave_up: None,
        })
        .stop_within(Duration::from_secs(30))
    }

    fn path_of(&self, index: usize) -> String {
        format!("{}/{}", self.path, self.children[index].name())
    }

    fn note(&self, index: usize, state: State) {
        self.tree.note(&self.path_of(index), state, self.clock.now());
    }

    async fn spawn(&self, myself: &ActorRef<Message>, index: usize, children: &mut Children) -> Result<(), String> {
        let spec = &self.children[index];
        self.note(index, State::Starting);
        let spawned = spec.spawn(myself.get_cell(), self.path_of(index), self.tree.clone());
        let cell = match tokio::time::timeout(spec.start_limit(), spawned).await {
            Ok(Ok(cell)) => cell,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("it did not start within {:?}", spec.start_limit())),
        };
        children.0[index].cell = Some(cell);
        self.note(index, State::Running);
        Ok(())
    }

    /// Count a failure; say how long to wait before the next start, or give up.
    fn count(&self, index: usize, child: &mut Child, why: &str) -> Result<Duration, GaveUp> {
        let intensity = self.children[index].intensity();
        let now = Instant::now();
        child.failures.push_back(now);
        while child.failures.front().is_some_and(|first| now.duration_since(*first) > intensity.within) {
            child.failures.pop_front();
        }
        let path = self.path_of(index);
        if child.failures.len() > intensity.restarts {
            self.note(index, State::GaveUp);
            self.tree.note_failure(&path, why);
            return Err(GaveUp { child: path, failures: child.failures.len(), within: intensity.within, last: why.to_owned() });
        }
        let wait = backoff(child.failures.len(), rand::random());
        self.note(index, State::Restarting);
        self.tree.note_failure(&path, why);
        warn!(actor = path, failure = why, restart_in = ?wait, "an actor failed and is restarted");
        Ok(wait)
    }

    async fn give_up(&self, reason: GaveUp, children: &mut Children) -> ActorProcessingErr {
        error!(actor = reason.child, failure = reason.last, "an actor fails too often; giving up");
        self.stop_children(children).await;
        if let Some(tell) = &self.gave_up {
            tell.send_replace(Some(reason.clone()));
        }
        reason.into()
    }

    async fn stop_children(&self, children: &mut Children) {
        for index in (0..self.children.len()).rev() {
            let Some(cell) = children.0[index].cell.take() else { continue };
            let spec = &self.children[index];
            if cell.stop_and_wait(None, Some(spec.stop_limit())).await.is_err() && cell.wait(Some(Duration::ZERO)).await.is_err()
            {
                warn!(actor = self.path_of(index), limit = ?spec.stop_limit(), "an actor did not stop in time and is killed");
                let _ = cell.kill_and_wait(Some(KILL_WITHIN)).await;
            }
            self.note(index, State::Stopped);
        }
    }

    /// A child is no more. Restart it if it should be there.
    async fn ended(
        &self,
        myself: &ActorRef<Message>,
        who: &ActorCell,
        failure: Option<String>,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        let belongs = |child: &Child| child.cell.as_ref().is_some_and(|cell| cell.get_id() == who.get_id());
        let Some(index) = children.0.iter().position(belongs) else { return Ok(()) };
        children.0[index].cell = None;
        let again = match self.children[index].restart() {
            Restart::Always => true,
            Restart::OnFailure => failure.is_some(),
            Restart::Never => false,
        };
        if !again {
            info!(actor = self.path_of(index), "an actor ended");
            self.note(index, State::Stopped);
            return Ok(());
        }
        let why = failure.unwrap_or_else(|| "it ended by itself".into());
        self.again(myself, index, &why, children).await
    }

    #[expect(clippy::disallowed_methods, reason = "a pause before a restart")]
    async fn again(
        &self,
        myself: &ActorRef<Message>,
        index: usize,
        why: &str,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        match self.count(index, &mut children.0[index], why) {
            Ok(wait) => {
                // The timer may outlive this supervisor; its message then goes nowhere.
                drop(myself.send_after(wait, move || Message::Start { index }));
                Ok(())
            }
            Err(reason) => Err(self.give_up(reason, children).await),
        }
    }
}

impl Actor for Supervisor {
    type Msg = Message;
    type State = Children;
    type Arguments = Tree;

    #[expect(clippy::disallowed_methods, reason = "a pause before a restart")]
    async fn pre_start(&self, myself: ActorRef<Message>, _: Tree) -> Result<Children, ActorProcessingErr> {
        let mut children = Children(self.children.iter().map(|_| Child::default()).collect());
        for index in 0..self.children.len() {
            while let Err(why) = self.spawn(&myself, index, &mut children).await {
                match self.count(index, &mut children.0[index], &why) {
                    Ok(wait) => tokio::time::sleep(wait).await,
                    Err(reason) => return Err(self.give_up(reason, &mut children).await),
                }
            }
        }
        Ok(children)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        let Message::Start { index } = message;
        if children.0[index].cell.is_some() {
            return Ok(());
        }
        match self.spawn(&myself, index, children).await {
            Ok(()) => Ok(()),
            Err(why) => self.again(&myself, index, &why, children).await,
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, error) => self.ended(&myself, &who, Some(error.to_string()), children).await,
            SupervisionEvent::ActorTerminated(who, _, reason) => {
                let failure = reason.filter(|reason| reason == "killed").map(|_| "it was killed".to_owned());
                self.ended(&myself, &who, failure, children).await
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }

    async fn post_stop(&self, _: ActorRef<Message>, children: &mut Children) -> Result<(), ActorProcessingErr> {
        self.stop_children(children).await;
        Ok(())
    }
}

/// The wait before a restart: doubled each time, then a share of it between a half and the whole, so that children that
/// fell together do not rise together. `random` is any number.
fn backoff(failures: usize, random: u32) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(BACKOFF_MOST);
    doubled.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
#[path = "supervision/tests.rs"]
mod tests;
