//! What somebody sees who was given a link, and folders as zips.

use std::io::{Cursor, Read};

use bowerbird_nats::{Code, Problem};
use bowerbird_testkit::{
    http::Answer,
    ranged_server::{Content, Options, RangedServer},
};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use url::Url;

use crate::stage::{FILE, FOLDER, Stage};

const SIZE: u64 = 300_000;
const TOKEN: &str = "b1n6sT2nS0v8bFvHq3C4m9wKxY5zA7dE";
const UNTIL: &str = "2026-11-20T12:05:00Z";

async fn get(stage: &Stage, path: &str, accept: &str) -> Answer {
    stage.http.send(Method::GET, &format!("/s/{TOKEN}{path}"), &[("accept", accept)], None).await.unwrap()
}

async fn unlock(stage: &Stage, accept: &str, content_type: &str, body: &str) -> Answer {
    let headers = [("accept", accept), ("content-type", content_type)];
    let body = Some(Bytes::from(body.to_owned()));
    stage.http.send(Method::POST, &format!("/s/{TOKEN}/unlock"), &headers, body).await.unwrap()
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

fn shared() -> Value {
    json!({ "has_password": false, "name": "Ü <b>.pdf", "is_folder": false, "size_bytes": 1536, "downloads_left": 2, "expires_at": UNTIL })
}

#[tokio::test]
async fn a_link_is_a_page_for_people_and_json_for_programs() {
    let stage = Stage::set().await;
    stage.reply("share.open", shared());
    let page = get(&stage, "", "text/html,*/*").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("script-src"), "{policy}");
    assert_eq!((page.header("referrer-policy"), page.header("cache-control")), ("no-referrer", "no-store"));
    let shown = text(&page);
    assert!(shown.contains("Ü &lt;b&gt;.pdf") && shown.contains("1.5 KiB") && shown.contains("2 times"), "{shown}");
    assert!(shown.contains(&format!("href=\"/s/{TOKEN}/content\"")) && !shown.contains("<script"), "{shown}");
    let answer = get(&stage, "", "*/*").await;
    assert_eq!((answer.header("content-type"), answer.json()), ("application/json", shared()));
    let asked = stage.asked();
    assert_eq!((asked[0].request["token"].as_str(), &asked[0].account), (Some(TOKEN), &None));

    stage.refuse("share.open", Problem::not_found("share"));
    assert_eq!(get(&stage, "", "*/*").await.expect(404).unwrap()["code"], "not_found");
    let page = get(&stage, "", "text/html").await;
    assert!(page.status == 404 && text(&page).contains("leads nowhere"));
    stage.asked();
    for path in ["/s/a%2Fb", "/s/..%00", &format!("/s/{}", "a".repeat(300))] {
        let answer = stage.http.send(Method::GET, path, &[], None).await.unwrap();
        assert_eq!(answer.status, 404, "{path}");
    }
    assert_eq!(stage.asked(), [], "what cannot be a token is not asked about");
    let put = stage.http.send(Method::PUT, &format!("/s/{TOKEN}"), &[], None).await.unwrap();
    assert_eq!((put.status.as_u16(), put.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn a_password_is_asked_for_by_a_form_or_as_json() {
    let stage = Stage::set().await;
    stage.reply("share.open", json!({ "has_password": true, "is_folder": false }));
    let page = text(&get(&stage, "", "text/html").await);
    assert!(page.contains("type=\"password\"") && !page.contains("Download"), "{page}");
    stage.reply("share.unlock", json!({ "ticket": "t-1", "expires_at": UNTIL, "shared": shared() }));
    stage.asked();
    let form = "application/x-www-form-urlencoded";
    let page = unlock(&stage, "text/html", form, "password=a%26b+%C3%BC").await;
    assert!(page.status == 200 && text(&page).contains(&format!("/s/{TOKEN}/content?ticket=t-1")), "{}", text(&page));
    assert_eq!(stage.asked()[0].request, json!({ "token": TOKEN, "password": "a&b ü" }));
    let answer = unlock(&stage, "*/*", "application/json", r#"{"password":"p"}"#).await;
    assert_eq!(answer.json()["content"], format!("/s/{TOKEN}/content?ticket=t-1"));
    stage.asked();
    assert_eq!(unlock(&stage, "*/*", "application/json", r#"{"pass":"p"}"#).await.status, 400);
    assert_eq!(unlock(&stage, "*/*", form, "x=y").await.status, 400);
    assert_eq!(unlock(&stage, "*/*", "text/plain", "p").await.status, 415);
    assert_eq!(unlock(&stage, "*/*", form, &"p".repeat(5000)).await.status, 413);
    assert_eq!(stage.asked(), []);

    stage.refuse("share.unlock", Problem::new(Code::InvalidCredentials, "no"));
    let page = unlock(&stage, "text/html", form, "password=x").await;
    assert!(page.status == 401 && text(&page).contains("Try again") && text(&page).contains("type=\"password\""));
    let mut slow = Problem::new(Code::TooMany, "wait");
    slow.retry_after = Some(8);
    stage.refuse("share.unlock", slow);
    let page = unlock(&stage, "text/html", form, "password=x").await;
    assert_eq!((page.status.as_u16(), page.header("retry-after")), (429, "8"));
    assert_eq!(unlock(&stage, "*/*", form, "password=x").await.expect(429).unwrap()["retry_after"], 8);
}

#[tokio::test]
async fn content_behind_a_link_is_a_redirect_or_a_stream_and_a_head_does_not_count() {
    let content = Content::new(7, SIZE);
    let store = RangedServer::start(content.clone(), Options::default()).await;
    let stage = Stage::with_store("", &Url::parse(&store.url()).unwrap()).await;
    stage.reply("share.open", shared());
    stage.reply("share.fetch", json!({ "redirect": { "url": "http://bucket.example/x?sig=1", "expires_at": UNTIL } }));
    let answer = get(&stage, "/content?ticket=t-1", "*/*").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, "http://bucket.example/x?sig=1"));
    assert_eq!(stage.asked()[0].request, json!({ "token": TOKEN, "ticket": "t-1" }));
    let head = stage.http.send(Method::HEAD, &format!("/s/{TOKEN}/content"), &[], None).await.unwrap();
    assert_eq!((head.status.as_u16(), stage.asked()[0].operation.as_str()), (200, "share.open"));

    let link = json!({ "url": store.url(), "expires_at": UNTIL });
    let streamed = json!({ "link": link, "name": "a.html", "size_bytes": SIZE, "content_type": "application/octet-stream" });
    stage.reply("share.fetch", json!({ "streamed": streamed }));
    let answer = get(&stage, "/content", "text/html").await;
    assert_eq!((answer.status.as_u16(), answer.body.len() as u64), (200, SIZE));
    assert_eq!(answer.body, content.read(0, SIZE));
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"a.html\"; filename*=UTF-8''a.html");
    assert_eq!((answer.header("content-type"), answer.header("x-content-type-options")), ("application/octet-stream", "nosniff"));
    assert_eq!(answer.header("content-security-policy"), "default-src 'none'; sandbox");

    stage.refuse("share.fetch", Problem::new(Code::Forbidden, "password"));
    let page = get(&stage, "/content", "text/html").await;
    assert!(page.status == 403 && text(&page).contains("type=\"password\""));
}

#[tokio::test]
async fn a_folder_is_a_zip_that_is_whole_or_breaks_off() {
    let content = Content::new(7, SIZE);
    let store = RangedServer::start(content.clone(), Options::default()).await;
    let stage = Stage::with_store("gateway.max_proxied_streams = 1", &Url::parse(&store.url()).unwrap()).await;
    let entry = |id: Option<&str>, path: &str, size: u64| {
        let mut entry = json!({ "path": path, "size_bytes": size, "updated_at": "2026-11-20T12:00:04Z" });
        if let Some(id) = id {
            entry["file_id"] = json!(id);
        }
        entry
    };
    let entries = json!([entry(Some(FILE), "Über.bin", SIZE), entry(None, "empty/", 0), entry(Some(FILE), "a/b.bin", SIZE)]);
    stage.reply("archive.begin", json!({ "name": "films", "grant": "g" }));
    stage.reply("archive.list", json!({ "entries": entries }));
    stage.reply("archive.link", json!({ "url": store.url(), "expires_at": UNTIL }));
    let path = format!("/v1/folders/{FOLDER}/zip");
    let answer = stage.caller().get(&path).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/zip"));
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"films.zip\"; filename*=UTF-8''films.zip");
    let mut zip = zip::ZipArchive::new(Cursor::new(answer.body.clone())).unwrap();
    assert_eq!(zip.len(), 3);
    for name in ["Über.bin", "a/b.bin"] {
        let mut bytes = Vec::new();
        zip.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, content.read(0, SIZE), "{name}");
    }
    assert!(zip.by_name("empty/").unwrap().is_dir());
    let listed: Vec<Value> =
        stage.asked().into_iter().filter(|asked| asked.operation == "archive.list").map(|asked| asked.request).collect();
    assert_eq!(listed, [json!({ "grant": "g" })]);

    // The same behind a link.
    stage.reply("share.fetch", json!({ "archive": { "name": "films", "grant": "g" } }));
    let answer = get(&stage, "/content", "text/html").await;
    assert_eq!(zip::ZipArchive::new(Cursor::new(answer.body)).unwrap().len(), 3);

    // An object that is not as long as its file: the answer must not look whole.
    stage.reply("archive.list", json!({ "entries": [entry(Some(FILE), "a", SIZE), entry(Some(FILE), "b", SIZE + 1)] }));
    let broken = stage.caller().get(&path).await;
    assert!(broken.is_err(), "the connection broke off");
    stage.refuse("archive.begin", Problem::not_found("folder"));
    assert_eq!(stage.caller().get(&path).await.unwrap().status, 404);
}
