//! When a reminder is due: its time, how it repeats, and what the clocks of its zone make of that.
//!
//! Occurrences are local times of the plain calendar; each has one instant ([`super::zone`]). Where clocks are put forward
//! a skipped occurrence comes that much later, which may be after the following one, and may be at the same instant as
//! another: occurrences come in the order of their instants, and one instant is one occurrence.

use std::iter;

use time::{
    Date, Duration, OffsetDateTime, PrimitiveDateTime, format_description::well_known::Rfc3339, macros::format_description,
};

use super::{
    rule::{Rule, Until},
    zone::{LONGEST_GAP, Zone},
};

/// Nothing is found further ahead than this.
pub(crate) const HORIZON: Duration = Duration::days(366 * 100);
/// Occurrences that are looked at in one search and are none: excluded (of a day only two are looked at), or before the
/// search begins, after clocks were put forward by a day. More are never needed; a rule for which they are not enough is
/// refused when it is made.
const MAX_LOOKED_AT: usize = 4_000;
/// Occurrences that are counted one by one.
pub(crate) const MAX_COUNTED: usize = 10_000;

/// A day or a time at which a rule has no occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exdate {
    /// The whole day.
    Day(Date),
    /// That time.
    Time(PrimitiveDateTime),
}

impl Exdate {
    /// A day (`2026-12-25`), a local time (`2026-12-25T08:00`), or an instant (`2026-12-25T07:00:00Z`).
    pub(crate) fn parse(text: &str, zone: &Zone) -> Option<Exdate> {
        if let Ok(day) = Date::parse(text, format_description!("[year]-[month]-[day]")) {
            return Some(Exdate::Day(day));
        }
        let instant = OffsetDateTime::parse(text, &Rfc3339).ok().map(|instant| zone.local(instant));
        read_local(text).or(instant).map(|local| Exdate::Time(local.replace_nanosecond(0).unwrap_or(local)))
    }

    /// As it is stored and shown, without a zone.
    pub(crate) fn to_text(self) -> String {
        match self {
            Exdate::Day(day) => day.format(format_description!("[year]-[month]-[day]")).unwrap_or_default(),
            Exdate::Time(time) => write_local(time),
        }
    }
}

/// A local time: `2026-12-24T08:00` or `2026-12-24T08:00:00`.
pub(crate) fn read_local(text: &str) -> Option<PrimitiveDateTime> {
    PrimitiveDateTime::parse(text, format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]"))
        .or_else(|_| PrimitiveDateTime::parse(text, format_description!("[year]-[month]-[day]T[hour]:[minute]")))
        .ok()
}

/// As [`read_local`] reads it, with its seconds.
pub(crate) fn write_local(local: PrimitiveDateTime) -> String {
    local.format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]")).unwrap_or_default()
}

/// One time at which a reminder is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occurrence {
    /// When.
    pub(crate) at: OffsetDateTime,
    /// What it is on the calendar; by this it is known when the rules of its zone change.
    pub(crate) local: PrimitiveDateTime,
}

/// Occurrences that lie in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// How many, up to [`MAX_COUNTED`].
    pub(crate) count: usize,
    /// The last of them.
    pub(crate) latest: Option<Occurrence>,
}

/// When a reminder is due.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Whose clocks it follows.
    pub(crate) zone: Zone,
    /// Its time, and where its rule begins.
    pub(crate) start: PrimitiveDateTime,
    /// How it repeats.
    pub(crate) rule: Option<Rule>,
    /// When it does not. In their order.
    pub(crate) exdates: Vec<Exdate>,
    /// The last occurrence that a `COUNT` allows: see [`Rule::last_of_count`].
    pub(crate) last_local: Option<PrimitiveDateTime>,
    /// No occurrence comes after this.
    pub(crate) ends_at: Option<OffsetDateTime>,
}

impl Schedule {
    /// The first occurrence after `floor`, and after `handled` on whatever instant the zone's rules put that now.
    pub(crate) fn next(&self, floor: OffsetDateTime, handled: Option<PrimitiveDateTime>) -> Option<Occurrence> {
        let floor = handled.map_or(floor, |handled| floor.max(self.zone.instant(handled)));
        self.next_after(floor)
    }

    /// The first occurrence after this instant.
    pub(crate) fn next_after(&self, floor: OffsetDateTime) -> Option<Occurrence> {
        let Some(rule) = &self.rule else {
            let only = Occurrence { at: self.zone.instant(self.start), local: self.start };
            return (only.at > floor).then_some(only);
        };
        let mut best: Option<Occurrence> = None;
        for occurrence in self.occurrences(rule, floor, floor.saturating_add(HORIZON), MAX_LOOKED_AT) {
            // What is still to come is not due before this one, unless this one was moved past it.
            if best.is_some_and(|best| occurrence.local > self.zone.local(best.at)) {
                break;
            }
            if best.is_none_or(|best| occurrence.at < best.at) {
                best = Some(occurrence);
            }
        }
        best
    }

    /// What came after `floor` and not after `now`.
    pub(crate) fn passed(&self, floor: OffsetDateTime, now: OffsetDateTime) -> Passed {
        let Some(rule) = &self.rule else {
            let latest = self.next_after(floor).filter(|only| only.at <= now);
            return Passed { count: usize::from(latest.is_some()), latest };
        };
        let mut passed = Passed { count: 0, latest: None };
        for occurrence in self.occurrences(rule, floor, now, MAX_LOOKED_AT + MAX_COUNTED) {
            if passed.latest.is_none_or(|latest| occurrence.at > latest.at) {
                passed.latest = Some(occurrence);
            }
            passed.count += 1;
            if passed.count == MAX_COUNTED {
                // As dense as this, the last day holds the last one.
                let day_before = now.saturating_sub(Duration::DAY).max(floor);
                let last =
                    self.occurrences(rule, day_before, now, MAX_LOOKED_AT + MAX_COUNTED).max_by_key(|occurrence| occurrence.at);
                passed.latest = last.or(passed.latest);
                break;
            }
        }
        passed
    }

    /// Occurrences after `floor` and not after `end`, in the order of the calendar; at most `most` are looked at.
    fn occurrences(
        &self,
        rule: &Rule,
        floor: OffsetDateTime,
        end: OffsetDateTime,
        most: usize,
    ) -> impl Iterator<Item = Occurrence> {
        let (until_instant, until_local) = match rule.until() {
            Some(Until::Instant(instant)) => (Some(instant), None),
            Some(Until::Local(local)) => (None, Some(local)),
            None => (None, None),
        };
        let end = [Some(end), until_instant, self.ends_at].into_iter().flatten().min().unwrap_or(end);
        let last_local = [until_local, self.last_local, Some(self.zone.local(end).saturating_add(LONGEST_GAP))];
        let last_local = last_local.into_iter().flatten().min();
        let from = self.zone.local(floor).saturating_sub(self.zone.put_forward_before(floor));
        self.not_excluded(rule, from, most)
            .take_while(move |local| last_local.is_none_or(|last| *local <= last))
            .map(|local| Occurrence { at: self.zone.instant(local), local })
            .filter(move |occurrence| occurrence.at > floor && occurrence.at <= end)
    }

    /// What the rule has from `from` on and is not excluded; at most `most` are looked at. Of days that are excluded as a
    /// whole, those that follow one another are passed over in one leap, however many occurrences they have.
    fn not_excluded(&self, rule: &Rule, from: PrimitiveDateTime, most: usize) -> impl Iterator<Item = PrimitiveDateTime> {
        let excludes = |exdate: Exdate| self.exdates.binary_search(&exdate).is_ok();
        let mut candidates = rule.from(from);
        let mut left_out: Option<Date> = None;
        let mut left = most;
        iter::from_fn(move || {
            loop {
                left = left.checked_sub(1)?;
                let local = candidates.next()?;
                let day = local.date();
                if excludes(Exdate::Day(day)) {
                    // Beginning anew costs more than looking at one; a day may have more than a thousand.
                    if left_out.replace(day) == Some(day) {
                        let mut after = day.next_day()?;
                        while excludes(Exdate::Day(after)) {
                            after = after.next_day()?;
                        }
                        candidates = rule.from(after.midnight());
                    }
                } else if !excludes(Exdate::Time(local)) {
                    return Some(local);
                }
            }
        })
    }
}

#[cfg(test)]
mod all_zones;
#[cfg(test)]
mod tests;
