//! Each operation: what is asked of the actors, and what is answered.

use std::time::Duration;

use bowerbird_nats::{Code, Problem};
use bowerbird_testkit::eventually;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::stage::{
    ACCOUNT, DELIVERY, DOWNLOAD, FILE, FOLDER, LETTER, NOTIFICATION, REMINDER, SHARE, Stage, UPLOAD, WEBHOOK, account,
    dead_letter, delivery, download, file, file_version, folder, notification, notification_settings, reminder, report, share,
    statistics, token_pair, transfer, trashed, upload, usage, webhook,
};

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
    let answer = if status == 204 || reply == json!({}) { Value::Null } else { reply.clone() };
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

fn webhook_cases() -> Vec<Case> {
    const LOCATION: &str = "/v1/webhooks/0198c0de-7a2b-7c3d-8e4f-0123456789b0";
    const DELIVERY_LOCATION: &str =
        "/v1/webhooks/0198c0de-7a2b-7c3d-8e4f-0123456789b0/deliveries/0198c0de-7a2b-7c3d-8e4f-0123456789b1";
    let one = |rest: &str| format!("/v1/webhooks/{WEBHOOK}{rest}");
    let create = json!({ "url": "https://example.org/hook", "event_types": ["download.*"], "description": "d" });
    let change = json!({ "event_types": [], "status": "disabled" });
    let empty = json!({ "items": [], "next_cursor": null });
    let its = json!({ "webhook_id": WEBHOOK, "id": DELIVERY });
    let mut with_secret = webhook();
    with_secret["secret"] = json!("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    vec![
        case(Method::POST, "/v1/webhooks", "webhook.create", create.clone(), with_secret.clone(), 201).body(create).at(LOCATION),
        case(Method::GET, "/v1/webhooks", "webhook.list", json!({}), empty.clone(), 200),
        case(Method::GET, "/v1/webhooks?limit=1&cursor=c", "webhook.list", json!({ "limit": 1, "cursor": "c" }), empty, 200),
        case(Method::GET, &one(""), "webhook.get", json!({ "id": WEBHOOK }), webhook(), 200),
        case(
            Method::PATCH,
            &one(""),
            "webhook.update",
            json!({ "id": WEBHOOK, "event_types": [], "status": "disabled" }),
            webhook(),
            200,
        )
        .body(change),
        case(Method::DELETE, &one(""), "webhook.delete", json!({ "id": WEBHOOK }), json!({}), 204),
        case(Method::POST, &one("/test"), "webhook.test", json!({ "id": WEBHOOK }), delivery(), 200),
        case(Method::POST, &one("/rotate-secret"), "webhook.rotate_secret", json!({ "id": WEBHOOK }), with_secret, 200),
        case(
            Method::GET,
            &one("/deliveries?status=failed&limit=3&cursor=c"),
            "webhook.list_deliveries",
            json!({ "webhook_id": WEBHOOK, "status": "failed", "limit": 3, "cursor": "c" }),
            json!({ "items": [delivery()], "next_cursor": "d" }),
            200,
        ),
        case(Method::GET, &one(&format!("/deliveries/{DELIVERY}")), "webhook.get_delivery", its.clone(), delivery(), 200),
        case(Method::POST, &one(&format!("/deliveries/{DELIVERY}/retry")), "webhook.retry_delivery", its, delivery(), 202)
            .at(DELIVERY_LOCATION),
    ]
}

fn upload_cases() -> Vec<Case> {
    const LOCATION: &str = "/v1/uploads/0198c0de-7a2b-7c3d-8e4f-0123456789b2";
    let one = |rest: &str| format!("/v1/uploads/{UPLOAD}{rest}");
    let create = json!({ "file_name": "a.iso", "size_bytes": 5, "content_type": "text/plain", "sha256": "a".repeat(64) });
    let empty = json!({ "items": [], "next_cursor": null });
    let its = json!({ "id": UPLOAD });
    let compare = json!({ "dry_run": true, "force": false });
    vec![
        case(Method::POST, "/v1/uploads", "upload.create", create.clone(), upload(), 201).body(create).at(LOCATION),
        case(Method::GET, "/v1/uploads", "upload.list", json!({}), empty.clone(), 200),
        case(
            Method::GET,
            "/v1/uploads?status=failed&limit=1&cursor=c",
            "upload.list",
            json!({ "status": "failed", "limit": 1, "cursor": "c" }),
            empty,
            200,
        ),
        case(Method::GET, &one(""), "upload.get", its.clone(), upload(), 200),
        case(Method::POST, &one("/links"), "upload.link", its.clone(), transfer(), 200),
        case(
            Method::POST,
            &one("/links?after_part=7&limit=500"),
            "upload.link",
            json!({ "id": UPLOAD, "after_part": 7, "limit": 500 }),
            transfer(),
            200,
        ),
        case(Method::POST, &one("/complete"), "upload.complete", its.clone(), upload(), 200),
        case(Method::DELETE, &one(""), "upload.abort", its, json!({}), 204),
        case(Method::POST, "/v1/admin/sweeps/reconcile", "sweep.reconcile", compare.clone(), report(), 200)
            .body(json!({ "dry_run": true })),
    ]
}

fn drive_cases() -> Vec<Case> {
    const LOCATION: &str = "/v1/folders/0198c0de-7a2b-7c3d-8e4f-0123456789b2";
    let of_folder = |rest: &str| format!("/v1/folders/{FOLDER}{rest}");
    let of_file = |rest: &str| format!("/v1/files/{FILE}{rest}");
    let listing = json!({ "folder": folder(), "items": [{ "folder": folder() }, { "file": file(3) }], "next_cursor": null });
    let time = "2026-11-20T12:00:00Z";
    let changes = json!({ "name": "b", "tags": ["x"], "on_collision": "rename", "clear": ["description"] });
    let moved = json!({ "parent": "/", "on_collision": "rename" });
    let create = json!({ "path": "/films" });
    let to_copy = json!({ "folder": "/b", "name": "c" });
    let many = json!({ "action": "move", "ids": [FILE], "folder": "/b", "on_collision": "rename" });
    let outcome = json!({ "items": [{ "id": FILE, "error": { "code": "not_found", "detail": "d" } }] });
    let sweeps = json!({ "items": [{ "name": "a-b", "every_seconds": 600 }] });
    let to_share = json!({ "file_id": FILE, "password": "correct horse", "max_downloads": 3 });
    let restored = json!({ "kind": "file", "id": FILE, "name": "a (2)", "folder": "/" });
    vec![
        case(
            Method::GET,
            &format!(
                "/v1/files?content_type=image/&tags=a,b&min_size_bytes=1&max_size_bytes=2&created_after={time}&created_before={time}\
                 &updated_after={time}&updated_before={time}&status=available&sort=name&order=desc"
            ),
            "file.list",
            json!({
                "content_type": "image/", "tags": ["a", "b"], "min_size_bytes": 1, "max_size_bytes": 2, "created_after": time,
                "created_before": time, "updated_after": time, "updated_before": time, "status": "available", "sort": "name",
                "order": "desc",
            }),
            json!({ "items": [file(1)], "next_cursor": null }),
            200,
        ),
        case(Method::PATCH, &of_file(""), "file.update", json!({ "id": FILE, "changes": changes }), file(3), 200).body(changes),
        case(Method::POST, "/v1/folders", "folder.create", create.clone(), folder(), 201).body(create).at(LOCATION),
        case(Method::GET, "/v1/folders", "folder.list", json!({}), listing.clone(), 200),
        case(
            Method::GET,
            "/v1/folders?path=/films&limit=2&cursor=c",
            "folder.list",
            json!({ "path": "/films", "limit": 2, "cursor": "c" }),
            listing.clone(),
            200,
        ),
        case(Method::GET, &of_folder("/children?limit=2"), "folder.list", json!({ "id": FOLDER, "limit": 2 }), listing, 200),
        case(Method::GET, &of_folder(""), "folder.get", json!({ "id": FOLDER }), folder(), 200),
        case(Method::PATCH, &of_folder(""), "folder.update", json!({ "id": FOLDER, "changes": moved }), folder(), 200)
            .body(moved),
        case(Method::DELETE, &of_folder(""), "folder.delete", json!({ "id": FOLDER }), json!({}), 204),
        case(Method::POST, &of_file("/copy"), "file.copy", json!({ "id": FILE, "target": to_copy }), file(3), 201)
            .body(to_copy)
            .at("/v1/files/0198c0de-7a2b-7c3d-8e4f-0123456789ae"),
        case(Method::POST, "/v1/files/bulk", "file.bulk", many.clone(), outcome, 200).body(many),
        case(
            Method::GET,
            &of_file("/versions"),
            "file.versions",
            json!({ "id": FILE }),
            json!({ "items": [file_version()] }),
            200,
        ),
        case(
            Method::POST,
            &of_file(&format!("/versions/{SHARE}/restore")),
            "file.restore_version",
            json!({ "id": FILE, "version_id": SHARE }),
            file(3),
            200,
        ),
        case(Method::POST, "/v1/shares", "share.create", to_share.clone(), share(), 201).body(to_share),
        case(
            Method::GET,
            &format!("/v1/shares?file_id={FILE}&folder_id={FOLDER}&limit=2"),
            "share.list",
            json!({ "file_id": FILE, "folder_id": FOLDER, "limit": 2 }),
            json!({ "items": [share()], "next_cursor": null }),
            200,
        ),
        case(Method::DELETE, &format!("/v1/shares/{SHARE}"), "share.revoke", json!({ "id": SHARE }), json!({}), 204),
        case(
            Method::GET,
            "/v1/trash?limit=2",
            "trash.list",
            json!({ "limit": 2 }),
            json!({ "items": [trashed()], "next_cursor": "c" }),
            200,
        ),
        case(
            Method::POST,
            &format!("/v1/trash/{FILE}/restore?on_collision=fail"),
            "trash.restore",
            json!({ "id": FILE, "on_collision": "fail" }),
            restored,
            200,
        ),
        case(Method::GET, "/v1/admin/sweeps", "sweep.list", json!({}), sweeps, 200),
        case(
            Method::POST,
            "/v1/admin/sweeps/a-b",
            "sweep.run",
            json!({ "name": "a-b" }),
            json!({ "name": "a-b", "rows": 3 }),
            200,
        ),
        case(Method::DELETE, &format!("/v1/trash/{FILE}"), "trash.purge", json!({ "id": FILE }), json!({}), 204),
    ]
}

#[tokio::test]
async fn a_version_that_a_change_depends_on_is_handed_on_and_one_that_is_none_is_refused() {
    let stage = Stage::set().await;
    stage.reply("file.update", file(3));
    stage.reply("folder.update", folder());
    let patch = async |path: String, version: &str| {
        let headers = [("content-type", "application/json"), ("if-match", version)];
        stage.caller().send(Method::PATCH, &path, &headers, Some(Bytes::from("{}"))).await.unwrap()
    };
    for (path, operation) in [(format!("/v1/files/{FILE}"), "file.update"), (format!("/v1/folders/{FOLDER}"), "folder.update")] {
        assert_eq!(patch(path.clone(), "\"7\"").await.status, 200);
        let asked = stage.asked();
        assert_eq!((asked[0].operation.as_str(), &asked[0].request["if_version"]), (operation, &json!(7)));
        assert_eq!(patch(path.clone(), "\"soon\"").await.expect(400).unwrap()["errors"][0]["field"], "If-Match");
        assert_eq!(stage.asked(), []);
        stage.refuse(operation, Problem::new(Code::VersionMismatch, "changed"));
        assert_eq!(patch(path, "\"7\"").await.expect(412).unwrap()["code"], "version_mismatch");
        stage.asked();
    }
}

fn cases() -> Vec<Case> {
    const LOCATION: &str = "/v1/downloads/0198c0de-7a2b-7c3d-8e4f-0123456789ad";
    let one = |rest: &str| format!("/v1/downloads/{DOWNLOAD}{rest}");
    let letter = |rest: &str| format!("/v1/admin/dead-letters/{LETTER}{rest}");
    let register = json!({ "account_name": "ada", "password": "correct horse battery" });
    let login = json!({ "login": "ada", "password": "p", "device_name": "phone" });
    let change_settings = json!({
        "events": { "download.completed": ["inbox"] }, "email": false,
        "quiet_hours": { "from": "22:00", "until": "07:00", "time_zone": "Europe/Berlin" },
        "digest": { "at": "08:00", "weekdays": ["monday"], "time_zone": "Europe/Berlin" },
    });
    let refresh = json!({ "refresh_token": "Bearer r" });
    let create = json!({ "url": "https://example.org/a.iso", "priority": 9, "headers": { "A": "b" } });
    let page = |item: Value| json!({ "items": [item], "next_cursor": "c2" });
    let empty = json!({ "items": [], "next_cursor": null });
    let link = json!({ "url": "http://bucket/x?sig=1", "expires_at": "2026-11-20T12:05:00Z" });
    let of_reminder = |rest: &str| format!("/v1/reminders/{REMINDER}{rest}");
    let remind =
        json!({ "title": "Film", "local_time": "2026-12-24T08:00", "time_zone": "Europe/Berlin", "rrule": "FREQ=DAILY" });
    let moved = json!({ "due_at": "2026-12-25T07:00:00Z", "clear": ["rrule"] });
    let change_account = json!({ "email": "ada@example.org", "clear": ["display_name"], "password": "p" });
    vec![
        case(Method::POST, "/v1/reminders", "reminder.create", remind.clone(), reminder(), 201)
            .body(remind)
            .at("/v1/reminders/0198c0de-7a2b-7c3d-8e4f-0123456789af"),
        case(Method::GET, "/v1/reminders", "reminder.list", json!({}), empty.clone(), 200),
        case(
            Method::GET,
            &format!(
                "/v1/reminders?status=canceled&about={FILE}&due_before=2026-12-25T00:00:00Z&due_after=2026-12-24T00:00:00Z&q=f&limit=2&cursor=c1"
            ),
            "reminder.list",
            json!({
                "status": "canceled", "about": FILE, "due_before": "2026-12-25T00:00:00Z", "due_after": "2026-12-24T00:00:00Z",
                "q": "f", "limit": 2, "cursor": "c1",
            }),
            page(reminder()),
            200,
        ),
        case(Method::GET, &of_reminder(""), "reminder.get", json!({ "id": REMINDER }), reminder(), 200),
        case(Method::PATCH, &of_reminder(""), "reminder.update", json!({ "id": REMINDER, "changes": moved }), reminder(), 200)
            .body(moved),
        case(Method::DELETE, &of_reminder(""), "reminder.cancel", json!({ "id": REMINDER }), json!({}), 204),
        case(
            Method::POST,
            &of_reminder("/snooze"),
            "reminder.snooze",
            json!({ "id": REMINDER, "seconds": 600 }),
            reminder(),
            200,
        )
        .body(json!({ "seconds": 600 })),
        case(Method::POST, &of_reminder("/skip"), "reminder.skip", json!({ "id": REMINDER }), reminder(), 200),
        case(Method::POST, &of_reminder("/complete"), "reminder.complete", json!({ "id": REMINDER }), reminder(), 200),
        case(Method::POST, "/v1/auth/register", "account.register", register.clone(), account(), 201)
            .body(register)
            .at("/v1/account"),
        case(Method::POST, "/v1/auth/login", "session.login", login.clone(), token_pair(), 200).body(login),
        case(Method::POST, "/v1/auth/refresh", "session.refresh", refresh.clone(), token_pair(), 200).body(refresh.clone()),
        case(Method::POST, "/v1/auth/logout", "session.logout", refresh.clone(), json!({}), 204).body(refresh),
        case(Method::POST, "/v1/auth/verify-email", "account.verify_email", json!({ "token": "t" }), json!({}), 204)
            .body(json!({ "token": "t" })),
        case(Method::POST, "/v1/account/email-verification", "account.request_email_verification", json!({}), json!({}), 202),
        case(Method::GET, "/v1/account", "account.get", json!({}), account(), 200),
        case(Method::PATCH, "/v1/account", "account.update", change_account.clone(), account(), 200).body(change_account),
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
        case(Method::GET, "/v1/stats", "statistics.get", json!({}), statistics(), 200),
        case(
            Method::GET,
            "/v1/stats?from=2026-11-19&to=2026-11-20",
            "statistics.get",
            json!({ "from": "2026-11-19", "to": "2026-11-20" }),
            statistics(),
            200,
        ),
        case(Method::GET, "/v1/admin/stats?to=2026-11-20", "statistics.system", json!({ "to": "2026-11-20" }), statistics(), 200),
        case(
            Method::GET,
            "/v1/admin/dead-letters?stream=EVENTS&consumer=statistics&limit=3&cursor=c",
            "dead_letter.list",
            json!({ "stream": "EVENTS", "consumer": "statistics", "limit": 3, "cursor": "c" }),
            page(dead_letter()),
            200,
        ),
        case(
            Method::GET,
            &letter(""),
            "dead_letter.get",
            json!({ "id": LETTER }),
            json!({ "letter": dead_letter(), "headers": [{ "name": "a", "value": "b" }], "body_base64": "e30=" }),
            200,
        ),
        case(Method::POST, &letter("/replay"), "dead_letter.replay", json!({ "id": LETTER }), dead_letter(), 200),
        case(Method::DELETE, &letter(""), "dead_letter.delete", json!({ "id": LETTER }), json!({}), 204),
        case(
            Method::GET,
            "/v1/notifications?unread=true&limit=2&cursor=c",
            "notification.list",
            json!({ "unread": true, "limit": 2, "cursor": "c" }),
            page(notification()),
            200,
        ),
        case(
            Method::POST,
            &format!("/v1/notifications/{NOTIFICATION}/read"),
            "notification.read",
            json!({ "id": NOTIFICATION }),
            notification(),
            200,
        ),
        case(Method::POST, "/v1/notifications/read-all", "notification.read_all", json!({}), json!({}), 204),
        case(Method::GET, "/v1/notification-settings", "notification.get_settings", json!({}), notification_settings(), 200),
        case(
            Method::PUT,
            "/v1/notification-settings",
            "notification.change_settings",
            change_settings.clone(),
            notification_settings(),
            200,
        )
        .body(change_settings),
    ]
}

#[tokio::test]
async fn each_operation_asks_its_question_and_answers_with_the_reply() {
    let stage = Stage::set().await;
    let (caller, administrator) = (stage.caller(), stage.administrator());
    for case in cases().into_iter().chain(webhook_cases()).chain(upload_cases()).chain(drive_cases()) {
        let name = format!("{} {}", case.method, case.path);
        let is_public = case.path.starts_with("/v1/auth");
        stage.reply(case.operation, case.reply);
        let client = match () {
            () if is_public => &stage.http,
            () if case.path.starts_with("/v1/admin") => &administrator,
            () => &caller,
        };
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
async fn what_is_for_administrators_is_refused_to_others() {
    let stage = Stage::set().await;
    let caller = stage.caller();
    for case in cases().into_iter().filter(|case| case.path.starts_with("/v1/admin")) {
        let name = format!("{} {}", case.method, case.path);
        let answer = caller.send(case.method, &case.path, &[], None).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (403, &json!("forbidden")), "{name}");
    }
    assert!(stage.asked().is_empty());
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
