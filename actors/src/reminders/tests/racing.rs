//! Whoever cancels or moves a reminder in the very instant in which it is due: one of the two happens, and both know which.

use std::sync::atomic::{AtomicBool, Ordering};

use bowerbird_nats::{
    Code,
    event::DOWNLOAD_COMPLETED,
    reminder::{CancelReminder, CreateReminder, Reminder, ReminderChanges, Status, Trigger, UpdateReminder},
};
use bowerbird_testkit::eventually;
use futures_util::{StreamExt as _, stream};
use time::Duration;

use super::world::{PATIENCE, World, at, call};
use crate::{
    alarms::{self, Kind},
    reminders::store,
};

fn number() -> usize {
    if std::env::var_os("BOWERBIRD_PROVE").is_some() { 10_000 } else { 300 }
}

/// Reminders made in front of the instant, each asked for something around it while two hands wake what is due. How many
/// of the askers were in time.
async fn race(
    what: impl AsyncFn(&World, bowerbird_nats::credential::Caller, &Reminder) -> bool + Copy,
) -> (World, Vec<(Reminder, bool)>) {
    let world = World::with_room_for(100_000).await;
    let caller = world.account().await;
    let over = AtomicBool::new(false);
    let waking = async {
        while !over.load(Ordering::Acquire) {
            world.wake_due().await;
            tokio::task::yield_now().await;
        }
    };
    let asking = async {
        let outcomes: Vec<(Reminder, bool)> = stream::iter(0..number())
            .map(|index| {
                let world = &world;
                async move {
                    let jitter = i64::try_from(index * 7919 % 23).unwrap();
                    let due = world.now().await + Duration::milliseconds(jitter);
                    let made = world.create(caller, at(due)).await;
                    // Around the instant: as long as the making took, some before and some after it.
                    let in_time = what(world, caller, &made).await;
                    (made, in_time)
                }
            })
            .buffer_unordered(6)
            .collect()
            .await;
        over.store(true, Ordering::Release);
        outcomes
    };
    let ((), (), outcomes) = tokio::join!(
        waking,
        async {
            while !over.load(Ordering::Acquire) {
                world.wake_due().await;
                tokio::task::yield_now().await;
            }
        },
        asking
    );
    // What is still due.
    while world.wake_due().await > 0 {}
    let in_time = outcomes.iter().filter(|(_, in_time)| *in_time).count();
    println!("{} races: {in_time} askers were in time, {} reminders fired first", outcomes.len(), outcomes.len() - in_time);
    (world, outcomes)
}

#[tokio::test]
async fn a_reminder_that_is_canceled_in_the_instant_in_which_it_is_due_is_canceled_or_fires_and_not_both() {
    let (world, outcomes) = Box::pin(race(async |world, caller, made| {
        match world.requests.clone().cancel(call(caller, CancelReminder { id: made.id })).await {
            Ok(_) => true,
            Err(problem) => {
                assert_eq!(problem.code, Code::InvalidState, "{problem}");
                false
            }
        }
    }))
    .await;
    for (made, in_time) in &outcomes {
        let end = if *in_time { "canceled" } else { "fired" };
        assert_eq!(world.told(made.id).await, ["created", end], "{}", made.id);
        assert_eq!(world.alarm(made.id).await, None);
    }
}

#[tokio::test]
async fn a_reminder_that_is_moved_in_the_instant_in_which_it_is_due_fires_at_one_of_the_two_times_only() {
    let (world, outcomes) = Box::pin(race(async |world, caller, made| {
        let changes = ReminderChanges { due_at: made.due_at.map(|due| due + Duration::HOUR), ..ReminderChanges::default() };
        match world.requests.clone().update(call(caller, UpdateReminder { id: made.id, if_version: None, changes })).await {
            Ok(moved) => {
                assert_eq!((moved.status, moved.next_fire_at), (Status::Scheduled, made.due_at.map(|due| due + Duration::HOUR)));
                true
            }
            Err(problem) => {
                assert_eq!(problem.code, Code::InvalidState, "{problem}");
                false
            }
        }
    }))
    .await;
    for (made, in_time) in outcomes.iter().filter(|(_, in_time)| *in_time) {
        assert_eq!(world.told(made.id).await, ["created", "updated"], "{}: {in_time}", made.id);
        assert_eq!(world.alarm(made.id).await, made.due_at.map(|due| due + Duration::HOUR));
    }
    // An hour later.
    sqlx::query("UPDATE reminders SET next_fire_at = next_fire_at - interval '1 hour' WHERE status = 'scheduled'")
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE alarms SET due_at = due_at - interval '1 hour', wake_at = wake_at - interval '1 hour'")
        .execute(&world.pool)
        .await
        .unwrap();
    while world.wake_due().await > 0 {}
    for (made, in_time) in &outcomes {
        let told = world.told(made.id).await;
        let expected = if *in_time { &["created", "updated", "fired"][..] } else { &["created", "fired"] };
        assert_eq!(told, expected, "{}", made.id);
    }
}

#[tokio::test]
async fn a_reminder_that_gets_a_time_while_its_event_arrives_does_not_wait_in_a_circle() {
    let world = World::new().await;
    let (_nats, triggers) = world.triggers().await;
    let (caller, now) = (world.account().await, world.now().await);
    let download = world.download(caller).await;
    let on_event = Some(Trigger { event_type: "download.completed".to_owned(), id: download });
    let made = world.create(caller, CreateReminder { due_at: None, on_event, ..at(now) }).await;
    let event = world.happens(DOWNLOAD_COMPLETED, download).await;
    // So that who writes the reminder is still at it when its alarm comes.
    for statement in [
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END'",
        "CREATE TRIGGER slowly BEFORE UPDATE ON reminders FOR EACH ROW EXECUTE FUNCTION slowly()",
    ] {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    }

    // Its owner gives it a time, and the event waits for that.
    let mut updating = world.pool.begin().await.unwrap();
    store::locked(&mut updating, &[made.id.0]).await.unwrap();
    let acting = tokio::task::JoinSet::from_iter([async move { triggers.act(&event).await }]);
    eventually(PATIENCE, "the event waits", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&world.pool).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    sqlx::query("UPDATE reminders SET next_fire_at = $2, due_at = $2 WHERE id = $1")
        .bind(made.id.0)
        .bind(now)
        .execute(&mut *updating)
        .await
        .unwrap();
    alarms::arm(&mut updating, Kind::Reminder, made.id.0, now).await.unwrap();
    updating.commit().await.unwrap();

    // That time has come: its alarm is held, and the reminder is next.
    let mut waking = world.pool.begin().await.unwrap();
    alarms::hold(&mut waking, Kind::Reminder, made.id.0).await.unwrap();
    store::locked(&mut waking, &[made.id.0]).await.unwrap();
    waking.rollback().await.unwrap();
    let acted: Vec<_> = acting.join_all().await;
    assert!(acted.iter().all(Result::is_ok), "{acted:?}");
    assert_eq!((world.told(made.id).await, world.alarm(made.id).await), (vec!["created".into(), "fired".into()], None));
}
