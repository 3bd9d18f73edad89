//! A row of `reminders`, how its owner sees it, and when it is due.

use bowerbird_nats::{
    AccountId, ReminderId,
    reminder::{About, Channel, Reminder, Status, Trigger},
};
use time::{OffsetDateTime, PrimitiveDateTime};

use super::{
    rule::Rule,
    schedule::{self, Exdate, Schedule},
    zone::Zone,
};

/// A row holds what no version of this program writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reminder {id} cannot be read: {what}")]
pub(crate) struct Corrupt {
    pub(crate) id: ReminderId,
    pub(crate) what: String,
}

/// What its owner wants to be told, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) title: String,
    pub(crate) note: Option<String>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) about: Option<About>,
}

/// When its owner wants to be told, as far as time decides. The schema documents each field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) due_at: Option<OffsetDateTime>,
    pub(crate) start_local: Option<PrimitiveDateTime>,
    pub(crate) time_zone: Option<String>,
    pub(crate) rrule: Option<String>,
    pub(crate) exdates: Vec<String>,
    pub(crate) last_local: Option<PrimitiveDateTime>,
    pub(crate) ends_at: Option<OffsetDateTime>,
}

/// An event that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) trigger: Trigger,
    /// Only later events of the thing count; `None` when it is waited for no more.
    pub(crate) after: Option<i64>,
}

/// A row, as it is stored; the schema documents each column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: ReminderId,
    pub(crate) account_id: AccountId,
    pub(crate) words: Words,
    pub(crate) timing: Timing,
    pub(crate) on_event: Option<Watch>,
    pub(crate) unless_event: Option<Watch>,
    pub(crate) status: Status,
    pub(crate) next_fire_at: Option<OffsetDateTime>,
    pub(crate) next_local: Option<PrimitiveDateTime>,
    pub(crate) snoozed_until: Option<OffsetDateTime>,
    pub(crate) floor_at: OffsetDateTime,
    pub(crate) handled_local: Option<PrimitiveDateTime>,
    pub(crate) zone_rules: Option<String>,
    pub(crate) last_fired_at: Option<OffsetDateTime>,
    pub(crate) fired: i64,
    pub(crate) version: i64,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
    pub(crate) ended_at: Option<OffsetDateTime>,
}

impl Row {
    /// As its owner sees it.
    pub(crate) fn to_reminder(&self) -> Reminder {
        let Row { words, timing, .. } = self;
        let trigger = |watch: &Option<Watch>| watch.as_ref().map(|watch| watch.trigger.clone());
        Reminder {
            id: self.id,
            title: words.title.clone(),
            note: words.note.clone(),
            status: self.status,
            due_at: timing.due_at,
            local_time: timing.start_local.filter(|_| timing.due_at.is_none()).map(schedule::write_local),
            time_zone: timing.time_zone.clone(),
            rrule: timing.rrule.clone(),
            exdates: timing.exdates.clone(),
            ends_at: timing.ends_at,
            channels: words.channels.clone(),
            about: words.about,
            on_event: trigger(&self.on_event),
            unless_event: trigger(&self.unless_event),
            next_fire_at: self.next_fire_at,
            snoozed_until: self.snoozed_until,
            last_fired_at: self.last_fired_at,
            fired: self.fired,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            ended_at: self.ended_at,
        }
    }

    /// When it is due on the clocks of its zone; `None` where no clocks matter.
    pub(crate) fn schedule(&self) -> Result<Option<Schedule>, Corrupt> {
        self.timing.schedule().map_err(|what| Corrupt { id: self.id, what })
    }
}

impl Timing {
    /// See [`Row::schedule`]. The error says what cannot be read.
    pub(crate) fn schedule(&self) -> Result<Option<Schedule>, String> {
        let Some(start) = self.start_local else { return Ok(None) };
        let name = self.time_zone.as_deref().unwrap_or("UTC");
        let zone = Zone::named(name).ok_or_else(|| format!("there is no time zone {name}"))?;
        let rule = self.rrule.as_deref().map(|rrule| Rule::parse(rrule, start)).transpose().map_err(|error| error.to_string())?;
        let mut exdates: Vec<Exdate> = self.exdates.iter().filter_map(|text| Exdate::parse(text, &zone)).collect();
        exdates.sort_unstable();
        Ok(Some(Schedule { zone, start, rule, exdates, last_local: self.last_local, ends_at: self.ends_at }))
    }
}
