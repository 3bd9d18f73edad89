//! Dead letters, for operators: what was refused, why, and what is to become of it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    id::DeadLetterId,
    operation::{Done, operation},
    page::Page,
};

/// A message that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none))]
pub struct DeadLetter {
    /// Its identifier.
    pub id: DeadLetterId,
    /// The stream that it was taken from: `EVENTS`.
    pub stream: String,
    /// The consumer that refused it.
    pub consumer: String,
    /// The subject that it came on.
    pub subject: String,
    /// Why it was refused: a sentence.
    pub reason: String,
    /// How often it had been delivered.
    pub deliveries: i64,
    /// Length of its body.
    pub size_bytes: i64,
    /// When it was refused.
    #[serde(with = "time::serde::rfc3339")]
    pub refused_at: OffsetDateTime,
    /// When it was last sent back to its consumer.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub replayed_at: Option<OffsetDateTime>,
}

/// A header of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "MessageHeader"))]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A dead letter with what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct OpenedDeadLetter {
    /// The letter.
    pub letter: DeadLetter,
    /// Its headers, without credentials.
    pub headers: Vec<Header>,
    /// Its body, as base64; the beginning of it, when it is longer than 128 KiB.
    pub body_base64: String,
}

/// Every dead letter, the youngest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListDeadLetters {
    /// Only of this stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Only of this consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// Items of the page, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One dead letter with what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetDeadLetter {
    /// The letter.
    pub id: DeadLetterId,
}

/// Have the consumer that refused it handle it once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayDeadLetter {
    /// The letter.
    pub id: DeadLetterId,
}

/// Delete a dead letter for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteDeadLetter {
    /// The letter.
    pub id: DeadLetterId,
}

operation!(reads ListDeadLetters => Page<DeadLetter>, "dead_letter", "list", Admin, "Every message that was refused, the youngest first.");
operation!(reads GetDeadLetter => OpenedDeadLetter, "dead_letter", "get", Admin, "A message that was refused, with what it says.");
operation!(ReplayDeadLetter => DeadLetter, "dead_letter", "replay", Admin, "Have the consumer that refused a message handle it once more.");
operation!(DeleteDeadLetter => Done, "dead_letter", "delete", Admin, "Delete a refused message for good.");
