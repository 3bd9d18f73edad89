//! Alarms: schedules that JetStream fires (ADR-51), one for each second in which something is due, and what it says then.
//!
//! The rows of the database say what is due. What is said here is only when to look, so it may be lost, late or twice.

use uuid::Uuid;

use crate::{
    delivery::{FromMessage, Raw},
    subject::Meaning,
};

/// A whole second, counted from 1970 in UTC: what is due up to then, after the second before. It fires when that second
/// comes, and never before, so everything in it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub i64);

/// Why to look at the alarms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// A bucket fired.
    Bucket(Bucket),
    /// An alarm that was refused is to be tried again: its dead letter was sent again.
    Again {
        /// Its kind, as the table has it.
        kind: String,
        /// What about.
        subject_id: Uuid,
    },
}

/// An alarm that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// Its kind, as the table has it.
    pub kind: &'static str,
    /// What about.
    pub subject_id: Uuid,
    /// When it was due.
    pub due_at: time::OffsetDateTime,
    /// Grows each time that it is armed or asked for again: refused again it is another letter.
    pub version: i64,
    /// How often it was tried.
    pub attempts: i32,
    /// Why the last try failed.
    pub reason: &'a str,
}

impl FromMessage for Look {
    fn from_message(raw: &Raw<'_>) -> Result<Self, String> {
        match raw.meaning() {
            Some(Meaning::AlarmsDue { bucket }) => Ok(Look::Bucket(bucket)),
            Some(Meaning::AlarmAgain { kind, subject_id }) => Ok(Look::Again { kind, subject_id }),
            _ => Err("the subject is not one of alarms that are due".to_owned()),
        }
    }
}
