//! The operations. Each parses, asks, views, answers.

pub(crate) mod account;
pub(crate) mod admin;
pub(crate) mod archive;
pub(crate) mod auth;
pub(crate) mod content;
pub(crate) mod downloads;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod folders;
pub(crate) mod keys;
pub(crate) mod notifications;
pub(crate) mod reminders;
pub(crate) mod shares;
pub(crate) mod statistics;
pub(crate) mod trash;
pub(crate) mod uploads;
pub(crate) mod webhooks;

use bowerbird_nats::Problem;
use poem_openapi::Tags;

use crate::refused::Refused;

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
    /// Where files lie.
    Folders,
    /// Links to files and folders, for whoever has them.
    Shares,
    /// What was deleted and can be had back.
    Trash,
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

/// The version that `If-Match` names: `"3"`.
fn version(if_match: Option<&str>) -> Result<Option<i64>, Refused> {
    let Some(text) = if_match.map(str::trim).filter(|text| *text != "*") else { return Ok(None) };
    let number = text.trim_matches('"').parse().ok().filter(|version: &i64| *version > 0);
    let refused = || Refused(Problem::invalid("If-Match", "must be a version in quotes, as \"3\""));
    number.map(Some).ok_or_else(refused)
}
