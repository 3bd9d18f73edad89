//! The operations. Each parses, asks, views, answers.

pub(crate) mod account;
pub(crate) mod admin;
pub(crate) mod auth;
pub(crate) mod content;
pub(crate) mod downloads;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod keys;
pub(crate) mod notifications;
pub(crate) mod reminders;
pub(crate) mod statistics;
pub(crate) mod uploads;
pub(crate) mod webhooks;

use poem_openapi::Tags;

/// Areas, as the document groups them.
#[derive(Tags)]
pub(crate) enum Area {
    /// Getting and giving up tokens.
    Auth,
    /// The caller's account.
    Account,
    /// Jobs that turn a URL into a file.
    Downloads,
    /// Objects that an account owns.
    Files,
    /// Rights to put one object each.
    Uploads,
    /// What operators ask. Only for accounts with the role `admin`.
    Admin,
    /// What to tell an account, and when.
    Reminders,
    /// Where the account's events are sent to.
    Webhooks,
    /// What an account is told of what happens.
    Notifications,
    /// What everybody may know.
    Public,
}
