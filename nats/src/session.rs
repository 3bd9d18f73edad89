//! Sessions: one login on one device, a family of rotating refresh tokens and short access tokens.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    account::Role,
    id::{AccountId, SessionId},
    operation::{Done, operation},
};

/// Open a session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(deny_unknown_fields, skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct Login {
    /// Account name, in any case.
    #[cfg_attr(feature = "openapi", oai(validator(max_length = 254)))]
    pub login: String,
    /// The password.
    #[cfg_attr(feature = "openapi", oai(validator(max_length = 1024)))]
    pub password: String,
    /// What the owner will recognise the session by; at most 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 100)))]
    pub device_name: Option<String>,
}

/// Trade a refresh token for a new pair. The old one is used up.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(deny_unknown_fields, skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct Refresh {
    /// The refresh token; a leading `Bearer ` is accepted.
    #[cfg_attr(feature = "openapi", oai(validator(max_length = 4096)))]
    pub refresh_token: String,
}

/// Close the session that a refresh token belongs to. Harmless when it is closed already.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(deny_unknown_fields, skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct Logout {
    /// The refresh token; a leading `Bearer ` is accepted.
    pub refresh_token: String,
}

/// Is this access token good, and whose is it? For services that do not want to verify themselves.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The access token; a leading `Bearer ` is accepted.
    pub access_token: String,
}

/// What a login or a refresh gives.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct TokenPair {
    /// A JWT (RFC 9068), for `Authorization: Bearer`.
    pub access_token: String,
    /// Always `Bearer`.
    pub token_type: String,
    /// Seconds until the access token expires.
    pub expires_in: u64,
    /// Good for one refresh.
    pub refresh_token: String,
    /// Seconds until the refresh token expires.
    pub refresh_expires_in: u64,
    /// The session.
    pub session_id: SessionId,
    /// Whose it is.
    pub account_id: AccountId,
}

/// Whose access token it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The account.
    pub account_id: AccountId,
    /// The session.
    pub session_id: SessionId,
    /// What the account may do.
    pub role: Role,
    /// When the token expires.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

macro_rules! debug_without_secrets {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
debug_without_secrets!(Login, Refresh, Logout, Verify, TokenPair);

operation!(Login => TokenPair, "session", "login", Public, "Open a session.");
operation!(Refresh => TokenPair, "session", "refresh", Public, "Trade a refresh token for a new pair.");
operation!(Logout => Done, "session", "logout", Public, "Close a session.");
operation!(reads Verify => Verified, "session", "verify", Public, "Whose access token is this?");

/// `session.opened`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The session.
    pub session_id: SessionId,
    /// Whose it is.
    pub account_id: AccountId,
    /// What its owner called the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
}

/// `session.closed`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// The session.
    pub session_id: SessionId,
    /// Whose it was.
    pub account_id: AccountId,
    /// `logout`, `expired`.
    pub reason: String,
}
