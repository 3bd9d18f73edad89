//! Work: the supervision tree, one folder per area, each with its actors and its store.

mod cursor;
pub mod database;
mod downloads;
pub mod events;
mod files;
pub mod idempotency;
pub mod metrics;
pub mod requests;
pub mod supervision;
