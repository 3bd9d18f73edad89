//! What happens to a reminder, without a database.

use bowerbird_nats::{
    AccountId, ReminderId,
    reminder::{Channel, Trigger},
};
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::reminders::row::{Timing, Watch, Words};

const NOW: OffsetDateTime = datetime!(2026-01-05 12:00 UTC);
const DAY: Duration = Duration::DAY;

fn row(timing: Timing) -> Row {
    let mut row = Row {
        id: ReminderId(Uuid::from_u128(1)),
        account_id: AccountId(Uuid::from_u128(2)),
        words: Words { title: "t".to_owned(), note: None, channels: vec![Channel::Inbox], about: None },
        timing,
        on_event: None,
        unless_event: None,
        status: Status::Scheduled,
        next_fire_at: None,
        next_local: None,
        snoozed_until: None,
        floor_at: NOW,
        handled_local: None,
        zone_rules: None,
        last_fired_at: None,
        fired: 0,
        version: 1,
        created_at: NOW,
        updated_at: NOW,
        ended_at: None,
    };
    row.start(NOW).unwrap();
    row
}

fn once(at: OffsetDateTime) -> Row {
    row(Timing { due_at: Some(at), ..Timing::default() })
}

/// Each day at eight in Berlin, which in January is seven in UTC; from the next morning on.
fn daily(end: &str) -> Row {
    row(Timing {
        start_local: Some(datetime!(2026-01-01 08:00)),
        time_zone: Some("Europe/Berlin".to_owned()),
        rrule: Some(format!("FREQ=DAILY{end}")),
        ..Timing::default()
    })
}

fn watch(event_type: &str) -> Watch {
    Watch { trigger: Trigger { event_type: event_type.to_owned(), id: Uuid::from_u128(3) }, after: Some(4) }
}

fn fired(happened: &Happened) -> &Fired {
    let Happened::Fired(fired) = happened else { panic!("{happened:?}") };
    fired
}

fn missed(happened: &Happened) -> &Missed {
    let Happened::Missed(missed) = happened else { panic!("{happened:?}") };
    missed
}

#[test]
fn what_is_for_an_instant_fires_once_and_ends() {
    let at = NOW + Duration::HOUR;
    let mut row = once(at);
    assert_eq!(row.next_fire_at, Some(at));
    assert_eq!(row.wake(at - Duration::MICROSECOND, MakeUp::Within(DAY), false).unwrap(), []);
    let now = at + Duration::milliseconds(20);
    let happened = row.wake(now, MakeUp::Within(DAY), false).unwrap();
    let told = fired(&happened[0]);
    assert_eq!((happened.len(), told.due_at, told.fired_at, told.late, told.occurrence), (1, at, now, false, 1));
    assert_eq!((row.status, row.fired, row.ended_at, row.next_fire_at), (Status::Fired, 1, Some(now), None));
    assert_eq!(row.wake(now, MakeUp::Within(DAY), false).unwrap(), [], "it fires once");
}

#[test]
fn what_repeats_goes_on() {
    let mut row = daily(";COUNT=6");
    row.timing.last_local = Some(datetime!(2026-01-06 08:00));
    assert_eq!(row.next_fire_at, Some(datetime!(2026-01-06 07:00 UTC)));
    let happened = row.wake(datetime!(2026-01-06 07:00:00.5 UTC), MakeUp::Within(DAY), false).unwrap();
    assert_eq!(fired(&happened[0]).next_fire_at, None, "it was the last that its count allows");
    assert_eq!(row.status, Status::Fired);

    let mut row = daily("");
    for (day, occurrence) in [(6, 1), (7, 2), (8, 3)] {
        let now = datetime!(2026-01-01 07:00:00.5 UTC) + Duration::days(day - 1);
        let happened = row.wake(now, MakeUp::Within(DAY), false).unwrap();
        assert_eq!((happened.len(), fired(&happened[0]).occurrence), (1, occurrence));
        assert_eq!(row.next_fire_at, Some(datetime!(2026-01-02 07:00 UTC) + Duration::days(day - 1)));
        assert_eq!((row.status, row.ended_at), (Status::Scheduled, None));
    }
}

#[test]
fn what_is_late_says_so_and_what_is_too_late_is_missed_with_its_reason() {
    let at = NOW + Duration::HOUR;
    let mut row = once(at);
    assert!(!fired(&row.clone().wake(at + Duration::MINUTE, MakeUp::Within(DAY), false).unwrap()[0]).late);
    assert!(fired(&row.clone().wake(at + Duration::MINUTE + Duration::SECOND, MakeUp::Within(DAY), false).unwrap()[0]).late);
    assert!(fired(&row.clone().wake(at + DAY, MakeUp::Within(DAY), false).unwrap()[0]).late);
    let happened = row.wake(at + DAY + Duration::HOUR, MakeUp::Within(DAY), false).unwrap();
    let told = missed(&happened[0]);
    assert_eq!((happened.len(), told.due_at, told.occurrences), (1, at, 1));
    assert_eq!(told.reason, "it was due 1 day 1 hour ago, and reminders are made up for within 1 day");
    assert_eq!((row.status, row.fired, row.next_fire_at), (Status::Missed, 0, None));
}

#[test]
fn after_an_outage_the_latest_occurrence_is_made_up_for_and_the_others_are_told_as_missed() {
    // Due on the 6th at seven; back on the 9th, two hours after that day's.
    let mut row = daily("");
    let happened = row.wake(datetime!(2026-01-09 09:00 UTC), MakeUp::Within(DAY), false).unwrap();
    let (before, late) = (missed(&happened[0]), fired(&happened[1]));
    assert_eq!((happened.len(), before.occurrences, before.due_at), (2, 3, datetime!(2026-01-06 07:00 UTC)));
    assert_eq!((late.due_at, late.late, late.occurrence), (datetime!(2026-01-09 07:00 UTC), true, 1));
    assert_eq!(row.next_fire_at, Some(datetime!(2026-01-10 07:00 UTC)));

    // With nothing within the time that is made up for, it is missed and goes on.
    let mut row = daily("");
    let happened = row.wake(datetime!(2026-01-09 09:00 UTC), MakeUp::Within(Duration::HOUR), false).unwrap();
    let told = missed(&happened[0]);
    assert_eq!((happened.len(), told.occurrences, told.next_fire_at), (1, 4, Some(datetime!(2026-01-10 07:00 UTC))));
    assert_eq!((row.status, row.next_fire_at), (Status::Scheduled, Some(datetime!(2026-01-10 07:00 UTC))));
}

#[test]
fn what_is_snoozed_fires_then_and_what_repeats_goes_on_after_that() {
    let mut row = once(NOW + Duration::HOUR);
    let later = NOW + Duration::hours(3);
    row.snooze(NOW, later).unwrap();
    assert_eq!((row.next_fire_at, row.snoozed_until, row.version), (Some(later), Some(later), 2));
    assert_eq!(fired(&row.wake(later, MakeUp::Within(DAY), false).unwrap()[0]).due_at, later);
    assert_eq!((row.status, row.snoozed_until), (Status::Fired, None));
    // Also one that has fired, again and again.
    row.snooze(later, later + Duration::HOUR).unwrap();
    assert_eq!((row.status, row.ended_at), (Status::Scheduled, None));
    assert_eq!(fired(&row.wake(later + Duration::HOUR, MakeUp::Within(DAY), false).unwrap()[0]).occurrence, 2);

    // Ten minutes after it fired; the next morning stays.
    let mut row = daily("");
    row.wake(datetime!(2026-01-06 07:00 UTC), MakeUp::Within(DAY), false).unwrap();
    row.snooze(datetime!(2026-01-06 07:01 UTC), datetime!(2026-01-06 07:10 UTC)).unwrap();
    let happened = row.wake(datetime!(2026-01-06 07:10 UTC), MakeUp::Within(DAY), false).unwrap();
    assert_eq!((happened.len(), row.next_fire_at), (1, Some(datetime!(2026-01-07 07:00 UTC))));
    // Past two mornings: they are put off with it.
    row.snooze(datetime!(2026-01-06 08:00 UTC), datetime!(2026-01-08 20:00 UTC)).unwrap();
    let happened = row.wake(datetime!(2026-01-08 20:00 UTC), MakeUp::Within(DAY), false).unwrap();
    assert_eq!((happened.len(), row.next_fire_at), (1, Some(datetime!(2026-01-09 07:00 UTC))));
}

#[test]
fn a_firing_can_be_skipped_where_there_is_another() {
    let mut row = daily("");
    assert_eq!(row.skip(NOW).unwrap(), Ok(Happened::Updated));
    assert_eq!(row.next_fire_at, Some(datetime!(2026-01-07 07:00 UTC)));
    // Of a snoozed one it is the snooze that is skipped.
    row.snooze(NOW, NOW + Duration::HOUR).unwrap();
    assert_eq!(row.skip(NOW).unwrap(), Ok(Happened::Updated));
    assert_eq!((row.next_fire_at, row.snoozed_until), (Some(datetime!(2026-01-07 07:00 UTC)), None));
    assert_eq!(once(NOW + Duration::HOUR).skip(NOW).unwrap(), Err(Impossible::DoesNotRepeat));
    let mut last = daily(";UNTIL=20260106");
    assert_eq!(last.skip(NOW).unwrap(), Ok(Happened::Completed));
    assert_eq!(last.status, Status::Completed);
    assert_eq!(last.skip(NOW).unwrap(), Err(Impossible::Ended(Status::Completed)));
}

#[test]
fn what_is_completed_or_canceled_fires_no_more() {
    let at = NOW + Duration::HOUR;
    let mut done = once(at);
    assert_eq!(done.complete(NOW), Ok(Some(Happened::Completed)));
    assert_eq!(done.complete(NOW), Ok(None));
    assert_eq!(done.wake(at, MakeUp::Within(DAY), false).unwrap(), []);
    assert_eq!(done.snooze(NOW, at), Err(Impossible::Ended(Status::Completed)));
    assert_eq!(done.give_up(NOW), Err(Impossible::NothingAhead(Status::Completed)));
    let mut canceled = once(at);
    assert_eq!(canceled.give_up(NOW), Ok(Some(Happened::Canceled(CancelReason::Owner))));
    assert_eq!(canceled.give_up(NOW), Ok(None));
    assert_eq!((canceled.status, canceled.version), (Status::Canceled, 2));
    assert_eq!(canceled.wake(at, MakeUp::Within(DAY), false).unwrap(), []);
    assert_eq!(canceled.complete(NOW), Err(Impossible::Ended(Status::Canceled)));
}

#[test]
fn an_event_and_a_time_fire_once_whichever_comes_first() {
    let at = NOW + Duration::HOUR;
    let mut both = once(at);
    both.on_event = Some(watch("download.completed"));
    let mut by_event = both.clone();
    let happened = by_event.on_event(NOW + Duration::MINUTE, NOW, MakeUp::Within(DAY));
    assert_eq!((happened.len(), fired(&happened[0]).cause, fired(&happened[0]).due_at), (1, Cause::Event, NOW));
    assert_eq!(by_event.wake(at, MakeUp::Within(DAY), false).unwrap(), []);
    assert_eq!(by_event.on_event(NOW, NOW, MakeUp::Within(DAY)), []);
    assert_eq!(fired(&both.wake(at, MakeUp::Within(DAY), false).unwrap()[0]).cause, Cause::Time);
    assert_eq!(both.on_event(at, at, MakeUp::Within(DAY)), []);
    // Put off after that, it does not hear the event again.
    both.snooze(at, at + Duration::HOUR).unwrap();
    assert_eq!(both.on_event(at, at, MakeUp::Within(DAY)), []);
}

#[test]
fn an_event_of_long_ago_is_missed_and_one_of_the_last_hours_is_late() {
    let mut waiting = once(NOW + Duration::days(9));
    waiting.on_event = Some(watch("download.completed"));
    assert!(fired(&waiting.clone().on_event(NOW + Duration::HOUR, NOW, MakeUp::Within(DAY))[0]).late);
    let happened = waiting.on_event(NOW + Duration::days(2), NOW, MakeUp::Within(DAY));
    assert!(missed(&happened[0]).reason.starts_with("its event happened 2 days ago"));
    assert_eq!(waiting.status, Status::Missed);
}

#[test]
fn what_cancels_it_is_asked_for_before_it_fires() {
    let at = NOW + Duration::HOUR;
    let mut row = once(at);
    row.unless_event = Some(watch("file.purged"));
    assert_eq!(row.clone().wake(at, MakeUp::Within(DAY), true).unwrap(), [Happened::Canceled(CancelReason::Event)]);
    assert_eq!(row.wake(at, MakeUp::Within(DAY), false).unwrap().len(), 1);
}

#[test]
fn new_zone_rules_move_what_is_ahead_and_repeat_nothing() {
    // By rules of before, Berlin had stayed in summer time: eight was at six.
    let mut row = daily("");
    row.zone_rules = Some("2000a".to_owned());
    row.next_fire_at = Some(datetime!(2026-01-06 06:00 UTC));
    assert!(row.follow_zone_rules(NOW).unwrap());
    assert_eq!(row.next_fire_at, Some(datetime!(2026-01-06 07:00 UTC)));
    assert_eq!(row.zone_rules.as_deref(), Some(zone::rules_version()));
    assert!(!row.follow_zone_rules(NOW).unwrap(), "a second time nothing moves");
    // It fired at six by those rules; seven o'clock of that day is not another occurrence.
    let mut row = daily("");
    row.next_fire_at = Some(datetime!(2026-01-06 06:00 UTC));
    row.wake(datetime!(2026-01-06 06:00 UTC), MakeUp::Within(DAY), false).unwrap();
    assert_eq!(row.next_fire_at, Some(datetime!(2026-01-07 07:00 UTC)));
    // A snooze is for an instant.
    row.snooze(NOW, datetime!(2026-01-06 20:00 UTC)).unwrap();
    assert!(!row.follow_zone_rules(NOW).unwrap());
    assert_eq!(row.next_fire_at, Some(datetime!(2026-01-06 20:00 UTC)));
    let mut once = self::row(Timing {
        start_local: Some(datetime!(2026-01-06 08:00)),
        time_zone: Some("Europe/Berlin".to_owned()),
        ..Timing::default()
    });
    once.next_fire_at = Some(datetime!(2026-01-06 06:00 UTC));
    assert!(once.follow_zone_rules(NOW).unwrap());
    assert_eq!(once.next_fire_at, Some(datetime!(2026-01-06 07:00 UTC)));
}

#[test]
fn a_new_time_ends_a_snooze() {
    let mut row = once(NOW + Duration::HOUR);
    row.snooze(NOW, NOW + Duration::hours(9)).unwrap();
    row.timing.due_at = Some(NOW + Duration::hours(2));
    assert!(row.start(NOW).unwrap());
    assert_eq!((row.next_fire_at, row.snoozed_until), (Some(NOW + Duration::hours(2)), None));
}

#[test]
fn what_is_due_while_its_account_is_disabled_is_missed_and_what_repeats_goes_on() {
    let (due, now) = (datetime!(2026-01-06 07:00 UTC), datetime!(2026-01-06 07:00:00.5 UTC));
    let mut row = daily("");
    let happened = row.wake(now, MakeUp::Never, false).unwrap();
    assert!(matches!(&happened[..], [Happened::Missed(missed)] if missed.reason == "the account was disabled"), "{happened:?}");
    assert_eq!((row.status, row.next_fire_at), (Status::Scheduled, Some(due + DAY)));
}
