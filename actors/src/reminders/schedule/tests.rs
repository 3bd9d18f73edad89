//! Schedules: clocks that change, days that are left out, ends.

use time::macros::{date, datetime};

use super::*;

fn schedule(zone: &str, start: PrimitiveDateTime, rule: &str) -> Schedule {
    let rule = (!rule.is_empty()).then(|| Rule::parse(rule, start).unwrap());
    let last_local = rule.as_ref().and_then(Rule::last_of_count);
    Schedule { zone: Zone::named(zone).unwrap(), start, rule, exdates: Vec::new(), last_local, ends_at: None }
}

fn all(schedule: &Schedule, mut floor: OffsetDateTime, number: usize) -> Vec<OffsetDateTime> {
    let mut found = Vec::new();
    while found.len() < number
        && let Some(next) = schedule.next_after(floor)
    {
        found.push(next.at);
        floor = next.at;
    }
    found
}

#[test]
fn a_reminder_follows_the_clocks_of_its_zone() {
    let daily = schedule("Europe/Berlin", datetime!(2026-03-28 08:00), "FREQ=DAILY");
    let found = all(&daily, datetime!(2026-03-01 00:00 UTC), 3);
    // Eight in winter time, eight in summer time.
    assert_eq!(found, [datetime!(2026-03-28 07:00 UTC), datetime!(2026-03-29 06:00 UTC), datetime!(2026-03-30 06:00 UTC)]);
    let once = schedule("Asia/Kathmandu", datetime!(2026-03-28 08:00), "");
    assert_eq!(all(&once, datetime!(2026-03-01 00:00 UTC), 3), [datetime!(2026-03-28 02:15 UTC)]);
    assert_eq!(once.next_after(datetime!(2026-03-28 02:15 UTC)), None);
}

#[test]
fn what_clocks_skip_comes_later_and_what_they_repeat_comes_once() {
    let night = schedule("Europe/Berlin", datetime!(2026-03-28 02:30), "FREQ=DAILY");
    let found = all(&night, datetime!(2026-03-01 00:00 UTC), 3);
    assert_eq!(found, [datetime!(2026-03-28 01:30 UTC), datetime!(2026-03-29 01:30 UTC), datetime!(2026-03-30 00:30 UTC)]);
    let night = schedule("Europe/Berlin", datetime!(2026-10-24 02:30), "FREQ=DAILY");
    let found = all(&night, datetime!(2026-10-01 00:00 UTC), 3);
    assert_eq!(found, [datetime!(2026-10-24 00:30 UTC), datetime!(2026-10-25 00:30 UTC), datetime!(2026-10-26 01:30 UTC)]);
}

#[test]
fn occurrences_come_in_the_order_of_instants_and_one_instant_is_one_occurrence() {
    // 02:30 is skipped and comes at 03:30, after 03:15 and at the same time as 03:30.
    let night = schedule("Europe/Berlin", datetime!(2026-03-29 00:00), "FREQ=DAILY;BYHOUR=2,3;BYMINUTE=15,30");
    let found = all(&night, datetime!(2026-03-28 12:00 UTC), 4);
    assert_eq!(
        found,
        [
            datetime!(2026-03-29 01:15 UTC),
            datetime!(2026-03-29 01:30 UTC),
            datetime!(2026-03-30 00:15 UTC),
            datetime!(2026-03-30 00:30 UTC)
        ]
    );
    let hourly = schedule("America/New_York", datetime!(2026-03-08 00:00), "FREQ=HOURLY");
    let found = all(&hourly, datetime!(2026-03-08 04:59 UTC), 5);
    assert!(found.windows(2).all(|pair| pair[1] - pair[0] == Duration::HOUR), "{found:?}");
}

#[test]
fn excluded_days_and_times_are_left_out_and_still_count() {
    let mut daily = schedule("Europe/Berlin", datetime!(2026-12-23 08:00), "FREQ=DAILY;COUNT=5");
    let zone = daily.zone.clone();
    daily.exdates = ["2026-12-24", "2026-12-25T08:00", "2026-12-26T07:00:00Z"]
        .map(|text| Exdate::parse(text, &zone).unwrap_or_else(|| panic!("{text}")))
        .to_vec();
    let texts: Vec<String> = daily.exdates.iter().map(|exdate| exdate.to_text()).collect();
    assert_eq!(texts, ["2026-12-24", "2026-12-25T08:00:00", "2026-12-26T08:00:00"]);
    assert_eq!(
        all(&daily, datetime!(2026-12-01 00:00 UTC), 9),
        [datetime!(2026-12-23 07:00 UTC), datetime!(2026-12-27 07:00 UTC)]
    );
    assert_eq!(Exdate::parse("2026-12-24", &zone), Some(Exdate::Day(date!(2026 - 12 - 24))));
    for wrong in ["", "24.12.2026", "2026-12-24T25:00", "2026-12-24 08:00", "2026-02-30"] {
        assert_eq!(Exdate::parse(wrong, &zone), None, "{wrong}");
    }
}

#[test]
fn a_rule_ends_with_its_count_its_until_or_its_end_whichever_is_first() {
    let start = datetime!(2026-01-01 08:00);
    let before = datetime!(2025-12-01 00:00 UTC);
    assert_eq!(all(&schedule("UTC", start, "FREQ=DAILY;COUNT=3"), before, 9).len(), 3);
    assert_eq!(all(&schedule("UTC", start, "FREQ=DAILY;UNTIL=20260105"), before, 9).len(), 5);
    assert_eq!(all(&schedule("UTC", start, "FREQ=DAILY;UNTIL=20260105T080000Z"), before, 9).len(), 5);
    assert_eq!(all(&schedule("UTC", start, "FREQ=DAILY;UNTIL=20260105T075959Z"), before, 9).len(), 4);
    // Eight in Tokyo is not yet midnight in UTC.
    assert_eq!(all(&schedule("Asia/Tokyo", start, "FREQ=DAILY;UNTIL=20260104T230000Z"), before, 9).len(), 5);
    assert_eq!(all(&schedule("Asia/Tokyo", start, "FREQ=DAILY;UNTIL=20260104T225959Z"), before, 9).len(), 4);
    let ending = Schedule { ends_at: Some(datetime!(2026-01-02 08:00 UTC)), ..schedule("UTC", start, "FREQ=DAILY;COUNT=9") };
    assert_eq!(all(&ending, before, 9).len(), 2);
    assert_eq!(ending.next_after(datetime!(2026-01-02 08:00 UTC)), None);
}

#[test]
fn what_passed_is_counted_and_the_last_of_it_is_known() {
    let daily = schedule("Europe/Berlin", datetime!(2026-01-01 08:00), "FREQ=DAILY");
    let passed = daily.passed(datetime!(2026-01-01 00:00 UTC), datetime!(2026-01-10 06:59 UTC));
    assert_eq!((passed.count, passed.latest.unwrap().at), (9, datetime!(2026-01-09 07:00 UTC)));
    let none = daily.passed(datetime!(2026-01-01 07:00 UTC), datetime!(2026-01-02 06:59 UTC));
    assert_eq!(none, Passed { count: 0, latest: None });
    // More than is counted one by one.
    let often = schedule("Europe/Berlin", datetime!(2026-01-01 08:00), "FREQ=MINUTELY");
    let passed = often.passed(datetime!(2026-01-01 00:00 UTC), datetime!(2026-06-01 00:00:30 UTC));
    assert_eq!((passed.count, passed.latest.unwrap().at), (MAX_COUNTED, datetime!(2026-06-01 00:00 UTC)));
}

#[test]
fn an_occurrence_that_was_handled_is_not_handled_again_when_its_zone_changes_its_rules() {
    // It fired at 07:00 UTC, eight o'clock then; by the rules of now that day's eight o'clock is 06:00 or 08:00 UTC.
    let fired = datetime!(2026-01-05 08:00);
    for zone in ["Europe/Helsinki", "Europe/London"] {
        let next = schedule(zone, datetime!(2026-01-01 08:00), "FREQ=DAILY").next(datetime!(2026-01-05 07:00 UTC), Some(fired));
        assert_eq!(next.unwrap().local, datetime!(2026-01-06 08:00), "{zone}");
    }
}

#[test]
fn the_next_occurrence_is_found_quickly_however_long_the_rule_has_been_running() {
    let floor = datetime!(2035-06-15 12:00 UTC);
    for (rule, next) in [
        ("FREQ=MINUTELY", datetime!(2035-06-15 12:01 UTC)),
        ("FREQ=HOURLY;INTERVAL=5", datetime!(2035-06-15 13:00 UTC)),
        ("FREQ=DAILY", datetime!(2035-06-16 08:00 UTC)),
        ("FREQ=WEEKLY;INTERVAL=2", datetime!(2035-06-27 08:00 UTC)),
        ("FREQ=MONTHLY;BYMONTHDAY=31", datetime!(2035-07-31 08:00 UTC)),
        ("FREQ=YEARLY", datetime!(2036-01-01 08:00 UTC)),
    ] {
        let schedule = schedule("UTC", datetime!(1975-01-01 08:00), rule);
        let began = std::time::Instant::now();
        for _ in 0..100 {
            assert_eq!(schedule.next_after(floor).map(|next| next.at), Some(next), "{rule}");
        }
        println!("{rule}: {:?} each", began.elapsed() / 100);
        assert!(began.elapsed() < std::time::Duration::from_secs(2), "{rule}: {:?} for 100", began.elapsed());
    }
}

#[test]
fn a_run_of_excluded_days_is_passed_over_in_a_leap_however_often_the_rule_repeats() {
    for (rule, next) in [
        ("FREQ=MINUTELY", datetime!(2026-07-20 00:00 UTC)),
        ("FREQ=HOURLY", datetime!(2026-07-20 00:30 UTC)),
        ("FREQ=DAILY;BYHOUR=0,1,2,3,4,5,6,7,8,9;BYMINUTE=0,1,2,3,4,5", datetime!(2026-07-20 00:00 UTC)),
    ] {
        let mut often = schedule("UTC", datetime!(2026-01-01 08:30), rule);
        let days = std::iter::successors(Some(date!(2026 - 01 - 01)), |day| day.next_day()).take(200);
        often.exdates = days.map(Exdate::Day).collect();
        let began = std::time::Instant::now();
        for _ in 0..200 {
            assert_eq!(often.next_after(datetime!(2026-01-01 08:29 UTC)).map(|next| next.at), Some(next), "{rule}");
        }
        println!("{rule}: {:?} each", began.elapsed() / 200);
        assert!(began.elapsed() < std::time::Duration::from_secs(2), "{rule}: {:?} for 200", began.elapsed());
    }
    // Every other day: the days between are not passed over.
    let mut often = schedule("Europe/Berlin", datetime!(2026-01-01 00:00), "FREQ=HOURLY;COUNT=96");
    often.exdates = [date!(2026 - 01 - 02), date!(2026 - 01 - 04)].map(Exdate::Day).to_vec();
    let found = all(&often, datetime!(2025-12-01 00:00 UTC), 99);
    assert_eq!(found.len(), 48);
    assert_eq!((found[23], found[24]), (datetime!(2026-01-01 22:00 UTC), datetime!(2026-01-02 23:00 UTC)));
}
