//! Identifiers. Each is a UUIDv7 with a type of its own, so that one cannot be passed for another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier: a UUID such as 0198c0de-7a2b-7c3d-8e4f-0123456789ab is expected")]
pub struct Malformed;

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "openapi", derive(poem_openapi::NewType), oai(from_parameter = false, from_multipart = false))]
        pub struct $name(pub Uuid);

        #[cfg(feature = "openapi")]
        impl poem_openapi::types::ParseFromParameter for $name {
            fn parse_from_parameter(text: &str) -> poem_openapi::types::ParseResult<Self> {
                text.parse().map_err(poem_openapi::types::ParseError::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            /// Only the hyphenated form is an identifier, so that each has one spelling.
            fn from_str(text: &str) -> Result<Self, Malformed> {
                if text.len() != 36 {
                    return Err(Malformed);
                }
                Uuid::parse_str(text).map($name).map_err(|_| Malformed)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                $name(id)
            }
        }
    )*};
}

identifiers! {
    /// Who owns things.
    AccountId,
    /// One login on one device.
    SessionId,
    /// A job that turns a URL into a file.
    DownloadId,
    /// An object that an account owns.
    FileId,
    /// The right to put one object.
    UploadId,
    /// Where files lie.
    FolderId,
    /// A content that a file had before it was replaced.
    FileVersionId,
    /// A link to a file or a folder, for whoever has it.
    ShareId,
    /// Something that an account was told.
    NotificationId,
    /// A fact; also its `ce-id` and `Nats-Msg-Id`.
    EventId,
    /// A message that was refused.
    DeadLetterId,
    /// Something to tell an account at a time.
    ReminderId,
    /// Where an account wants its events sent to.
    WebhookId,
    /// A message for one webhook.
    WebhookDeliveryId,
    /// One running process.
    NodeId,
}
