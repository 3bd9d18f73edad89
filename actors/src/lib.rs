//! Work: the supervision tree, one folder per area, each with its actors and its store. [`start`] starts all of it.

pub mod accounts;
pub mod alarms;
mod app;
mod connections;
mod cursor;
pub mod database;
mod downloads;
pub mod events;
mod files;
pub mod idempotency;
mod janitor;
pub mod keyring;
pub mod metrics;
pub mod outbox;
pub mod requests;
pub mod sessions;
pub mod supervision;

pub use self::{
    app::{Actors, Parts, StartError, issuer, start},
    downloads::SetupError,
};

/// What the command line does without actors.
pub mod store_admin {
    pub use crate::accounts::{AdminError, create_admin};
}
