//! The table `reminders`, and nothing but: reading rows, writing them back, finding those that something concerns.
//!
//! What a row becomes is decided in [`super::life`]. Whoever writes a row that exists holds its alarm first
//! (see [`crate::alarms`]), then the row.

mod asking;
mod waking;

use bowerbird_nats::{
    AccountId, ReminderId,
    reminder::{About, AboutKind, Channel, Status, Trigger},
};
use sqlx::{Row as _, postgres::PgRow};

pub(crate) use self::{
    asking::{Filters, change, clock, find, find_locked, has_room, insert, is_enabled, last_event_of, list, now},
    waking::{Happening, disabled_among, happened_to, locked, progress, scheduled_by_older_zone_rules, waiting_for},
};
use super::row::{Corrupt, Row, Timing, Watch, Words};
use crate::downloads::row::word;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A stored value is not one that we write.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// PostgreSQL failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// The columns of a [`Row`].
macro_rules! columns {
    () => {
        "id, account_id, title, note, channels, about_kind, about_id, due_at, start_local, time_zone, rrule, exdates, last_local, \
         ends_at, on_event_type, on_event_id, on_event_after, unless_event_type, unless_event_id, unless_event_after, status, \
         next_fire_at, next_local, snoozed_until, floor_at, handled_local, zone_rules, last_fired_at, fired, version, created_at, \
         updated_at, ended_at"
    };
}
use columns;

fn read(row: &PgRow) -> Result<Row, Error> {
    let id = ReminderId(row.try_get("id")?);
    let corrupt = |what: &str| Corrupt { id, what: what.to_owned() };
    let channels = row
        .try_get::<Vec<String>, _>("channels")?
        .iter()
        .map(|text| word::<Channel>(text).ok_or_else(|| corrupt("channels")))
        .collect::<Result<_, _>>()?;
    let about = match (row.try_get::<Option<&str>, _>("about_kind")?, row.try_get("about_id")?) {
        (Some(kind), Some(id)) => Some(About { kind: word::<AboutKind>(kind).ok_or_else(|| corrupt("about_kind"))?, id }),
        _ => None,
    };
    let watch = |event_type: &str, thing: &str, after: &str| -> Result<Option<Watch>, sqlx::Error> {
        Ok(match (row.try_get(event_type)?, row.try_get(thing)?) {
            (Some(event_type), Some(id)) => Some(Watch { trigger: Trigger { event_type, id }, after: row.try_get(after)? }),
            _ => None,
        })
    };
    Ok(Row {
        id,
        account_id: AccountId(row.try_get("account_id")?),
        words: Words { title: row.try_get("title")?, note: row.try_get("note")?, channels, about },
        timing: Timing {
            due_at: row.try_get("due_at")?,
            start_local: row.try_get("start_local")?,
            time_zone: row.try_get("time_zone")?,
            rrule: row.try_get("rrule")?,
            exdates: row.try_get("exdates")?,
            last_local: row.try_get("last_local")?,
            ends_at: row.try_get("ends_at")?,
        },
        on_event: watch("on_event_type", "on_event_id", "on_event_after")?,
        unless_event: watch("unless_event_type", "unless_event_id", "unless_event_after")?,
        status: word::<Status>(row.try_get("status")?).ok_or_else(|| corrupt("status"))?,
        next_fire_at: row.try_get("next_fire_at")?,
        next_local: row.try_get("next_local")?,
        snoozed_until: row.try_get("snoozed_until")?,
        floor_at: row.try_get("floor_at")?,
        handled_local: row.try_get("handled_local")?,
        zone_rules: row.try_get("zone_rules")?,
        last_fired_at: row.try_get("last_fired_at")?,
        fired: row.try_get("fired")?,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

fn read_all(rows: &[PgRow]) -> Result<Vec<Row>, Error> {
    rows.iter().map(read).collect()
}
