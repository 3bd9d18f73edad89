//! That receivers which are slow, or hang, wait for themselves only.

use bowerbird_nats::{
    event::{DOWNLOAD_QUEUED, FILE_AVAILABLE},
    webhook::DeliveryStatus,
};
use bowerbird_testkit::{
    eventually,
    lying::{Act, LyingServer},
};
use serde_json::json;

use super::world::{PATIENCE, World, answering, by_id};

#[tokio::test]
async fn a_slow_receiver_waits_for_itself_only() {
    let world = World::new().await;
    let node = world.node("webhooks.slots = 6\nwebhooks.max_sending_per_webhook = 2\nwebhooks.timeout = '1m'\n").await;
    let caller = world.account().await;
    let slow = LyingServer::start(|_| vec![Act::Silence]).await;
    let fast = answering(&[200]).await;
    let to_slow = node.create(caller, &slow.url("/")).await;
    let to_fast = node.create(caller, &fast.url("/")).await;
    for number in 0..30 {
        world.happens(&node, caller, DOWNLOAD_QUEUED, &json!({ "n": number })).await;
    }
    eventually(PATIENCE, "the fast one has all", async || {
        let deliveries = node.deliveries(caller, to_fast.id).await;
        (deliveries.len() == 30 && deliveries.iter().all(|it| it.status == DeliveryStatus::Succeeded)).then_some(())
    })
    .await;
    assert_eq!(by_id(&fast.requests()).len(), 30);
    let to_slow = node.deliveries(caller, to_slow.id).await;
    assert!(to_slow.iter().all(|it| it.status != DeliveryStatus::Succeeded));
    assert!(slow.requests().len() <= 2, "no more than two at once: {}", slow.requests().len());
}

#[tokio::test]
async fn many_receivers_that_hang_leave_half_of_the_slots_to_others_once_they_are_known() {
    let world = World::new().await;
    let node = world.node("webhooks.slots = 4\nwebhooks.timeout = '3s'\n").await;
    let (caller, other) = (world.account().await, world.account().await);
    let hanging = LyingServer::start(|_| vec![Act::Silence]).await;
    for number in 0..6 {
        node.create(caller, &hanging.url(&format!("/{number}"))).await;
    }
    world.happens(&node, caller, DOWNLOAD_QUEUED, &json!({})).await;
    eventually(PATIENCE, "all have failed once", async || {
        let failing: i64 = sqlx::query_scalar("SELECT count(*) FROM webhooks WHERE failing_since IS NOT NULL")
            .fetch_one(&world.pool)
            .await
            .unwrap();
        (failing == 6).then_some(())
    })
    .await;
    for _ in 0..5 {
        world.happens(&node, caller, DOWNLOAD_QUEUED, &json!({})).await;
    }
    // While those queue up for their two slots, somebody else's message goes at once.
    let fast = answering(&[200]).await;
    let webhook = node.create(other, &fast.url("/")).await;
    world.happens(&node, other, FILE_AVAILABLE, &json!({})).await;
    let delivery = node.until(other, &webhook, "it is received", |it| it.status == DeliveryStatus::Succeeded).await;
    let waited = delivery.attempts[0].started_at - delivery.created_at;
    assert!(waited < time::Duration::seconds(2), "it waited {waited}");
    let queued: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_deliveries WHERE status = 'queued'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(queued > 0, "the others were still in line");
}

/// Median, 99th percentile and maximum of the seconds from an event to the first try of its message for this webhook.
async fn delays(world: &World, webhook: bowerbird_nats::WebhookId) -> (f64, f64, f64) {
    sqlx::query_as(
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY delay), percentile_cont(0.99) WITHIN GROUP (ORDER BY delay), max(delay) \
         FROM (SELECT extract(epoch FROM a.started_at - e.recorded_at)::float8 AS delay FROM webhook_deliveries d \
               JOIN events e ON e.id = d.event_id JOIN webhook_attempts a ON a.delivery_id = d.id AND a.number = 1 \
               WHERE d.webhook_id = $1) AS t",
    )
    .bind(webhook.0)
    .fetch_one(&world.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn receivers_that_hang_do_not_delay_the_others() {
    const EVENTS: usize = 200;
    let world = World::new().await;
    let node = world.node("webhooks.timeout = '1m'\n").await;
    let (victim, other) = (world.account().await, world.account().await);
    let fast = answering(&[200]).await;
    let webhook = node.create(other, &fast.url("/")).await;
    let rounds = async |what: &str| {
        let before = fast.requests().len();
        for number in 0..EVENTS {
            world.happens(&node, other, FILE_AVAILABLE, &json!({ "n": number })).await;
        }
        eventually(PATIENCE, "all are received", async || {
            let open: i64 =
                sqlx::query_scalar("SELECT count(*) FROM webhook_deliveries WHERE webhook_id = $1 AND status = 'succeeded'")
                    .bind(webhook.id.0)
                    .fetch_one(&world.pool)
                    .await
                    .unwrap();
            (usize::try_from(open).unwrap() == EVENTS && fast.requests().len() == before + EVENTS).then_some(())
        })
        .await;
        let (median, p99, most) = delays(&world, webhook.id).await;
        println!("{what}: median {median:.4} s, p99 {p99:.4} s, maximum {most:.4} s of {EVENTS}");
        sqlx::query("DELETE FROM webhook_deliveries WHERE webhook_id = $1")
            .bind(webhook.id.0)
            .execute(&world.pool)
            .await
            .unwrap();
        p99
    };
    let alone = rounds("alone").await;

    let hanging = LyingServer::start(|_| vec![Act::Silence]).await;
    for number in 0..20 {
        node.create(victim, &hanging.url(&format!("/{number}"))).await;
    }
    for number in 0..10 {
        world.happens(&node, victim, DOWNLOAD_QUEUED, &json!({ "n": number })).await;
    }
    eventually(PATIENCE, "each hangs with as many as it may", async || (hanging.requests().len() == 80).then_some(())).await;
    let beside = rounds("beside 20 that hang").await;
    assert_eq!(hanging.requests().len(), 80);
    assert!(beside < alone * 2.0 + 0.5, "p99 was {alone:.4} s alone and is {beside:.4} s beside receivers that hang");
}
