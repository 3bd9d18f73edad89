//! What readiness is made of: each part of the process reports itself, `/readyz` reads the sum.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// State of one part of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Does its work.
    Ready,
    /// Does not, and why: a sentence for an operator.
    NotReady(String),
}

/// The readiness of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Status>>>);

/// The handle of one part, to report itself with.
#[derive(Clone, Debug)]
pub struct Component {
    name: &'static str,
    health: Health,
}

impl Health {
    /// Add a part, not ready until it says so.
    pub fn component(&self, name: &'static str) -> Component {
        self.set(name, Status::NotReady("starting".into()));
        Component { name, health: self.clone() }
    }

    /// Whether every part is ready.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(|status| *status == Status::Ready)
    }

    /// Every part with its state, by name.
    pub fn report(&self) -> Vec<(&'static str, Status)> {
        self.lock().iter().map(|(name, status)| (*name, status.clone())).collect()
    }

    fn set(&self, name: &'static str, status: Status) {
        self.lock().insert(name, status);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Status>> {
        // A panic while the map was held cannot have left it half written: every write is one insert.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Component {
    /// This part does its work.
    pub fn ready(&self) {
        self.health.set(self.name, Status::Ready);
    }

    /// This part does not, and why.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.health.set(self.name, Status::NotReady(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_each_of_its_parts_is() {
        let health = Health::default();
        assert!(health.is_ready());
        let (bus, database) = (health.component("bus"), health.component("database"));
        bus.ready();
        assert!(!health.is_ready());
        database.ready();
        assert!(health.is_ready());
        bus.not_ready("disconnected");
        assert!(!health.is_ready());
        assert_eq!(health.report()[0], ("bus", Status::NotReady("disconnected".into())));
    }
}
