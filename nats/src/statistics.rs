//! Statistics: what happened, counted by day. A day is one of UTC, and an event counts on the day that it happened.

use serde::{Deserialize, Serialize};
use time::Date;

use crate::operation::operation;

time::serde::format_description!(day, Date, "[year]-[month]-[day]");

/// Days of one answer at most.
pub const DAYS_MAX: u32 = 366;
/// Days of an answer when the caller does not say.
pub const DAYS_DEFAULT: u32 = 30;

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "StatisticsCounts"))]
pub struct Counts {
    /// Downloads that began to wait for their turn, those that were tried again among them.
    pub downloads_queued: i64,
    /// Downloads that became a file.
    pub downloads_completed: i64,
    /// Downloads that were given up.
    pub downloads_failed: i64,
    /// Downloads that their owner ended.
    pub downloads_canceled: i64,
    /// Bytes of the downloads that became a file.
    pub downloaded_bytes: i64,
    /// Files that could be read from then on.
    pub files_made: i64,
    /// Bytes of those files.
    pub files_made_bytes: i64,
    /// Files that were deleted, their objects too.
    pub files_purged: i64,
    /// Bytes of those files.
    pub files_purged_bytes: i64,
    /// Reminders that fired.
    pub reminders_fired: i64,
    /// Notifications that arrived.
    pub notifications_delivered: i64,
    /// Notifications that were given up.
    pub notifications_failed: i64,
    /// Sessions that were opened.
    pub sessions_opened: i64,
    /// Accounts that were made.
    pub accounts_registered: i64,
    /// Events of every type, these among them.
    pub events: i64,
}

/// One day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "StatisticsDay"))]
pub struct Day {
    /// The day, UTC.
    #[serde(with = "day")]
    pub day: Date,
    /// What happened on it.
    pub counts: Counts,
}

/// What happened on some days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct Statistics {
    /// The first of the days, UTC.
    #[serde(with = "day")]
    pub from: Date,
    /// The last of the days.
    #[serde(with = "day")]
    pub to: Date,
    /// Each day from the first to the last, those on which nothing happened too.
    pub days: Vec<Day>,
    /// All of them together.
    pub total: Counts,
}

/// What happened to the caller's things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetStatistics {
    /// First day; 29 days before the last when not given.
    #[serde(default, with = "day::option", skip_serializing_if = "Option::is_none")]
    pub from: Option<Date>,
    /// Last day; today when not given.
    #[serde(default, with = "day::option", skip_serializing_if = "Option::is_none")]
    pub to: Option<Date>,
}

/// What happened to everybody's things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetSystemStatistics {
    /// First day; 29 days before the last when not given.
    #[serde(default, with = "day::option", skip_serializing_if = "Option::is_none")]
    pub from: Option<Date>,
    /// Last day; today when not given.
    #[serde(default, with = "day::option", skip_serializing_if = "Option::is_none")]
    pub to: Option<Date>,
}

operation!(reads GetStatistics => Statistics, "statistics", "get", Account, "What happened to the caller's things, by day.");
operation!(reads GetSystemStatistics => Statistics, "statistics", "system", Admin, "What happened to everybody's things, by day.");
