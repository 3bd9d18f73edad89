//! The operations. Each parses, asks, views, answers.

pub(crate) mod account;
pub(crate) mod auth;
pub(crate) mod content;
pub(crate) mod downloads;
pub(crate) mod files;
pub(crate) mod keys;

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
    /// What everybody may know.
    Public,
}
