//! The live picture of the tree: who is there, since when, and how often it fell.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use time::OffsetDateTime;

/// What an actor is doing, as its supervisor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Loads what it needs.
    Starting,
    /// Answers.
    Running,
    /// Failed; its backoff runs.
    Restarting,
    /// Ended, and should.
    Stopped,
    /// Failed too often.
    GaveUp,
}

/// One actor in the picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Names from the root on, joined with `/`.
    pub path: String,
    /// What it is doing.
    pub state: State,
    /// How often it was restarted since the process started.
    pub restarts: u32,
    /// Since when it is in this state.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// What its last failure said.
    pub last_failure: Option<String>,
}

/// The picture, drawn by all supervisors together. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tree(Arc<Mutex<BTreeMap<String, Node>>>);

impl Tree {
    /// Every actor, by path.
    pub fn snapshot(&self) -> Vec<Node> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn note(&self, path: &str, state: State, now: OffsetDateTime) {
        let mut nodes = self.lock();
        let node = nodes.entry(path.to_owned()).or_insert_with(|| Node {
            path: path.to_owned(),
            state,
            restarts: 0,
            since: now,
            last_failure: None,
        });
        if state == State::Restarting {
            node.restarts += 1;
        }
        node.state = state;
        node.since = now;
    }

    pub(super) fn note_failure(&self, path: &str, why: &str) {
        if let Some(node) = self.lock().get_mut(path) {
            node.last_failure = Some(why.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Node>> {
        // Every write under the lock is whole before anything could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
