//! Recurrence rules (RFC 5545 §3.3.10) on the plain calendar: local dates and times, without any zone.
//!
//! The calendar is the crate rrule's. Its zones are not used: around a change of the clocks it drops occurrences and
//! repeats others, so it is given UTC, and [`super::schedule`] says when clocks show what it found. `COUNT` and `UNTIL` are
//! kept here too, as they are about occurrences and instants.
//!
//! What a rule leaves to its start is written out (`FREQ=WEEKLY` from a Friday is `BYDAY=FR`), so that the calendar can
//! begin with any of its periods: the next occurrence of a rule that has been running for years is found at once.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use chrono::{Month, NaiveDate, NaiveDateTime, TimeZone as _, Timelike as _, Weekday};
use rrule::{Frequency, NWeekday, RRule, RRuleSet, Tz, Unvalidated};
use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime, Time};

use chrono::Datelike as _;

/// Longest rule, in bytes.
pub(crate) const MAX_BYTES: usize = 500;
/// Longest step between periods.
const MAX_INTERVAL: u16 = 1000;
/// Most occurrences that a rule can ask for.
const MAX_COUNT: u32 = 10_000;

/// The last occurrence that a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Not after this instant.
    Instant(OffsetDateTime),
    /// Not after clocks show this.
    Local(PrimitiveDateTime),
}

/// A rule with its start.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    start: PrimitiveDateTime,
    calendar: RRule<Unvalidated>,
    count: Option<u32>,
    until: Option<Until>,
}

/// A text is not a rule that can be followed. Says what is wrong, for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

fn refuse<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(why.into()))
}

impl Rule {
    /// The rule that this text is, from `start` on. Fractions of its second are left away.
    pub(crate) fn parse(text: &str, start: PrimitiveDateTime) -> Result<Rule, Refused> {
        let start = start.replace_nanosecond(0).unwrap_or(start);
        if text.len() > MAX_BYTES {
            return refuse(format!("must be at most {MAX_BYTES} bytes"));
        }
        let upper = text.trim().to_ascii_uppercase();
        if upper.chars().any(char::is_control) || ["EXDATE", "RDATE", "DTSTART"].iter().any(|name| upper.contains(name)) {
            return refuse(
                "must be the rule alone, in one line; its start is the reminder's time, days that are left out go into exdates",
            );
        }
        let parts = parts(upper.strip_prefix("RRULE:").unwrap_or(&upper))?;
        let get = |name: &str| parts.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let frequency = match get("FREQ") {
            Some("MINUTELY") => Frequency::Minutely,
            Some("HOURLY") => Frequency::Hourly,
            Some("DAILY") => Frequency::Daily,
            Some("WEEKLY") => Frequency::Weekly,
            Some("MONTHLY") => Frequency::Monthly,
            Some("YEARLY") => Frequency::Yearly,
            Some("SECONDLY") => return refuse("FREQ=SECONDLY is too often; the shortest step is a minute"),
            Some(other) => return refuse(format!("FREQ={other} is not a frequency; use DAILY, WEEKLY, MONTHLY or YEARLY, say")),
            None => return refuse("must say how often, as FREQ=WEEKLY"),
        };
        if get("BYSECOND").is_some() {
            return refuse("BYSECOND is not supported; an occurrence has the seconds of the reminder's own time");
        }
        let step = get("INTERVAL").map_or(Ok(1), |value| number("INTERVAL", value, 1..=MAX_INTERVAL))?;
        // The crate loses its step where it leaps over what such parts rule out.
        let filtered = parts.iter().any(|(name, _)| name.starts_with("BY"));
        if matches!(frequency, Frequency::Hourly | Frequency::Minutely) && filtered && (step > 1 || get("BYSETPOS").is_some()) {
            return refuse(
                "repeats within a day with INTERVAL or BYSETPOS and other BY parts; list the times, as FREQ=DAILY;BYHOUR=8,12,16",
            );
        }
        if get("BYSETPOS").is_some() && parts.iter().filter(|(name, _)| name.starts_with("BY")).count() == 1 {
            return refuse("BYSETPOS chooses among what another BY part names; there is none");
        }
        let calendar = RRule::new(frequency)
            .interval(step)
            .week_start(get("WKST").map_or(Ok(Weekday::Mon), weekday)?)
            .by_month(&months(get("BYMONTH"))?)
            .by_week_no(list("BYWEEKNO", get("BYWEEKNO"), -53..=53)?)
            .by_year_day(list("BYYEARDAY", get("BYYEARDAY"), -366..=366)?)
            .by_month_day(list("BYMONTHDAY", get("BYMONTHDAY"), -31..=31)?)
            .by_weekday(weekdays(get("BYDAY"), frequency)?)
            .by_hour(list("BYHOUR", get("BYHOUR"), 0..=23)?)
            .by_minute(list("BYMINUTE", get("BYMINUTE"), 0..=59)?)
            .by_set_pos(list("BYSETPOS", get("BYSETPOS"), -366..=366)?);
        let count = get("COUNT").map(|value| number("COUNT", value, 1..=MAX_COUNT)).transpose()?;
        let until = get("UNTIL").map(until).transpose()?;
        if count.is_some() && until.is_some() {
            return refuse("has both COUNT and UNTIL; only one of them can end it");
        }
        let calendar = written_out(calendar, start);
        calendar.clone().validate(beginning(start)).map_err(|error| Refused(in_words(&error)))?;
        Ok(Rule { start, calendar, count, until })
    }

    /// Where its `UNTIL` ends it.
    pub(crate) fn until(&self) -> Option<Until> {
        self.until
    }

    /// Where its `COUNT` ends it: at its last occurrence. `None` without one, or when it ends before by itself.
    pub(crate) fn last_of_count(&self) -> Option<PrimitiveDateTime> {
        let nth = usize::try_from(self.count?).ok()?.checked_sub(1)?;
        self.from(self.start).nth(nth)
    }

    /// Its occurrences from `floor` on, in the order of the calendar, neither ended by `COUNT` nor by `UNTIL`. Ends by
    /// itself when the calendar holds no more, or none for a very long time.
    pub(crate) fn from(&self, floor: PrimitiveDateTime) -> impl Iterator<Item = PrimitiveDateTime> {
        let floor = floor.max(self.start);
        let beginning = beginning(self.period_before(floor));
        // It was validated with its start, and no check looks at more of a start than its zone.
        let calendar = self.calendar.clone().validate(beginning).ok();
        calendar
            .into_iter()
            .flat_map(move |calendar| RRuleSet::new(beginning).rrule(calendar).limit().into_iter())
            .map_while(|occurrence| local(occurrence.naive_utc()))
            .filter(move |occurrence| *occurrence >= floor)
    }

    /// The beginning of a period of this rule, at or before `floor`, at most two periods ahead of it.
    fn period_before(&self, floor: PrimitiveDateTime) -> PrimitiveDateTime {
        let interval = i64::from(self.calendar.get_interval());
        let (start, date) = (self.start.date(), floor.date());
        let steps = |periods: i64| (periods / interval - 1).max(0) * interval;
        match self.calendar.get_freq() {
            Frequency::Yearly => {
                let year = start.year().saturating_add(small(steps(i64::from(date.year() - start.year()))));
                Date::from_ordinal_date(year, 1).unwrap_or(start).midnight()
            }
            Frequency::Monthly => {
                let first = months_since_zero(start);
                let month = first + steps(months_since_zero(date) - first);
                first_of_month(month).unwrap_or(start).midnight()
            }
            Frequency::Weekly => {
                let into_week = i64::from(start.weekday().number_days_from_monday())
                    - i64::from(self.calendar.get_week_start().num_days_from_monday());
                let week = start.saturating_sub(Duration::days(into_week.rem_euclid(7)));
                week.saturating_add(Duration::weeks(steps((date - week).whole_weeks()))).midnight()
            }
            Frequency::Daily => start.saturating_add(Duration::days(steps((date - start).whole_days()))).midnight(),
            Frequency::Hourly => {
                let hour = with_time(self.start, self.start.hour(), 0, 0);
                hour.saturating_add(Duration::hours(steps((floor - hour).whole_hours())))
            }
            Frequency::Minutely | Frequency::Secondly => {
                let minute = with_time(self.start, self.start.hour(), self.start.minute(), 0);
                minute.saturating_add(Duration::minutes(steps((floor - minute).whole_minutes())))
            }
        }
    }
}

/// With everything that it leaves to its start.
fn written_out(rule: RRule<Unvalidated>, start: PrimitiveDateTime) -> RRule<Unvalidated> {
    let frequency = rule.get_freq();
    let names_days =
        !rule.get_by_weekday().is_empty() || !rule.get_by_month_day().is_empty() || !rule.get_by_year_day().is_empty();
    let names_months = !rule.get_by_month().is_empty();
    let own_weekday = vec![NWeekday::Every(weekday_of(start.date()))];
    let own_day = vec![i8::try_from(start.day()).unwrap_or(1)];
    let of_week = !rule.get_by_week_no().is_empty();
    let rule = match frequency {
        Frequency::Yearly if !names_days && of_week => rule.by_weekday(own_weekday),
        Frequency::Yearly if !names_days && names_months => rule.by_month_day(own_day),
        Frequency::Yearly if !names_days => {
            rule.by_month(&[Month::try_from(u8::from(start.month())).unwrap_or(Month::January)]).by_month_day(own_day)
        }
        Frequency::Monthly if !names_days => rule.by_month_day(own_day),
        Frequency::Weekly if !names_days => rule.by_weekday(own_weekday),
        _ => rule,
    };
    let by_hour = rule.get_by_hour().is_empty() && !matches!(frequency, Frequency::Hourly | Frequency::Minutely);
    let by_minute = rule.get_by_minute().is_empty() && frequency != Frequency::Minutely;
    let rule = if by_hour { rule.by_hour(vec![start.hour()]) } else { rule };
    let rule = if by_minute { rule.by_minute(vec![start.minute()]) } else { rule };
    rule.by_second(vec![start.second()])
}

/// Names and values, each name known and given once.
fn parts(text: &str) -> Result<Vec<(&str, &str)>, Refused> {
    const KNOWN: [&str; 14] = [
        "FREQ",
        "UNTIL",
        "COUNT",
        "INTERVAL",
        "BYSECOND",
        "BYMINUTE",
        "BYHOUR",
        "BYDAY",
        "BYMONTHDAY",
        "BYYEARDAY",
        "BYWEEKNO",
        "BYMONTH",
        "BYSETPOS",
        "WKST",
    ];
    let mut parts: Vec<(&str, &str)> = Vec::new();
    for part in text.trim_end_matches(';').split(';') {
        let Some((name, value)) = part.split_once('=') else {
            return refuse(format!("`{part}` is not of the form NAME=VALUE"));
        };
        if !KNOWN.contains(&name) {
            return refuse(format!("{name} is not a part of a recurrence rule that is supported here"));
        }
        if parts.iter().any(|(known, _)| *known == name) {
            return refuse(format!("{name} is given twice"));
        }
        parts.push((name, value));
    }
    Ok(parts)
}

fn number<T: FromStr + PartialOrd + Display>(name: &str, text: &str, range: RangeInclusive<T>) -> Result<T, Refused> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let parsed = if digits.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
    match parsed.filter(|number| range.contains(number)) {
        Some(number) => Ok(number),
        None => refuse(format!("{name}={text} is not a number from {} to {}", range.start(), range.end())),
    }
}

/// Numbers, sorted, each once. None of the lists has a use for 0 but those that begin with it.
fn list<T>(name: &str, text: Option<&str>, range: RangeInclusive<T>) -> Result<Vec<T>, Refused>
where
    T: FromStr + Ord + Display + Copy + From<bool>,
{
    let Some(text) = text else { return Ok(Vec::new()) };
    let mut numbers: Vec<T> = text.split(',').map(|item| number(name, item, range.clone())).collect::<Result<_, _>>()?;
    let zero = T::from(false);
    if *range.start() != zero && numbers.contains(&zero) {
        return refuse(format!("{name} must not hold 0"));
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn months(text: Option<&str>) -> Result<Vec<Month>, Refused> {
    let numbers = list("BYMONTH", text, 1_u8..=12)?;
    Ok(numbers.into_iter().filter_map(|number| Month::try_from(number).ok()).collect())
}

fn weekday(text: &str) -> Result<Weekday, Refused> {
    match text {
        "MO" => Ok(Weekday::Mon),
        "TU" => Ok(Weekday::Tue),
        "WE" => Ok(Weekday::Wed),
        "TH" => Ok(Weekday::Thu),
        "FR" => Ok(Weekday::Fri),
        "SA" => Ok(Weekday::Sat),
        "SU" => Ok(Weekday::Sun),
        other => refuse(format!("`{other}` is not a day of the week; use MO, TU, WE, TH, FR, SA or SU")),
    }
}

fn weekdays(text: Option<&str>, frequency: Frequency) -> Result<Vec<NWeekday>, Refused> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let mut days = Vec::new();
    for item in text.split(',') {
        let split = item.len().saturating_sub(2);
        let (nth, day) = if item.is_char_boundary(split) { item.split_at(split) } else { ("", item) };
        let day = weekday(day)?;
        let day = match nth {
            "" => NWeekday::Every(day),
            _ if !matches!(frequency, Frequency::Monthly | Frequency::Yearly) => {
                return refuse(format!("BYDAY={item} counts days within a month or a year; FREQ must be MONTHLY or YEARLY"));
            }
            nth => {
                let nth = number("BYDAY", nth, -53_i16..=53)?;
                if nth == 0 {
                    return refuse(format!("BYDAY={item} counts from 1 or from -1"));
                }
                NWeekday::Nth(nth, day)
            }
        };
        if !days.contains(&day) {
            days.push(day);
        }
    }
    Ok(days)
}

/// `20261224`, `20261224T080000` or `20261224T080000Z`.
fn until(text: &str) -> Result<Until, Refused> {
    let wrong = || Refused(format!("UNTIL={text} is not a date or a time such as 20261224T080000Z"));
    let digits = |text: &str, range: std::ops::Range<usize>| -> Option<u32> {
        let part = text.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let read = || -> Option<Until> {
        let month = time::Month::try_from(u8::try_from(digits(text, 4..6)?).ok()?).ok()?;
        let year = i32::try_from(digits(text, 0..4)?).ok()?;
        let date = Date::from_calendar_date(year, month, u8::try_from(digits(text, 6..8)?).ok()?).ok()?;
        let Some(rest) = text.get(8..).filter(|rest| !rest.is_empty()) else {
            return Some(Until::Local(PrimitiveDateTime::new(date, Time::MAX)));
        };
        let clock = rest.strip_prefix('T')?;
        let (clock, zulu) = clock.strip_suffix('Z').map_or((clock, false), |clock| (clock, true));
        let part = |range| digits(clock, range).and_then(|number| u8::try_from(number).ok());
        let time = Time::from_hms(part(0..2)?, part(2..4)?, part(4..6)?).ok().filter(|_| clock.len() == 6)?;
        let local = PrimitiveDateTime::new(date, time);
        Some(if zulu { Until::Instant(local.assume_utc()) } else { Until::Local(local) })
    };
    read().ok_or_else(wrong)
}

/// What the crate says of a rule, without its quotes and names of ours.
fn in_words(error: &rrule::RRuleError) -> String {
    let text = error.to_string().replace('`', "");
    let text = text.trim_start_matches("RRule validation error: ");
    format!("cannot be followed: {}", text.trim_end_matches('.'))
}

fn weekday_of(date: Date) -> Weekday {
    match date.weekday() {
        time::Weekday::Monday => Weekday::Mon,
        time::Weekday::Tuesday => Weekday::Tue,
        time::Weekday::Wednesday => Weekday::Wed,
        time::Weekday::Thursday => Weekday::Thu,
        time::Weekday::Friday => Weekday::Fri,
        time::Weekday::Saturday => Weekday::Sat,
        time::Weekday::Sunday => Weekday::Sun,
    }
}

fn small(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn months_since_zero(date: Date) -> i64 {
    i64::from(date.year()) * 12 + i64::from(u8::from(date.month())) - 1
}

fn first_of_month(months: i64) -> Option<Date> {
    let month = time::Month::try_from(u8::try_from(months.rem_euclid(12) + 1).ok()?).ok()?;
    Date::from_calendar_date(i32::try_from(months.div_euclid(12)).ok()?, month, 1).ok()
}

fn with_time(local: PrimitiveDateTime, hour: u8, minute: u8, second: u8) -> PrimitiveDateTime {
    Time::from_hms(hour, minute, second).map_or(local, |time| local.replace_time(time))
}

/// As the crate takes a start: on the plain calendar, which is UTC's.
fn beginning(local: PrimitiveDateTime) -> chrono::DateTime<Tz> {
    let date = NaiveDate::from_ymd_opt(local.year(), u32::from(u8::from(local.month())), u32::from(local.day()));
    let naive = date.and_then(|date| date.and_hms_opt(local.hour().into(), local.minute().into(), local.second().into()));
    Tz::UTC.from_utc_datetime(&naive.unwrap_or_default())
}

fn local(naive: NaiveDateTime) -> Option<PrimitiveDateTime> {
    let small = |number: u32| u8::try_from(number).ok();
    let month = time::Month::try_from(small(naive.month())?).ok()?;
    let date = Date::from_calendar_date(naive.year(), month, small(naive.day())?).ok()?;
    let time = Time::from_hms(small(naive.hour())?, small(naive.minute())?, small(naive.second())?).ok()?;
    Some(PrimitiveDateTime::new(date, time))
}

#[cfg(test)]
mod tests;
