//! Work: the supervision tree, one folder per area, each with its actors and its store.

pub mod database;
pub mod events;
pub mod idempotency;
pub mod metrics;
pub mod requests;
pub mod supervision;
