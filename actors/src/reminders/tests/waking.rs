//! What time, events and new zone rules do, on rows.

use std::time::Instant;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    Bus,
    bus::Options as BusOptions,
    event::{DOWNLOAD_COMPLETED, EventType, FILE_PURGED},
    reminder::{CreateReminder, Status, Trigger},
};
use bowerbird_testkit::{NatsServer, eventually};
use serde_json::json;
use time::Duration;
use uuid::Uuid;

use super::world::{PATIENCE, World, at, repeating};
use crate::{
    events::{self, Bell, NewEvent},
    reminders::{triggers::Triggers, zone_rules::ZoneRules},
    supervision::{self, Address, ChildSpec},
};

#[tokio::test]
async fn what_is_due_fires_once_and_what_repeats_is_armed_again() {
    let world = World::new().await;
    let (caller, now) = (world.account().await, world.now().await);
    let once = world.create(caller, at(now + Duration::HOUR)).await;
    let daily = world.create(caller, repeating(now + Duration::HOUR, "FREQ=DAILY")).await;
    assert_eq!(world.wake_due().await, 0, "nothing is due yet");
    for id in [once.id, daily.id] {
        world.let_pass(id, Duration::HOUR).await;
    }
    assert_eq!(world.wake_due().await, 2);
    assert_eq!(world.wake_due().await, 0);
    let (once, daily) = (world.get(caller, once.id).await, world.get(caller, daily.id).await);
    assert_eq!((once.status, once.fired, world.alarm(once.id).await), (Status::Fired, 1, None));
    assert_eq!((daily.status, daily.fired), (Status::Scheduled, 1));
    assert!(daily.next_fire_at.is_some_and(|next| next > now));
    assert_eq!(world.alarm(daily.id).await, daily.next_fire_at);
    let told = world.events(daily.id).await;
    assert_eq!((told[1].0.as_str(), &told[1].1["occurrence"], &told[1].1["late"]), ("fired", &json!(1), &json!(false)));
}

#[tokio::test]
async fn what_was_due_while_nothing_ran_is_late_or_missed_and_never_dropped() {
    let world = World::new().await;
    let (caller, now) = (world.account().await, world.now().await);
    let soon = now + Duration::minutes(1);
    let (late, lost) = (world.create(caller, at(soon)).await, world.create(caller, at(soon)).await);
    let daily = world.create(caller, repeating(soon, "FREQ=DAILY")).await;
    world.let_pass(late.id, Duration::hours(5)).await;
    world.let_pass(lost.id, Duration::days(3)).await;
    world.let_pass(daily.id, Duration::days(3)).await;
    assert_eq!(world.wake_due().await, 3);
    assert_eq!(world.told(late.id).await, ["created", "fired"]);
    assert_eq!(world.events(late.id).await[1].1["late"], json!(true));
    assert_eq!(world.told(lost.id).await, ["created", "missed"]);
    assert_eq!(world.get(caller, lost.id).await.status, Status::Missed);
    // Three days of it: the last is made up for, the others are told.
    let told = world.events(daily.id).await;
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["created", "missed", "fired"]);
    assert_eq!((&told[1].1["occurrences"], &told[2].1["late"]), (&json!(2), &json!(true)), "{told:?}");
    let daily = world.get(caller, daily.id).await;
    assert_eq!((daily.status, world.alarm(daily.id).await), (Status::Scheduled, daily.next_fire_at));
    assert!(daily.next_fire_at.is_some_and(|next| next > now));
}

#[tokio::test]
async fn what_repeats_often_and_slept_for_days_is_made_up_for_once_and_holds_up_nobody() {
    let world = World::new().await;
    let (caller, now) = (world.account().await, world.now().await);
    let mut often = Vec::new();
    for _ in 0..20 {
        let reminder = world.create(caller, repeating(now + Duration::MINUTE, "FREQ=MINUTELY")).await;
        world.let_pass(reminder.id, Duration::days(6)).await;
        often.push(reminder.id);
    }
    // Made last, so that it is not woken first by chance.
    let once = world.create(caller, at(now + Duration::MINUTE)).await;
    world.let_pass(once.id, Duration::MINUTE).await;
    assert_eq!(world.wake_due().await, 21);
    assert_eq!(world.told(once.id).await, ["created", "fired"]);
    // Those for which there was no time are still armed. How many depends on the machine.
    while world.wake_due().await > 0 {}
    for id in often {
        let told = world.events(id).await;
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["created", "missed", "fired"]);
        assert!(told[1].1["occurrences"].as_i64().is_some_and(|missed| missed > 8_000), "{told:?}");
    }
}

#[tokio::test]
async fn a_thousand_that_are_due_together_fire_in_a_few_statements() {
    let world = World::new().await;
    let (caller, now) = (world.account().await, world.now().await);
    for rrule in ["", "FREQ=DAILY"] {
        let first = if rrule.is_empty() {
            world.create(caller, at(now + Duration::MINUTE)).await
        } else {
            world.create(caller, repeating(now + Duration::MINUTE, rrule)).await
        };
        for statement in [
            "INSERT INTO reminders SELECT (json_populate_record(r, json_build_object('id', gen_random_uuid()))).* \
             FROM reminders AS r, generate_series(1, 999) WHERE r.id = $1",
            "INSERT INTO alarms (kind, subject_id, due_at, wake_at) SELECT 'reminder', id, next_fire_at, next_fire_at FROM reminders \
             WHERE status = 'scheduled' AND id <> $1 AND next_local IS NOT DISTINCT FROM (SELECT next_local FROM reminders WHERE id = $1)",
        ] {
            sqlx::query(statement).bind(first.id.0).execute(&world.pool).await.unwrap();
        }
        sqlx::query(
            "UPDATE reminders SET next_fire_at = now() WHERE status = 'scheduled' AND next_fire_at < now() + interval '1 hour'",
        )
        .execute(&world.pool)
        .await
        .unwrap();
        sqlx::query("UPDATE alarms SET wake_at = now() WHERE wake_at < now() + interval '1 hour'")
            .execute(&world.pool)
            .await
            .unwrap();
        let began = Instant::now();
        assert_eq!(world.wake_due().await, 1000);
        println!("1000 reminders, rule {rrule:?}: woken in {:?}", began.elapsed());
        let fired: i64 =
            sqlx::query_scalar("SELECT count(DISTINCT entity_id) FROM events WHERE event_type = 'reminder.fired' AND ($1 = '') = (data->>'next_fire_at' IS NULL)")
                .bind(rrule)
                .fetch_one(&world.pool)
                .await
                .unwrap();
        assert_eq!(fired, 1000);
    }
}

/// A fact about this thing, as its own area would write it.
async fn happen(world: &World, event_type: EventType, thing: Uuid) {
    let mut transaction = world.pool.begin().await.unwrap();
    events::record(&mut transaction, NewEvent::new(IdSource, event_type, None, thing, &json!({}))).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn what_cancels_a_reminder_counts_from_its_commit_on_even_if_nobody_was_told_yet() {
    let world = World::new().await;
    let (caller, now) = (world.account().await, world.now().await);
    let file = world.file(caller).await;
    // Of before: it does not count.
    happen(&world, DOWNLOAD_COMPLETED, file).await;
    let unless = |event_type: &str| Some(Trigger { event_type: event_type.to_owned(), id: file });
    let spared = CreateReminder { unless_event: unless("file.available"), ..at(now + Duration::HOUR) };
    assert!(world.try_create(caller, spared).await.is_err(), "the file is available");
    let guarded = CreateReminder { unless_event: unless("file.purged"), ..at(now + Duration::HOUR) };
    let (canceled, fired) = (world.create(caller, guarded.clone()).await, world.create(caller, guarded).await);
    world.let_pass(fired.id, Duration::HOUR).await;
    assert_eq!(world.wake_due().await, 1);
    happen(&world, FILE_PURGED, file).await;
    world.let_pass(canceled.id, Duration::HOUR).await;
    assert_eq!(world.wake_due().await, 1);
    assert_eq!(world.told(fired.id).await, ["created", "fired"]);
    assert_eq!(world.told(canceled.id).await, ["created", "canceled"]);
    assert_eq!(world.events(canceled.id).await[1].1["reason"], "event");
}

#[tokio::test]
async fn an_event_fires_who_waits_for_it_and_cancels_whom_it_ends_once() {
    let world = World::new().await;
    let nats = NatsServer::start().await;
    let options =
        BusOptions { url: nats.url(), prefix: "test".to_owned(), replicas: 1, name: "test".to_owned(), ..BusOptions::default() };
    let bus = Bus::connect(options, PATIENCE).await.unwrap();
    bus.ensure_topology().await.unwrap();
    let bell = Bell::default();
    let triggers = Triggers { pool: world.pool.clone(), bus: bus.clone(), bell, ids: IdSource, catch_up: Duration::DAY };
    let children = vec![ChildSpec::actor("triggers", &Address::default(), move || (triggers.clone(), ()))];
    let root = supervision::start("test", children, bowerbird_lifecycle::Clock::system()).await.unwrap();

    let (caller, now) = (world.account().await, world.now().await);
    let download = world.download(caller).await;
    let trigger = || Some(Trigger { event_type: "download.completed".to_owned(), id: download });
    let later = now + Duration::HOUR;
    let told = world.create(caller, CreateReminder { on_event: trigger(), ..at(later) }).await;
    let untimed = CreateReminder { due_at: None, on_event: trigger(), ..at(later) };
    let untimed = world.create(caller, untimed).await;
    let ended = world.create(caller, CreateReminder { unless_event: trigger(), ..at(later) }).await;
    let other = Some(Trigger { event_type: "download.failed".to_owned(), id: download });
    let other = world.create(caller, CreateReminder { on_event: other, ..at(later) }).await;
    assert_eq!((world.alarm(untimed.id).await, untimed.status), (None, Status::Scheduled));

    happen(&world, DOWNLOAD_COMPLETED, download).await;
    let row: (Uuid, i64, time::OffsetDateTime) =
        sqlx::query_as("SELECT id, entity_sequence, recorded_at FROM events WHERE entity_id = $1")
            .bind(download)
            .fetch_one(&world.pool)
            .await
            .unwrap();
    let event = bowerbird_nats::Event {
        id: bowerbird_nats::EventId(row.0),
        event_type: DOWNLOAD_COMPLETED,
        account_id: Some(caller.account_id),
        entity_id: download,
        entity_sequence: row.1,
        time: row.2,
        data: json!({}),
        traceparent: None,
    };
    bus.publish_event(&event).await.unwrap();
    eventually(PATIENCE, "all of them were told", async || {
        let statuses = [world.get(caller, told.id).await, world.get(caller, untimed.id).await, world.get(caller, ended.id).await];
        statuses.iter().all(|reminder| reminder.status != Status::Scheduled).then_some(())
    })
    .await;
    for fired in [told.id, untimed.id] {
        let events = world.events(fired).await;
        assert_eq!((events.len(), events[1].0.as_str(), &events[1].1["cause"]), (2, "fired", &json!("event")));
    }
    assert_eq!(world.told(ended.id).await, ["created", "canceled"]);
    assert_eq!(world.told(other.id).await, ["created"]);
    assert_eq!((world.alarm(told.id).await, world.alarm(ended.id).await), (None, None));

    // Delivered again, to a consumer that has forgotten everything: nobody waits any more.
    sqlx::query("DELETE FROM processed_events").execute(&world.pool).await.unwrap();
    let again = bowerbird_nats::Event { id: bowerbird_nats::EventId(IdSource.next()), ..event };
    bus.publish_event(&again).await.unwrap();
    // What was made after the event hears of the next one only.
    let after = world.create(caller, CreateReminder { on_event: trigger(), ..at(later) }).await;
    happen(&world, DOWNLOAD_COMPLETED, download).await;
    let next = bowerbird_nats::Event { id: bowerbird_nats::EventId(IdSource.next()), entity_sequence: row.1 + 1, ..again };
    bus.publish_event(&next).await.unwrap();
    eventually(PATIENCE, "the later one was told", async || {
        (world.get(caller, after.id).await.status == Status::Fired).then_some(())
    })
    .await;
    for fired in [told.id, untimed.id, after.id] {
        assert_eq!(world.told(fired).await, ["created", "fired"]);
    }
    assert!(root.stop(PATIENCE).await);
}

#[tokio::test]
async fn new_zone_rules_move_alarms_and_touch_nothing_else() {
    let world = World::new().await;
    let (caller, now) = (world.account().await, world.now().await);
    let local = CreateReminder {
        due_at: None,
        local_time: Some("2030-07-01T08:00".to_owned()),
        time_zone: Some("Europe/Berlin".to_owned()),
        ..at(now)
    };
    let (moves, stays) = (world.create(caller, local.clone()).await, world.create(caller, local).await);
    let instant = world.create(caller, at(now + Duration::HOUR)).await;
    // As a release would have left them whose rules had Berlin in winter time then.
    for statement in [
        "UPDATE reminders SET zone_rules = '2000a' WHERE zone_rules IS NOT NULL",
        "UPDATE reminders SET next_fire_at = next_fire_at + interval '1 hour' WHERE id = $1",
        "UPDATE alarms SET due_at = due_at + interval '1 hour', wake_at = wake_at + interval '1 hour' WHERE subject_id = $1",
    ] {
        let query = sqlx::query(statement);
        let query = if statement.contains("$1") { query.bind(moves.id.0) } else { query };
        query.execute(&world.pool).await.unwrap();
    }
    let rules = ZoneRules { pool: world.pool.clone(), bell: Bell::default(), ids: IdSource };
    assert_eq!(rules.apply().await.unwrap(), 1);
    assert_eq!(rules.apply().await.unwrap(), 0);
    assert_eq!(
        (world.alarm(moves.id).await, world.told(moves.id).await),
        (moves.next_fire_at, vec!["created".into(), "updated".into()])
    );
    for same in [stays, instant] {
        assert_eq!((world.alarm(same.id).await, world.told(same.id).await), (same.next_fire_at, vec!["created".to_owned()]));
    }
}

#[tokio::test]
async fn an_event_that_many_wait_for_fires_them_in_several_transactions() {
    let world = World::new().await;
    let (_nats, triggers) = world.triggers().await;
    let (caller, now) = (world.account().await, world.now().await);
    let download = world.download(caller).await;
    let on_event = Some(Trigger { event_type: "download.completed".to_owned(), id: download });
    let first = world.create(caller, CreateReminder { on_event, ..at(now + Duration::HOUR) }).await;
    for statement in [
        "INSERT INTO reminders SELECT (json_populate_record(r, json_build_object('id', gen_random_uuid()))).* \
         FROM reminders AS r, generate_series(1, 1199) WHERE r.id = $1",
        "INSERT INTO alarms (kind, subject_id, due_at, wake_at) SELECT 'reminder', id, next_fire_at, next_fire_at FROM reminders WHERE id <> $1",
    ] {
        sqlx::query(statement).bind(first.id.0).execute(&world.pool).await.unwrap();
    }
    let event = world.happens(DOWNLOAD_COMPLETED, download).await;
    triggers.act(&event).await.unwrap();
    let counted: (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM reminders WHERE status = 'fired'), (SELECT count(DISTINCT xmin::text) FROM reminders), \
                (SELECT count(*) FROM alarms), (SELECT count(DISTINCT entity_id) FROM events WHERE event_type = 'reminder.fired')",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(counted, (1200, 3, 0, 1200));
    // Delivered again it finds nobody.
    triggers.act(&event).await.unwrap();
    let fired: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type = 'reminder.fired'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(fired, 1200);
}
