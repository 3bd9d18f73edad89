//! Life: how a process starts, tells the time, and ends.
//!
//! Everything here is handed in from the composition root, so that a test can hand in its own: the [`Clock`], the
//! [`IdSource`], the [`Shutdown`] with the tasks that it waits for, the [`Health`] that readiness is read from, and the
//! [`Metrics`] that `/metrics` prints.

mod clock;
mod health;
mod id;
mod metrics;
mod shutdown;
pub mod telemetry;

pub use self::{
    clock::Clock,
    health::{Component, Health, Status},
    id::IdSource,
    metrics::Metrics,
    shutdown::{Shutdown, Tasks},
};
pub use prometheus_client;
