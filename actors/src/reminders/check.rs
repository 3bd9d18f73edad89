//! What may be asked for: the fields of a reminder, each checked, every fault of a request named at once.

use bowerbird_nats::{
    Problem,
    event::CATALOGUE,
    reminder::{Channel, Clearable, CreateReminder, Reminder, ReminderChanges, Trigger},
};
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use super::{
    row::{Timing, Words},
    rule::Rule,
    schedule::{self, Exdate, HORIZON},
    zone::Zone,
};
use crate::downloads::check::Faults;

/// Longest title, in characters.
const MAX_TITLE_CHARACTERS: usize = 200;
/// Longest note, in characters.
const MAX_NOTE_CHARACTERS: usize = 4000;
/// Most excluded days and times.
const MAX_EXDATES: usize = 200;
/// How far in the past a time may lie that is meant as now: clocks differ, and requests take their time.
const MEANT_AS_NOW: Duration = Duration::MINUTE;

/// A reminder as its owner asked for it, checked but for the things that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) words: Words,
    pub(crate) timing: Timing,
    pub(crate) on_event: Option<Trigger>,
    pub(crate) unless_event: Option<Trigger>,
}

/// Check a new reminder, or a changed one. `anew` says whether it is scheduled anew: its time must then not be past.
pub(crate) fn reminder(asked: CreateReminder, now: OffsetDateTime, anew: bool) -> Result<Checked, Problem> {
    let mut faults = Faults::default();
    let CreateReminder { title, note, about, on_event, unless_event, .. } = asked.clone();
    texts(&mut faults, &title, note.as_deref());
    for (field, trigger) in [("on_event", &on_event), ("unless_event", &unless_event)] {
        if let Some(trigger) = trigger {
            event(&mut faults, field, trigger);
        }
    }
    faults.unless(
        unless_event.is_none() || on_event != unless_event,
        "unless_event",
        "is the same as on_event, so the reminder could never fire",
    );
    let has_time = asked.due_at.is_some() || asked.local_time.is_some();
    faults.unless(has_time || on_event.is_some(), "due_at", "give a time (due_at, or local_time with time_zone) or an on_event");
    faults.unless(on_event.is_none() || asked.rrule.is_none(), "on_event", "a reminder that repeats cannot wait for an event");
    let timing = timing(&mut faults, &asked, now, anew);
    faults.into_result()?;
    let mut channels = asked.channels;
    channels.sort_unstable();
    channels.dedup();
    if channels.is_empty() {
        channels.push(Channel::Inbox);
    }
    let note = note.filter(|note| !note.is_empty());
    Ok(Checked { words: Words { title, note, channels, about }, timing, on_event, unless_event })
}

/// What a reminder is asked to become: as it is, without what is to be taken away, with what is given. And whether that
/// schedules it anew.
pub(crate) fn merge(before: Reminder, changes: ReminderChanges) -> (CreateReminder, bool) {
    let ReminderChanges {
        title,
        note,
        due_at,
        local_time,
        time_zone,
        rrule,
        exdates,
        ends_at,
        channels,
        about,
        on_event,
        unless_event,
        clear,
    } = changes;
    let cleared = |what| clear.contains(&what);
    let timed = [Clearable::Time, Clearable::Rrule, Clearable::EndsAt].into_iter().any(cleared)
        || due_at.is_some()
        || local_time.is_some()
        || time_zone.is_some()
        || rrule.is_some()
        || exdates.is_some()
        || ends_at.is_some();
    let unruled = cleared(Clearable::Rrule) || cleared(Clearable::Time);
    // One time takes the place of the other.
    let kept_due = before.due_at.filter(|_| local_time.is_none() && !cleared(Clearable::Time));
    let is_local = before.local_time.is_some();
    let kept_local = before.local_time.filter(|_| due_at.is_none() && !cleared(Clearable::Time));
    let asked = CreateReminder {
        title: title.unwrap_or(before.title),
        note: note.or(before.note.filter(|_| !cleared(Clearable::Note))),
        due_at: due_at.or(kept_due),
        local_time: local_time.or(kept_local),
        // A zone that is not that of a local time is the rule's, and goes with it.
        time_zone: time_zone.or(before.time_zone.filter(|_| !unruled || is_local)),
        rrule: rrule.or(before.rrule.filter(|_| !unruled)),
        exdates: exdates.unwrap_or(if unruled { Vec::new() } else { before.exdates }),
        ends_at: ends_at.or(before.ends_at.filter(|_| !unruled && !cleared(Clearable::EndsAt))),
        channels: channels.unwrap_or(before.channels),
        about: about.or(before.about.filter(|_| !cleared(Clearable::About))),
        on_event: on_event.or(before.on_event.filter(|_| !cleared(Clearable::OnEvent))),
        unless_event: unless_event.or(before.unless_event.filter(|_| !cleared(Clearable::UnlessEvent))),
    };
    (asked, timed)
}

fn texts(faults: &mut Faults, title: &str, note: Option<&str>) {
    faults.unless(
        !title.trim().is_empty() && title.chars().count() <= MAX_TITLE_CHARACTERS,
        "title",
        "must be from 1 to 200 characters, not only white space",
    );
    faults.unless(!title.chars().any(char::is_control), "title", "must not hold control characters or line breaks");
    faults.unless(note.is_none_or(|note| note.chars().count() <= MAX_NOTE_CHARACTERS), "note", "must be at most 4000 characters");
    let unfit = |character: char| character.is_control() && !matches!(character, '\n' | '\r' | '\t');
    faults.unless(!note.is_some_and(|note| note.chars().any(unfit)), "note", "must not hold control characters");
}

/// Only what happens to a thing that its owner can name.
fn event(faults: &mut Faults, field: &str, trigger: &Trigger) {
    let known =
        CATALOGUE.iter().any(|(known, _)| known.as_str() == trigger.event_type && matches!(known.area(), "download" | "file"));
    let message = "is not an event of a download or a file, as download.completed or file.purged";
    faults.unless(known, &format!("{field}.type"), message);
}

fn timing(faults: &mut Faults, asked: &CreateReminder, now: OffsetDateTime, anew: bool) -> Timing {
    let CreateReminder { due_at, local_time, time_zone, rrule, exdates, ends_at, .. } = asked;
    let mut timing = Timing { due_at: *due_at, ends_at: *ends_at, rrule: rrule.clone(), ..Timing::default() };
    let zone = match time_zone.as_deref() {
        Some(name) => Zone::named(name),
        None => Some(Zone::utc()),
    };
    let Some(zone) = zone else {
        faults.add("time_zone", "is not a time zone of the IANA database, as Europe/Berlin or UTC");
        return timing;
    };
    timing.time_zone = time_zone.as_ref().map(|_| zone.name().to_owned());
    faults.unless(due_at.is_none() || local_time.is_none(), "local_time", "give due_at or local_time, not both");
    faults.unless(local_time.is_none() || time_zone.is_some(), "time_zone", "is needed with local_time");
    let has_time = due_at.is_some() || local_time.is_some();
    faults.unless(rrule.is_none() || has_time, "rrule", "needs a time to repeat from: due_at, or local_time with time_zone");
    faults.unless(rrule.is_some() || exdates.is_empty(), "exdates", "is only for a reminder that repeats");
    faults.unless(rrule.is_some() || ends_at.is_none(), "ends_at", "is only for a reminder that repeats");
    let local = match local_time.as_deref().map(schedule::read_local) {
        Some(None) => {
            faults.add("local_time", "is not a date and a time, as 2026-12-24T08:00 or 2026-12-24T08:00:00");
            return timing;
        }
        Some(local) => local,
        None => None,
    };
    let field = if local.is_some() { "local_time" } else { "due_at" };
    let Some(at) = local.map(|local| zone.instant(local)).or(*due_at) else { return timing };
    faults.unless(at <= now.saturating_add(HORIZON), field, "must not be more than 100 years ahead");
    faults.unless(at >= now.saturating_sub(HORIZON), field, "must not be more than 100 years ago");
    if anew && rrule.is_none() {
        faults.unless(at >= now - MEANT_AS_NOW, field, "is past");
    }
    let Some(rrule) = rrule else {
        timing.start_local = local;
        return timing;
    };
    timing.time_zone = Some(zone.name().to_owned());
    let start = local.unwrap_or_else(|| zone.local(at));
    let start = start.replace_nanosecond(0).unwrap_or(start);
    timing.start_local = Some(start);
    timing.exdates = excluded(faults, exdates, &zone);
    repetition(faults, &mut timing, rrule, start, now, anew);
    timing
}

fn excluded(faults: &mut Faults, exdates: &[String], zone: &Zone) -> Vec<String> {
    faults.unless(exdates.len() <= MAX_EXDATES, "exdates", "must be at most 200");
    let mut known: Vec<Exdate> = Vec::new();
    for (index, text) in exdates.iter().enumerate().take(MAX_EXDATES) {
        match Exdate::parse(text, zone) {
            Some(exdate) => known.push(exdate),
            None => faults.add(
                format!("exdates.{index}"),
                "is not a day (2026-12-25), a local time (2026-12-25T08:00) or an instant (2026-12-25T07:00:00Z)",
            ),
        }
    }
    known.sort_unstable();
    known.dedup();
    known.into_iter().map(Exdate::to_text).collect()
}

/// The rule itself, where its COUNT ends it, and whether it ever comes again.
fn repetition(faults: &mut Faults, timing: &mut Timing, rrule: &str, start: PrimitiveDateTime, now: OffsetDateTime, anew: bool) {
    let rule = match Rule::parse(rrule, start) {
        Ok(rule) => rule,
        Err(refused) => return faults.add("rrule", refused.to_string()),
    };
    timing.last_local = rule.last_of_count();
    let comes = |timing: &Timing| timing.schedule().ok().flatten().is_none_or(|schedule| schedule.next_after(now).is_some());
    faults.unless(
        !anew || comes(timing),
        "rrule",
        "never comes again: with its start, its end and the days that are left out there is no occurrence ahead, or none within 100 years",
    );
}

#[cfg(test)]
mod tests;
