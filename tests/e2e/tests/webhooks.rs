//! Webhooks from the outside: what happens to an account arrives at its receiver, signed, also after everything was killed.

use std::time::Duration;

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use bowerbird_e2e::{House, ended, text};
use bowerbird_testkit::{
    eventually,
    lying::{Act, LyingServer, Request},
    ranged_server::{Content, Options, RangedServer},
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

/// As a receiver would that knows nothing but the specification.
fn verify(request: &Request, secret: &str) -> Result<Value> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").context("whsec_")?)?;
    let header = |name| request.header(name).with_context(|| format!("no {name}"));
    let mut signed = format!("{}.{}.", header("webhook-id")?, header("webhook-timestamp")?).into_bytes();
    signed.extend_from_slice(&request.body);
    let signature = STANDARD.decode(header("webhook-signature")?.strip_prefix("v1,").context("v1")?)?;
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed, &signature).ok().context("the signature does not fit")?;
    Ok(serde_json::from_slice(&request.body)?)
}

#[tokio::test]
async fn a_completed_download_arrives_at_a_receiver_with_a_valid_signature() -> Result<()> {
    let source = RangedServer::start(Content::new(1, 100_000), Options::default()).await;
    let receiver = LyingServer::start(|_| vec![Act::head("HTTP/1.1 204 No Content\n\n")]).await;
    let mut house = House::start(&[]).await?;
    let http = house.account("ada").await?;
    let wanted = json!({"url": receiver.url("/hook"), "event_types": ["download.completed"]});
    let webhook = http.post("/v1/webhooks", &wanted).await?.expect(201)?;
    let download = http.post("/v1/downloads", &json!({"url": source.url()})).await?.expect(202)?;
    let download = ended(&http, text(&download, "id"), PATIENCE).await?;
    let request = eventually(PATIENCE, "it arrives", async || receiver.requests().first().cloned()).await;
    let message = verify(&request, text(&webhook, "secret"))?;
    assert_eq!(text(&message, "type"), "download.completed");
    assert_eq!(message["data"]["download"], download);
    let deliveries = format!("/v1/webhooks/{}/deliveries", text(&webhook, "id"));
    let delivery = eventually(PATIENCE, "it is written down", async || {
        let page = http.get(&deliveries).await.ok()?.json();
        Some(page["items"][0].clone()).filter(|delivery| delivery["status"] == "succeeded")
    })
    .await;
    assert_eq!(Some(text(&delivery, "id")), request.header("webhook-id"));
    assert_eq!(house.stop().await?, Some(0), "an orderly stop");
    Ok(())
}

#[tokio::test]
async fn a_message_that_failed_is_tried_again_by_its_alarm_also_after_kill_9() -> Result<()> {
    let receiver = LyingServer::start(|request| {
        let status = if request.index < 2 { "503 Busy" } else { "200 OK" };
        vec![Act::head(&format!("HTTP/1.1 {status}\ncontent-length: 0\n\n"))]
    })
    .await;
    let mut house = House::start(&[("WEBHOOKS__RETRIES", "[\"1s\", \"3s\", \"1h\"]")]).await?;
    let http = house.account("ada").await?;
    let webhook = http.post("/v1/webhooks", &json!({"url": receiver.url("/")})).await?.expect(201)?;
    let source = RangedServer::start(Content::new(2, 100), Options::default()).await;
    // Only what comes of this one event is looked at.
    http.patch(&format!("/v1/webhooks/{}", text(&webhook, "id")), &json!({"event_types": ["file.available"]}))
        .await?
        .expect(200)?;
    http.post("/v1/downloads", &json!({"url": source.url()})).await?.expect(202)?;
    eventually(PATIENCE, "it was tried twice", async || (receiver.requests().len() == 2).then_some(())).await;
    house.kill().await?;
    house.up().await?;
    let requests =
        eventually(PATIENCE, "it was received", async || Some(receiver.requests()).filter(|requests| requests.len() >= 3)).await;
    for request in &requests {
        assert_eq!(verify(request, text(&webhook, "secret"))?["type"], "file.available");
        assert_eq!((request.header("webhook-id"), &request.body), (requests[0].header("webhook-id"), &requests[0].body));
    }
    house.stop().await?;
    Ok(())
}
