//! What owners ask: made once, kept under one id whatever is changed, seen by nobody else.

use bowerbird_nats::{
    Code, ReminderId,
    reminder::{
        About, AboutKind, CancelReminder, Clearable, CompleteReminder, CreateReminder, GetReminder, ListReminders, Reminder,
        ReminderChanges, SkipReminder, SnoozeReminder, Status, Trigger, UpdateReminder,
    },
};
use time::Duration;
use uuid::Uuid;

use super::world::{World, at, call, repeating};

#[tokio::test]
async fn a_reminder_keeps_its_id_and_its_alarm_follows_whatever_is_changed() {
    let world = World::new().await;
    let (caller, now) = (world.account().await, world.now().await);
    let eight = now + Duration::hours(8);
    let made = world.create(caller, repeating(eight, "FREQ=DAILY")).await;
    assert_eq!((made.status, made.next_fire_at, made.version), (Status::Scheduled, Some(floor(eight)), 1));
    assert_eq!(world.alarm(made.id).await, made.next_fire_at);
    assert_eq!(world.get(caller, made.id).await, made);

    let requests = || world.requests.clone();
    let skipped = requests().skip(call(caller, SkipReminder { id: made.id })).await.unwrap();
    assert_eq!(skipped.next_fire_at, Some(floor(eight) + Duration::DAY));
    let snoozed = requests().snooze(call(caller, SnoozeReminder { id: made.id, until: None, seconds: Some(600) })).await.unwrap();
    assert!(snoozed.snoozed_until.is_some_and(|until| until > now && until < now + Duration::hours(1)));
    assert_eq!(world.alarm(made.id).await, snoozed.next_fire_at);
    // A new time ends the snooze.
    let changes = ReminderChanges {
        title: Some("Look again".to_owned()),
        due_at: Some(eight + Duration::HOUR),
        clear: vec![Clearable::Rrule],
        ..ReminderChanges::default()
    };
    let moved = requests().update(call(caller, UpdateReminder { id: made.id, if_version: None, changes })).await.unwrap();
    assert_eq!((moved.next_fire_at, moved.snoozed_until, moved.rrule.as_deref()), (moved.due_at, None, None));
    assert_eq!((moved.id, moved.title.as_str(), moved.version), (made.id, "Look again", 4));
    assert_eq!(world.alarm(made.id).await, moved.next_fire_at);
    // A new text changes nothing of that.
    let changes = ReminderChanges { note: Some("n".to_owned()), ..ReminderChanges::default() };
    let noted = requests().update(call(caller, UpdateReminder { id: made.id, if_version: None, changes })).await.unwrap();
    assert_eq!((noted.next_fire_at, noted.note.as_deref()), (moved.next_fire_at, Some("n")));
    // A zone that came with the rule went with it: a local time needs one of its own.
    assert_eq!(noted.time_zone, None);
    let local = || ReminderChanges { local_time: Some("2030-05-05T09:00".to_owned()), ..ReminderChanges::default() };
    let zoneless = UpdateReminder { id: made.id, if_version: None, changes: local() };
    let refused = requests().update(call(caller, zoneless)).await.unwrap_err();
    assert_eq!((refused.code, refused.errors[0].field.as_str()), (Code::InvalidValue, "time_zone"));
    // Who looked at an older one is told, and nobody is told by no channel.
    let stale = UpdateReminder { id: made.id, if_version: Some(noted.version - 1), changes: local() };
    assert_eq!(requests().update(call(caller, stale)).await.unwrap_err().code, Code::VersionMismatch);
    let nowhere = ReminderChanges { channels: Some(vec![]), ..ReminderChanges::default() };
    let nowhere = UpdateReminder { id: made.id, if_version: Some(noted.version), changes: nowhere };
    assert_eq!(requests().update(call(caller, nowhere)).await.unwrap_err().errors[0].field, "channels");
    let soon = |seconds| SnoozeReminder { id: made.id, until: None, seconds: Some(seconds) };
    for seconds in [0, u32::MAX] {
        let refused = requests().snooze(call(caller, soon(seconds))).await.unwrap_err();
        assert_eq!(refused.errors[0].field, "seconds", "{seconds}");
    }

    requests().cancel(call(caller, CancelReminder { id: made.id })).await.unwrap();
    requests().cancel(call(caller, CancelReminder { id: made.id })).await.unwrap();
    assert_eq!(world.alarm(made.id).await, None);
    assert_eq!(world.told(made.id).await, ["created", "updated", "snoozed", "updated", "updated", "canceled"]);
    let ended = world.get(caller, made.id).await;
    assert_eq!((ended.status, ended.next_fire_at, ended.ended_at.is_some()), (Status::Canceled, None, true));
    let again = requests().complete(call(caller, CompleteReminder { id: made.id })).await.unwrap_err();
    assert_eq!(again.code, Code::InvalidState);

    let other = world.create(caller, at(eight)).await;
    requests().complete(call(caller, CompleteReminder { id: other.id })).await.unwrap();
    assert_eq!((world.told(other.id).await, world.alarm(other.id).await), (vec!["created".into(), "completed".into()], None));
}

/// Rules have whole seconds.
fn floor(at: time::OffsetDateTime) -> time::OffsetDateTime {
    at.replace_nanosecond(0).unwrap()
}

#[tokio::test]
async fn the_same_request_twice_makes_one_reminder() {
    let world = World::new().await;
    let (caller, due) = (world.account().await, world.now().await + Duration::HOUR);
    let with_key = |request: CreateReminder| {
        let mut call = call(caller, request);
        call.idempotency_key = Some("key-1".to_owned());
        world.requests.clone().create(call)
    };
    let first = with_key(at(due)).await.unwrap();
    assert_eq!(with_key(at(due)).await.unwrap(), first);
    assert_eq!(with_key(at(due + Duration::HOUR)).await.unwrap_err().code, Code::IdempotencyKeyReused);
    let list = world.requests.clone().list(call(caller, ListReminders::default())).await.unwrap();
    assert_eq!(list.items, [first]);
}

#[tokio::test]
async fn another_accounts_reminders_and_things_are_not_there() {
    let world = World::new().await;
    let (caller, stranger, due) = (world.account().await, world.account().await, world.now().await + Duration::HOUR);
    let made = world.create(caller, at(due)).await;
    let missing = ReminderId(Uuid::from_u128(1));
    for id in [made.id, missing] {
        let requests = || world.requests.clone();
        let problems = [
            requests().get(call(stranger, GetReminder { id })).await.unwrap_err(),
            requests().skip(call(stranger, SkipReminder { id })).await.unwrap_err(),
            requests().complete(call(stranger, CompleteReminder { id })).await.unwrap_err(),
            requests().cancel(call(stranger, CancelReminder { id })).await.unwrap_err(),
            requests().snooze(call(stranger, SnoozeReminder { id, until: None, seconds: Some(1) })).await.unwrap_err(),
            requests()
                .update(call(stranger, UpdateReminder { id, if_version: None, changes: ReminderChanges::default() }))
                .await
                .unwrap_err(),
        ];
        assert!(problems.iter().all(|problem| problem.code == Code::NotFound), "{problems:?}");
    }
    assert_eq!(world.get(caller, made.id).await, made, "nothing was touched");

    let (file, download) = (world.file(stranger).await, world.download(stranger).await);
    let trigger = |event_type: &str, id| Some(Trigger { event_type: event_type.to_owned(), id });
    let about = |kind, id| Some(About { kind, id });
    for (wrong, field) in [
        (CreateReminder { about: about(AboutKind::File, file), ..at(due) }, "about.id"),
        (CreateReminder { about: about(AboutKind::Download, file), ..at(due) }, "about.id"),
        (CreateReminder { on_event: trigger("download.completed", download), ..at(due) }, "on_event.id"),
        (CreateReminder { unless_event: trigger("file.purged", file), ..at(due) }, "unless_event.id"),
    ] {
        let problem = world.try_create(caller, wrong).await.unwrap_err();
        assert_eq!((problem.code, problem.errors[0].field.as_str()), (Code::InvalidValue, field));
        assert!(problem.detail.contains("there is no such"), "{problem}");
    }
    let own = CreateReminder { about: about(AboutKind::File, world.file(caller).await), ..at(due) };
    assert!(world.try_create(caller, own).await.is_ok());
}

#[tokio::test]
async fn what_has_happened_already_fires_at_once_or_is_refused() {
    let world = World::new().await;
    let (caller, due) = (world.account().await, world.now().await + Duration::HOUR);
    let file = world.file(caller).await;
    let there = Some(Trigger { event_type: "file.available".to_owned(), id: file });
    let fired = world.create(caller, CreateReminder { on_event: there.clone(), ..at(due) }).await;
    assert_eq!((fired.status, fired.fired, fired.next_fire_at), (Status::Fired, 1, None));
    assert_eq!((world.told(fired.id).await, world.alarm(fired.id).await), (vec!["created".into(), "fired".into()], None));
    let refused = world.try_create(caller, CreateReminder { unless_event: there, ..at(due) }).await.unwrap_err();
    assert_eq!((refused.code, refused.errors[0].field.as_str()), (Code::InvalidValue, "unless_event.type"));
}

#[tokio::test]
async fn an_account_has_so_many_reminders_ahead_and_no_more_even_when_it_asks_at_once() {
    let world = World::with_room_for(5).await;
    let (caller, due) = (world.account().await, world.now().await + Duration::HOUR);
    let answers = futures_util::future::join_all((0..12).map(|_| world.try_create(caller, at(due)))).await;
    let made: Vec<Reminder> = answers.iter().filter_map(|answer| answer.clone().ok()).collect();
    assert_eq!(made.len(), 5);
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(|problem| problem.code == Code::TooMany));
    assert!(world.try_create(world.account().await, at(due)).await.is_ok(), "another account has its own");
    // One that has ended makes room; one that is snoozed takes it again.
    world.requests.clone().cancel(call(caller, CancelReminder { id: made[0].id })).await.unwrap();
    assert!(world.try_create(caller, at(due)).await.is_ok());
    world.let_pass(made[1].id, Duration::HOUR).await;
    assert_eq!(world.wake_due().await, 1);
    assert!(world.try_create(caller, at(due)).await.is_ok());
    let snooze = SnoozeReminder { id: made[1].id, until: None, seconds: Some(60) };
    assert_eq!(world.requests.clone().snooze(call(caller, snooze)).await.unwrap_err().code, Code::TooMany);
}

#[tokio::test]
async fn lists_hold_what_is_asked_for_without_gap_or_repeat() {
    let world = World::new().await;
    let (caller, now) = (world.account().await, world.now().await);
    let file = world.file(caller).await;
    let mut made = Vec::new();
    for hours in 1..=9 {
        let about = (hours % 3 == 0).then_some(About { kind: AboutKind::File, id: file });
        let title = if hours % 2 == 0 { "100% even" } else { "odd" };
        let due = at(now + Duration::hours(hours));
        made.push(world.create(caller, CreateReminder { about, title: title.to_owned(), ..due }).await);
    }
    world.requests.clone().cancel(call(caller, CancelReminder { id: made[8].id })).await.unwrap();
    let list = async |filters: ListReminders| world.requests.clone().list(call(caller, filters)).await.unwrap();
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = list(ListReminders { limit: Some(3), cursor: cursor.take(), ..ListReminders::default() }).await;
        seen.extend(page.items.iter().map(|reminder| reminder.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let newest_first: Vec<ReminderId> = made[..8].iter().rev().map(|reminder| reminder.id).collect();
    assert_eq!(seen, newest_first, "all but the canceled one");
    let ids = async |filters| list(filters).await.items.iter().map(|reminder| reminder.id).collect::<Vec<_>>();
    let filter = ListReminders::default;
    assert_eq!(ids(ListReminders { status: Some(Status::Canceled), ..filter() }).await, [made[8].id]);
    assert_eq!(ids(ListReminders { about: Some(file), ..filter() }).await, [made[5].id, made[2].id]);
    assert_eq!(ids(ListReminders { q: Some("0% E".to_owned()), ..filter() }).await.len(), 4);
    let between =
        ListReminders { due_after: Some(now + Duration::hours(2)), due_before: Some(now + Duration::hours(4)), ..filter() };
    assert_eq!(ids(between).await, [made[2].id, made[1].id]);
    let cursor = list(ListReminders { limit: Some(3), ..filter() }).await.next_cursor;
    let elsewhere = ListReminders { status: Some(Status::Scheduled), cursor, ..filter() };
    assert_eq!(world.requests.clone().list(call(caller, elsewhere)).await.unwrap_err().code, Code::InvalidCursor);
}

#[tokio::test]
async fn a_disabled_account_makes_none() {
    let world = World::new().await;
    let (caller, due) = (world.account().await, world.now().await + Duration::HOUR);
    sqlx::query("UPDATE accounts SET disabled_at = now()").execute(&world.pool).await.unwrap();
    assert_eq!(world.try_create(caller, at(due)).await.unwrap_err().code, Code::Forbidden);
}

#[tokio::test]
async fn a_list_that_finds_little_among_very_many_is_read_page_by_page() {
    let world = World::new().await;
    let (caller, now) = (world.account().await, world.now().await);
    let needle = world.create(caller, CreateReminder { title: "needle".to_owned(), ..at(now + Duration::HOUR) }).await;
    sqlx::query(
        "INSERT INTO reminders SELECT (json_populate_record(r, json_build_object('id', 'ffff' || substr(gen_random_uuid()::text, 5), \
         'title', 'hay'))).* FROM reminders AS r, generate_series(1, 6000) WHERE r.id = $1",
    )
    .bind(needle.id.0)
    .execute(&world.pool)
    .await
    .unwrap();
    let page = async |cursor| {
        let list = ListReminders { q: Some("needle".to_owned()), limit: Some(10), cursor, ..ListReminders::default() };
        world.requests.clone().list(call(caller, list)).await.unwrap()
    };
    let first = page(None).await;
    assert!(first.items.is_empty() && first.next_cursor.is_some());
    let second = page(first.next_cursor).await;
    assert_eq!((second.items.len(), second.items[0].id, second.next_cursor), (1, needle.id, None));
}
