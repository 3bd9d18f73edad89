//! What the gateway refuses by itself: no token, and everything that is not a request of the documented shape.

use std::time::Duration;

use bowerbird_testkit::eventually;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::stage::{DOWNLOAD, FILE, Stage, download};

/// Every documented operation: method, path with ids filled in, whether it needs a token, whether it takes a body.
fn documented() -> Vec<(Method, String, bool, bool)> {
    let document: Value = serde_json::from_str(&bowerbird_gateway::openapi_document().unwrap()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let id = if path.starts_with("/v1/files") { FILE } else { DOWNLOAD };
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            let has = |key: &str| operation.get(key).is_some();
            operations.push((method, path.replace("{id}", id), has("security"), has("requestBody")));
        }
    }
    operations
}

#[tokio::test]
async fn every_operation_that_is_not_public_wants_a_good_token() {
    let stage = Stage::set().await;
    let good = stage.token(300);
    let forged = format!("{}AAAA{}", &good[..good.len() - 40], &good[good.len() - 36..]);
    let tokens = [
        (None, "unauthorized"),
        (Some("garbage".to_owned()), "unauthorized"),
        (Some(forged), "unauthorized"),
        (Some(stage.token(-120)), "token_expired"),
    ];
    let mut guarded = 0;
    for (method, path, needs_token, has_body) in documented() {
        if !needs_token {
            continue;
        }
        guarded += 1;
        for (token, code) in &tokens {
            let client = token.as_ref().map_or_else(|| stage.http.clone(), |token| stage.http.with_token(token));
            // A bad parameter besides must not be told before the token is good.
            let path = format!("{path}?nonsense=1");
            let body = has_body.then(|| Bytes::from_static(b"{}"));
            let answer = client.send(method.clone(), &path, &[("content-type", "application/json")], body).await.unwrap();
            assert_eq!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.json()["code"], *code, "{method} {path}");
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge.contains("error=\"invalid_token\""), token.is_some(), "{method} {path}: {challenge}");
        }
        for scheme in ["Basic YTpi", "Bearer", "bearer ", &good] {
            let answer = stage.http.send(method.clone(), &path, &[("authorization", scheme)], None).await.unwrap();
            assert_eq!(answer.status, 401, "{method} {path} {scheme}");
        }
    }
    assert!(guarded >= 21, "{guarded}");
    assert_eq!(stage.asked(), []);
}

#[tokio::test]
async fn a_token_may_come_in_any_case_of_its_scheme_and_only_once() {
    let stage = Stage::set().await;
    stage.reply("account.get", crate::stage::account());
    let (upper, lower) = (format!("BEARER {}", stage.token(300)), format!("bearer {}", stage.token(300)));
    for value in [&upper, &lower] {
        stage.http.send(Method::GET, "/v1/account", &[("authorization", value)], None).await.unwrap().expect(200).unwrap();
    }
    let twice = stage.caller().send(Method::GET, "/v1/account", &[("authorization", &upper)], None).await.unwrap();
    assert_eq!(twice.status, 401);
}

#[tokio::test]
async fn a_bad_body_is_refused_with_the_field_at_fault() {
    let stage = Stage::set().await;
    let caller = stage.caller();
    let cases = [
        ("not json", "invalid_body", ""),
        ("", "invalid_body", ""),
        ("[]", "invalid_body", ""),
        (r#"["https://example.org/"]"#, "invalid_body", ""),
        ("{}", "invalid_body", "url"),
        (r#"{"url": 5}"#, "invalid_body", "url"),
        (r#"{"url": "https://a.example", "url": "https://b.example"}"#, "invalid_body", "url"),
        (r#"{"url": "https://a.example", "nonsense": 1}"#, "invalid_body", "nonsense"),
        (r#"{"url": "https://a.example", "headers": {"A": "1", "A": "2"}}"#, "invalid_body", "headers.A"),
        (r#"{"url": "https://a.example", "priority": "5"}"#, "invalid_body", "priority"),
        (r#"{"url": "https://a.example", "start_at": "tomorrow"}"#, "invalid_body", "start_at"),
        (r#"{"url": "https://a.example", "checksum": "abc"}"#, "invalid_body", "checksum"),
        (r#"{"url": "https://a.example"} {}"#, "invalid_body", ""),
    ];
    for (body, code, field) in cases {
        let headers = [("content-type", "application/json")];
        let answer = caller.send(Method::POST, "/v1/downloads", &headers, Some(Bytes::from(body))).await.unwrap();
        let problem = answer.expect(400).unwrap();
        assert_eq!(problem["code"], code, "{body}");
        let named = problem["errors"][0]["field"].as_str().unwrap_or_default();
        assert_eq!(named, field, "{body}: {problem}");
    }
    assert_eq!(stage.asked(), []);
}

#[tokio::test]
async fn a_body_of_another_kind_is_415() {
    let stage = Stage::set().await;
    let caller = stage.caller();
    let body = || Some(Bytes::from(r#"{"url": "https://example.org/"}"#));
    let cases: [&[(&str, &str)]; 5] = [
        &[],
        &[("content-type", "text/plain")],
        &[("content-type", "application/json; charset=utf-16")],
        &[("content-type", "application/json"), ("content-type", "application/json")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ];
    for headers in cases {
        let answer = caller.send(Method::POST, "/v1/downloads", headers, body()).await.unwrap();
        assert_eq!(answer.expect(415).unwrap()["code"], "unsupported_media_type", "{headers:?}");
    }
    assert_eq!(stage.asked(), []);
}

#[tokio::test]
async fn a_bad_parameter_is_refused_by_its_name() {
    let stage = Stage::set().await;
    let caller = stage.caller();
    let cases = [
        ("/v1/downloads?limit=0", "limit"),
        ("/v1/downloads?limit=10000", "limit"),
        ("/v1/downloads?limit=-1", "limit"),
        ("/v1/downloads?limit=x", "limit"),
        ("/v1/downloads?limit=", "limit"),
        ("/v1/downloads?limit=1&limit=2", "limit"),
        ("/v1/downloads?status=done", "status"),
        ("/v1/downloads?nonsense=1", "nonsense"),
        ("/v1/downloads?q=%00", "q"),
        ("/v1/downloads?q=%ff", "q"),
        ("/v1/files?limit=201", "limit"),
        ("/v1/files?status=queued", "status"),
        ("/v1/account?x", "x"),
        ("/v1/downloads/not-an-id", "id"),
        ("/v1/downloads/0198c0de7a2b7c3d8e4f0123456789ad", "id"),
        ("/v1/files/%00", "id"),
        ("/v1/files/0198c0de-7a2b-7c3d-8e4f-0123456789ae/content?proxy=1", "proxy"),
    ];
    for (path, name) in cases {
        let answer = caller.get(path).await.unwrap();
        let problem = answer.expect(400).unwrap();
        assert_eq!(problem["code"], "invalid_value", "{path}: {problem}");
        assert_eq!(problem["errors"][0]["field"], name, "{path}: {problem}");
        assert!(!problem.to_string().contains("verification"), "{problem}");
        assert_eq!(problem["request_id"], answer.header("x-request-id"));
    }
    assert_eq!(stage.asked(), []);
}

#[tokio::test]
async fn a_bad_parameter_is_told_what_it_must_be() {
    let stage = Stage::set().await;
    let caller = stage.caller();
    let limit = "must be a whole number from 1 to 200";
    let yes_or_no = "must be true or false";
    let cases = [
        ("/v1/downloads?limit=abc", limit),
        ("/v1/downloads?limit=", limit),
        ("/v1/downloads?limit=0", limit),
        ("/v1/downloads?limit=201", limit),
        ("/v1/downloads?limit=1.5", limit),
        ("/v1/downloads?status=foo", "must be one of scheduled, queued, running, completed, failed, canceled"),
        ("/v1/files/0198c0de-7a2b-7c3d-8e4f-0123456789ae/content?proxy=maybe", yes_or_no),
    ];
    for (path, message) in cases {
        let problem = caller.get(path).await.unwrap().expect(400).unwrap();
        assert_eq!(problem["errors"][0]["message"], message, "{path}: {problem}");
    }
    assert_eq!(stage.asked(), []);
}

#[tokio::test]
async fn a_bad_idempotency_key_is_refused() {
    let stage = Stage::set().await;
    let caller = stage.caller();
    stage.reply("download.create", download());
    let long = "k".repeat(256);
    let cases: [&[(&str, &str)]; 5] = [
        &[("idempotency-key", "")],
        &[("idempotency-key", &long)],
        &[("idempotency-key", "a"), ("idempotency-key", "b")],
        &[("idempotency-key", "\u{e9}")],
        &[("idempotency-key", "a b")],
    ];
    for headers in cases {
        let all = [&[("content-type", "application/json")], headers].concat();
        let body = Some(Bytes::from(r#"{"url": "https://example.org/"}"#));
        let answer = caller.send(Method::POST, "/v1/downloads", &all, body).await.unwrap();
        assert_eq!(answer.expect(400).unwrap()["errors"][0]["field"], "Idempotency-Key", "{headers:?}");
    }
    assert_eq!(stage.asked(), []);
}

#[tokio::test]
async fn an_unknown_path_is_404_and_a_wrong_method_405() {
    let stage = Stage::set().await;
    for path in ["/v1", "/v1/nothing", "/v1/downloads/", "/docs/nothing", "/v1/downloads/x/y/z", "//v1/account"] {
        let answer = stage.http.get(path).await.unwrap();
        assert_eq!(answer.expect(404).unwrap()["code"], "not_found", "{path}");
    }
    let one = format!("/v1/downloads/{DOWNLOAD}");
    let cases = [
        (Method::PUT, "/v1/downloads", "GET, HEAD, POST"),
        (Method::POST, one.as_str(), "DELETE, GET, HEAD, PATCH"),
        (Method::GET, "/v1/auth/login", "POST"),
        (Method::TRACE, "/v1/account/usage", "GET, HEAD"),
        (Method::OPTIONS, "/v1/account/usage", "GET, HEAD"),
        (Method::from_bytes(b"BREW").unwrap(), "/v1/account/usage", "GET, HEAD"),
        (Method::POST, "/openapi.json", "GET, HEAD"),
        (Method::DELETE, "/docs", "GET, HEAD"),
        (Method::POST, "/", "GET, HEAD"),
    ];
    for (method, path, allow) in cases {
        let answer = stage.http.send(method.clone(), path, &[], None).await.unwrap();
        assert_eq!(answer.expect(405).unwrap()["code"], "method_not_allowed", "{method} {path}");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
}

#[tokio::test]
async fn every_answer_carries_what_browsers_and_people_need() {
    let stage = Stage::set().await;
    stage.reply("account.get", crate::stage::account());
    for (path, client) in [("/v1/account", stage.caller()), ("/v1/account", stage.http.clone()), ("/nothing", stage.http.clone())]
    {
        let answer = client.get(path).await.unwrap();
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-request-id").len(), 32);
        assert!(!answer.headers.contains_key("server"));
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    let made_up = [("x-request-id", "bad id; drop table")];
    let answer = stage.http.send(Method::GET, "/nothing", &made_up, None).await.unwrap();
    assert_eq!(answer.header("x-request-id").len(), 32);
}

#[tokio::test]
async fn only_listed_origins_may_read_answers() {
    let stage = Stage::with("gateway.cors_origins = ['https://app.example.org']").await;
    stage.reply("account.get", crate::stage::account());
    let good = "https://app.example.org";
    let preflight = |origin: &'static str| {
        let headers = [("origin", origin), ("access-control-request-method", "GET")];
        let http = stage.http.clone();
        async move { http.send(Method::OPTIONS, "/v1/account", &headers, None).await.unwrap() }
    };
    let answer = preflight(good).await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (204, good));
    let answer = stage.caller().send(Method::GET, "/v1/account", &[("origin", good)], None).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (200, good));
    assert_eq!(answer.header("vary"), "Origin");
    for evil in [
        "https://app.example.org.evil.example",
        "http://app.example.org",
        "null",
        "https://APP.example.org",
        "https://app.example.org:443",
    ] {
        let answer = preflight(evil).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (405, ""), "{evil}");
    }
}

#[tokio::test]
async fn the_operations_listener_tells_life_readiness_and_figures() {
    let stage = Stage::set().await;
    let operations = bowerbird_testkit::http::Http::new(stage.running.operations.to_string());
    assert_eq!(operations.get("/livez").await.unwrap().expect(200).unwrap(), json!({ "status": "alive" }));
    let ready =
        eventually(Duration::from_secs(5), "ready", async || operations.get("/readyz").await.unwrap().expect(200).ok()).await;
    assert_eq!(ready, json!({ "ready": true, "parts": [{ "name": "gateway", "ready": true }] }));
    stage.health.component("bus").not_ready("the NATS server is not reachable");
    let report = operations.get("/readyz").await.unwrap().expect(503).unwrap();
    assert_eq!(report["parts"][0], json!({ "name": "bus", "ready": false, "reason": "the NATS server is not reachable" }));
    stage.http.get("/v1/account").await.unwrap().expect(401).unwrap();
    let metrics = operations.get("/metrics").await.unwrap();
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("bowerbird_gateway_requests_total{operation=\"get_account\",status=\"401\"} 1"), "{text}");
    // Nothing of the one is on the other.
    assert_eq!(operations.get("/v1/account").await.unwrap().status, 404);
    assert_eq!(stage.http.get("/metrics").await.unwrap().status, 404);
}
