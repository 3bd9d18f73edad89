//! What a caller may get wrong: each has its status, its code and a sentence, and changes nothing.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bowerbird_e2e::{House, text};
use bowerbird_testkit::http::{Answer, Http};
use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A problem document with this status and code, a sentence, and the id of the request.
fn assert_problem(what: &str, answer: &Answer, status: u16, code: &str) -> Value {
    let body = answer.json();
    assert_eq!(answer.status.as_u16(), status, "{what}: {body}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    assert_eq!(text(&body, "code"), code, "{what}: {body}");
    assert!(text(&body, "detail").len() > 10, "{what}: {body}");
    assert_eq!(body["status"], status, "{what}: {body}");
    assert_eq!(text(&body, "request_id"), answer.header("x-request-id"), "{what}: {body}");
    body
}

async fn post_raw(http: &Http, body: &str) -> Result<Answer> {
    http.send(Method::POST, "/v1/downloads", &[("content-type", "application/json")], Some(body.to_owned().into())).await
}

#[tokio::test]
async fn every_wrong_request_is_told_what_is_wrong_and_changes_nothing() -> Result<()> {
    let house = House::start(&[("OUTBOUND__ALLOW", "[]"), ("OUTBOUND__PORTS", "[80, 443, 8080, 8443]")]).await?;
    let (owner, stranger) = (house.account("owner").await?, house.account("stranger").await?);
    let usage_before = owner.get("/v1/account/usage").await?.expect(200)?;

    // Who is asking?
    assert_problem("no token", &house.http().get("/v1/downloads").await?, 401, "unauthorized");
    assert_problem("a garbage token", &house.http().with_token("garbage").get("/v1/downloads").await?, 401, "unauthorized");

    // Which thing?
    let theirs = stranger
        .post("/v1/downloads", &json!({"url": "http://example.org/a", "start_at": "2999-01-01T00:00:00Z"}))
        .await?
        .expect(202)?;
    let foreign = owner.get(&format!("/v1/downloads/{}", text(&theirs, "id"))).await?;
    let missing = owner.get("/v1/downloads/0198c0de-7a2b-7c3d-8e4f-0123456789ab").await?;
    let foreign = assert_problem("a foreign id", &foreign, 404, "not_found");
    let missing = assert_problem("a missing id", &missing, 404, "not_found");
    assert_eq!(foreign["detail"], missing["detail"], "a foreign id must not be told from one that does not exist");
    for path in ["/v1/downloads/1", "/v1/downloads/0198c0de7a2b7c3d8e4f0123456789ab", "/v1/files/..%2f..%2fetc"] {
        assert_problem(path, &owner.get(path).await?, 400, "invalid_value");
    }

    // What body?
    for (what, body) in [
        ("not JSON", "url=http://example.org/"),
        ("an empty body", ""),
        ("a number for a string", r#"{"url": 5}"#),
        ("a string for a number", r#"{"url": "http://example.org/a", "priority": "5"}"#),
        ("a duplicate key", r#"{"url": "http://example.org/a", "url": "http://example.org/b"}"#),
        ("an unknown field", r#"{"url": "http://example.org/a", "colour": "blue"}"#),
        ("something behind the body", r#"{"url": "http://example.org/a"} {}"#),
        ("an array", r#"["http://example.org/a"]"#),
    ] {
        assert_problem(what, &post_raw(&owner, body).await?, 400, "invalid_body");
    }
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    assert_problem("deep JSON", &post_raw(&owner, &format!(r#"{{"url": {deep}}}"#)).await?, 400, "invalid_body");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = owner.send(Method::POST, "/v1/downloads", &form, Some("url=x".into())).await?;
    assert_problem("a form", &answer, 415, "unsupported_media_type");

    // Which target?
    let long = format!("http://example.org/{}", "a".repeat(5_000));
    for (url, status, code) in [
        ("ftp://example.org/a", 400, "invalid_value"),
        ("file:///etc/passwd", 400, "invalid_value"),
        ("not a url", 400, "invalid_value"),
        (long.as_str(), 400, "invalid_value"),
        ("http://user:password@example.org/", 400, "invalid_value"),
        ("http://127.0.0.1/", 422, "blocked_target"),
        ("http://2130706433/", 422, "blocked_target"),
        ("http://[::ffff:127.0.0.1]/", 422, "blocked_target"),
        ("http://169.254.169.254/latest/meta-data/", 422, "blocked_target"),
        ("http://localhost/", 422, "blocked_target"),
        ("http://example.org:22/", 422, "blocked_target"),
    ] {
        assert_problem(url, &owner.post("/v1/downloads", &json!({"url": url})).await?, status, code);
    }
    ensure!(house.log().contains("outbound.allow"), "the operator is told which setting would open the target");
    ensure!(!house.log().contains("user:password"), "a password in a URL is not logged");

    // Which page?
    for (query, code) in [
        ("limit=0", "invalid_value"),
        ("limit=10000", "invalid_value"),
        ("limit=many", "invalid_value"),
        ("cursor=made-up", "invalid_cursor"),
        ("status=lost", "invalid_value"),
        ("colour=blue", "invalid_value"),
    ] {
        assert_problem(query, &owner.get(&format!("/v1/downloads?{query}")).await?, 400, code);
    }

    // Which path?
    assert_problem("no such path", &owner.get("/v1/nothing").await?, 404, "not_found");
    assert_problem("the wrong method", &owner.send(Method::PUT, "/v1/downloads", &[], None).await?, 405, "method_not_allowed");

    // And nothing has changed.
    let downloads = owner.get("/v1/downloads").await?.expect(200)?;
    assert_eq!(downloads["items"], json!([]));
    assert_eq!(owner.get("/v1/account/usage").await?.expect(200)?, usage_before);
    Ok(())
}

#[tokio::test]
async fn our_own_listeners_are_never_fetched_even_when_loopback_is_allowed() -> Result<()> {
    let house = House::start(&[]).await?;
    let http = house.account("owner").await?;
    for own in [house.api, house.operations, house.objects] {
        let answer = http.post("/v1/downloads", &json!({"url": format!("http://{own}/")})).await?;
        assert_problem(&own.to_string(), &answer, 422, "blocked_target");
    }
    Ok(())
}

#[tokio::test]
async fn an_expired_token_says_that_it_is_expired() -> Result<()> {
    let house = House::start(&[("AUTH__ACCESS_TOKEN_TTL", "10s")]).await?;
    let http = house.account("owner").await?;
    http.get("/v1/account").await?.expect(200)?;
    let end = tokio::time::Instant::now() + Duration::from_secs(40);
    loop {
        let answer = http.get("/v1/account").await?;
        if answer.status != 200 {
            assert_problem("an expired token", &answer, 401, "token_expired");
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < end, "a token of ten seconds still works after forty");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test]
async fn a_body_of_400_mib_is_refused_without_being_read() -> Result<()> {
    let house = House::start(&[]).await?;
    let http = house.account("owner").await?;
    http.get("/v1/account").await?.expect(200)?;
    let before = resident_bytes(&house)?;

    #[expect(clippy::disallowed_methods, reason = "a test talks to the servers that it started")]
    let mut stream = TcpStream::connect(house.api).await?;
    let head = format!(
        "POST /v1/auth/login HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        house.api,
        400 << 20
    );
    stream.write_all(head.as_bytes()).await?;
    let (mut reader, mut writer) = stream.into_split();
    let mut flood = tokio::task::JoinSet::new();
    flood.spawn(async move {
        let chunk = vec![b' '; 1 << 20];
        for _ in 0..400 {
            // The server may close at any time: that is what is wanted.
            if writer.write_all(&chunk).await.is_err() {
                break;
            }
        }
    });
    let mut answer = vec![0_u8; 16];
    let read = tokio::time::timeout(Duration::from_secs(10), reader.read_exact(&mut answer)).await;
    read.context("no answer within ten seconds")??;
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    flood.shutdown().await;

    let risen = resident_bytes(&house)?.saturating_sub(before);
    assert!(risen < 5 << 20, "the process grew by {risen} bytes");
    Ok(())
}

/// Resident memory of the house's own process, in bytes.
fn resident_bytes(house: &House) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", house.pid()?.as_raw_nonzero()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kib << 10)
}
