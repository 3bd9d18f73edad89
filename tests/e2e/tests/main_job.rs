//! The main job from the outside: a URL goes in, a verified object comes out, whatever is killed on the way.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use bowerbird_e2e::{House, ended, text};
use bowerbird_testkit::{
    eventually,
    http::Http,
    lying::{Act, LyingServer},
    ranged_server::{Content, Options, RangedServer},
};
use hyper::Method;
use serde_json::json;

const MIB: u64 = 1 << 20;

/// Largest part and most connections of a download in these tests, as the settings below say.
const PART_BYTES: u64 = 8 * MIB;
const CONNECTIONS: u64 = 4;
/// What may be stored and not yet in the ledger when the process dies: a batch is written each second or 16 parts.
const LEDGER_BATCH_PARTS: u64 = 16;

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Follow `/content` as a client does, keeping the `Authorization` header across the redirect as some do.
async fn content_of(http: &Http, file_id: &str) -> Result<Vec<u8>> {
    let redirect = http.get(&format!("/v1/files/{file_id}/content")).await?;
    ensure!(redirect.status == 302, "expected a redirect, got {}", redirect.status);
    let answer = http.send(Method::GET, redirect.header("location"), &[], None).await?;
    ensure!(answer.status == 200, "the bucket answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(answer.body.to_vec())
}

#[tokio::test]
async fn a_url_becomes_a_file_with_the_right_bytes() -> Result<()> {
    let content = Content::new(1, 40 * MIB + 12_345);
    let source = RangedServer::start(content.clone(), Options::default()).await;
    let mut house = House::start(&[]).await?;
    let http = house.account("ada").await?;

    let answer = http.post("/v1/downloads", &json!({"url": source.url(), "file_name": "big.bin", "folder": "/in"})).await?;
    let download = answer.expect(202)?;
    assert_eq!(answer.header("location"), format!("/v1/downloads/{}", text(&download, "id")));
    let download = ended(&http, text(&download, "id"), Duration::from_mins(1)).await?;
    assert_eq!(text(&download, "status"), "completed", "{download}");
    assert_eq!(download["size_bytes"], content.len());
    assert_eq!(download["received_bytes"], content.len());
    assert_eq!(text(&download, "sha256"), content.sha256_hex());
    assert_eq!(text(&download, "verified"), "length");

    let file_id = text(&download, "file_id");
    let file = http.get(&format!("/v1/files/{file_id}")).await?.expect(200)?;
    assert_eq!((text(&file, "name"), text(&file, "folder")), ("big.bin", "/in"));
    assert_eq!(text(&file, "sha256"), content.sha256_hex());
    let bytes = content_of(&http, file_id).await?;
    assert_eq!(hex(digest(&SHA256, &bytes).as_ref()), content.sha256_hex());

    // Streamed through the gateway, whole and in part.
    let proxied = http.get(&format!("/v1/files/{file_id}/content?proxy=true")).await?;
    assert_eq!(proxied.status, 200);
    assert!(proxied.header("content-disposition").starts_with("attachment"), "{:?}", proxied.headers);
    assert_eq!(proxied.body.len() as u64, content.len());
    let range = [("range", "bytes=1000-1999")];
    let part = http.send(Method::GET, &format!("/v1/files/{file_id}/content?proxy=true"), &range, None).await?;
    assert_eq!(part.status, 206);
    assert_eq!(part.body[..], content.read(1_000, 2_000)[..]);

    // Only its owner sees it.
    let stranger = house.account("eve").await?;
    assert_eq!(stranger.get(&format!("/v1/files/{file_id}")).await?.status, 404);
    assert_eq!(stranger.get(&format!("/v1/files/{file_id}/content")).await?.status, 404);

    // And it goes when it is told to.
    let usage = http.get("/v1/account/usage").await?.expect(200)?;
    assert_eq!(usage["stored_bytes"], content.len());
    http.delete(&format!("/v1/files/{file_id}")).await?.expect(204)?;
    assert_eq!(http.get(&format!("/v1/files/{file_id}")).await?.status, 404);
    // From the trash it can come back, so it counts until it is purged.
    let usage = http.get("/v1/account/usage").await?.expect(200)?;
    assert_eq!(usage["stored_bytes"], content.len());
    http.delete(&format!("/v1/trash/{file_id}")).await?.expect(204)?;
    eventually(Duration::from_mins(1), "its bytes are free again", async || {
        let usage = http.get("/v1/account/usage").await.ok()?.json();
        (usage["stored_bytes"] == 0).then_some(())
    })
    .await;
    assert_eq!(house.stop().await?, Some(0), "an orderly stop");
    Ok(())
}

#[tokio::test]
async fn a_download_goes_on_after_kill_9_and_fetches_little_twice() -> Result<()> {
    let content = Content::new(2, 192 * MIB);
    // Slow enough that the kill falls into the middle of it.
    let options = Options { connection_rate: Some(12 * MIB), ..Options::default() };
    let source = RangedServer::start(content.clone(), options).await;
    let mut house = House::start(&[("DOWNLOADS__MAX_CONNECTIONS", "4"), ("LEASES__DURATION", "3s")]).await?;
    let http = house.account("ada").await?;
    let download = http.post("/v1/downloads", &json!({"url": source.url()})).await?.expect(202)?;
    let id = text(&download, "id").to_owned();

    // In mid-transfer: some parts are in the ledger, some are not.
    let end = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        let download = http.get(&format!("/v1/downloads/{id}")).await?.expect(200)?;
        let received = download["received_bytes"].as_u64().context("received_bytes")?;
        ensure!(received < content.len(), "the transfer was over before it was killed: {download}");
        if received >= content.len() / 4 {
            break;
        }
        ensure!(tokio::time::Instant::now() < end, "no progress: {download}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    house.kill().await?;
    let sent_before = source.bytes_sent();

    house.up().await?;
    let http = house.login("ada").await?;
    let download = ended(&http, &id, Duration::from_mins(2)).await?;
    assert_eq!(text(&download, "status"), "completed", "{download}");
    assert_eq!(text(&download, "sha256"), content.sha256_hex());
    let bytes = content_of(&http, text(&download, "file_id")).await?;
    assert_eq!(hex(digest(&SHA256, &bytes).as_ref()), content.sha256_hex());

    let twice = source.bytes_sent().saturating_sub(content.len());
    // What a socket may hold of each connection that was cut off has left the source but never arrived.
    let in_sockets = 8 * MIB * CONNECTIONS;
    let bound = CONNECTIONS * PART_BYTES + LEDGER_BATCH_PARTS * PART_BYTES + in_sockets;
    assert!(twice <= bound, "{twice} bytes were fetched twice, {sent_before} before the kill; the bound is {bound}");
    Ok(())
}

#[tokio::test]
async fn the_same_idempotency_key_makes_one_download() -> Result<()> {
    let source = RangedServer::start(Content::new(3, 100_000), Options::default()).await;
    let house = House::start(&[]).await?;
    let http = house.account("ada").await?;
    let body = json!({"url": source.url()}).to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", "\"first\"")];
    let send = |body: String| http.send(Method::POST, "/v1/downloads", &headers, Some(body.into()));
    let first = send(body.clone()).await?.expect(202)?;
    ended(&http, text(&first, "id"), Duration::from_secs(30)).await?;
    let again = send(body).await?.expect(202)?;
    assert_eq!(first, again, "a replay answers what the first answered");
    let other = send(json!({"url": source.url_of("/other")}).to_string()).await?;
    assert_eq!(text(&other.expect(422)?, "code"), "idempotency_key_reused");
    let list = http.get("/v1/downloads").await?.expect(200)?;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test]
async fn a_redirect_to_a_private_address_fails_the_download_and_stores_nothing() -> Result<()> {
    let elsewhere = Options { listen: "127.0.0.2:0".parse()?, ..Options::default() };
    let secret = RangedServer::start(Content::new(4, 1_000), elsewhere).await;
    let location = secret.url();
    let redirect =
        LyingServer::start(move |_| vec![Act::head(&format!("HTTP/1.1 302 Found\nLocation: {location}\nContent-Length: 0\n\n"))])
            .await;
    // The redirecting server may be dialled, the one that it names may not.
    let house = House::start(&[("OUTBOUND__ALLOW", "[\"127.0.0.1/32\"]")]).await?;
    let http = house.account("ada").await?;
    let download = http.post("/v1/downloads", &json!({"url": redirect.url("/")})).await?.expect(202)?;
    let download = ended(&http, text(&download, "id"), Duration::from_secs(30)).await?;
    assert_eq!(text(&download, "status"), "failed", "{download}");
    assert_eq!(text(&download["error"], "code"), "blocked_target", "{download}");
    assert_eq!(secret.requests(), 0, "the private server was asked");
    assert_eq!(http.get("/v1/files").await?.expect(200)?["items"], json!([]));
    Ok(())
}
