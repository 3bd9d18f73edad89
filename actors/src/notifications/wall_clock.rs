//! Times of day in a zone: when quiet hours end, when the next digest is due. The zone's own rules decide: a time that a
//! change of the clock leaves out comes when the clock has moved on, one that it shows twice counts the first time.

use bowerbird_nats::notification::{Digest, QuietHours, Weekday};
use chrono::{DateTime, Datelike as _, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use time::OffsetDateTime;

/// A clock that moves forward leaves out a day at most (Samoa, 2011); looked at in steps that every change is made of.
const GAP_STEP: TimeDelta = TimeDelta::minutes(15);
const GAP_STEPS: usize = 100;

/// Whether this is an IANA time zone.
pub(crate) fn is_zone(name: &str) -> bool {
    zone(name).is_some()
}

/// Whether this is a time of day such as `07:00`.
pub(crate) fn is_time(text: &str) -> bool {
    time_of_day(text).is_some()
}

/// If these are quiet hours: when they end.
pub(crate) fn quiet_until(now: OffsetDateTime, quiet: &QuietHours) -> Option<OffsetDateTime> {
    let (zone, from, until) = (zone(&quiet.time_zone)?, time_of_day(&quiet.from)?, time_of_day(&quiet.until)?);
    let now = utc(now)?;
    let local = now.with_timezone(&zone).time();
    let is_quiet = if from <= until { from <= local && local < until } else { from <= local || local < until };
    if is_quiet { next(now, zone, until, &[]) } else { None }
}

/// When the next digest is due.
pub(crate) fn next_digest(now: OffsetDateTime, digest: &Digest) -> Option<OffsetDateTime> {
    next(utc(now)?, zone(&digest.time_zone)?, time_of_day(&digest.at)?, &digest.weekdays)
}

/// The first instant after `now` at which clocks in the zone show this time, on one of these days.
fn next(now: DateTime<Utc>, zone: Tz, at: NaiveTime, weekdays: &[Weekday]) -> Option<OffsetDateTime> {
    let today = now.with_timezone(&zone).date_naive();
    // From yesterday: a time that was left out then may come only now. A week and a day later every day was looked at.
    let days = (0..10).filter_map(|days| today.checked_sub_days(Days::new(1))?.checked_add_days(Days::new(days)));
    let instant = days
        .filter(|day| weekdays.is_empty() || weekdays.contains(&weekday(*day)))
        .filter_map(|day| instant(zone, day.and_time(at)))
        .find(|instant| *instant > now)?;
    OffsetDateTime::from_unix_timestamp(instant.timestamp()).ok()
}

fn instant(zone: Tz, wanted: NaiveDateTime) -> Option<DateTime<Utc>> {
    let mut local = wanted;
    for _ in 0..GAP_STEPS {
        match zone.from_local_datetime(&local) {
            LocalResult::Single(instant) | LocalResult::Ambiguous(instant, _) => return Some(instant.with_timezone(&Utc)),
            LocalResult::None => local = local.checked_add_signed(GAP_STEP)?,
        }
    }
    None
}

fn weekday(day: NaiveDate) -> Weekday {
    match day.weekday() {
        chrono::Weekday::Mon => Weekday::Monday,
        chrono::Weekday::Tue => Weekday::Tuesday,
        chrono::Weekday::Wed => Weekday::Wednesday,
        chrono::Weekday::Thu => Weekday::Thursday,
        chrono::Weekday::Fri => Weekday::Friday,
        chrono::Weekday::Sat => Weekday::Saturday,
        chrono::Weekday::Sun => Weekday::Sunday,
    }
}

fn zone(name: &str) -> Option<Tz> {
    name.parse().ok()
}

fn time_of_day(text: &str) -> Option<NaiveTime> {
    let form =
        text.len() == 5 && text.bytes().enumerate().all(|(at, byte)| if at == 2 { byte == b':' } else { byte.is_ascii_digit() });
    form.then(|| NaiveTime::parse_from_str(text, "%H:%M").ok())?
}

fn utc(instant: OffsetDateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(instant.unix_timestamp(), instant.nanosecond())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn quiet(from: &str, until: &str, zone: &str) -> QuietHours {
        QuietHours { from: from.into(), until: until.into(), time_zone: zone.into() }
    }

    fn digest(at: &str, weekdays: &[Weekday], zone: &str) -> Digest {
        Digest { at: at.into(), weekdays: weekdays.to_vec(), time_zone: zone.into() }
    }

    #[test]
    fn quiet_hours_go_over_midnight_and_end_by_the_clock_on_the_wall() {
        let night = quiet("22:00", "07:00", "Europe/Berlin");
        assert_eq!(quiet_until(datetime!(2026-11-20 20:59:59 UTC), &night), None);
        assert_eq!(quiet_until(datetime!(2026-11-20 21:00 UTC), &night), Some(datetime!(2026-11-21 06:00 UTC)));
        assert_eq!(quiet_until(datetime!(2026-11-21 05:59:59 UTC), &night), Some(datetime!(2026-11-21 06:00 UTC)));
        assert_eq!(quiet_until(datetime!(2026-11-21 06:00 UTC), &night), None);
        let noon = quiet("12:00", "13:00", "UTC");
        assert_eq!(quiet_until(datetime!(2026-11-21 12:30 UTC), &noon), Some(datetime!(2026-11-21 13:00 UTC)));
        assert_eq!(quiet_until(datetime!(2026-11-21 13:00 UTC), &quiet("13:00", "13:00", "UTC")), None);
    }

    #[test]
    fn what_a_change_of_the_clock_leaves_out_or_shows_twice_comes_once() {
        // In Berlin the clock goes from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on 2026-10-25.
        let early = quiet("23:00", "02:30", "Europe/Berlin");
        assert_eq!(quiet_until(datetime!(2026-03-29 00:30 UTC), &early), Some(datetime!(2026-03-29 01:00 UTC)));
        let daily = digest("02:30", &[], "Europe/Berlin");
        assert_eq!(next_digest(datetime!(2026-03-28 12:00 UTC), &daily), Some(datetime!(2026-03-29 01:00 UTC)));
        assert_eq!(next_digest(datetime!(2026-10-24 12:00 UTC), &daily), Some(datetime!(2026-10-25 00:30 UTC)));
        assert_eq!(next_digest(datetime!(2026-10-25 00:30 UTC), &daily), Some(datetime!(2026-10-26 01:30 UTC)));
        // Samoa had no 2011-12-30.
        let samoa = digest("08:00", &[], "Pacific/Apia");
        assert_eq!(next_digest(datetime!(2011-12-29 18:00 UTC), &samoa), Some(datetime!(2011-12-30 10:00 UTC)));
    }

    #[test]
    fn a_digest_keeps_to_its_days() {
        let weekly = digest("08:00", &[Weekday::Monday], "UTC");
        assert_eq!(next_digest(datetime!(2026-11-20 12:00 UTC), &weekly), Some(datetime!(2026-11-23 08:00 UTC)));
        assert_eq!(next_digest(datetime!(2026-11-23 08:00 UTC), &weekly), Some(datetime!(2026-11-30 08:00 UTC)));
    }

    #[test]
    fn what_is_no_zone_and_no_time_is_refused() {
        for zone in ["Europe/Berlin", "UTC", "America/Argentina/Buenos_Aires"] {
            assert!(is_zone(zone), "{zone}");
        }
        for zone in ["", "Berlin", "CET+1", "../etc/passwd", "europe/berlin"] {
            assert!(!is_zone(zone), "{zone}");
        }
        for time in ["", "7:00", "24:00", "07:60", "07:00:00", "+7:00", "0a:00", "07.00"] {
            assert!(!is_time(time), "{time}");
        }
        assert!(is_time("00:00") && is_time("23:59"));
    }

    proptest! {
        #[test]
        fn in_every_zone_and_at_every_time_there_is_an_end_and_it_is_ahead(
            zone in 0..chrono_tz::TZ_VARIANTS.len(), seconds in 1_577_836_800_i64..2_208_988_800, from in 0_u32..1440, until in 0_u32..1440
        ) {
            let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let time = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
            let zone = chrono_tz::TZ_VARIANTS[zone].name();
            let next = next_digest(now, &digest(&time(until), &[], zone)).unwrap();
            prop_assert!(next > now && next - now <= time::Duration::hours(49), "{zone} {next}");
            if let Some(end) = quiet_until(now, &quiet(&time(from), &time(until), zone)) {
                prop_assert!(end > now && end - now <= time::Duration::hours(49));
            }
        }
    }
}
