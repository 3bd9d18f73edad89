//! Each operation: what is asked of the actors, and what is answered.

use std::time::Duration;

use bowerbird_nats::{Code, Problem};
use bowerbird_testkit::eventually;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::stage::{ACCOUNT, DOWNLOAD, FILE, Stage, account, download, file, token_pair, usage};

/// Method, path, body; operation and contract asked; reply; status and body answered.
struct Case {
    method: Method,
    path: String,
    body: Option<Value>,
    operation: &'static str,
    contract: Value,
    reply: Value,
    status: u16,
    answer: Value,
    location: &'static str,
}

fn case(method: Method, path: &str, operation: &'static str, contract: Value, reply: Value, status: u16) -> Case {
    let answer = if status == 204 { Value::Null } else { reply.clone() };
    Case { method, path: path.to_owned(), body: None, operation, contract, reply, status, answer, location: "" }
}

impl Case {
    fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn at(mut self, location: &'static str) -> Self {
        self.location = location;
        self
    }
}

fn cases() -> Vec<Case> {
    const LOCATION: &str = "/v1/downloads/0198c0de-7a2b-7c3d-8e4f-0123456789ad";
    let one = |rest: &str| format!("/v1/downloads/{DOWNLOAD}{rest}");
    let register = json!({ "account_name": "ada", "password": "correct horse battery" });
    let login = json!({ "login": "ada", "password": "p", "device_name": "phone" });
    let refresh = json!({ "refresh_token": "Bearer r" });
    let create = json!({ "url": "https://example.org/a.iso", "priority": 9, "headers": { "A": "b" } });
    let page = |item: Value| json!({ "items": [item], "next_cursor": "c2" });
    let empty = json!({ "items": [], "next_cursor": null });
    let link = json!({ "url": "http://bucket/x?sig=1", "expires_at": "2026-11-20T12:05:00Z" });
    vec![
        case(Method::POST, "/v1/auth/register", "account.register", register.clone(), account(), 201)
            .body(register)
            .at("/v1/account"),
        case(Method::POST, "/v1/auth/login", "session.login", login.clone(), token_pair(), 200).body(login),
        case(Method::POST, "/v1/auth/refresh", "session.refresh", refresh.clone(), token_pair(), 200).body(refresh.clone()),
        case(Method::POST, "/v1/auth/logout", "session.logout", refresh.clone(), json!({}), 204).body(refresh),
        case(Method::GET, "/v1/account", "account.get", json!({}), account(), 200),
        case(Method::GET, "/v1/account/usage", "account.usage", json!({}), usage(), 200),
        case(Method::POST, "/v1/downloads", "download.create", create.clone(), download(), 202).body(create).at(LOCATION),
        case(Method::GET, "/v1/downloads", "download.list", json!({}), empty.clone(), 200),
        case(
            Method::GET,
            "/v1/downloads?status=failed&q=%C3%BC&limit=200&cursor=c1",
            "download.list",
            json!({ "status": "failed", "q": "ü", "limit": 200, "cursor": "c1" }),
            page(download()),
            200,
        ),
        case(Method::GET, &one(""), "download.get", json!({ "id": DOWNLOAD }), download(), 200),
        case(Method::PATCH, &one(""), "download.update", json!({ "id": DOWNLOAD, "priority": 1 }), download(), 200)
            .body(json!({ "priority": 1 })),
        case(Method::DELETE, &one(""), "download.delete", json!({ "id": DOWNLOAD, "with_file": false }), json!({}), 204),
        case(
            Method::DELETE,
            &one("?with_file=true"),
            "download.delete",
            json!({ "id": DOWNLOAD, "with_file": true }),
            json!({}),
            204,
        ),
        case(Method::POST, &one("/cancel"), "download.cancel", json!({ "id": DOWNLOAD }), download(), 202).at(LOCATION),
        case(Method::POST, &one("/retry"), "download.retry", json!({ "id": DOWNLOAD }), download(), 202).at(LOCATION),
        case(Method::GET, "/v1/files", "file.list", json!({}), empty, 200),
        case(
            Method::GET,
            "/v1/files?folder=/films&q=a&limit=1&cursor=c",
            "file.list",
            json!({ "folder": "/films", "q": "a", "limit": 1, "cursor": "c" }),
            page(file(3)),
            200,
        ),
        case(Method::GET, &format!("/v1/files/{FILE}"), "file.get", json!({ "id": FILE }), file(3), 200),
        case(Method::DELETE, &format!("/v1/files/{FILE}"), "file.delete", json!({ "id": FILE }), json!({}), 204),
        case(Method::GET, &format!("/v1/files/{FILE}/url"), "file.presign", json!({ "id": FILE, "internal": false }), link, 200),
    ]
}

#[tokio::test]
async fn each_operation_asks_its_question_and_answers_with_the_reply() {
    let stage = Stage::set().await;
    let caller = stage.caller();
    for case in cases() {
        let name = format!("{} {}", case.method, case.path);
        let is_public = case.path.starts_with("/v1/auth");
        stage.reply(case.operation, case.reply);
        let client = if is_public { &stage.http } else { &caller };
        let headers = [("content-type", "application/json"), ("x-request-id", "req-7")];
        let body = case.body.map(|body| Bytes::from(body.to_string()));
        let answer = client.send(case.method, &case.path, &headers[usize::from(body.is_none())..], body).await.unwrap();
        assert_eq!(answer.status.as_u16(), case.status, "{name}: {}", answer.json());
        assert_eq!(answer.json(), case.answer, "{name}");
        assert_eq!(answer.header("location"), case.location, "{name}");
        assert_eq!(answer.header("x-request-id"), "req-7", "{name}");
        assert_eq!(answer.header("cache-control"), "no-store", "{name}");
        let asked = stage.asked();
        assert_eq!(asked.len(), 1, "{name}");
        assert_eq!((asked[0].operation.as_str(), &asked[0].request), (case.operation, &case.contract), "{name}");
        assert_eq!(asked[0].request_id, "req-7", "{name}");
        assert_eq!(asked[0].account.as_deref(), (!is_public).then_some(ACCOUNT), "{name}");
        assert_eq!(asked[0].idempotency_key, None, "{name}");
    }
}

#[tokio::test]
async fn an_idempotency_key_goes_along_with_what_creates() {
    let stage = Stage::set().await;
    stage.reply("download.create", download());
    stage.reply("account.register", account());
    let headers = [("content-type", "application/json"), ("idempotency-key", "k-1")];
    let create = Some(Bytes::from(r#"{"url": "https://example.org/"}"#));
    stage.caller().send(Method::POST, "/v1/downloads", &headers, create).await.unwrap().expect(202).unwrap();
    let register = Some(Bytes::from(r#"{"account_name": "ada", "password": "x"}"#));
    stage.http.send(Method::POST, "/v1/auth/register", &headers, register).await.unwrap().expect(201).unwrap();
    let keys: Vec<_> = stage.asked().into_iter().map(|asked| asked.idempotency_key).collect();
    assert_eq!(keys, [Some("k-1".to_owned()), Some("k-1".to_owned())]);
}

#[tokio::test]
async fn a_problem_of_the_actors_is_answered_as_it_is() {
    let stage = Stage::set().await;
    let caller = stage.caller();
    for code in Code::ALL {
        let mut problem = Problem::new(*code, format!("because of {code}"));
        problem.retry_after = (*code == Code::TooMany).then_some(7);
        stage.refuse("download.get", problem);
        let answer = caller.get(&format!("/v1/downloads/{DOWNLOAD}")).await.unwrap();
        let body = answer.json();
        assert_eq!(answer.status.as_u16(), code.status(), "{code}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{code}");
        assert_eq!(body["code"], code.as_str());
        assert_eq!(body["type"], format!("/docs/problems#{code}"));
        assert_eq!(body["detail"], format!("because of {code}"));
        assert_eq!(body["request_id"], answer.header("x-request-id"), "{code}");
        assert_eq!(answer.header("retry-after"), if *code == Code::TooMany { "7" } else { "" }, "{code}");
        assert_eq!(answer.header("www-authenticate").starts_with("Bearer"), code.status() == 401, "{code}");
    }
}

#[tokio::test]
async fn nobody_there_is_503_and_no_answer_is_504() {
    let stage = Stage::with("gateway.request_timeout = '1s'").await;
    let caller = stage.caller();
    stage.keep_silent("account.get");
    let answer = caller.get("/v1/account").await.unwrap();
    assert_eq!(answer.expect(504).unwrap()["code"], "timeout");
    stage.stop_actors();
    let answer = eventually(Duration::from_secs(10), "nobody answers any more", async || {
        caller.get("/v1/account/usage").await.ok().filter(|answer| answer.status == 503)
    })
    .await;
    assert_eq!(answer.json()["code"], "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn a_lost_bus_is_503_until_it_is_back() {
    let mut stage = Stage::with("gateway.request_timeout = '2s'").await;
    let caller = stage.caller();
    stage.reply("account.get", account());
    stage.nats.kill9();
    eventually(Duration::from_secs(20), "the bus is missed", async || {
        caller.get("/v1/account").await.ok().filter(|answer| answer.status == 503)
    })
    .await;
    assert!(!stage.health.is_ready());
    stage.nats.restart().await;
    eventually(Duration::from_secs(30), "the bus is back", async || {
        caller.get("/v1/account").await.ok().filter(|answer| answer.status == 200)
    })
    .await;
    assert!(stage.health.is_ready());
}

#[tokio::test]
async fn an_orderly_stop_lets_what_runs_finish() {
    let stage = Stage::set().await;
    stage.reply("account.get", account());
    stage.caller().get("/v1/account").await.unwrap().expect(200).unwrap();
    eventually(Duration::from_secs(5), "ready", async || stage.health.is_ready().then_some(())).await;
    stage.shutdown.stop();
    assert!(stage.tasks.wait(Duration::from_secs(10)).await);
    assert!(!stage.health.is_ready());
    assert!(stage.http.get("/v1/account").await.is_err());
}
