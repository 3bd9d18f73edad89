//! What owners ask, and what strangers are told.

use bowerbird_nats::{
    Code, Problem,
    event::FILE_AVAILABLE,
    webhook::{
        DeleteWebhook, DeliveryStatus, DisabledReason, ErrorCode, GetWebhook, GetWebhookDelivery, ListWebhookDeliveries,
        ListWebhooks, RetryWebhookDelivery, RotateWebhookSecret, Status, TestWebhook, UpdateWebhook,
    },
};
use bowerbird_testkit::{
    eventually,
    lying::{Act, LyingServer},
};
use serde_json::json;

use super::world::{PATIENCE, World, answering, call, create, fitting_signatures};
use crate::{alarms::Kind, webhooks::requests::Requests};

fn code<T: std::fmt::Debug>(result: Result<T, Problem>) -> Code {
    result.unwrap_err().code
}

fn change(id: bowerbird_nats::WebhookId) -> UpdateWebhook {
    UpdateWebhook { id, url: None, event_types: None, description: None, status: None }
}

#[tokio::test]
async fn a_webhook_is_made_listed_changed_and_deleted_and_shows_its_secret_once() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let requests = || node.requests.clone();
    let mut asked = create("http://127.0.0.1:1/hook?token=hunter2", &["file.*", "download.completed", "file.*"]);
    asked.description = Some("mine".into());
    let made = requests().create(call(caller, asked)).await.unwrap();
    assert!(made.secret.as_deref().unwrap().starts_with("whsec_"));
    assert!(!format!("{made:?}").contains("whsec_"));
    assert_eq!(made.event_types, ["file.*", "download.completed"]);
    assert_eq!((made.status, made.description.as_deref()), (Status::Enabled, Some("mine")));

    let seen = requests().get(call(caller, GetWebhook { id: made.id })).await.unwrap();
    assert_eq!(seen, bowerbird_nats::webhook::Webhook { secret: None, ..made.clone() });
    let second = node.create(caller, "http://127.0.0.1:2/").await;
    let page = requests().list(call(caller, ListWebhooks { limit: Some(1), cursor: None })).await.unwrap();
    assert_eq!(page.items[0].id, second.id);
    let page = requests().list(call(caller, ListWebhooks { limit: Some(1), cursor: page.next_cursor })).await.unwrap();
    assert_eq!((page.items.as_slice(), page.next_cursor), ([seen.clone()].as_slice(), None));

    let changed = UpdateWebhook {
        url: Some("http://127.0.0.1:3/".into()),
        event_types: Some(vec![]),
        description: Some(String::new()),
        status: Some(Status::Disabled),
        ..change(made.id)
    };
    let changed = requests().update(call(caller, changed)).await.unwrap();
    assert_eq!((changed.url.as_str(), changed.event_types.len(), changed.description), ("http://127.0.0.1:3/", 0, None));
    assert_eq!((changed.status, changed.disabled_reason), (Status::Disabled, Some(DisabledReason::Owner)));
    let enabled = UpdateWebhook { status: Some(Status::Enabled), ..change(made.id) };
    let enabled = requests().update(call(caller, enabled)).await.unwrap();
    assert_eq!((enabled.status, enabled.disabled_reason, enabled.disabled_at), (Status::Enabled, None, None));

    requests().delete(call(caller, DeleteWebhook { id: made.id })).await.unwrap();
    assert_eq!(code(requests().get(call(caller, GetWebhook { id: made.id })).await), Code::NotFound);
    let stored: (Vec<u8>, Vec<u8>) = sqlx::query_as("SELECT url_sealed, secret_sealed FROM webhooks WHERE id = $1")
        .bind(made.id.0)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(stored, (vec![], vec![]), "its secrets go at once");
}

#[tokio::test]
async fn private_receivers_and_what_is_no_url_are_refused_with_a_sentence() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    for url in [
        "http://127.0.0.2/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:10.0.0.1]/",
        "http://0x0a000001/",
    ] {
        let refused = node.requests.clone().create(call(caller, create(url, &[]))).await.unwrap_err();
        assert_eq!(refused.code, Code::BlockedTarget, "{url}");
        assert!(refused.detail.starts_with("url: this address may not be used here"), "{}", refused.detail);
    }
    for url in ["", "example.org", "ftp://example.org/", "http://user:word@example.org/", "http://a\nb/"] {
        let refused = node.requests.clone().create(call(caller, create(url, &[]))).await.unwrap_err();
        assert_eq!((refused.code, refused.errors[0].field.as_str()), (Code::InvalidValue, "url"), "{url}");
    }
    let webhook = node.create(caller, "http://127.0.0.1:1/").await;
    let moved = UpdateWebhook { url: Some("http://10.0.0.1/".into()), ..change(webhook.id) };
    assert_eq!(code(node.requests.clone().update(call(caller, moved)).await), Code::BlockedTarget);
    let refused = node.requests.clone().create(call(caller, create("http://127.0.0.1:1/", &["cake.eaten"]))).await;
    assert_eq!(code(refused), Code::InvalidValue);
}

#[tokio::test]
async fn what_is_somebody_elses_is_not_there() {
    let world = World::new().await;
    let (node, ada, eve) = (world.node("").await, world.account().await, world.account().await);
    let receiver = answering(&[500]).await;
    let webhook = node.create(ada, &receiver.url("/")).await;
    let other = node.create(ada, &receiver.url("/other")).await;
    world.happens(&node, ada, FILE_AVAILABLE, &json!({})).await;
    let delivery = node.until(ada, &webhook, "it failed", |it| it.attempts_made == 1).await;
    let (id, webhook_id) = (webhook.id, webhook.id);
    let requests = || node.requests.clone();
    let all = |page: ListWebhookDeliveries| Requests::list_deliveries(requests(), call(eve, page));
    assert_eq!(code(requests().get(call(eve, GetWebhook { id })).await), Code::NotFound);
    assert_eq!(code(requests().update(call(eve, change(id))).await), Code::NotFound);
    assert_eq!(code(requests().delete(call(eve, DeleteWebhook { id })).await), Code::NotFound);
    assert_eq!(code(requests().test(call(eve, TestWebhook { id })).await), Code::NotFound);
    assert_eq!(code(requests().rotate_secret(call(eve, RotateWebhookSecret { id })).await), Code::NotFound);
    let list = ListWebhookDeliveries { webhook_id, status: None, limit: None, cursor: None };
    assert_eq!(code(all(list).await), Code::NotFound);
    let get = GetWebhookDelivery { webhook_id, id: delivery.id };
    assert_eq!(code(requests().get_delivery(call(eve, get)).await), Code::NotFound);
    let retry = RetryWebhookDelivery { webhook_id, id: delivery.id };
    assert_eq!(code(requests().retry_delivery(call(eve, retry)).await), Code::NotFound);
    assert!(requests().list(call(eve, ListWebhooks::default())).await.unwrap().items.is_empty());
    // Its owner does not find it under another webhook either.
    let misplaced = GetWebhookDelivery { webhook_id: other.id, id: delivery.id };
    assert_eq!(code(requests().get_delivery(call(ada, misplaced)).await), Code::NotFound);
    let misplaced = RetryWebhookDelivery { webhook_id: other.id, id: delivery.id };
    assert_eq!(code(requests().retry_delivery(call(ada, misplaced)).await), Code::NotFound);
}

#[tokio::test]
async fn a_repeat_with_the_same_key_answers_the_same_secret_and_keeps_none_in_clear() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let ask = async || {
        let mut asked = call(caller, create("http://127.0.0.1:1/?token=hunter2", &[]));
        asked.idempotency_key = Some("key".into());
        node.requests.clone().create(asked).await.unwrap()
    };
    let (first, again) = (ask().await, ask().await);
    assert_eq!(first, again);
    assert_eq!(again.url, "http://127.0.0.1:1/?token=hunter2");
    let rotate = async || {
        let mut asked = call(caller, RotateWebhookSecret { id: first.id });
        asked.idempotency_key = Some("key".into());
        node.requests.clone().rotate_secret(asked).await.unwrap()
    };
    let (rotated, rotated_again) = (rotate().await, rotate().await);
    assert_eq!(rotated, rotated_again);
    assert_ne!(first.secret, rotated.secret);
    let kept: Vec<String> = sqlx::query_scalar("SELECT reply FROM idempotency_keys").fetch_all(&world.pool).await.unwrap();
    assert_eq!(kept.len(), 2);
    for secret in [first.secret.unwrap(), rotated.secret.unwrap()] {
        let bare = secret.strip_prefix("whsec_").unwrap();
        assert!(kept.iter().all(|reply| !reply.contains(bare) && !reply.contains("hunter2")), "{kept:?}");
    }
    let list = node.requests.clone().list(call(caller, ListWebhooks::default())).await.unwrap();
    assert_eq!(list.items.len(), 1);
}

#[tokio::test]
async fn an_account_has_as_many_webhooks_as_it_may_however_they_are_asked_for() {
    let world = World::new().await;
    let (node, caller, other) =
        (world.node("webhooks.max_per_account = 3\n").await, world.account().await, world.account().await);
    let asking = (0..6).map(|_| node.requests.clone().create(call(caller, create("http://127.0.0.1:1/", &[]))));
    let answers = futures_util::future::join_all(asking).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    assert!(answers.into_iter().filter_map(Result::err).all(|problem| problem.code == Code::TooMany));
    node.create(other, "http://127.0.0.1:1/").await;
}

#[tokio::test]
async fn a_test_message_is_sent_at_once_and_how_that_went_is_answered() {
    let world = World::new().await;
    let (node, caller) = (world.node("webhooks.timeout = '1s'\n").await, world.account().await);
    let receiver = LyingServer::start(|request| match request.index {
        0 => vec![Act::head("HTTP/1.1 200 So\ncontent-length: 2000\n\n"), Act::Send("x".repeat(2000).into())],
        1 => vec![Act::head("HTTP/1.1 500 So\ncontent-length: 0\n\n")],
        _ => vec![Act::Silence],
    })
    .await;
    let webhook = node.create_for(caller, &receiver.url("/"), &["file.*"]).await;
    let disable = UpdateWebhook { status: Some(Status::Disabled), ..change(webhook.id) };
    node.requests.clone().update(call(caller, disable)).await.unwrap();
    let test = async || node.requests.clone().test(call(caller, TestWebhook { id: webhook.id })).await.unwrap();

    let good = test().await;
    assert_eq!((good.status, good.event_type.as_str(), good.event_id), (DeliveryStatus::Succeeded, "webhook.test", None));
    assert_eq!(good.attempts[0].response_body.as_deref().map(str::len), Some(1024), "the first KiB of the answer");
    let request = &receiver.requests()[0];
    assert_eq!(request.header("webhook-id"), Some(good.id.to_string().as_str()));
    assert_eq!(fitting_signatures(request, webhook.secret.as_deref().unwrap()), 1);
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((&body["type"], &body["data"]["webhook_id"]), (&json!("webhook.test"), &json!(webhook.id)));

    let bad = test().await;
    assert_eq!(
        (bad.status, bad.response_status, bad.error.unwrap().code),
        (DeliveryStatus::Failed, Some(500), ErrorCode::HttpStatus)
    );
    let late = test().await;
    assert_eq!((late.status, late.error.unwrap().code), (DeliveryStatus::Failed, ErrorCode::Timeout));
    assert_eq!(world.armed(Kind::WebhookDelivery).await, [], "a test is made once");
    assert_eq!(node.deliveries(caller, webhook.id).await.len(), 3);
    let seen = node.requests.clone().get(call(caller, GetWebhook { id: webhook.id })).await.unwrap();
    assert_eq!(seen.failing_since, None, "a test says nothing of how a receiver does");
}

#[tokio::test]
async fn disabling_ends_what_waits_and_only_an_enabled_webhook_is_sent_anything() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let receiver = answering(&[500, 200]).await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    let waiting = node.until(caller, &webhook, "it waits", |it| it.next_attempt_at.is_some()).await;
    let set = async |status| {
        let asked = UpdateWebhook { status: Some(status), ..change(webhook.id) };
        node.requests.clone().update(call(caller, asked)).await.unwrap()
    };
    set(Status::Disabled).await;
    let ended = node.delivery(caller, webhook.id, waiting.id).await;
    assert_eq!((ended.status, ended.error.unwrap().code), (DeliveryStatus::Failed, ErrorCode::WebhookDisabled));
    let retry = || call(caller, RetryWebhookDelivery { webhook_id: webhook.id, id: waiting.id });
    assert_eq!(code(node.requests.clone().retry_delivery(retry()).await), Code::InvalidState);
    // Its alarm still comes, and finds nothing to do.
    let armed = world.armed(Kind::WebhookDelivery).await;
    world.wake(&node, Kind::WebhookDelivery, armed[0]).await;
    assert_eq!(node.delivery(caller, webhook.id, waiting.id).await.status, DeliveryStatus::Failed);

    set(Status::Enabled).await;
    node.requests.clone().retry_delivery(retry()).await.unwrap();
    node.until(caller, &webhook, "it is received", |it| it.status == DeliveryStatus::Succeeded).await;
    assert_eq!(receiver.requests().len(), 2);
}

#[tokio::test]
async fn deliveries_are_listed_by_page_and_status() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account().await);
    let receiver = answering(&[200]).await;
    let webhook = node.create(caller, &receiver.url("/")).await;
    for _ in 0..5 {
        world.happens(&node, caller, FILE_AVAILABLE, &json!({})).await;
    }
    let all = eventually(PATIENCE, "all are received", async || {
        let all = node.deliveries(caller, webhook.id).await;
        (all.len() == 5 && all.iter().all(|it| it.status == DeliveryStatus::Succeeded)).then_some(all)
    })
    .await;
    assert!(all.is_sorted_by(|newer, older| newer.id > older.id));
    assert!(all.iter().all(|it| it.body.is_none() && it.attempts.is_empty()));
    let page = async |status, cursor| {
        let list = ListWebhookDeliveries { webhook_id: webhook.id, status, limit: Some(2), cursor };
        node.requests.clone().list_deliveries(call(caller, list)).await
    };
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let next = page(Some(DeliveryStatus::Succeeded), cursor).await.unwrap();
        seen.extend(next.items);
        cursor = next.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, all);
    let first = page(Some(DeliveryStatus::Succeeded), None).await.unwrap();
    assert_eq!(code(page(None, first.next_cursor).await), Code::InvalidCursor);
    assert!(page(Some(DeliveryStatus::Pending), None).await.unwrap().items.is_empty());
}
