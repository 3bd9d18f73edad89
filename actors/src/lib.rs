//! Work: the supervision tree, one folder per area, each with its actors and its store. [`start`] starts all of it.

pub mod accounts;
pub mod alarms;
pub mod analytics;
mod app;
mod connections;
mod cursor;
pub mod database;
pub mod dead_letters;
mod desk;
mod downloads;
pub mod events;
mod files;
mod guarded;
pub mod idempotency;
mod ingest;
mod janitor;
pub mod keyring;
pub mod metrics;
mod notifications;
pub mod outbox;
mod reminders;
pub mod requests;
mod seal;
pub mod sessions;
pub mod supervision;
mod uploads;
mod webhooks;

pub use self::{
    app::{Actors, Parts, StartError, issuer, start},
    downloads::SetupError,
    notifications::mail::SetupError as MailSetupError,
    webhooks::SetupError as WebhooksSetupError,
};

/// What the command line does without actors.
pub mod store_admin {
    pub use crate::{
        accounts::{AdminError, create_admin},
        analytics::{Rebuilt, rebuild as rebuild_statistics},
        outbox::requeue as requeue_events,
    };
}
