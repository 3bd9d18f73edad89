//! Reminders: what to tell an account at a time, once or again and again, or when something happens.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    id::ReminderId,
    operation::{Done, operation},
    page::Page,
};

/// Where a reminder is. `scheduled → fired`, or `missed`, `completed`, `canceled`; one that repeats stays `scheduled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "ReminderStatus", rename_all = "snake_case"))]
pub enum Status {
    /// Waits for `next_fire_at`, or for its event.
    Scheduled,
    /// Has fired and does not repeat, or repeats no more.
    Fired,
    /// Its time passed while nobody could fire it, too long ago to make up for.
    Missed,
    /// Its owner is done with it.
    Completed,
    /// Ended by its owner, or by the event that it was not to outlive.
    Canceled,
}

impl Status {
    /// As it is written: `scheduled`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Scheduled => "scheduled",
            Status::Fired => "fired",
            Status::Missed => "missed",
            Status::Completed => "completed",
            Status::Canceled => "canceled",
        }
    }
}

/// How its owner is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "ReminderChannel", rename_all = "snake_case"))]
pub enum Channel {
    /// In the list of notifications.
    Inbox,
    /// By e-mail, if the address is verified.
    Email,
    /// By the account's webhooks.
    Webhook,
}

impl Channel {
    /// As it is written: `inbox`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Channel::Inbox => "inbox",
            Channel::Email => "email",
            Channel::Webhook => "webhook",
        }
    }
}

/// Kinds of thing that a reminder can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "ReminderAboutKind", rename_all = "snake_case"))]
pub enum AboutKind {
    /// A file.
    File,
    /// A download.
    Download,
}

impl AboutKind {
    /// As it is written: `file`.
    pub const fn as_str(self) -> &'static str {
        match self {
            AboutKind::File => "file",
            AboutKind::Download => "download",
        }
    }
}

/// What a reminder is about: a thing of the same account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "ReminderAbout", deny_unknown_fields))]
pub struct About {
    /// Its kind.
    pub kind: AboutKind,
    /// The thing.
    pub id: Uuid,
}

/// That something happens to a thing of the same account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "ReminderTrigger", deny_unknown_fields))]
pub struct Trigger {
    /// What happens: an event type of downloads or files, as `download.completed`.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "openapi", oai(rename = "type", validator(min_length = 1, max_length = 65)))]
    pub event_type: String,
    /// What it happens to.
    pub id: Uuid,
}

/// A reminder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none, skip_serializing_if_is_empty))]
pub struct Reminder {
    /// Its identifier, the same however often it is changed.
    pub id: ReminderId,
    /// What to tell.
    pub title: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Where it is.
    pub status: Status,
    /// The instant that it is for, or that it repeats from.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
    /// The time on the clocks of `time_zone` that it is for, or that it repeats from: `2026-12-24T08:00:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_time: Option<String>,
    /// The time zone whose clocks it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// How it repeats (RFC 5545).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rrule: Option<String>,
    /// Local days and times at which it does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default))]
    pub exdates: Vec<String>,
    /// It does not repeat after this.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub ends_at: Option<OffsetDateTime>,
    /// How its owner is told.
    pub channels: Vec<Channel>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// It fires when this happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_event: Option<Trigger>,
    /// It is canceled when this happens first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless_event: Option<Trigger>,
    /// When it fires next, if time decides.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub next_fire_at: Option<OffsetDateTime>,
    /// Until when it was put off; then it fires.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub snoozed_until: Option<OffsetDateTime>,
    /// When it last fired.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub last_fired_at: Option<OffsetDateTime>,
    /// How often it has fired.
    pub fired: i64,
    /// Grows with every change that its owner makes.
    pub version: i64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// When it ended: fired for the last time, was missed, completed or canceled.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
}

/// Ask to be reminded: at `due_at`, or at `local_time` in `time_zone`, or `on_event`; at a time and an event, at whichever
/// comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(deny_unknown_fields, skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct CreateReminder {
    /// What to tell.
    #[cfg_attr(feature = "openapi", oai(validator(min_length = 1, max_length = 200)))]
    pub title: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(max_length = 4000)))]
    pub note: Option<String>,
    /// An instant. Not together with `local_time`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub due_at: Option<OffsetDateTime>,
    /// A time on the clocks of `time_zone`: `2026-12-24T08:00` or `2026-12-24T08:00:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        oai(nullable, validator(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?$"))
    )]
    pub local_time: Option<String>,
    /// An IANA time zone, as `Europe/Berlin`. Needed with `local_time`; with `due_at` and `rrule` the zone whose clocks the
    /// repetition follows, `UTC` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 64)))]
    pub time_zone: Option<String>,
    /// How it repeats from its time on: a recurrence rule of RFC 5545, as `FREQ=MONTHLY;BYDAY=2TU`. Not more often than each
    /// minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 500)))]
    pub rrule: Option<String>,
    /// When it does not repeat, at most 200: a day (`2026-12-25`), a time on the clocks of `time_zone`
    /// (`2026-12-25T08:00`), or an instant (`2026-12-25T07:00:00Z`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default, validator(max_items = 200, max_length = 40)))]
    pub exdates: Vec<String>,
    /// It does not repeat after this.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub ends_at: Option<OffsetDateTime>,
    /// How to tell; `inbox` when none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default, validator(max_items = 3)))]
    pub channels: Vec<Channel>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub about: Option<About>,
    /// Fire when this happens; at once if it already has. Does not repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub on_event: Option<Trigger>,
    /// Do not fire if this happens first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub unless_event: Option<Trigger>,
}

/// One reminder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetReminder {
    /// The reminder.
    pub id: ReminderId,
}

/// The caller's reminders, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListReminders {
    /// Only those in this status. When not given, all but the canceled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Only those about this thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<Uuid>,
    /// Only those that fire next before this.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub due_before: Option<OffsetDateTime>,
    /// Only those that fire next at this or after it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub due_after: Option<OffsetDateTime>,
    /// Only those whose title or note contains this, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Items of the page, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What can be taken away from a reminder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "ReminderClearable", rename_all = "snake_case"))]
pub enum Clearable {
    /// The note.
    Note,
    /// `due_at` or `local_time`, and with it what repeats from it.
    Time,
    /// How it repeats, with `exdates` and `ends_at`.
    Rrule,
    /// The end of the repetition.
    EndsAt,
    /// What it is about.
    About,
    /// What it fires at.
    OnEvent,
    /// What cancels it.
    UnlessEvent,
}

/// What is to change of a reminder; what is not given stays. A new time, zone or rule schedules it anew and ends a snooze; one
/// that has ended takes none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(deny_unknown_fields, skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct ReminderChanges {
    /// What to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 200)))]
    pub title: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(max_length = 4000)))]
    pub note: Option<String>,
    /// An instant, instead of the time that it was for.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub due_at: Option<OffsetDateTime>,
    /// A time on the clocks of its time zone, instead of the time that it was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        oai(nullable, validator(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?$"))
    )]
    pub local_time: Option<String>,
    /// An IANA time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 64)))]
    pub time_zone: Option<String>,
    /// How it repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 500)))]
    pub rrule: Option<String>,
    /// When it does not repeat, instead of what was given before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(max_items = 200, max_length = 40)))]
    pub exdates: Option<Vec<String>>,
    /// It does not repeat after this.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub ends_at: Option<OffsetDateTime>,
    /// How to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_items = 1, max_items = 3)))]
    pub channels: Option<Vec<Channel>>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub about: Option<About>,
    /// Fire when this happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub on_event: Option<Trigger>,
    /// Do not fire if this happens first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub unless_event: Option<Trigger>,
    /// What to take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default, validator(max_items = 7)))]
    pub clear: Vec<Clearable>,
}

/// Change a reminder that is not canceled. Answers with it as it is then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateReminder {
    /// The reminder.
    pub id: ReminderId,
    /// Only if it still has this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<i64>,
    /// What is to change.
    pub changes: ReminderChanges,
}

/// Put a reminder off: it fires then, and one that repeats goes on after that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnoozeReminder {
    /// The reminder.
    pub id: ReminderId,
    /// Until when; or `seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
    /// For how many seconds from now; or `until`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

/// Let one firing of a reminder that repeats pass: it goes on with the one after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkipReminder {
    /// The reminder.
    pub id: ReminderId,
}

/// Be done with a reminder: it fires no more, and repeats no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompleteReminder {
    /// The reminder.
    pub id: ReminderId,
}

/// Cancel a reminder. It stays in the list for a time, as `canceled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelReminder {
    /// The reminder.
    pub id: ReminderId,
}

operation!(CreateReminder => Reminder, "reminder", "create", Account, "Ask to be reminded at a time, again and again, or when something happens.");
operation!(reads GetReminder => Reminder, "reminder", "get", Account, "One reminder.");
operation!(reads ListReminders => Page<Reminder>, "reminder", "list", Account, "The caller's reminders, newest first.");
operation!(UpdateReminder => Reminder, "reminder", "update", Account, "Change a reminder; it keeps its id.");
operation!(SnoozeReminder => Reminder, "reminder", "snooze", Account, "Put a reminder off.");
operation!(SkipReminder => Reminder, "reminder", "skip", Account, "Let one firing of a reminder that repeats pass.");
operation!(CompleteReminder => Reminder, "reminder", "complete", Account, "Be done with a reminder.");
operation!(CancelReminder => Done, "reminder", "cancel", Account, "Cancel a reminder.");

/// `reminder.created`, `reminder.updated`, `reminder.snoozed`, `reminder.completed`: the reminder as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The reminder.
    pub reminder: Reminder,
}

/// Why a reminder was canceled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// Its owner did it.
    Owner,
    /// Its `unless_event` happened first.
    Event,
}

/// `reminder.canceled`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canceled {
    /// The reminder.
    pub reminder: Reminder,
    /// Why.
    pub reason: CancelReason,
}

/// What made a reminder fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its time came.
    Time,
    /// Its `on_event` happened.
    Event,
}

/// `reminder.fired`: once for each firing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// The reminder.
    pub reminder_id: ReminderId,
    /// What to tell.
    pub title: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How to tell.
    pub channels: Vec<Channel>,
    /// What made it fire.
    pub cause: Cause,
    /// When it was due, or when the event happened.
    #[serde(with = "time::serde::rfc3339")]
    pub due_at: OffsetDateTime,
    /// When it fired.
    #[serde(with = "time::serde::rfc3339")]
    pub fired_at: OffsetDateTime,
    /// It fired more than a minute after it was due.
    pub late: bool,
    /// The how-manieth firing of this reminder, from 1.
    pub occurrence: i64,
    /// When it fires next.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub next_fire_at: Option<OffsetDateTime>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
}

/// `reminder.missed`: its time passed while nobody could fire it. One event for all occurrences that were missed together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// The reminder.
    pub reminder_id: ReminderId,
    /// What was to be told.
    pub title: String,
    /// When the first of them was due.
    #[serde(with = "time::serde::rfc3339")]
    pub due_at: OffsetDateTime,
    /// When it was noticed.
    #[serde(with = "time::serde::rfc3339")]
    pub missed_at: OffsetDateTime,
    /// How many occurrences; counted up to 10000.
    pub occurrences: i64,
    /// Why, for people.
    pub reason: String,
    /// When it fires next.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub next_fire_at: Option<OffsetDateTime>,
}
