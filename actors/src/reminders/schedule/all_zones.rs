//! Every zone, from 2020 to 2040, against an oracle that walks the calendar day by day and asks a zone nothing but what its
//! clocks show at an instant.
//!
//! A sample of zones in an ordinary run; all of them with BOWERBIRD_PROVE.

use std::collections::BTreeSet;

use time::{Month, Time, macros::datetime};

use super::*;
use crate::reminders::zone;

const FIRST_YEAR: i32 = 2020;
const LAST_YEAR: i32 = 2040;

/// Is this day of the calendar one of the rule's?
type Day = fn(year: i32, month: u8, day: u8, weekday: u8) -> bool;

const RULES: [(&str, Day); 6] = [
    ("FREQ=DAILY", |_, _, _, _| true),
    // The days on whose nights clocks are changed most often: Sundays.
    ("FREQ=WEEKLY;BYDAY=SU", |_, _, _, weekday| weekday == 6),
    ("FREQ=MONTHLY;BYDAY=-1SU,2SU", |year, month, day, weekday| {
        weekday == 6 && ((8..=14).contains(&day) || day + 7 > length_of(year, month))
    }),
    ("FREQ=MONTHLY;BYDAY=2TU", |_, _, day, weekday| weekday == 1 && (8..=14).contains(&day)),
    ("FREQ=MONTHLY;BYMONTHDAY=-1", |year, month, day, _| day == length_of(year, month)),
    ("FREQ=YEARLY;BYMONTH=3,10;BYMONTHDAY=29", |_, month, day, _| day == 29 && (month == 3 || month == 10)),
];
/// Hours and minutes around which clocks are changed.
const TIMES: [(u8, u8); 4] = [(2, 30), (0, 0), (1, 59), (8, 0)];

fn length_of(year: i32, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// When the clocks of this zone show this for the first time, or, if they skip it, as long after the jump as it says.
fn when(zone: &Zone, local: PrimitiveDateTime) -> OffsetDateTime {
    let as_utc = local.assume_utc();
    let offsets: BTreeSet<Duration> = (-30..=30)
        .map(|hours| as_utc + Duration::hours(hours))
        .map(|instant| zone.local(instant).assume_utc() - instant)
        .collect();
    let shown: Vec<OffsetDateTime> = offsets.iter().map(|offset| as_utc - *offset).collect();
    let exact = shown.iter().copied().filter(|instant| zone.local(*instant) == local).min();
    // Of instants that show a later time, the first is the one that is as late as the jump is long.
    exact.or_else(|| shown.iter().copied().filter(|instant| zone.local(*instant) > local).min()).unwrap()
}

fn expected(zone: &Zone, is_day: Day, time: Time) -> BTreeSet<OffsetDateTime> {
    let mut all = BTreeSet::new();
    // 1 January 2020 was a Wednesday.
    let mut weekday = 2;
    for year in FIRST_YEAR..=LAST_YEAR {
        for month in 1..=12 {
            for day in 1..=length_of(year, month) {
                if is_day(year, month, day, weekday) {
                    let date = Date::from_calendar_date(year, Month::try_from(month).unwrap(), day).unwrap();
                    all.insert(when(zone, PrimitiveDateTime::new(date, time)));
                }
                weekday = (weekday + 1) % 7;
            }
        }
    }
    all
}

#[test]
fn each_occurrence_comes_exactly_once_in_every_zone_from_2020_to_2040() {
    let proving = std::env::var_os("BOWERBIRD_PROVE").is_some();
    // With Lord Howe's half an hour and Troll's two hours; zones that jump at midnight; one that does in Ramadan.
    let notable =
        ["Australia/Lord_Howe", "Antarctica/Troll", "America/Santiago", "Asia/Beirut", "Africa/Casablanca", "Europe/Dublin"];
    let zones: Vec<String> = zone::names()
        .into_iter()
        .enumerate()
        .filter(|(index, name)| proving || index % 60 == 7 || notable.contains(&name.as_str()))
        .map(|(_, name)| name)
        .collect();
    assert!(zones.len() > if proving { 590 } else { 12 }, "{} zones", zones.len());
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let checked: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let running: Vec<_> =
            zones.chunks(zones.len().div_ceil(workers)).map(|zones| scope.spawn(move || check(zones, proving))).collect();
        running.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let (runs, occurrences) = checked.into_iter().fold((0, 0), |(runs, all), (more, found)| (runs + more, all + found));
    let years = usize::try_from(LAST_YEAR - FIRST_YEAR + 1).unwrap();
    println!(
        "{} zones, rules of {}: {} zone-years, {} with each rule and time of day; {occurrences} occurrences, each exactly once",
        zones.len(),
        zone::rules_version(),
        zones.len() * years,
        runs * years
    );
}

/// How many rules were followed through the years, and how many occurrences that were.
fn check(zones: &[String], proving: bool) -> (usize, usize) {
    let (mut runs, mut occurrences) = (0, 0);
    for name in zones {
        let zone = Zone::named(name).unwrap_or_else(|| panic!("{name}"));
        for (index, (text, is_day)) in RULES.into_iter().enumerate() {
            for (hour, minute) in TIMES {
                // A day for each day is most of the work: once for each zone in an ordinary run.
                if !proving && index == 0 && hour != 2 {
                    continue;
                }
                let time = Time::from_hms(hour, minute, 0).unwrap();
                let start = PrimitiveDateTime::new(Date::from_calendar_date(FIRST_YEAR, Month::January, 1).unwrap(), time);
                let rule = Some(Rule::parse(text, start).unwrap());
                let zone = zone.clone();
                let schedule = Schedule { zone, start, rule, exdates: Vec::new(), last_local: None, ends_at: None };
                let expected = expected(&schedule.zone, is_day, time);
                let mut floor = datetime!(2019-12-29 00:00 UTC);
                for wanted in &expected {
                    let next = schedule.next_after(floor).map(|next| next.at);
                    assert_eq!(next, Some(*wanted), "{name}, {text} at {time}, after {floor}");
                    floor = *wanted;
                }
                let after = schedule.next_after(floor).unwrap();
                assert_eq!(after.local.year(), LAST_YEAR + 1, "{name}, {text} at {time}");
                runs += 1;
                occurrences += expected.len();
            }
        }
    }
    (runs, occurrences)
}
