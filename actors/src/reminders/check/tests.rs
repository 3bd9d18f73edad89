//! What is taken and what is refused, field by field.

use bowerbird_nats::{
    Code,
    reminder::{About, AboutKind},
};
use time::macros::datetime;
use uuid::Uuid;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-20 18:00 UTC);

fn asked() -> CreateReminder {
    CreateReminder { title: "t".to_owned(), due_at: Some(NOW + Duration::HOUR), ..CreateReminder::default() }
}

fn local(time: &str, zone: &str) -> CreateReminder {
    CreateReminder {
        title: "t".to_owned(),
        local_time: Some(time.to_owned()),
        time_zone: Some(zone.to_owned()),
        ..CreateReminder::default()
    }
}

fn repeating(rule: &str) -> CreateReminder {
    CreateReminder { rrule: Some(rule.to_owned()), ..local("2026-12-24T08:00", "Europe/Berlin") }
}

fn trigger(event_type: &str) -> Trigger {
    Trigger { event_type: event_type.to_owned(), id: Uuid::from_u128(1) }
}

/// Fields at fault.
fn faults(asked: CreateReminder) -> Vec<String> {
    let problem = reminder(asked, NOW, true).unwrap_err();
    assert_eq!(problem.code, Code::InvalidValue);
    problem.errors.into_iter().map(|error| error.field).collect()
}

#[test]
fn a_time_an_event_or_both_make_a_reminder() {
    let checked = reminder(asked(), NOW, true).unwrap();
    assert_eq!(checked.words.channels, [Channel::Inbox]);
    assert_eq!(checked.timing, Timing { due_at: asked().due_at, ..Timing::default() });
    let checked = reminder(local("2026-12-24T08:00", "europe/berlin"), NOW, true).unwrap();
    assert_eq!(checked.timing.start_local, Some(datetime!(2026-12-24 08:00)));
    assert_eq!(checked.timing.time_zone.as_deref(), Some("Europe/Berlin"));
    let event = CreateReminder { due_at: None, on_event: Some(trigger("download.completed")), ..asked() };
    assert_eq!(reminder(event, NOW, true).unwrap().timing, Timing::default());
    let both = CreateReminder { on_event: Some(trigger("download.completed")), ..asked() };
    assert!(reminder(both, NOW, true).is_ok());
    // An instant that repeats does so on the clocks of UTC, or of the zone that is named.
    let zoned = CreateReminder { time_zone: Some("Asia/Tokyo".to_owned()), rrule: Some("FREQ=DAILY".to_owned()), ..asked() };
    let timing = reminder(zoned, NOW, true).unwrap().timing;
    assert_eq!((timing.start_local, timing.time_zone.as_deref()), (Some(datetime!(2026-11-21 04:00)), Some("Asia/Tokyo")));
    let timing = reminder(CreateReminder { rrule: Some("FREQ=DAILY".to_owned()), ..asked() }, NOW, true).unwrap().timing;
    assert_eq!((timing.start_local, timing.time_zone.as_deref()), (Some(datetime!(2026-11-20 19:00)), Some("UTC")));
    let counted = reminder(repeating("FREQ=DAILY;COUNT=3"), NOW, true).unwrap().timing;
    assert_eq!(counted.last_local, Some(datetime!(2026-12-26 08:00)));
}

#[test]
fn every_field_at_fault_is_named() {
    for (wrong, fields) in [
        (CreateReminder { title: " ".to_owned(), ..asked() }, &["title"][..]),
        (CreateReminder { title: "x".repeat(201), ..asked() }, &["title"]),
        (CreateReminder { title: "a\nb".to_owned(), ..asked() }, &["title"]),
        (CreateReminder { note: Some("x".repeat(4001)), ..asked() }, &["note"]),
        (CreateReminder { note: Some("a\u{1b}[2J".to_owned()), ..asked() }, &["note"]),
        (CreateReminder { due_at: None, ..asked() }, &["due_at"]),
        (CreateReminder { due_at: Some(NOW - Duration::minutes(2)), ..asked() }, &["due_at"]),
        (CreateReminder { due_at: Some(NOW + Duration::days(40_000)), ..asked() }, &["due_at"]),
        (CreateReminder { due_at: Some(datetime!(9999-12-31 23:59:59 UTC)), ..asked() }, &["due_at"]),
        (CreateReminder { due_at: Some(NOW + DAY), ..local("2026-12-24T08:00", "UTC") }, &["local_time"]),
        (CreateReminder { time_zone: None, ..local("2026-12-24T08:00", "UTC") }, &["time_zone"]),
        (local("2026-12-24T08:00", "Mars/Olympus"), &["time_zone"]),
        (local("24.12.2026 8:00", "UTC"), &["local_time"]),
        (local("2026-02-30T08:00", "UTC"), &["local_time"]),
        (local("2026-11-20T18:30", "Europe/Berlin"), &["local_time"]),
        (
            CreateReminder { rrule: Some("FREQ=DAILY".to_owned()), on_event: Some(trigger("file.purged")), ..asked() },
            &["on_event"],
        ),
        (CreateReminder { exdates: vec!["2026-12-24".to_owned()], ..asked() }, &["exdates"]),
        (CreateReminder { ends_at: Some(NOW + DAY), ..asked() }, &["ends_at"]),
        (CreateReminder { exdates: vec!["2026-12-24".to_owned(), "x".to_owned()], ..repeating("FREQ=DAILY") }, &["exdates.1"]),
        (CreateReminder { exdates: vec!["2026-12-24".to_owned(); 201], ..repeating("FREQ=DAILY") }, &["exdates"]),
        (CreateReminder { on_event: Some(trigger("session.opened")), ..asked() }, &["on_event.type"]),
        (CreateReminder { unless_event: Some(trigger("nonsense")), ..asked() }, &["unless_event.type"]),
        (
            CreateReminder { on_event: Some(trigger("file.purged")), unless_event: Some(trigger("file.purged")), ..asked() },
            &["unless_event"],
        ),
        (repeating("FREQ=SECONDLY"), &["rrule"]),
        (
            CreateReminder { title: String::new(), time_zone: Some("x".to_owned()), on_event: Some(trigger("x")), ..asked() },
            &["title", "on_event.type", "time_zone"],
        ),
    ] {
        assert_eq!(faults(wrong.clone()), fields, "{wrong:?}");
    }
}

const DAY: Duration = Duration::DAY;

#[test]
fn a_rule_that_never_comes_again_is_refused_with_a_sentence() {
    for never in [
        repeating("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"),
        repeating("FREQ=DAILY;UNTIL=20261101"),
        CreateReminder { ends_at: Some(NOW), ..repeating("FREQ=DAILY") },
        CreateReminder { exdates: vec!["2026-12-24".to_owned()], ..repeating("FREQ=DAILY;COUNT=1") },
        CreateReminder { local_time: Some("2020-01-01T08:00".to_owned()), ..repeating("FREQ=DAILY;COUNT=5") },
    ] {
        let problem = reminder(never, NOW, true).unwrap_err();
        assert!(problem.detail.contains("never comes again"), "{problem}");
    }
    // One that began long ago and goes on is fine.
    let old = CreateReminder { local_time: Some("2001-01-01T08:00".to_owned()), ..repeating("FREQ=DAILY") };
    assert!(reminder(old, NOW, true).is_ok());
}

#[test]
fn what_is_not_mentioned_stays_and_what_is_cleared_goes() {
    let before = Reminder {
        id: bowerbird_nats::ReminderId(Uuid::from_u128(9)),
        title: "t".to_owned(),
        note: Some("n".to_owned()),
        status: bowerbird_nats::reminder::Status::Scheduled,
        due_at: None,
        local_time: Some("2026-12-24T08:00:00".to_owned()),
        time_zone: Some("Europe/Berlin".to_owned()),
        rrule: Some("FREQ=DAILY".to_owned()),
        exdates: vec!["2026-12-25".to_owned()],
        ends_at: Some(NOW + Duration::days(90)),
        channels: vec![Channel::Email],
        about: Some(About { kind: AboutKind::File, id: Uuid::from_u128(1) }),
        on_event: None,
        unless_event: Some(trigger("file.purged")),
        next_fire_at: None,
        snoozed_until: None,
        last_fired_at: None,
        fired: 0,
        version: 1,
        created_at: NOW,
        updated_at: NOW,
        ended_at: None,
    };
    let (same, anew) = merge(before.clone(), ReminderChanges { title: Some("new".to_owned()), ..ReminderChanges::default() });
    assert!(!anew);
    assert_eq!((same.title.as_str(), &same.rrule, &same.exdates), ("new", &before.rrule, &before.exdates));
    assert_eq!((same.about, &same.unless_event, &same.channels), (before.about, &before.unless_event, &before.channels));

    // One time takes the place of the other; the rule stays.
    let at = Some(NOW + DAY);
    let (moved, anew) = merge(before.clone(), ReminderChanges { due_at: at, ..ReminderChanges::default() });
    assert!(anew);
    assert_eq!((moved.due_at, moved.local_time, moved.rrule), (at, None, before.rrule.clone()));

    let clear = vec![Clearable::Rrule, Clearable::Note, Clearable::About, Clearable::UnlessEvent];
    let (less, anew) = merge(before.clone(), ReminderChanges { clear, ..ReminderChanges::default() });
    assert!(anew);
    assert_eq!((less.rrule, less.ends_at, less.note, less.about, less.unless_event), (None, None, None, None, None));
    assert_eq!((less.exdates.len(), less.local_time), (0, before.local_time.clone()));
    let clear = vec![Clearable::Time];
    let on_event = Some(trigger("download.completed"));
    let (event, anew) = merge(before, ReminderChanges { clear, on_event: on_event.clone(), ..ReminderChanges::default() });
    assert!(anew);
    assert_eq!((event.due_at, event.local_time, event.rrule, event.on_event), (None, None, None, on_event));
}
