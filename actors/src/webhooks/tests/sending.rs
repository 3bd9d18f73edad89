//! How messages get to their receivers, whatever these answer and whoever dies.

use std::time::Duration;

use bowerbird_nats::{
    event::{DOWNLOAD_COMPLETED, FILE_AVAILABLE, REMINDER_FIRED},
    webhook::{DeleteWebhook, DeliveryStatus, DisabledReason, ErrorCode, GetWebhook, RotateWebhookSecret, Status, UpdateWebhook},
};
use bowerbird_testkit::{
    eventually,
    lying::{Act, LyingServer},
    names::{NameServer, Zone},
};
use serde_json::json;
use time::OffsetDateTime;

use super::world::{PATIENCE, World, answering, by_id, call, fitting_signatures};
use crate::alarms::Kind;

/// Of the defaults, in seconds.
const RETRIES: [i64; 7] = [5, 300, 1800, 7200, 18_000, 36_000, 36_000];

#[tokio::test]
async fn an_event_arrives_signed_and_says_what_happened() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let receiver = answering(&[200]).await;
    let webhook = node.create(caller, &receiver.url("/hook?a=b")).await;
    let event = world.happens(&node, caller, DOWNLOAD_COMPLETED, &json!({ "download": { "id": 7, "name": "ü" } })).await;
    let delivery = node.until(caller, &webhook, "it is received", |it| it.status == DeliveryStatus::Succeeded).await;

    let requests = receiver.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/hook?a=b"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("webhook-id"), Some(delivery.id.to_string().as_str()));
    assert!(!delivery.id.to_string().contains('.'));
    assert_eq!(fitting_signatures(request, webhook.secret.as_deref().unwrap()), 1);
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["type"], "download.completed");
    assert_eq!(body["data"], json!({ "download": { "id": 7, "name": "ü" } }));
    assert_eq!(body.as_object().unwrap().len(), 3);
    assert_eq!(delivery.body.unwrap().as_bytes(), &request.body[..]);
    assert_eq!(delivery.event_id, Some(event));
    assert_eq!(delivery.attempts.len(), 1);
    let attempt = &delivery.attempts[0];
    assert_eq!((attempt.number, attempt.response_status), (1, Some(200)));
    assert_eq!((attempt.response_body.as_deref(), &attempt.error), (Some("seen"), &None));
    let told: i64 = request.header("webhook-timestamp").unwrap().parse().unwrap();
    assert_eq!(told, attempt.started_at.unix_timestamp());
    let webhook = node.requests.clone().get(call(caller, GetWebhook { id: webhook.id })).await.unwrap();
    assert!(webhook.last_success_at.is_some() && webhook.failing_since.is_none());
    node.stop().await;
}

#[tokio::test]
async fn a_receiver_that_fails_gets_exactly_the_schedule_and_the_same_message_each_time() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let receiver = answering(&[500, 404, 503, 200]).await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({ "n": 1 })).await;
    for (made, wait) in (1..).zip(&RETRIES[..3]) {
        let delivery =
            node.until(caller, &webhook, "it waits", |it| it.attempts_made == made && it.next_attempt_at.is_some()).await;
        let armed = world.armed(Kind::WebhookDelivery).await;
        assert_eq!(armed.len(), 1);
        assert_eq!((armed[0].subject_id, Some(armed[0].due_at)), (delivery.id.0, delivery.next_attempt_at));
        assert_is_due(&world, delivery.attempts[0].started_at, armed[0].due_at, *wait).await;
        assert_eq!(receiver.requests().len(), usize::try_from(made).unwrap());
        world.wake(&node, Kind::WebhookDelivery, armed[0]).await;
    }
    let delivery = node.until(caller, &webhook, "it is received", |it| it.status == DeliveryStatus::Succeeded).await;
    assert_eq!(world.armed(Kind::WebhookDelivery).await, []);
    let requests = receiver.requests();
    assert_eq!(by_id(&requests), [(delivery.id.to_string(), 4)].into());
    assert!(requests.iter().all(|request| request.body == requests[0].body));
    assert!(requests.iter().all(|request| fitting_signatures(request, webhook.secret.as_deref().unwrap()) == 1));
    let statuses: Vec<_> = delivery.attempts.iter().map(|attempt| attempt.response_status).collect();
    assert_eq!(statuses, [Some(200), Some(503), Some(404), Some(500)]);
    assert!(delivery.attempts[1].error.as_ref().unwrap().detail.contains("503"));
    assert_eq!(delivery.error, None);
}

#[tokio::test]
async fn a_message_that_is_never_received_is_given_up_after_the_last_try_and_can_be_sent_by_hand() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let receiver = answering(&[500, 500, 500, 500, 500, 500, 500, 500, 200]).await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    for (made, wait) in (1..).zip(RETRIES) {
        let delivery =
            node.until(caller, &webhook, "it waits", |it| it.attempts_made == made && it.next_attempt_at.is_some()).await;
        let armed = world.armed(Kind::WebhookDelivery).await;
        assert_is_due(&world, delivery.attempts[0].started_at, armed[0].due_at, wait).await;
        world.wake(&node, Kind::WebhookDelivery, armed[0]).await;
    }
    let failed = node.until(caller, &webhook, "it is given up", |it| it.status == DeliveryStatus::Failed).await;
    assert_eq!((failed.attempts_made, failed.error.as_ref().unwrap().code), (8, ErrorCode::HttpStatus));
    assert_eq!(world.armed(Kind::WebhookDelivery).await, []);

    let retry = bowerbird_nats::webhook::RetryWebhookDelivery { webhook_id: webhook.id, id: failed.id };
    let queued = node.requests.clone().retry_delivery(call(caller, retry)).await.unwrap();
    assert_eq!((queued.status, queued.id, queued.finished_at), (DeliveryStatus::Pending, failed.id, None));
    let delivery = node.until(caller, &webhook, "it is received", |it| it.status == DeliveryStatus::Succeeded).await;
    assert_eq!(delivery.attempts_made, 9);
    assert_eq!(by_id(&receiver.requests()), [(failed.id.to_string(), 9)].into());
}

/// Between the wait of the schedule and a tenth more, counted from the end of the try before.
async fn assert_is_due(world: &World, tried_at: OffsetDateTime, due_at: OffsetDateTime, wait_seconds: i64) {
    let now: OffsetDateTime = sqlx::query_scalar("SELECT now()").fetch_one(&world.pool).await.unwrap();
    let wait = time::Duration::seconds(wait_seconds);
    assert!(due_at >= tried_at + wait, "{due_at} is too early after {tried_at}");
    assert!(due_at <= now + wait * 1.1, "{due_at} is too late after {tried_at}");
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_nobody_goes_there() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let elsewhere = answering(&[200]).await;
    let location = elsewhere.url("/");
    let receiver =
        LyingServer::start(move |_| vec![Act::head(&format!("HTTP/1.1 307 So\nlocation: {location}\ncontent-length: 0\n\n"))])
            .await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    let delivery = node.until(caller, &webhook, "it failed", |it| it.attempts_made == 1).await;
    let error = delivery.error.unwrap();
    assert_eq!((error.code, delivery.response_status), (ErrorCode::HttpStatus, Some(307)));
    assert!(error.detail.contains("redirects are not followed"), "{}", error.detail);
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_refused_when_it_is_dialled() {
    let world = World::new().await;
    let names = NameServer::start(|_, _| Zone { alias: None, addresses: vec!["127.0.0.2".parse().unwrap()] }).await;
    let overrides = format!("outbound.name_servers = ['{}']\n", names.address());
    let (node, caller) = (world.node(&overrides).await, world.account().await);
    let canary = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let url = format!("http://innocent.example:{}/", canary.local_addr().unwrap().port());
    let webhook = node.create(caller, &url).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    let delivery = node.until(caller, &webhook, "it failed", |it| it.attempts_made == 1).await;
    let error = delivery.error.unwrap();
    assert_eq!((error.code, delivery.response_status), (ErrorCode::BlockedTarget, None));
    assert!(!error.detail.contains("127."), "the text names no address: {}", error.detail);
    assert!(tokio::time::timeout(Duration::from_millis(50), canary.accept()).await.is_err(), "nobody came");
}

#[tokio::test]
async fn after_a_rotation_messages_carry_two_signatures_until_the_time_of_the_old_secret_is_over() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let receiver = answering(&[200]).await;
    let before = node.create(caller, &receiver.url("/")).await;
    let rotate = RotateWebhookSecret { id: before.id };
    let after = node.requests.clone().rotate_secret(call(caller, rotate)).await.unwrap();
    let (old, new) = (before.secret.clone().unwrap(), after.secret.clone().unwrap());
    assert_ne!(old, new);
    assert!(after.old_secret_until.is_some());
    let arrived = async |count: usize| {
        world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
        eventually(PATIENCE, "it arrives", async || receiver.requests().get(count).cloned()).await
    };
    let request = arrived(0).await;
    assert_eq!((fitting_signatures(&request, &old), fitting_signatures(&request, &new)), (1, 1));
    assert_eq!(request.header("webhook-signature").unwrap().split(' ').count(), 2);
    world.execute("UPDATE webhooks SET old_secret_until = now() WHERE id = $1", before.id.0).await;
    let request = arrived(1).await;
    assert_eq!((fitting_signatures(&request, &old), fitting_signatures(&request, &new)), (0, 1));
    let seen = node.requests.clone().get(call(caller, GetWebhook { id: before.id })).await.unwrap();
    assert_eq!((seen.secret, seen.old_secret_until), (None, None));
}

#[tokio::test]
async fn what_was_on_its_way_when_its_sender_was_killed_is_sent_again_with_the_same_id() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    // It has read the first message and does not answer: nobody can know whether it was received.
    let receiver =
        LyingServer::start(
            |request| {
                if request.index == 0 { vec![Act::Silence] } else { vec![Act::head("HTTP/1.1 204 So\n\n")] }
            },
        )
        .await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({ "n": 1 })).await;
    eventually(PATIENCE, "it is on its way", async || (receiver.requests().len() == 1).then_some(())).await;
    let id = node.id;
    node.kill();
    let node = world.node_again(id, "").await;
    let delivery = node.until(caller, &webhook, "it is received", |it| it.status == DeliveryStatus::Succeeded).await;
    let requests = receiver.requests();
    assert_eq!(by_id(&requests), [(delivery.id.to_string(), 2)].into());
    assert_eq!(requests[0].body, requests[1].body);
    assert_eq!(delivery.attempts_made, 1, "a try that nobody saw end is not in the log");
}

#[tokio::test]
async fn another_node_takes_over_when_the_lease_of_a_lost_one_ends() {
    let world = World::new().await;
    let caller = world.account().await;
    let node = world.node("webhooks.timeout = '1s'\n").await;
    let receiver =
        LyingServer::start(
            |request| {
                if request.index == 0 { vec![Act::Silence] } else { vec![Act::head("HTTP/1.1 204 So\n\n")] }
            },
        )
        .await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    eventually(PATIENCE, "it is on its way", async || (receiver.requests().len() == 1).then_some(())).await;
    node.kill();
    let other = world.node("webhooks.timeout = '1s'\n").await;
    let delivery = other.until(caller, &webhook, "it is received", |it| it.status == DeliveryStatus::Succeeded).await;
    assert_eq!(by_id(&receiver.requests()), [(delivery.id.to_string(), 2)].into());
}

#[tokio::test]
async fn an_orderly_stop_lets_a_message_arrive_and_sends_none_twice() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let receiver = LyingServer::start(|_| vec![Act::Pause(Duration::from_millis(800)), Act::head("HTTP/1.1 204 So\n\n")]).await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    eventually(PATIENCE, "it is on its way", async || (receiver.requests().len() == 1).then_some(())).await;
    node.stop().await;
    let node = world.node("").await;
    let delivery = node.until(caller, &webhook, "it is received", |it| it.status == DeliveryStatus::Succeeded).await;
    assert_eq!(by_id(&receiver.requests()), [(delivery.id.to_string(), 1)].into());
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_not_asked_again() {
    let world = World::new().await;
    let (node, caller) = (world.node("webhooks.max_sending_per_webhook = 1\n").await, world.account().await);
    let receiver = answering(&[410]).await;
    let webhook = node.create(caller, &receiver.url("/secret-path?token=1")).await;
    for _ in 0..3 {
        world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    }
    let gone = eventually(PATIENCE, "it is disabled", async || {
        let seen = node.requests.clone().get(call(caller, GetWebhook { id: webhook.id })).await.unwrap();
        (seen.status == Status::Disabled).then_some(seen)
    })
    .await;
    assert_eq!(gone.disabled_reason, Some(DisabledReason::Gone));
    assert_eq!(world.events(webhook.id.0).await, ["webhook.disabled"]);
    let told: serde_json::Value = sqlx::query_scalar("SELECT data FROM events WHERE entity_id = $1")
        .bind(webhook.id.0)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(told["reason"], "gone");
    assert_eq!(told["origin"], receiver.url(""), "what may be a secret is not told");
    let deliveries = node.deliveries(caller, webhook.id).await;
    assert!(deliveries.iter().all(|it| it.status == DeliveryStatus::Failed), "{deliveries:#?}");
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn a_message_that_is_given_up_is_told_of_and_with_it_what_a_reminder_was_to_say() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let milk = json!({ "title": "Milk", "note": "two", "channels": ["webhook"] });
    let told = async |so_many: usize| {
        eventually(PATIENCE, "it is told", async || {
            let failed: Vec<serde_json::Value> =
                sqlx::query_scalar("SELECT data FROM events WHERE event_type = 'webhook.failed' ORDER BY recorded_at, id")
                    .fetch_all(&world.pool)
                    .await
                    .unwrap();
            (failed.len() == so_many).then_some(failed)
        })
        .await
    };
    // Its receiver is gone.
    let gone = answering(&[410]).await;
    let first = node.create(caller, &gone.url("/")).await;
    world.happens(&node, caller, REMINDER_FIRED, &milk).await;
    let failed = told(1).await.remove(0);
    assert_eq!(
        (failed["webhook_id"].as_str(), failed["event_type"].as_str()),
        (Some(&*first.id.to_string()), Some("reminder.fired"))
    );
    assert_eq!(
        (&failed["error"]["code"], &failed["reminder"]),
        (&json!("http_status"), &json!({ "title": "Milk", "note": "two" }))
    );
    // Its webhook is ended by its owner while it waits for another try.
    let failing = answering(&[500]).await;
    let second = node.create(caller, &failing.url("/")).await;
    world.happens(&node, caller, REMINDER_FIRED, &milk).await;
    node.until(caller, &second, "it was tried", |it| it.attempts_made == 1).await;
    let end = UpdateWebhook { id: second.id, url: None, event_types: None, description: None, status: Some(Status::Disabled) };
    node.requests.clone().update(call(caller, end)).await.unwrap();
    let failed = told(2).await.remove(1);
    assert_eq!((&failed["error"]["code"], &failed["reminder"]["title"]), (&json!("webhook_disabled"), &json!("Milk")));
    // That of something else which its owner ended is not.
    let third = node.create(caller, &failing.url("/")).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    node.until(caller, &third, "it was tried", |it| it.attempts_made == 1).await;
    node.requests.clone().delete(call(caller, DeleteWebhook { id: third.id })).await.unwrap();
    told(2).await;
    // Of what failed no messages are made.
    assert_eq!(gone.requests().len() + failing.requests().len(), 3);
}

#[tokio::test]
async fn a_receiver_that_only_failed_for_days_is_disabled_and_one_success_begins_the_count_anew() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let receiver = answering(&[500, 200, 500]).await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    let seen = async || node.requests.clone().get(call(caller, GetWebhook { id: webhook.id })).await.unwrap();
    let until = async |what: &str, fits: &dyn Fn(&bowerbird_nats::webhook::Webhook) -> bool| {
        eventually(PATIENCE, what, async || Some(seen().await).filter(|webhook| fits(webhook))).await
    };
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    until("it fails", &|it| it.failing_since.is_some()).await;
    world.execute("UPDATE webhooks SET failing_since = now() - interval '6 days' WHERE id = $1", webhook.id.0).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    let well = until("it does well", &|it| it.failing_since.is_none()).await;
    assert_eq!(well.status, Status::Enabled);
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    let failing = until("it fails again", &|it| it.failing_since.is_some()).await;
    assert_eq!(failing.status, Status::Enabled);
    // One failure of last week says nothing of the days since, in which nothing was sent.
    let ago = "UPDATE webhooks SET failing_since = now() - interval '6 days', last_failure_at = now() - interval '2 days' WHERE id = $1";
    world.execute(ago, webhook.id.0).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    let again = until("the count begins anew", &|it| it.failing_since >= failing.failing_since).await;
    assert_eq!(again.status, Status::Enabled);
    world.execute("UPDATE webhooks SET failing_since = now() - interval '5 days' WHERE id = $1", webhook.id.0).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    let disabled = until("it is disabled", &|it| it.status == Status::Disabled).await;
    assert_eq!(disabled.disabled_reason, Some(DisabledReason::Failing));
    assert_eq!(world.events(webhook.id.0).await, ["webhook.disabled"]);
    let asked = receiver.requests().len();
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    let pending = node.deliveries(caller, webhook.id).await;
    assert!(pending.iter().all(|it| it.finished_at.is_some()), "{pending:#?}");
    assert_eq!((pending.len(), receiver.requests().len()), (5, asked));
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_is_left_alone_as_a_whole() {
    let world = World::new().await;
    let (node, caller) = (world.node("webhooks.max_sending_per_webhook = 1\n").await, world.account().await);
    let receiver = LyingServer::start(|request| {
        let head = if request.index == 0 {
            "HTTP/1.1 429 So\nretry-after: 120\ncontent-length: 0\n\n"
        } else {
            "HTTP/1.1 200 So\ncontent-length: 0\n\n"
        };
        vec![Act::head(head)]
    })
    .await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    let first = node.until(caller, &webhook, "it waits", |it| it.next_attempt_at.is_some()).await;
    let pauses = world.armed(Kind::WebhookPause).await;
    assert_eq!(pauses.len(), 1);
    assert_eq!(pauses[0].subject_id, webhook.id.0);
    assert_eq!(first.next_attempt_at, Some(pauses[0].due_at), "longer than the schedule says");
    let asked_for = pauses[0].due_at - first.attempts[0].started_at;
    assert!((120..130).contains(&asked_for.whole_seconds()), "{asked_for}");

    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    eventually(PATIENCE, "the next one is queued", async || (node.deliveries(caller, webhook.id).await.len() == 2).then_some(()))
        .await;
    assert_eq!(receiver.requests().len(), 1);
    // Its alarm says when to look. One that was lost does not leave the receiver alone for ever.
    world.execute("UPDATE webhooks SET paused_until = now() WHERE id = $1", webhook.id.0).await;
    eventually(PATIENCE, "the next one is received", async || {
        node.deliveries(caller, webhook.id).await.iter().any(|it| it.status == DeliveryStatus::Succeeded).then_some(())
    })
    .await;
}
