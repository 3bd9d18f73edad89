//! Facts: what happened, to what, to whom, and in which order of that thing's life.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::id::{AccountId, EventId};

/// Longest area or name of a type.
const WORD_MAX_CHARACTERS: usize = 32;

/// A text is not an event type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an event type: two words of a-z and _ with a dot between are expected, as download.completed")]
pub struct NotAType;

/// What happened: `<area>.<name>`, the name in the past tense.
///
/// The types of this version are constants here; one that a newer version stored is carried all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(Cow<'static, str>);

impl EventType {
    /// As it is written: `download.completed`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `download`
    pub fn area(&self) -> &str {
        self.0.split_once('.').map_or(&self.0, |(area, _)| area)
    }

    /// `completed`
    pub fn name(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, name)| name)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EventType {
    type Err = NotAType;

    fn from_str(text: &str) -> Result<Self, NotAType> {
        let is_word = |word: &str| {
            (1..=WORD_MAX_CHARACTERS).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        match text.split_once('.') {
            Some((area, name)) if is_word(area) && is_word(name) => Ok(EventType(Cow::Owned(text.to_owned()))),
            _ => Err(NotAType),
        }
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! event_types {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        $($(#[doc = $doc])* pub const $name: EventType = EventType(Cow::Borrowed($text));)*

        /// Every type of this version with what it says.
        pub const CATALOGUE: &[(EventType, &str)] = &[$(($name, concat!($($doc),*))),*];
    };
}

event_types! {
    /// An account was made. Body: `account::Registered`.
    ACCOUNT_REGISTERED = "account.registered";
    /// An account has another address or display name. Body: `account::Updated`.
    ACCOUNT_UPDATED = "account.updated";
    /// Somebody logged in. Body: `session::Opened`.
    SESSION_OPENED = "session.opened";
    /// A session ended. Body: `session::Closed`.
    SESSION_CLOSED = "session.closed";
    /// Another key signs from now on. Body: `key::Rotated`.
    KEY_ROTATED = "key.rotated";
    /// A download waits for its turn. Body: `download::Changed`.
    DOWNLOAD_QUEUED = "download.queued";
    /// A worker took a download. Body: `download::Changed`.
    DOWNLOAD_STARTED = "download.started";
    /// A download became a file. Body: `download::Changed`.
    DOWNLOAD_COMPLETED = "download.completed";
    /// A download was given up. Body: `download::Changed`.
    DOWNLOAD_FAILED = "download.failed";
    /// A download was ended by its owner. Body: `download::Changed`.
    DOWNLOAD_CANCELED = "download.canceled";
    /// A file can be read. Body: `file::Available`.
    FILE_AVAILABLE = "file.available";
    /// A file has another name or lies in another folder. Body: `file::Renamed`.
    FILE_RENAMED = "file.renamed";
    /// A file was changed: tags, description, expiry, or its content was replaced. Body: `file::Changed`.
    FILE_UPDATED = "file.updated";
    /// A file was moved to the trash. Body: `file::Changed`.
    FILE_TRASHED = "file.trashed";
    /// The time of a file is over; it moves to the trash. Body: `file::Changed`.
    FILE_EXPIRED = "file.expired";
    /// A file was taken out of the trash. Body: `file::Changed`.
    FILE_RESTORED = "file.restored";
    /// A file is gone, its object too. Body: `file::Purged`.
    FILE_PURGED = "file.purged";
    /// A file was put into quarantine: it is kept, and nobody gets its content. Body: `file::Quarantined`.
    FILE_QUARANTINED = "file.quarantined";
    /// The object of a file was removed by somebody else. Body: `file::Missing`.
    FILE_MISSING = "file.missing";
    /// The object of a missing file is there again. Body: `file::Found`.
    FILE_FOUND = "file.found";
    /// An object was announced. Body: `upload::Changed`.
    UPLOAD_CREATED = "upload.created";
    /// An upload became a file. Body: `upload::Changed`.
    UPLOAD_COMPLETED = "upload.completed";
    /// What arrived for an upload was refused. Body: `upload::Changed`.
    UPLOAD_FAILED = "upload.failed";
    /// An upload was ended by its owner. Body: `upload::Changed`.
    UPLOAD_ABORTED = "upload.aborted";
    /// Nothing arrived for an upload in time. Body: `upload::Changed`.
    UPLOAD_EXPIRED = "upload.expired";
    /// A folder was made by its owner. Body: `folder::Changed`.
    FOLDER_CREATED = "folder.created";
    /// A folder, with everything in it, has another name or lies in another folder. Body: `folder::Renamed`.
    FOLDER_RENAMED = "folder.renamed";
    /// A folder was moved to the trash with everything in it. Body: `folder::Trashed`.
    FOLDER_TRASHED = "folder.trashed";
    /// A folder was taken out of the trash with everything that went there with it. Body: `folder::Changed`.
    FOLDER_RESTORED = "folder.restored";
    /// A file or a folder was shared. Body: `share::Changed`.
    SHARE_CREATED = "share.created";
    /// Somebody fetched the content behind a link. Body: `share::Opened`.
    SHARE_OPENED = "share.opened";
    /// Its owner ended a share. Body: `share::Changed`.
    SHARE_REVOKED = "share.revoked";
    /// The time of a share is over. Body: `share::Changed`.
    SHARE_EXPIRED = "share.expired";
    /// A reminder was made. Body: `reminder::Changed`.
    REMINDER_CREATED = "reminder.created";
    /// A reminder was changed, or one of its firings skipped. Body: `reminder::Changed`.
    REMINDER_UPDATED = "reminder.updated";
    /// A reminder fired. Body: `reminder::Fired`.
    REMINDER_FIRED = "reminder.fired";
    /// The time of a reminder passed too long ago to make up for. Body: `reminder::Missed`.
    REMINDER_MISSED = "reminder.missed";
    /// A reminder was put off. Body: `reminder::Changed`.
    REMINDER_SNOOZED = "reminder.snoozed";
    /// Its owner is done with a reminder. Body: `reminder::Changed`.
    REMINDER_COMPLETED = "reminder.completed";
    /// A reminder was canceled by its owner or by an event. Body: `reminder::Canceled`.
    REMINDER_CANCELED = "reminder.canceled";
    /// A webhook was disabled because its receiver is gone or kept failing. Body: `webhook::Disabled`.
    WEBHOOK_DISABLED = "webhook.disabled";
    /// A message for a webhook was given up. Webhooks are not told of it. Body: `webhook::Failed`.
    WEBHOOK_FAILED = "webhook.failed";
    /// An account was told something. Body: `notification::Delivered`.
    NOTIFICATION_DELIVERED = "notification.delivered";
    /// Something could not be told. Body: `notification::Failed`.
    NOTIFICATION_FAILED = "notification.failed";
}

/// A fact.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its identity: `ce-id` and `Nats-Msg-Id`.
    pub id: EventId,
    /// What happened.
    pub event_type: EventType,
    /// Whose, if anybody's.
    pub account_id: Option<AccountId>,
    /// The thing that it happened to.
    pub entity_id: Uuid,
    /// Its place in the life of that thing: 1, 2, 3 …
    pub entity_sequence: i64,
    /// When it happened.
    pub time: OffsetDateTime,
    /// The body, as its type says.
    pub data: serde_json::Value,
    /// Trace that it belongs to (W3C Trace Context).
    pub traceparent: Option<String>,
}

impl Event {
    /// The body as its type's struct.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_the_catalogue_is_of_the_form_that_is_read_back() {
        for (event_type, says) in CATALOGUE {
            assert_eq!(&event_type.as_str().parse::<EventType>().unwrap(), event_type);
            assert!(!says.is_empty() && !event_type.area().is_empty() && !event_type.name().is_empty());
        }
    }

    #[test]
    fn a_text_with_other_characters_is_no_type() {
        for text in ["", "download", "download.", ".completed", "a.b.c", "Download.completed", "download.*", "a b.c", "a.b\r\n"] {
            assert_eq!(text.parse::<EventType>(), Err(NotAType), "{text:?}");
        }
    }
}
