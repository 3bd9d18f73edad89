//! What makes a delivery and what does not: whose events, which types, how often, how many.

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    Outcome,
    event::{DOWNLOAD_COMPLETED, FILE_AVAILABLE, FILE_PURGED},
    id::NodeId,
    webhook::{DeliveryStatus, ErrorCode},
};
use bowerbird_testkit::{
    eventually,
    lying::{Act, LyingServer},
};
use serde_json::json;

use super::world::{PATIENCE, World, answering, by_id};
use crate::{
    alarms::{self, Kind},
    webhooks::{
        row::Tried,
        store::{self, After, Room, Rules},
    },
};

#[tokio::test]
async fn a_webhook_gets_its_own_accounts_events_of_the_types_it_wants_from_then_on() {
    let world = World::new().await;
    let (node, ada, eve) = (world.node("").await, world.account().await, world.account().await);
    let receiver = answering(&[200]).await;
    // One that wants all, so that events are looked at at all before the others are made.
    let all = node.create(ada, &receiver.url("/all")).await;
    world.happens(&node, ada, FILE_AVAILABLE, &json!({ "n": 0 })).await;
    eventually(PATIENCE, "it is received", async || (receiver.requests().len() == 1).then_some(())).await;
    let files = node.create_for(ada, &receiver.url("/files"), &["file.*"]).await;
    let one = node.create_for(ada, &receiver.url("/one"), &["file.purged", "download.completed"]).await;
    let other = node.create(eve, &receiver.url("/other")).await;
    for event_type in [FILE_AVAILABLE, FILE_PURGED, DOWNLOAD_COMPLETED] {
        world.happens(&node, ada, event_type, &json!({ "n": 1 })).await;
    }
    eventually(PATIENCE, "all are received", async || (receiver.requests().len() == 8).then_some(())).await;
    let types = async |caller, webhook: &bowerbird_nats::webhook::Webhook| {
        let mut types: Vec<String> = node.deliveries(caller, webhook.id).await.into_iter().map(|it| it.event_type).collect();
        types.sort();
        types
    };
    assert_eq!(types(ada, &all).await, ["download.completed", "file.available", "file.available", "file.purged"]);
    assert_eq!(types(ada, &files).await, ["file.available", "file.purged"]);
    assert_eq!(types(ada, &one).await, ["download.completed", "file.purged"]);
    assert_eq!(types(eve, &other).await, [""; 0]);
}

#[tokio::test]
async fn a_reminder_that_names_webhooks_goes_to_all_of_them() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let receiver = answering(&[200]).await;
    node.create_for(caller, &receiver.url("/"), &["file.*"]).await;
    let fired: bowerbird_nats::EventType = "reminder.fired".parse().unwrap();
    world.happens(&node, caller, fired.clone(), &json!({ "channels": ["inbox"], "title": "not this" })).await;
    world.happens(&node, caller, fired, &json!({ "channels": ["inbox", "webhook"], "title": "this" })).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({ "title": "and this" })).await;
    let requests =
        eventually(PATIENCE, "two are received", async || Some(receiver.requests()).filter(|requests| requests.len() == 2)).await;
    let mut titles: Vec<String> = requests
        .iter()
        .map(|request| serde_json::from_slice::<serde_json::Value>(&request.body).unwrap()["data"]["title"].to_string())
        .collect();
    titles.sort();
    assert_eq!(titles, ["\"and this\"", "\"this\""]);
}

#[tokio::test]
async fn an_event_that_comes_again_makes_no_second_delivery() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let receiver = answering(&[200]).await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    let event = world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    node.until(caller, &webhook, "it is received", |it| it.status == DeliveryStatus::Succeeded).await;
    // And again, also when its mark was swept: the row itself still knows.
    for forget in ["SELECT $1::uuid", "DELETE FROM processed_events WHERE event_id = $1"] {
        world.execute(forget, event.0).await;
        assert_eq!(node.comes(world.recorded(event).await).await, Outcome::Done);
    }
    let later = world.happens(&node, caller, FILE_PURGED, &json!({})).await;
    eventually(PATIENCE, "the next event is received", async || {
        let deliveries = node.deliveries(caller, webhook.id).await;
        deliveries.iter().any(|it| it.event_id == Some(later) && it.status == DeliveryStatus::Succeeded).then_some(())
    })
    .await;
    let of_event = node.deliveries(caller, webhook.id).await.into_iter().filter(|it| it.event_id == Some(event)).count();
    assert_eq!(of_event, 1);
    assert_eq!(receiver.requests().len(), 2);
    assert!(by_id(&receiver.requests()).values().all(|times| *times == 1));
}

#[tokio::test]
async fn what_is_too_much_for_a_webhook_fails_at_once_and_is_not_lost() {
    let world = World::new().await;
    let node = world.node("webhooks.max_pending = 2\nwebhooks.max_sending_per_webhook = 1\n").await;
    let caller = world.account().await;
    let stuck = LyingServer::start(|_| vec![Act::Silence]).await;
    let webhook = node.create(caller, &stuck.url("/")).await;
    let mut deliveries = Vec::new();
    for number in 1..=4 {
        world.happens(&node, caller, FILE_AVAILABLE, &json!({ "n": number })).await;
        deliveries = eventually(PATIENCE, "it is there", async || {
            Some(node.deliveries(caller, webhook.id).await).filter(|deliveries| deliveries.len() == number)
        })
        .await;
    }
    let failed: Vec<_> = deliveries.iter().map(|it| it.error.as_ref().map(|error| error.code)).collect();
    assert_eq!(failed, [Some(ErrorCode::TooManyPending), Some(ErrorCode::TooManyPending), None, None]);
    let whole = node.delivery(caller, webhook.id, deliveries[0].id).await;
    assert!(whole.body.unwrap().contains("\"n\":4"), "it can be sent by hand");
}

#[tokio::test]
async fn a_sender_that_lost_its_lease_writes_nothing() {
    let world = World::new().await;
    let caller = world.account().await;
    // Claims are made by hand here, so the node that made the webhook must not make them.
    let node = world.node("").await;
    let webhook = node.create(caller, "http://127.0.0.1:9/").await;
    node.stop().await;
    let id = IdSource.next();
    sqlx::query(
        "INSERT INTO webhook_deliveries (id, webhook_id, event_type, body, status) VALUES ($1, $2, 'file.available', '{}', 'queued')",
    )
    .bind(id)
    .bind(webhook.id.0)
    .execute(&world.pool)
    .await
    .unwrap();
    let room = Room { free: 10, free_for_failing: 5, per_webhook: 4 };
    let claim = async |node: u128, lease_seconds| {
        let mut transaction = world.pool.begin().await.unwrap();
        store::reap(&mut transaction).await.unwrap();
        let node = NodeId(uuid::Uuid::from_u128(node));
        let lease = std::time::Duration::from_secs(lease_seconds);
        let claimed = store::claim(&mut transaction, node, lease, room).await.unwrap();
        transaction.commit().await.unwrap();
        claimed
    };
    let first = claim(1, 0).await.pop().unwrap();
    let second = claim(2, 60).await.pop().unwrap();
    assert_eq!((first.id, second.id), (second.id, first.id));
    assert_eq!((first.fence, second.fence, first.attempt, second.attempt), (1, 2, 1, 1));
    assert!(claim(3, 60).await.is_empty(), "it is taken");
    let tried = Tried {
        started_at: time::OffsetDateTime::UNIX_EPOCH,
        duration_ms: 1,
        response_status: Some(200),
        response_body: None,
        failure: None,
    };
    let rules = Rules { disable_after: std::time::Duration::from_secs(1), origin: "http://127.0.0.1:9" };
    let settle = async |claimed: &store::Claimed| {
        let mut transaction = world.pool.begin().await.unwrap();
        let settled = store::settle(&mut transaction, claimed, &tried, After::Received, rules).await;
        if settled.is_ok() {
            transaction.commit().await.unwrap();
        }
        settled
    };
    assert!(matches!(settle(&first).await, Err(store::Error::Fenced)));
    assert!(settle(&second).await.is_ok());
    assert!(matches!(settle(&second).await, Err(store::Error::Fenced)), "once");
    let tries: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_attempts").fetch_one(&world.pool).await.unwrap();
    assert_eq!(tries, 1);
}

#[tokio::test]
async fn nothing_is_sent_for_an_account_that_is_disabled() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let receiver = answering(&[200]).await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    let queue = "INSERT INTO webhook_deliveries (id, webhook_id, event_type, body, status) \
                 VALUES (gen_random_uuid(), $1, 'file.available', '{}', 'queued')";
    world.execute("UPDATE accounts SET disabled_at = now() WHERE id = $1", caller.account_id.0).await;
    world.execute(queue, webhook.id.0).await;
    let event = world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    assert_eq!(node.comes(world.recorded(event).await).await, Outcome::Done);
    let room = Room { free: 10, free_for_failing: 5, per_webhook: 4 };
    let mut transaction = world.pool.begin().await.unwrap();
    let lease = std::time::Duration::from_secs(1);
    let claimed = store::claim(&mut transaction, NodeId(IdSource.next()), lease, room).await.unwrap();
    assert!(claimed.is_empty(), "{claimed:?}");
    transaction.rollback().await.unwrap();
    assert_eq!(node.deliveries(caller, webhook.id).await.len(), 1, "what happens meanwhile is not sent later");
    world.execute("UPDATE accounts SET disabled_at = NULL WHERE id = $1", caller.account_id.0).await;
    eventually(PATIENCE, "what waited is received", async || (!receiver.requests().is_empty()).then_some(())).await;
}

#[tokio::test]
async fn the_last_try_does_not_wait_in_a_circle_with_the_end_of_a_pause() {
    let world = World::new().await;
    let caller = world.account().await;
    let node = world.node("").await;
    let webhook = node.create(caller, "http://127.0.0.1:9/").await;
    node.stop().await;
    for statement in [
        "INSERT INTO webhook_deliveries (id, webhook_id, event_type, body, status) \
         VALUES (gen_random_uuid(), $1, 'file.available', '{}', 'queued')",
        "INSERT INTO alarms (kind, subject_id, due_at, wake_at) VALUES ('webhook_pause', $1, now(), now())",
    ] {
        world.execute(statement, webhook.id.0).await;
    }
    let room = Room { free: 10, free_for_failing: 5, per_webhook: 4 };
    let mut transaction = world.pool.begin().await.unwrap();
    let lease = std::time::Duration::from_mins(1);
    let claimed = store::claim(&mut transaction, NodeId(IdSource.next()), lease, room).await.unwrap().pop().unwrap();
    transaction.commit().await.unwrap();

    // The pause is over: its alarm is held, and the webhook is next.
    let mut waking = world.pool.begin().await.unwrap();
    assert!(alarms::hold(&mut waking, Kind::WebhookPause, webhook.id.0).await.unwrap());
    let pool = world.pool.clone();
    let settling = tokio::task::JoinSet::from_iter([async move {
        let tried = Tried {
            started_at: time::OffsetDateTime::UNIX_EPOCH,
            duration_ms: 1,
            response_status: Some(503),
            response_body: None,
            failure: None,
        };
        let rules = Rules { disable_after: std::time::Duration::from_hours(1), origin: "http://127.0.0.1:9" };
        let after = After::Missed { wait: None, pause: Some(std::time::Duration::from_mins(2)) };
        let mut transaction = pool.begin().await.unwrap();
        store::settle(&mut transaction, &claimed, &tried, after, rules).await.unwrap();
        transaction.commit().await.unwrap();
    }]);
    eventually(PATIENCE, "the other waits", async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&world.pool)
        .await
        .unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    store::resume(&mut waking, &[webhook.id.0]).await.unwrap();
    waking.commit().await.unwrap();
    settling.join_all().await;
    assert_eq!(world.armed(Kind::WebhookPause).await.len(), 1);
}
