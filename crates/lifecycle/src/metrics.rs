//! The metrics of a process, printed by `/metrics` in the OpenMetrics text format.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{encoding::text, registry::Registry};

/// The registry of a process. Cheap to clone. Each crate lists what it registers in a `metrics.rs` of its own.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    fn default() -> Self {
        Metrics(Arc::new(Mutex::new(Registry::with_prefix("bowerbird"))))
    }
}

impl Metrics {
    /// Register what a crate measures.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything registered, in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail; a metric that cannot be written is left out.
        let _ = text::encode(&mut text, &self.0.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}
