//! Accounts: who owns things.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    id::AccountId,
    operation::{Done, operation},
};

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename_all = "snake_case"))]
pub enum Role {
    /// Its own things.
    User,
    /// The operator's things as well.
    Admin,
}

impl Role {
    /// As it is written: `user`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Admin => "admin",
        }
    }
}

/// Make an account. Answers `name_taken` when the name is in use (names are compared without regard to case).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(deny_unknown_fields, skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct Register {
    /// 3 to 32 ASCII letters, digits, `-`, `_`, `.`; starts with a letter. Kept as written, compared without regard to case.
    #[cfg_attr(feature = "openapi", oai(validator(pattern = "^[A-Za-z][A-Za-z0-9_.-]{2,31}$")))]
    pub account_name: String,
    /// `auth.password_min_length` to 1024 bytes; anything but NUL.
    #[cfg_attr(feature = "openapi", oai(validator(min_length = 1, max_length = 1024)))]
    pub password: String,
    /// Not verified, so it is not used to log in or to send to until it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(max_length = 254)))]
    pub email: Option<String>,
    /// What people read; at most 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 100)))]
    pub display_name: Option<String>,
}

impl std::fmt::Debug for Register {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Register").field("account_name", &self.account_name).finish_non_exhaustive()
    }
}

/// The caller's account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetAccount {}

/// What an account can be without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "AccountClearable", rename_all = "snake_case"))]
pub enum Clearable {
    /// Its e-mail address.
    Email,
    /// What people read.
    DisplayName,
}

/// Change the caller's account; what is not given stays. Another address has to be verified before anything is sent there; the one
/// that was verified before is told.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(deny_unknown_fields, skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct UpdateAccount {
    /// Another address. Wants `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(max_length = 254)))]
    pub email: Option<String>,
    /// What people read; at most 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 100)))]
    pub display_name: Option<String>,
    /// What to take away. Taking the address away wants `password`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default, validator(max_items = 2)))]
    pub clear: Vec<Clearable>,
    /// The present password, where it is wanted: who has found an open session must not have the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 1024)))]
    pub password: Option<String>,
}

impl std::fmt::Debug for UpdateAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpdateAccount").field("clear", &self.clear).finish_non_exhaustive()
    }
}

/// What the caller's account stores, and may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetUsage {}

/// Send an e-mail to the caller's address, with a link that proves that it is read. Harmless when it is verified. Answers
/// `invalid_state` when there is no address, or when this server sends no e-mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestEmailVerification {}

/// Use such a link, once and within a day. Needs no login: whoever has the link reads the address.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(deny_unknown_fields))]
pub struct VerifyEmail {
    /// `token` of the link.
    #[cfg_attr(feature = "openapi", oai(validator(min_length = 1, max_length = 128)))]
    pub token: String,
}

impl std::fmt::Debug for VerifyEmail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyEmail").finish_non_exhaustive()
    }
}

/// An account, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none, skip_serializing_if_is_empty))]
pub struct Account {
    /// Its identifier.
    pub id: AccountId,
    /// The name to log in with.
    pub account_name: String,
    /// E-mail address, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether its owner proved to read that address. Nothing else is sent to one that is not verified.
    #[serde(default)]
    pub email_verified: bool,
    /// What people read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What it may do.
    pub role: Role,
    /// Bytes it may store.
    pub quota_bytes: i64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// What an account stores, and may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct Usage {
    /// Bytes of its files.
    pub stored_bytes: i64,
    /// Bytes set aside for downloads that run.
    pub reserved_bytes: i64,
    /// Bytes it may store.
    pub quota_bytes: i64,
    /// Its files.
    pub files: i64,
    /// Its downloads that are not finished.
    pub unfinished_downloads: i64,
}

operation!(Register => Account, "account", "register", Public, "Make an account.");
operation!(reads GetAccount => Account, "account", "get", Account, "The caller's account.");
operation!(UpdateAccount => Account, "account", "update", Account, "Change the caller's address or display name.");
operation!(reads GetUsage => Usage, "account", "usage", Account, "What the caller's account stores, and may.");
operation!(RequestEmailVerification => Done, "account", "request_email_verification", Account, "Send a link that proves that the caller's address is read.");
operation!(VerifyEmail => Done, "account", "verify_email", Public, "Use a link that proves that an address is read.");

/// `account.registered`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The new account.
    pub account_id: AccountId,
    /// Its name.
    pub account_name: String,
    /// Its role.
    pub role: Role,
}

/// What was changed of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Its address, which is not verified then.
    Email,
    /// What people read.
    DisplayName,
}

/// `account.updated`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Updated {
    /// The account.
    pub account_id: AccountId,
    /// What was changed. The values are not told.
    pub changed: Vec<Field>,
}
