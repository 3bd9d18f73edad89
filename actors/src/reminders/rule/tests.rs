//! Rules: what is taken, what is refused, and what the calendar makes of them, as RFC 5545 shows it.

use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const START: PrimitiveDateTime = datetime!(2026-01-30 08:15:30);

fn occurrences(text: &str, start: PrimitiveDateTime, number: usize) -> Vec<PrimitiveDateTime> {
    let rule = Rule::parse(text, start).unwrap_or_else(|refused| panic!("{text}: {refused}"));
    rule.from(start).take(number).collect()
}

fn days(text: &str, start: PrimitiveDateTime, number: usize) -> Vec<String> {
    occurrences(text, start, number).iter().map(|local| local.date().to_string()).collect()
}

#[test]
fn what_a_rule_leaves_open_is_its_starts() {
    assert_eq!(occurrences("FREQ=DAILY", START, 2), [START, datetime!(2026-01-31 08:15:30)]);
    assert_eq!(days("FREQ=WEEKLY", START, 3), ["2026-01-30", "2026-02-06", "2026-02-13"]);
    // February has no 30th: there is no occurrence, and none is moved.
    assert_eq!(days("FREQ=MONTHLY", START, 3), ["2026-01-30", "2026-03-30", "2026-04-30"]);
    assert_eq!(days("FREQ=YEARLY", datetime!(2024-02-29 08:00), 3), ["2024-02-29", "2028-02-29", "2032-02-29"]);
    assert_eq!(days("FREQ=YEARLY;BYMONTH=3,4", START, 3), ["2026-03-30", "2026-04-30", "2027-03-30"]);
    assert_eq!(days("FREQ=YEARLY;BYWEEKNO=20", START, 2), ["2026-05-15", "2027-05-21"]);
    assert_eq!(
        occurrences("FREQ=DAILY;BYHOUR=9,21", START, 3),
        [datetime!(2026-01-30 09:15:30), datetime!(2026-01-30 21:15:30), datetime!(2026-01-31 09:15:30)]
    );
    assert_eq!(
        occurrences("FREQ=HOURLY;INTERVAL=8", START, 3),
        [START, datetime!(2026-01-30 16:15:30), datetime!(2026-01-31 00:15:30)]
    );
    assert_eq!(occurrences("FREQ=MINUTELY;INTERVAL=45", START, 2), [START, datetime!(2026-01-30 09:00:30)]);
}

#[test]
fn the_calendar_is_that_of_the_rfc() {
    let start = datetime!(1997-09-02 09:00);
    for (text, expected) in [
        ("FREQ=DAILY;INTERVAL=10", &["1997-09-02", "1997-09-12", "1997-09-22", "1997-10-02"][..]),
        ("FREQ=WEEKLY;INTERVAL=2;WKST=SU;BYDAY=TU,TH", &["1997-09-02", "1997-09-04", "1997-09-16", "1997-09-18"]),
        ("FREQ=MONTHLY;BYDAY=1FR", &["1997-09-05", "1997-10-03", "1997-11-07"]),
        ("FREQ=MONTHLY;BYDAY=-2MO", &["1997-09-22", "1997-10-20", "1997-11-17"]),
        ("FREQ=MONTHLY;BYMONTHDAY=-1", &["1997-09-30", "1997-10-31", "1997-11-30"]),
        (
            "FREQ=MONTHLY;BYDAY=TU;INTERVAL=2",
            &["1997-09-02", "1997-09-09", "1997-09-16", "1997-09-23", "1997-09-30", "1997-11-04"],
        ),
        ("FREQ=YEARLY;INTERVAL=3;BYYEARDAY=1,100,200", &["2000-01-01", "2000-04-09", "2000-07-18", "2003-01-01"]),
        ("FREQ=YEARLY;BYDAY=20MO", &["1998-05-18", "1999-05-17", "2000-05-15"]),
        ("FREQ=YEARLY;BYMONTH=3;BYDAY=TH", &["1998-03-05", "1998-03-12", "1998-03-19"]),
        ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", &["1998-02-13", "1998-03-13", "1998-11-13"]),
        ("FREQ=MONTHLY;BYDAY=TU,WE,TH;BYSETPOS=3", &["1997-09-04", "1997-10-07", "1997-11-06"]),
        ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2", &["1997-09-29", "1997-10-30", "1997-11-27"]),
        ("FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8", &["1997-11-04", "2001-11-06", "2005-11-08"]),
    ] {
        assert_eq!(days(text, start, expected.len()), expected, "{text}");
    }
}

#[test]
fn a_rule_says_itself_where_it_ends() {
    let rule = Rule::parse("FREQ=WEEKLY;COUNT=3", START).unwrap();
    assert_eq!(rule.last_of_count(), Some(datetime!(2026-02-13 08:15:30)));
    let rule = Rule::parse("FREQ=WEEKLY;UNTIL=20260213T071530Z", START).unwrap();
    assert_eq!(rule.until(), Some(Until::Instant(datetime!(2026-02-13 07:15:30 UTC))));
    let rule = Rule::parse("FREQ=WEEKLY;UNTIL=20260213T081530", START).unwrap();
    assert_eq!(rule.until(), Some(Until::Local(datetime!(2026-02-13 08:15:30))));
    // A day is meant as a whole.
    let rule = Rule::parse("FREQ=WEEKLY;UNTIL=20260213", START).unwrap();
    assert_eq!(rule.until(), Some(Until::Local(datetime!(2026-02-13 23:59:59.999999999))));
    assert_eq!(rule.last_of_count(), None);
}

#[test]
fn what_cannot_be_followed_is_refused_with_a_sentence() {
    for (text, says) in [
        ("", "NAME=VALUE"),
        ("DAILY", "NAME=VALUE"),
        ("INTERVAL=2", "must say how often"),
        ("FREQ=SECONDLY", "too often"),
        ("FREQ=FORTNIGHTLY", "not a frequency"),
        ("FREQ=DAILY;FREQ=WEEKLY", "given twice"),
        ("FREQ=DAILY;BYSECOND=1", "BYSECOND is not supported"),
        ("FREQ=DAILY;BYEASTER=1", "BYEASTER is not a part"),
        ("FREQ=DAILY;RSCALE=CHINESE", "RSCALE is not a part"),
        ("FREQ=DAILY;INTERVAL=0", "from 1 to 1000"),
        ("FREQ=DAILY;INTERVAL=99999999999", "from 1 to 1000"),
        ("FREQ=DAILY;COUNT=0", "from 1 to 10000"),
        ("FREQ=DAILY;COUNT=1;UNTIL=20270101", "both COUNT and UNTIL"),
        ("FREQ=DAILY;UNTIL=20261301", "not a date"),
        ("FREQ=DAILY;UNTIL=20260101T08", "not a date"),
        ("FREQ=DAILY;UNTIL=2026ü101", "not a date"),
        ("FREQ=WEEKLY;BYDAY=XX", "not a day of the week"),
        ("FREQ=WEEKLY;BYDAY=Ü", "not a day of the week"),
        ("FREQ=WEEKLY;BYDAY=2TU", "counts days within a month"),
        ("FREQ=MONTHLY;BYDAY=0TU", "counts from 1"),
        ("FREQ=MONTHLY;BYDAY=99TU", "from -53 to 53"),
        ("FREQ=MONTHLY;BYMONTHDAY=32", "from -31 to 31"),
        ("FREQ=MONTHLY;BYMONTHDAY=0", "must not hold 0"),
        ("FREQ=WEEKLY;BYMONTHDAY=1", "cannot be followed"),
        ("FREQ=DAILY;BYHOUR=24", "from 0 to 23"),
        ("FREQ=DAILY;BYHOUR=+", "from 0 to 23"),
        ("FREQ=MONTHLY;BYSETPOS=1", "there is none"),
        ("FREQ=MINUTELY;INTERVAL=17;BYDAY=MO", "list the times"),
        ("FREQ=HOURLY;BYMINUTE=1,2;BYSETPOS=1", "list the times"),
        (&format!("FREQ=DAILY;BYHOUR={}", "1,".repeat(300)), "at most 500"),
    ] {
        let refused = Rule::parse(text, START).map(|_| text).unwrap_err();
        assert!(refused.to_string().contains(says), "{text}: {refused}");
    }
    // As calendars write it.
    assert!(Rule::parse("RRULE:freq=weekly;byday=mo;", START).is_ok());
}

#[test]
fn a_rule_that_never_comes_is_found_out_soon() {
    for text in [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=31",
        "FREQ=MONTHLY;BYMONTH=4;BYMONTHDAY=31",
        "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=YEARLY;INTERVAL=1000;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=YEARLY;BYWEEKNO=1;BYMONTH=7;BYDAY=MO",
    ] {
        let began = std::time::Instant::now();
        assert_eq!(occurrences(text, START, 1), [], "{text}");
        println!("{text}: {:?}", began.elapsed());
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{text}: {:?}", began.elapsed());
    }
}

fn part(name: &'static str, values: impl Strategy<Value = String>) -> impl Strategy<Value = Option<String>> {
    prop::option::weighted(0.25, prop::collection::vec(values, 1..4))
        .prop_map(move |values| values.map(|values| format!("{name}={}", values.join(","))))
}

fn numbers(range: RangeInclusive<i32>) -> impl Strategy<Value = String> {
    range.prop_map(|number| number.to_string())
}

fn rules() -> impl Strategy<Value = String> {
    let frequency = prop::sample::select(vec!["MINUTELY", "HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY"]);
    let days = ("(-?[1-5])?", prop::sample::select(vec!["MO", "TU", "WE", "TH", "FR", "SA", "SU"])).prop_map(|(n, day)| n + day);
    (
        frequency,
        prop::option::weighted(0.5, 1..1000_u16).prop_map(|interval| interval.map(|interval| format!("INTERVAL={interval}"))),
        prop::option::weighted(0.3, prop::sample::select(vec!["WKST=SU".to_owned(), "WKST=WE".to_owned()])),
        (part("BYMONTH", numbers(1..=12)), part("BYWEEKNO", numbers(-53..=53)), part("BYYEARDAY", numbers(-366..=366))),
        (part("BYMONTHDAY", numbers(-31..=31)), part("BYDAY", days), part("BYSETPOS", numbers(-5..=5))),
        (part("BYHOUR", numbers(0..=23)), part("BYMINUTE", numbers(0..=59))),
    )
        .prop_map(|(frequency, interval, wkst, (a, b, c), (d, e, f), (g, h))| {
            let parts = [interval, wkst, a, b, c, d, e, f, g, h];
            parts.into_iter().flatten().fold(format!("FREQ={frequency}"), |text, part| text + ";" + &part)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("BOWERBIRD_PROVE").is_some() { 20_000 } else { 300 }, ..ProptestConfig::default() })]

    /// Whatever rule is taken: its calendar neither panics nor runs for ever, goes forward, and is the same from the
    /// middle as from the start.
    #[test]
    fn a_rule_goes_on_from_anywhere_as_it_went_from_its_start(text in rules(), second in 0..100_000_000_i64, skip in 0..40_usize) {
        let start = PrimitiveDateTime::MIN.replace_year(2020).unwrap() + Duration::seconds(second);
        let Ok(rule) = Rule::parse(&text, start) else { return Ok(()) };
        let all: Vec<_> = rule.from(start).take(60).collect();
        prop_assert!(all.is_sorted_by(|earlier, later| earlier < later), "{text}: {all:?}");
        prop_assert!(all.first().is_none_or(|first| *first >= start), "{text}: {all:?}");
        if let Some(from) = all.get(skip) {
            let rest: Vec<_> = rule.from(*from).take(all.len() - skip).collect();
            prop_assert_eq!(&rest[..], &all[skip..], "{} from {}", text, from);
        }
    }
}
