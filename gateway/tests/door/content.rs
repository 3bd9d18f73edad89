//! The bytes of a file: by redirect, or through the gateway, whole and in ranges.

use std::time::Duration;

use bowerbird_testkit::{
    eventually,
    http::Answer,
    ranged_server::{Content, Options, RangedServer},
};
use http::Method;
use serde_json::json;
use url::Url;

use crate::stage::{DOWNLOAD, FILE, Stage, download, file};

const SIZE: u64 = 300_000;

async fn stage_with_content(overrides: &str, options: Options) -> (Stage, RangedServer, Content) {
    let content = Content::new(7, SIZE);
    let store = RangedServer::start(content.clone(), options).await;
    let stage = Stage::with_store(overrides, &Url::parse(&store.url()).unwrap()).await;
    stage.reply("file.get", file(SIZE));
    stage.reply("file.presign", json!({ "url": store.url(), "expires_at": "2026-11-20T12:05:00Z" }));
    (stage, store, content)
}

async fn get(stage: &Stage, path: &str, headers: &[(&str, &str)]) -> Answer {
    stage.caller().send(Method::GET, &format!("/v1/files/{FILE}/content{path}"), headers, None).await.unwrap()
}

#[tokio::test]
async fn content_is_a_redirect_to_a_presigned_link() {
    let stage = Stage::set().await;
    stage.reply("file.presign", json!({ "url": "http://bucket.example/x?sig=1", "expires_at": "2026-11-20T12:05:00Z" }));
    let answer = get(&stage, "", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, "http://bucket.example/x?sig=1"));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(stage.asked()[0].request, json!({ "id": FILE, "internal": false }));

    stage.reply("download.get", download());
    let path = format!("/v1/downloads/{DOWNLOAD}/file");
    assert_eq!(stage.caller().get(&path).await.unwrap().expect(409).unwrap()["code"], "invalid_state");
    let mut completed = download();
    completed["file_id"] = json!(FILE);
    stage.reply("download.get", completed);
    assert_eq!(stage.caller().get(&path).await.unwrap().status, 302);
}

#[tokio::test]
async fn content_is_streamed_when_wanted_and_never_as_a_page() {
    let (stage, _store, content) = stage_with_content("", Options::default()).await;
    let answer = get(&stage, "?proxy=true", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, content.read(0, SIZE));
    assert_eq!(answer.header("content-length"), SIZE.to_string());
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert_eq!(answer.header("etag"), "\"abc\"");
    assert_eq!(answer.header("content-type"), "application/octet-stream", "what the store says, and never what the source did");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("content-security-policy"), "default-src 'none'; sandbox");
    assert_eq!(
        answer.header("content-disposition"),
        "attachment; filename=\"_ber _uns_.html\"; filename*=UTF-8''%C3%9Cber%20%22uns%22.html"
    );
    assert_eq!(stage.asked()[1].request, json!({ "id": FILE, "internal": true }));

    let head = stage.caller().send(Method::HEAD, &format!("/v1/files/{FILE}/content?proxy=true"), &[], None).await.unwrap();
    assert_eq!((head.status.as_u16(), head.header("content-length"), head.body.len()), (200, "300000", 0));
}

#[tokio::test]
async fn one_range_is_206_and_one_beyond_the_end_416() {
    let (stage, store, content) = stage_with_content("", Options::default()).await;
    for (range, first, end) in [("bytes=0-99", 0, 100), ("bytes=299900-", SIZE - 100, SIZE), ("bytes=-7", SIZE - 7, SIZE)] {
        let answer = get(&stage, "?proxy=true", &[("range", range)]).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.body, content.read(first, end), "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {first}-{}/{SIZE}", end - 1));
        assert_eq!(answer.header("content-length"), (end - first).to_string());
    }
    let before = store.requests();
    let answer = get(&stage, "?proxy=true", &[("range", "bytes=300000-")]).await;
    assert_eq!(answer.expect(416).unwrap()["code"], "range_not_satisfiable");
    assert_eq!(answer.header("content-range"), "bytes */300000");
    assert_eq!(store.requests(), before, "the store is not asked for nothing");
    let several = get(&stage, "?proxy=true", &[("range", "bytes=0-1,5-6")]).await;
    assert_eq!((several.status.as_u16(), several.body.len()), (200, 300_000));
    let fresh = get(&stage, "?proxy=true", &[("range", "bytes=0-1"), ("if-range", "\"abc\"")]).await;
    assert_eq!((fresh.status.as_u16(), fresh.body.len()), (206, 2));
    let stale = get(&stage, "?proxy=true", &[("range", "bytes=0-1"), ("if-range", "\"old\"")]).await;
    assert_eq!((stale.status.as_u16(), stale.body.len()), (200, 300_000));
}

#[tokio::test]
async fn an_object_that_is_not_as_expected_is_502() {
    let (stage, store, _) = stage_with_content("", Options::default()).await;
    stage.reply("file.get", file(SIZE - 1));
    assert_eq!(get(&stage, "?proxy=true", &[]).await.expect(502).unwrap()["code"], "storage_unavailable");
    stage.reply("file.presign", json!({ "url": store.url_of("/missing"), "expires_at": "2026-11-20T12:05:00Z" }));
    assert_eq!(get(&stage, "?proxy=true", &[]).await.expect(502).unwrap()["code"], "storage_unavailable");
    let (stage, _store, _) = stage_with_content("", Options { ranges: false, ..Options::default() }).await;
    let answer = get(&stage, "?proxy=true", &[("range", "bytes=0-9")]).await;
    assert_eq!(answer.expect(502).unwrap()["code"], "storage_unavailable");
    stage.reply("file.presign", json!({ "url": "http://127.0.0.1:1/elsewhere", "expires_at": "2026-11-20T12:05:00Z" }));
    assert_eq!(get(&stage, "?proxy=true", &[]).await.expect(502).unwrap()["code"], "storage_unavailable");
}

#[tokio::test]
async fn so_many_streams_run_at_once_and_one_more_is_503() {
    // 300 kB at 100 kB/s keep their place for seconds.
    let options = Options { connection_rate: Some(100_000), ..Options::default() };
    let (stage, store, _) = stage_with_content("gateway.max_proxied_streams = 1", options).await;
    let caller = stage.caller();
    let path = format!("/v1/files/{FILE}/content?proxy=true");
    let mut streams = tokio::task::JoinSet::new();
    let (first, first_path) = (caller.clone(), path.clone());
    streams.spawn(async move { first.get(&first_path).await });
    eventually(Duration::from_secs(10), "the first stream runs", async || (store.requests() > 0).then_some(())).await;
    let second = caller.get(&path).await.unwrap();
    assert_eq!(second.expect(503).unwrap()["code"], "unavailable");
    assert_eq!(streams.join_next().await.unwrap().unwrap().unwrap().body.len(), 300_000);
    eventually(Duration::from_secs(10), "its place is free again", async || {
        caller.get(&path).await.ok().filter(|answer| answer.status == 200)
    })
    .await;
}
