//! `GET /v1/events`: what comes, in which order, from where, and how it ends.

use std::time::Duration;

use bowerbird_nats::{
    AccountId, Bus, EventId, EventType, SessionId,
    event::{DOWNLOAD_COMPLETED, Event, SESSION_CLOSED},
    session::Closed,
};
use bowerbird_testkit::{event_stream::EventStream, eventually};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::{ACCOUNT, SESSION, Stage};

const PATH: &str = "/v1/events";

fn account() -> AccountId {
    ACCOUNT.parse().unwrap()
}

fn fact(event_type: &EventType, account_id: AccountId, number: u128, data: Value) -> Event {
    Event {
        id: EventId(Uuid::from_u128(0xffff_0000 + number)),
        event_type: event_type.clone(),
        account_id: Some(account_id),
        entity_id: Uuid::from_u128(number),
        entity_sequence: 1,
        time: time::OffsetDateTime::UNIX_EPOCH,
        data,
        traceparent: None,
    }
}

async fn publish(bus: &Bus, numbers: std::ops::Range<u128>) {
    for number in numbers {
        bus.publish_event(&fact(&DOWNLOAD_COMPLETED, account(), number, json!({ "number": number.to_string() }))).await.unwrap();
    }
}

/// The numbers of the next events, as many as asked for, and the id of the last.
async fn numbers(stream: &mut EventStream, count: usize) -> (Vec<u128>, String) {
    let (mut numbers, mut last) = (Vec::new(), String::new());
    while numbers.len() < count {
        let frame = stream.event().await.unwrap();
        assert_eq!(frame.event, "download.completed", "{frame:?}");
        numbers.push(frame.data["data"]["number"].as_str().unwrap().parse().unwrap());
        last = frame.id.unwrap();
    }
    (numbers, last)
}

#[tokio::test]
async fn who_follows_gets_what_happens_from_now_on_and_progress_and_nothing_of_others() {
    let stage = Stage::set().await;
    let bus = stage.publisher().await;
    publish(&bus, 0..3).await;
    let mut stream = stage.caller().follow(PATH, &[]).await.unwrap();
    assert_eq!(stream.status, 200);
    assert!(stream.head.contains("content-type: text/event-stream\r\n") && stream.head.contains("cache-control: no-store\r\n"));
    let greeting = stream.next().await.unwrap().unwrap();
    assert!(greeting.retry.is_some() && greeting.id.is_some() && greeting.event.is_empty());

    let somebody_else = AccountId(Uuid::from_u128(9));
    bus.publish_event(&fact(&DOWNLOAD_COMPLETED, somebody_else, 3, json!({ "number": "3" }))).await.unwrap();
    bus.publish_event(&fact(&DOWNLOAD_COMPLETED, account(), 4, json!({ "number": "4", "name": "a\nid: 7\n\nevent: x" })))
        .await
        .unwrap();
    let frame = stream.event().await.unwrap();
    assert_eq!(frame.event, "download.completed");
    assert_eq!(
        frame.data,
        json!({
            "id": EventId(Uuid::from_u128(0xffff_0004)), "type": "download.completed", "time": "1970-01-01T00:00:00Z",
            "entity_id": Uuid::from_u128(4), "entity_sequence": 1, "data": { "number": "4", "name": "a\nid: 7\n\nevent: x" },
        })
    );
    bus.tell_live("download", "progress", somebody_else, Uuid::from_u128(5), &json!({ "received_bytes": 1 }));
    bus.tell_live("download", "progress", account(), Uuid::from_u128(6), &json!({ "received_bytes": 2 }));
    let frame = stream.event().await.unwrap();
    assert_eq!((frame.event.as_str(), frame.id), ("download.progress", None));
    assert_eq!(
        frame.data,
        json!({ "type": "download.progress", "entity_id": Uuid::from_u128(6), "data": { "received_bytes": 2 } })
    );
}

#[tokio::test]
async fn who_comes_back_goes_on_where_it_was_without_gap_or_repeat() {
    let mut stage = Stage::set().await;
    let bus = stage.publisher().await;
    let caller = stage.caller();
    let mut stream = caller.follow(PATH, &[]).await.unwrap();
    let mut last = stream.next().await.unwrap().unwrap().id.unwrap();
    let mut seen = Vec::new();
    for turn in 0..10 {
        publish(&bus, turn * 10..turn * 10 + 10).await;
        let (some, at) = numbers(&mut stream, 7).await;
        seen.extend(some);
        last = at;
        // Gone in the middle; what came meanwhile is waited for by the next.
        drop(stream);
        stream = caller.follow(PATH, &[("last-event-id", &last)]).await.unwrap();
    }
    let (rest, _) = numbers(&mut stream, 30).await;
    seen.extend(rest);
    assert_eq!(seen, (0..100).collect::<Vec<u128>>());

    // The server of the bus goes away and comes back: the same stream goes on.
    stage.nats.kill9();
    stage.nats.restart().await;
    publish(&bus, 100..110).await;
    assert_eq!(numbers(&mut stream, 10).await.0, (100..110).collect::<Vec<u128>>());
    assert!(last.contains('-'));

    for wrong in ["x", "1-", "0198c0de-7a2b-7c3d-8e4f-0123456789ab"] {
        let refused = caller.follow(PATH, &[("last-event-id", wrong)]).await.unwrap();
        assert_eq!(refused.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_place_that_is_gone_is_told_so_and_it_goes_on_from_the_end() {
    let mut stage = Stage::with("gateway.event_heartbeat = '200ms'").await;
    let bus = stage.publisher().await;
    publish(&bus, 0..5).await;
    let caller = stage.caller();
    let mut stream = caller.follow(PATH, &[]).await.unwrap();
    let before = stream.next().await.unwrap().unwrap().id.unwrap();
    stage.nats.wipe_jetstream().await;
    eventually(Duration::from_secs(20), "the stream is there again", async || bus.ensure_topology().await.ok()).await;
    publish(&bus, 5..6).await;
    // Both who is there and who comes back are told, and both hear what happens next.
    assert_eq!(stream.event().await.unwrap().event, "reset");
    let mut back = caller.follow(PATH, &[("last-event-id", &before)]).await.unwrap();
    assert_eq!(back.event().await.unwrap().event, "reset");
    publish(&bus, 6..8).await;
    assert_eq!(numbers(&mut back, 2).await.0, [6, 7]);
    assert_eq!(stream.event_named("download.completed").await.unwrap().data["data"]["number"], "6");
}

#[tokio::test]
async fn it_says_that_it_is_still_there_and_ends_when_the_token_or_the_session_does() {
    let stage = Stage::with("gateway.event_heartbeat = '100ms'").await;
    let bus = stage.publisher().await;
    let mut short = stage.http.with_token(&stage.token(2)).follow(PATH, &[]).await.unwrap();
    let mut long = stage.caller().follow(PATH, &[]).await.unwrap();
    let (mut comments, end) = (
        0,
        loop {
            let frame = short.next().await.unwrap().unwrap();
            if !frame.event.is_empty() {
                break frame;
            }
        },
    );
    assert_eq!((end.event.as_str(), &end.data["reason"]), ("end", &json!("token_expired")));
    assert_eq!(short.next().await.unwrap(), None);
    while comments < 3 {
        comments += long.next().await.unwrap().unwrap().comments.len();
    }

    let closed = |session_id: SessionId| {
        let closed = Closed { session_id, account_id: account(), reason: "logout".into() };
        fact(&SESSION_CLOSED, account(), session_id.0.as_u128(), serde_json::to_value(closed).unwrap())
    };
    bus.publish_event(&closed(SessionId(Uuid::from_u128(7)))).await.unwrap();
    assert_eq!(long.event().await.unwrap().event, "session.closed");
    bus.publish_event(&closed(SESSION.parse().unwrap())).await.unwrap();
    assert_eq!(long.event().await.unwrap().event, "session.closed");
    let end = long.event().await.unwrap();
    assert_eq!((end.event.as_str(), &end.data["reason"]), ("end", &json!("session_closed")));
    assert_eq!(long.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_dropped_and_misses_nothing_when_it_comes_back() {
    let stage = Stage::with("gateway.event_heartbeat = '250ms'").await;
    let bus = stage.publisher().await;
    let caller = stage.caller();
    let mut stream = caller.follow(PATH, &[]).await.unwrap();
    stream.next().await.unwrap().unwrap();
    // More than the buffers of the kernel on both ends and ours hold.
    let padding = "x".repeat(400_000);
    let total = 150_u128;
    for number in 0..total {
        let data = json!({ "number": number.to_string(), "padding": padding });
        bus.publish_event(&fact(&DOWNLOAD_COMPLETED, account(), number, data)).await.unwrap();
    }
    eventually(Duration::from_mins(1), "the slow client has no place any more", async || {
        let metrics = bowerbird_testkit::http::Http::new(stage.running.operations.to_string()).get("/metrics").await.ok()?;
        String::from_utf8_lossy(&metrics.body).contains("bowerbird_gateway_event_streams 0\n").then_some(())
    })
    .await;
    let (mut seen, mut last) = (Vec::new(), String::new());
    let end = loop {
        let frame = stream.event().await.unwrap();
        if frame.event == "end" {
            break frame;
        }
        seen.push(frame.data["data"]["number"].as_str().unwrap().parse::<u128>().unwrap());
        last = frame.id.unwrap();
    };
    assert_eq!(end.data["reason"], "too_slow");
    assert!(end.retry.is_some() && seen.len() < usize::try_from(total).unwrap(), "{}", seen.len());
    let mut back = caller.follow(PATH, &[("last-event-id", &last)]).await.unwrap();
    let rest = usize::try_from(total).unwrap() - seen.len();
    seen.extend(numbers(&mut back, rest).await.0);
    assert_eq!(seen, (0..total).collect::<Vec<_>>());
}

#[tokio::test]
async fn so_many_may_follow_and_a_place_is_free_when_its_client_is_gone() {
    let stage = Stage::with(
        "gateway.max_event_streams = 3\ngateway.max_event_streams_per_account = 2\ngateway.event_heartbeat = '100ms'",
    )
    .await;
    let _bus = stage.publisher().await;
    let caller = stage.caller();
    let first = caller.follow(PATH, &[]).await.unwrap();
    let second = caller.follow(PATH, &[]).await.unwrap();
    assert_eq!((first.status, second.status), (200, 200));
    let third = caller.get(PATH).await.unwrap();
    assert_eq!((third.status.as_u16(), third.json()["code"].clone()), (429, json!("too_many")));
    assert_eq!(third.header("retry-after"), "5");
    drop(first);
    eventually(Duration::from_secs(20), "the place is free", async || {
        let again = caller.follow(PATH, &[]).await.unwrap();
        (again.status == 200).then_some(())
    })
    .await;

    let crowded = Stage::with("gateway.max_event_streams = 0").await;
    let _bus = crowded.publisher().await;
    let refused = crowded.caller().get(PATH).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.json()["code"].clone()), (503, json!("unavailable")));
}

#[tokio::test]
async fn without_a_stream_of_events_it_is_503_and_a_stop_ends_it_with_a_word() {
    let stage = Stage::set().await;
    let refused = stage.caller().get(PATH).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.json()["code"].clone()), (503, json!("unavailable")));
    let _bus = stage.publisher().await;
    let mut stream = stage.caller().follow(PATH, &[]).await.unwrap();
    stream.next().await.unwrap().unwrap();
    stage.shutdown.stop();
    let end = stream.event().await.unwrap();
    assert_eq!((end.event.as_str(), &end.data["reason"]), ("end", &json!("stopping")));
    assert_eq!(stream.next().await.unwrap(), None);
    assert!(stage.tasks.wait(Duration::from_secs(10)).await);
}
