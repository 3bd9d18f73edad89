//! The life of a reminder: what each thing that can happen makes of its row, and what is told of it.
//!
//! Nothing here waits or writes. Whoever calls holds the row, writes it back with what is to be told in the same
//! transaction, and arms or cancels its alarm as `next_fire_at` then says.

use std::collections::HashSet;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId,
    event::{self, EventType},
    reminder::{CancelReason, Canceled, Cause, Changed, Fired, Missed, Status},
};
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::{
    row::{Corrupt, Row},
    schedule::{MAX_COUNTED, Occurrence, Passed},
    zone,
};
use crate::events::NewEvent;

/// What fires later than this after it was due says so.
const LATE_AFTER: Duration = Duration::MINUTE;

/// What happened to a reminder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    Created,
    Updated,
    Snoozed,
    Completed,
    Canceled(CancelReason),
    Fired(Box<Fired>),
    Missed(Box<Missed>),
}

/// Whether what was due is made up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MakeUp {
    /// Within this time; what is older was missed.
    Within(Duration),
    /// Not at all: nobody may be told, as the account is disabled.
    Never,
}

impl MakeUp {
    /// For this account, if these are disabled.
    pub(crate) fn of(disabled: &HashSet<AccountId>, account: AccountId, catch_up: Duration) -> Self {
        if disabled.contains(&account) { MakeUp::Never } else { MakeUp::Within(catch_up) }
    }

    /// Why what is this old was missed; `what` says what that was. `None` if it is made up for.
    fn refuses(self, what: &str, age: Duration) -> Option<String> {
        match self {
            MakeUp::Within(catch_up) if age <= catch_up => None,
            MakeUp::Within(catch_up) => {
                Some(format!("{what} {} ago, and reminders are made up for within {}", words(age), words(catch_up)))
            }
            MakeUp::Never => Some("the account was disabled".to_owned()),
        }
    }
}

/// What an operation is not possible for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Impossible {
    #[error("the reminder is {} and has ended; make a new one, or snooze it if it has fired or was missed", .0.as_str())]
    Ended(Status),
    #[error("the reminder is {} and has ended, so there is nothing to cancel", .0.as_str())]
    NothingAhead(Status),
    #[error("the reminder waits for an event and has no time that could be put off; change it to give it one")]
    NoTime,
    #[error("the reminder does not repeat, so no firing can be skipped; cancel it instead")]
    DoesNotRepeat,
}

impl Row {
    /// The event that tells of it, after it was written.
    pub(crate) fn tell(&self, ids: IdSource, happened: &Happened) -> NewEvent {
        let changed = || Changed { reminder: self.to_reminder() };
        match happened {
            Happened::Created => self.event(ids, event::REMINDER_CREATED, &changed()),
            Happened::Updated => self.event(ids, event::REMINDER_UPDATED, &changed()),
            Happened::Snoozed => self.event(ids, event::REMINDER_SNOOZED, &changed()),
            Happened::Completed => self.event(ids, event::REMINDER_COMPLETED, &changed()),
            Happened::Canceled(reason) => {
                self.event(ids, event::REMINDER_CANCELED, &Canceled { reminder: self.to_reminder(), reason: *reason })
            }
            Happened::Fired(fired) => self.event(ids, event::REMINDER_FIRED, fired),
            Happened::Missed(missed) => self.event(ids, event::REMINDER_MISSED, missed),
        }
    }

    fn event<T: Serialize>(&self, ids: IdSource, event_type: EventType, data: &T) -> NewEvent {
        NewEvent::new(ids, event_type, Some(self.account_id), self.id.0, data)
    }

    /// Begin anew with the timing that it has now. False if its rule never comes again.
    pub(crate) fn start(&mut self, now: OffsetDateTime) -> Result<bool, Corrupt> {
        self.status = Status::Scheduled;
        self.ended_at = None;
        self.snoozed_until = None;
        self.handled_local = None;
        self.floor_at = now;
        self.zone_rules = self.timing.start_local.map(|_| zone::rules_version().to_owned());
        let schedule = self.schedule()?;
        let next = match &schedule {
            Some(schedule) if schedule.rule.is_none() => {
                Some(Occurrence { at: schedule.zone.instant(schedule.start), local: schedule.start })
            }
            Some(schedule) => schedule.next_after(now),
            None => None,
        };
        self.next_local = next.map(|next| next.local);
        self.next_fire_at = next.map(|next| next.at).or(self.timing.due_at.filter(|_| schedule.is_none()));
        Ok(self.next_fire_at.is_some() || (schedule.is_none() && self.waits_for_event()))
    }

    /// Whether it still fires at an event.
    pub(crate) fn waits_for_event(&self) -> bool {
        self.on_event.as_ref().is_some_and(|watch| watch.after.is_some())
    }

    /// Its time may have come: fire, or say what was missed, and go on with what comes after now. `unless` says whether
    /// what cancels it has happened. Nothing happens if it is not due.
    pub(crate) fn wake(&mut self, now: OffsetDateTime, make_up: MakeUp, unless: bool) -> Result<Vec<Happened>, Corrupt> {
        let Some(due) = self.next_fire_at.filter(|due| *due <= now && self.status == Status::Scheduled) else {
            return Ok(Vec::new());
        };
        if unless {
            return Ok(vec![self.cancel(now, CancelReason::Event)]);
        }
        let schedule = self.schedule()?;
        let repeating = schedule.as_ref().filter(|schedule| schedule.rule.is_some());
        let this = Passed { count: 1, latest: self.next_local.map(|local| Occurrence { at: due, local }) };
        let later = match repeating {
            // Less than the shortest step has passed.
            Some(schedule) if now - due >= Duration::MINUTE => schedule.passed(due, now),
            _ => Passed { count: 0, latest: None },
        };
        let last = later.latest.map_or(due, |latest| latest.at);
        let all = (this.count + later.count).min(MAX_COUNTED);
        self.floor_at = now.max(due);
        self.handled_local = later.latest.or(this.latest).map(|latest| latest.local).or(self.handled_local);
        self.snoozed_until = None;
        let next = repeating.and_then(|schedule| schedule.next(self.floor_at, self.handled_local));
        self.next_fire_at = next.map(|next| next.at);
        self.next_local = next.map(|next| next.local);
        self.zone_rules = self.timing.start_local.map(|_| zone::rules_version().to_owned());
        self.updated_at = now;
        let too_late = make_up.refuses("it was due", now - last);
        let status = if too_late.is_none() { Status::Fired } else { Status::Missed };
        let mut happened = Vec::new();
        if let Some(reason) = too_late {
            happened.push(self.missed(now, due, all, reason));
        } else {
            if all > 1 {
                let reason = "others were due before the latest, and only the latest is made up for".to_owned();
                happened.push(self.missed(now, due, all - 1, reason));
            }
            happened.push(self.fire(now, last, Cause::Time));
        }
        if self.next_fire_at.is_none() {
            self.end(now, status);
        }
        Ok(happened)
    }

    /// The event that it waits for happened at `at`: fire, if that is not too long ago. Nothing happens if it does not wait
    /// for it any more.
    pub(crate) fn on_event(&mut self, now: OffsetDateTime, at: OffsetDateTime, make_up: MakeUp) -> Vec<Happened> {
        if self.status != Status::Scheduled || !self.waits_for_event() {
            return Vec::new();
        }
        self.next_fire_at = None;
        self.next_local = None;
        self.updated_at = now;
        let Some(reason) = make_up.refuses("its event happened", now - at) else {
            let fired = self.fire(now, at, Cause::Event);
            self.end(now, Status::Fired);
            return vec![fired];
        };
        let missed = self.missed(now, at, 1, reason);
        self.end(now, Status::Missed);
        vec![missed]
    }

    fn fire(&mut self, now: OffsetDateTime, due_at: OffsetDateTime, cause: Cause) -> Happened {
        self.fired += 1;
        self.last_fired_at = Some(now);
        Happened::Fired(Box::new(Fired {
            reminder_id: self.id,
            title: self.words.title.clone(),
            note: self.words.note.clone(),
            channels: self.words.channels.clone(),
            cause,
            due_at,
            fired_at: now,
            late: now - due_at > LATE_AFTER,
            occurrence: self.fired,
            next_fire_at: self.next_fire_at,
            about: self.words.about,
        }))
    }

    fn missed(&self, now: OffsetDateTime, due_at: OffsetDateTime, occurrences: usize, reason: String) -> Happened {
        Happened::Missed(Box::new(Missed {
            reminder_id: self.id,
            title: self.words.title.clone(),
            due_at,
            missed_at: now,
            occurrences: i64::try_from(occurrences).unwrap_or(i64::MAX),
            reason,
            next_fire_at: self.next_fire_at,
        }))
    }

    /// Put it off. One that repeats goes on with what comes after that; what lies before it is put off with it.
    pub(crate) fn snooze(&mut self, now: OffsetDateTime, until: OffsetDateTime) -> Result<Happened, Impossible> {
        match self.status {
            Status::Scheduled if self.next_fire_at.is_none() => return Err(Impossible::NoTime),
            Status::Scheduled | Status::Fired | Status::Missed => {}
            Status::Completed | Status::Canceled => return Err(Impossible::Ended(self.status)),
        }
        if self.next_fire_at.is_some_and(|next| next <= until) {
            self.handled_local = self.next_local.or(self.handled_local);
        }
        self.status = Status::Scheduled;
        self.ended_at = None;
        self.next_fire_at = Some(until);
        self.next_local = None;
        self.snoozed_until = Some(until);
        self.zone_rules = self.timing.start_local.map(|_| zone::rules_version().to_owned());
        self.changed(now);
        Ok(Happened::Snoozed)
    }

    /// Let the next firing of one that repeats pass.
    pub(crate) fn skip(&mut self, now: OffsetDateTime) -> Result<Result<Happened, Impossible>, Corrupt> {
        let (Status::Scheduled, Some(due)) = (self.status, self.next_fire_at) else {
            let scheduled = self.status == Status::Scheduled;
            return Ok(Err(if scheduled { Impossible::DoesNotRepeat } else { Impossible::Ended(self.status) }));
        };
        let Some(schedule) = self.schedule()?.filter(|schedule| schedule.rule.is_some()) else {
            return Ok(Err(Impossible::DoesNotRepeat));
        };
        self.floor_at = now.max(due);
        self.handled_local = self.next_local.or(self.handled_local);
        self.snoozed_until = None;
        let next = schedule.next(self.floor_at, self.handled_local);
        self.next_fire_at = next.map(|next| next.at);
        self.next_local = next.map(|next| next.local);
        self.changed(now);
        if next.is_none() {
            self.end(now, Status::Completed);
            return Ok(Ok(Happened::Completed));
        }
        Ok(Ok(Happened::Updated))
    }

    /// Its owner is done with it. `None` if that was so before.
    pub(crate) fn complete(&mut self, now: OffsetDateTime) -> Result<Option<Happened>, Impossible> {
        match self.status {
            Status::Completed => Ok(None),
            Status::Canceled => Err(Impossible::Ended(self.status)),
            Status::Scheduled | Status::Fired | Status::Missed => {
                self.changed(now);
                self.end(now, Status::Completed);
                Ok(Some(Happened::Completed))
            }
        }
    }

    /// Its owner does not want it any more. `None` if that was so before.
    pub(crate) fn give_up(&mut self, now: OffsetDateTime) -> Result<Option<Happened>, Impossible> {
        match self.status {
            Status::Canceled => Ok(None),
            Status::Scheduled => {
                self.changed(now);
                Ok(Some(self.cancel(now, CancelReason::Owner)))
            }
            // Whoever cancels it learns that it was too late.
            Status::Fired | Status::Missed | Status::Completed => Err(Impossible::NothingAhead(self.status)),
        }
    }

    /// End one that is scheduled.
    pub(crate) fn cancel(&mut self, now: OffsetDateTime, reason: CancelReason) -> Happened {
        self.updated_at = now;
        self.end(now, Status::Canceled);
        Happened::Canceled(reason)
    }

    /// The rules of time zones are others than those it was scheduled by. True if it moves.
    pub(crate) fn follow_zone_rules(&mut self, now: OffsetDateTime) -> Result<bool, Corrupt> {
        self.zone_rules = Some(zone::rules_version().to_owned());
        let Some(schedule) = self.schedule()? else { return Ok(false) };
        if self.status != Status::Scheduled || self.snoozed_until.is_some() {
            return Ok(false);
        }
        let next = if schedule.rule.is_some() {
            schedule.next(self.floor_at, self.handled_local)
        } else {
            Some(Occurrence { at: schedule.zone.instant(schedule.start), local: schedule.start })
        };
        let moved = next.filter(|next| self.next_fire_at.is_some_and(|before| before != next.at));
        if let Some(next) = moved {
            self.next_fire_at = Some(next.at);
            self.next_local = Some(next.local);
            self.updated_at = now;
        }
        Ok(moved.is_some())
    }

    /// Its owner changed it.
    pub(crate) fn changed(&mut self, now: OffsetDateTime) {
        self.version += 1;
        self.updated_at = now;
    }

    fn end(&mut self, now: OffsetDateTime, status: Status) {
        self.status = status;
        self.ended_at = Some(now);
        self.next_fire_at = None;
        self.next_local = None;
        self.snoozed_until = None;
        for watch in [&mut self.on_event, &mut self.unless_event].into_iter().flatten() {
            watch.after = None;
        }
    }
}

/// A span of time as people say it, to the minute.
fn words(span: Duration) -> String {
    let (days, hours, minutes) = (span.whole_days(), span.whole_hours() % 24, span.whole_minutes() % 60);
    let parts: Vec<String> = [(days, "day"), (hours, "hour"), (minutes, "minute")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number} {unit}{}", if number == 1 { "" } else { "s" }))
        .collect();
    if parts.is_empty() { format!("{} seconds", span.whole_seconds()) } else { parts.join(" ") }
}

#[cfg(test)]
mod tests;
