//! Notifications: what an account is told, where it is told it, and when it wants to be left alone.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    event,
    id::{EventId, NotificationId},
    operation::{Done, operation},
    page::Page,
};

/// Where an account is told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "NotificationChannel", rename_all = "snake_case"))]
pub enum Channel {
    /// The list that `GET /v1/notifications` gives.
    Inbox,
    /// Its verified e-mail address.
    Email,
}

impl Channel {
    /// As it is written: `inbox`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Channel::Inbox => "inbox",
            Channel::Email => "email",
        }
    }
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename_all = "snake_case"))]
pub enum Weekday {
    /// The first, as ISO 8601 counts.
    Monday,
    /// The second.
    Tuesday,
    /// The third.
    Wednesday,
    /// The fourth.
    Thursday,
    /// The fifth.
    Friday,
    /// The sixth.
    Saturday,
    /// The seventh.
    Sunday,
}

/// Something that the account was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none, skip_serializing_if_is_empty))]
pub struct Notification {
    /// Its identifier.
    pub id: NotificationId,
    /// The event that it tells of.
    pub event_id: EventId,
    /// What happened: `download.completed`.
    pub event_type: String,
    /// The thing that it happened to: the download, the reminder.
    pub entity_id: Uuid,
    /// One line.
    pub title: String,
    /// More of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    pub occurred_at: OffsetDateTime,
    /// When it was told.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its owner read it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub read_at: Option<OffsetDateTime>,
}

/// The caller's notifications, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListNotifications {
    /// `true`: only those that were not read; `false`: only those that were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<bool>,
    /// Items of the page, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Say that a notification was read. Harmless when it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadNotification {
    /// The notification.
    pub id: NotificationId,
}

/// Say that every notification was read that is there now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadAllNotifications {}

/// Hours of the day in which no e-mail is sent; what comes meanwhile is sent when they end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(deny_unknown_fields))]
pub struct QuietHours {
    /// When they begin, as the clock on the wall shows it: `22:00`.
    #[cfg_attr(feature = "openapi", oai(validator(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")))]
    pub from: String,
    /// When they end: `07:00`. Earlier than `from` means on the next day.
    #[cfg_attr(feature = "openapi", oai(validator(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")))]
    pub until: String,
    /// Whose clock: an IANA time zone, `Europe/Berlin`.
    #[cfg_attr(feature = "openapi", oai(validator(min_length = 1, max_length = 64)))]
    pub time_zone: String,
}

/// When e-mails are sent that gather what happened, instead of one for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(deny_unknown_fields))]
pub struct Digest {
    /// The time of the day, as the clock on the wall shows it: `08:00`.
    #[cfg_attr(feature = "openapi", oai(validator(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")))]
    pub at: String,
    /// On these days; every day when there is none.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", oai(default, validator(max_items = 7)))]
    pub weekdays: Vec<Weekday>,
    /// Whose clock: an IANA time zone, `Europe/Berlin`.
    #[cfg_attr(feature = "openapi", oai(validator(min_length = 1, max_length = 64)))]
    pub time_zone: String,
}

/// Whether e-mail reaches the account, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename_all = "snake_case"))]
pub enum EmailStatus {
    /// It does.
    On,
    /// This server sends none.
    Off,
    /// The account has no address.
    NoAddress,
    /// The address was not verified.
    Unverified,
    /// Its owner wants none.
    Disabled,
}

/// What an account is told, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "NotificationSettings", skip_serializing_if_is_none))]
pub struct Settings {
    /// Which types of events are told, and where. What is not named is not told.
    pub events: BTreeMap<String, Vec<Channel>>,
    /// Whether e-mail is wanted at all; the link in each e-mail turns it off.
    pub email: bool,
    /// Whether e-mail reaches the account, and why not.
    pub email_status: EmailStatus,
    /// When no e-mail is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
    /// When e-mails are gathered; without it one is sent for each notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// What the caller is told, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetSettings {}

/// Replace what the caller is told, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(rename = "ChangeNotificationSettings", deny_unknown_fields, skip_serializing_if_is_none)
)]
pub struct ChangeSettings {
    /// Which types of events are told, and where: `{"download.completed": ["inbox", "email"]}`. What is not named is not
    /// told. A reminder that fires has channels of its own and is not named here.
    #[cfg_attr(feature = "openapi", oai(validator(max_properties = 200)))]
    pub events: BTreeMap<String, Vec<Channel>>,
    /// Whether e-mail is wanted at all; yes when not given.
    #[serde(default = "yes")]
    #[cfg_attr(feature = "openapi", oai(default = "yes"))]
    pub email: bool,
    /// When no e-mail is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub quiet_hours: Option<QuietHours>,
    /// When e-mails are gathered; without it one is sent for each notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub digest: Option<Digest>,
}

fn yes() -> bool {
    true
}

/// Send no more e-mail to an account. For the link in each e-mail, which needs no login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    /// What the link carries.
    pub token: String,
}

impl fmt::Debug for Unsubscribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsubscribe").finish_non_exhaustive()
    }
}

operation!(reads ListNotifications => Page<Notification>, "notification", "list", Account, "The caller's notifications, newest first.");
operation!(ReadNotification => Notification, "notification", "read", Account, "Say that a notification was read.");
operation!(ReadAllNotifications => Done, "notification", "read_all", Account, "Say that every notification was read.");
operation!(reads GetSettings => Settings, "notification", "get_settings", Account, "What the caller is told, and how.");
operation!(ChangeSettings => Settings, "notification", "change_settings", Account, "Replace what the caller is told, and how.");
operation!(Unsubscribe => Done, "notification", "unsubscribe", Public, "Send no more e-mail to an account.");

/// `notification.delivered`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// What the account was told.
    pub notification: Notification,
    /// Where.
    pub channel: Channel,
}

/// `notification.failed`: nobody will try again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// What the account was to be told.
    pub notification_id: NotificationId,
    /// Where.
    pub channel: Channel,
    /// Why it was given up.
    pub reason: String,
}

/// Whether an account may choose where events of this type are told: every type of the catalogue that concerns an account,
/// but not what tells of notifications, and not a reminder that fires, which has channels of its own.
pub fn is_selectable(event_type: &str) -> bool {
    let known = event::CATALOGUE.iter().any(|(known, _)| known.as_str() == event_type);
    let area = event_type.split_once('.').map_or(event_type, |(area, _)| area);
    known && area != "notification" && area != "key" && event_type != "reminder.fired"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_of_notifications_is_never_told_by_one() {
        assert!(is_selectable("download.completed"));
        for closed in ["notification.delivered", "notification.failed", "key.rotated", "reminder.fired", "download.eaten", ""] {
            assert!(!is_selectable(closed), "{closed}");
        }
    }
}
