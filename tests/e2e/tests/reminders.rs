//! Reminders from the outside: asked for over REST, told on the stream, also when the house burned down in between.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bowerbird_e2e::{House, text};
use bowerbird_lifecycle::Clock;
use bowerbird_nats::{
    Bus, Event, Outcome,
    bus::Options,
    consume::Delivery,
    event::REMINDER_FIRED,
    reminder::{Cause, Fired},
};
use bowerbird_testkit::{NatsServer, http::Http};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_mins(1);

/// The time by the house itself: what it says of when it made something.
async fn now(http: &Http) -> Result<OffsetDateTime> {
    let probe = http.post("/v1/reminders", &json!({"title": "probe", "due_at": "2090-01-01T00:00:00Z"})).await?.expect(201)?;
    http.delete(&format!("/v1/reminders/{}", text(&probe, "id"))).await?.expect(204)?;
    Ok(OffsetDateTime::parse(text(&probe, "created_at"), &Rfc3339)?)
}

/// A service of somebody's that follows what fires; it hears until the token is canceled.
async fn follow(
    nats: &NatsServer,
    stop: CancellationToken,
) -> Result<(mpsc::UnboundedReceiver<Fired>, tokio::task::JoinSet<()>)> {
    let options =
        Options { url: nats.url(), prefix: "bowerbird".into(), replicas: 1, name: "follower".into(), ..Options::default() };
    let bus = Bus::connect(options, PATIENCE).await?;
    let spec = bus.event_consumer("follower", bus.subjects().events_of_type(&REMINDER_FIRED));
    let (heard, fired) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let handle = move |delivery: Delivery<Event>| {
            let heard = heard.clone();
            async move {
                if let Ok(told) = delivery.message.data_as::<Fired>() {
                    let _ = heard.send(told);
                }
                Outcome::Done
            }
        };
        bus.consume(spec, stop, Arc::new(Semaphore::new(1)), handle).await;
    });
    Ok((fired, tasks))
}

async fn next(fired: &mut mpsc::UnboundedReceiver<Fired>) -> Result<Fired> {
    tokio::time::timeout(PATIENCE, fired.recv()).await.context("nothing fired in time")?.context("the follower ended")
}

#[tokio::test]
async fn a_reminder_two_seconds_ahead_is_told_on_the_stream_once() -> Result<()> {
    let nats = NatsServer::start().await;
    let mut house = House::start(&[("NATS__URL", &nats.url())]).await?;
    let http = house.account("ada").await?;
    let stop = CancellationToken::new();
    let (mut fired, mut tasks) = follow(&nats, stop.clone()).await?;

    let due = (now(&http).await? + Duration::from_secs(2)).format(&Rfc3339)?;
    let answer = http.post("/v1/reminders", &json!({"title": "Tea", "note": "It is hot.", "due_at": due})).await?;
    let made = answer.expect(201)?;
    let id = text(&made, "id").to_owned();
    assert_eq!(answer.header("location"), format!("/v1/reminders/{id}"));
    assert_eq!((text(&made, "status"), text(&made, "next_fire_at")), ("scheduled", text(&made, "due_at")));

    let told = next(&mut fired).await?;
    assert_eq!((told.reminder_id.to_string(), told.title.as_str()), (id.clone(), "Tea"));
    assert_eq!((told.cause, told.late, told.occurrence), (Cause::Time, false, 1));
    let after = told.fired_at - told.due_at;
    ensure!(!after.is_negative() && after < Duration::from_secs(20), "it fired {after} after it was due");
    let reminder = http.get(&format!("/v1/reminders/{id}")).await?.expect(200)?;
    assert_eq!((text(&reminder, "status"), &reminder["fired"]), ("fired", &json!(1)));
    // Too late to cancel; not too late to hear of it again.
    assert_eq!(text(&http.delete(&format!("/v1/reminders/{id}")).await?.expect(409)?, "code"), "invalid_state");
    http.post(&format!("/v1/reminders/{id}/snooze"), &json!({"seconds": 1})).await?.expect(200)?;
    assert_eq!(next(&mut fired).await?.occurrence, 2);
    assert!(fired.is_empty(), "each is told once");
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    assert_eq!(house.stop().await?, Some(0), "an orderly stop");
    Ok(())
}

#[tokio::test]
async fn what_is_due_while_the_house_is_down_fires_when_it_is_up_again() -> Result<()> {
    let nats = NatsServer::start().await;
    let mut house = House::start(&[("NATS__URL", &nats.url())]).await?;
    let http = house.account("ada").await?;
    let due = (now(&http).await? + Duration::from_secs(3)).format(&Rfc3339)?;
    let made = http.post("/v1/reminders", &json!({"title": "Tea", "due_at": due})).await?.expect(201)?;
    house.kill().await?;
    // Longer than until it is due, as a start takes seconds; that it was due before is checked below.
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The house is on this machine, and so is its database: the same clock.
    let before_the_start = Clock::system().now();
    house.up().await?;
    let stop = CancellationToken::new();
    let (mut fired, mut tasks) = follow(&nats, stop.clone()).await?;
    let told = next(&mut fired).await?;
    assert_eq!((told.reminder_id.to_string(), told.occurrence), (text(&made, "id").to_owned(), 1));
    assert!(told.due_at < before_the_start, "{} was not before {before_the_start}", told.due_at);
    assert!(told.fired_at >= told.due_at);
    let http = house.login("ada").await?;
    let reminder = http.get(&format!("/v1/reminders/{}", text(&made, "id"))).await?.expect(200)?;
    assert_eq!((text(&reminder, "status"), &reminder["fired"]), ("fired", &json!(1)));
    assert!(fired.is_empty(), "it is told once");
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    Ok(())
}
