//! `openapi.json`: current, and true to what serde makes of the same types.

use std::fs;

use bowerbird_nats::{
    Page, Problem,
    account::{Account, Register, UpdateAccount, Usage, VerifyEmail},
    dead_letter::{DeadLetter, OpenedDeadLetter},
    download::{CreateDownload, Download},
    file::{BulkFiles, BulkResult, CopyTarget, File, FileChanges, FileVersions, Link},
    folder::{CreateFolder, Folder, FolderChanges, Listing},
    json,
    key::KeySet,
    notification::{ChangeSettings, Notification, Settings},
    reconciliation::{Reconcile, Report},
    reminder::{CreateReminder, Reminder, ReminderChanges},
    session::{Login, Logout, Refresh, TokenPair},
    share::{CreateShare, Share},
    statistics::Statistics,
    sweep::{Sweeps, Swept},
    trash::{Restored, Trashed},
    upload::{CreateUpload, Transfer, Upload},
    webhook::{CreateWebhook, Delivery, Webhook},
};
use poem_openapi::types::{ParseFromJSON, ToJSON};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::stage::{
    DOWNLOAD, FOLDER, account, dead_letter, delivery, download, file, file_version, folder, notification, notification_settings,
    reminder, report, share, statistics, token_pair, transfer, trashed, upload, usage, webhook,
};

#[test]
fn generated_openapi_json_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let current = bowerbird_gateway::openapi_document().unwrap();
    if std::env::var_os("BOWERBIRD_WRITE_GENERATED").is_some() {
        fs::write(path, &current).unwrap();
    }
    assert!(fs::read_to_string(path).unwrap() == current, "gateway/openapi.json is stale: scripts/check-generated --write");
}

#[test]
fn every_code_is_explained_in_the_documentation() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md")).unwrap();
    for code in bowerbird_nats::Code::ALL {
        let row = format!("| `{code}` | {} | {} |", code.status(), code.meaning());
        assert!(page.contains(&row), "docs/api.md lacks: {row}");
    }
    for code in schemas()["UploadErrorCode"]["enum"].as_array().unwrap() {
        let row = format!("| `{}` | ", code.as_str().unwrap());
        assert!(page.contains(&row), "docs/api.md lacks: {row}");
    }
    for code in schemas()["DownloadErrorCode"]["enum"].as_array().unwrap() {
        let row = format!("| `{}` | ", code.as_str().unwrap());
        assert!(page.contains(&row), "docs/api.md lacks: {row}");
    }
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/webhooks.md")).unwrap();
    for code in schemas()["WebhookErrorCode"]["enum"].as_array().unwrap() {
        let row = format!("| `{}` | ", code.as_str().unwrap());
        assert!(page.contains(&row), "docs/webhooks.md lacks: {row}");
    }
}

fn schemas() -> Value {
    let document: Value = serde_json::from_str(&bowerbird_gateway::openapi_document().unwrap()).unwrap();
    document["components"]["schemas"].clone()
}

/// Whether a value fits a schema, as far as our schemas go; the reason if not.
fn fits(schemas: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(path) = schema["$ref"].as_str() {
        return fits(schemas, &schemas[path.rsplit('/').next().unwrap()], value, at);
    }
    if value.is_null() && schema["nullable"] == true {
        return Ok(());
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        fits(schemas, part, value, at)?;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{at}: {value} is not one of {allowed:?}"));
    }
    let is_of_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some(other) => return Err(format!("{at}: a type {other}?")),
        None => true,
    };
    if !is_of_type {
        return Err(format!("{at}: {value} is not of type {}", schema["type"]));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    // A reference with something beside it says nothing of fields itself.
    let described = if schema["type"] == "object" { value.as_object() } else { None };
    for (name, value) in described.into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema_of_field) => fits(schemas, schema_of_field, value, &format!("{at}.{name}"))?,
            None if schema["additionalProperties"].is_object() => {
                fits(schemas, &schema["additionalProperties"], value, &format!("{at}.{name}"))?;
            }
            None => return Err(format!("{at}: {name} is not documented")),
        }
    }
    let listed = if schema["type"] == "array" { value.as_array() } else { None };
    for item in listed.into_iter().flatten() {
        fits(schemas, &schema["items"], item, &format!("{at}[]"))?;
    }
    Ok(())
}

/// serde and the schema agree on this example, field by field.
fn agree<T: Serialize + DeserializeOwned>(name: &str, example: &Value) {
    let schemas = schemas();
    let schema = &schemas[name];
    assert!(schema.is_object(), "{name} is not in the document");
    fits(&schemas, schema, example, name).unwrap();
    let parsed: T = json::parse(example.to_string().as_bytes()).unwrap_or_else(|problem| panic!("{name}: {problem}"));
    let written = serde_json::to_value(&parsed).unwrap();
    assert_eq!(&written, example, "{name} is written as it was read");
    for field in example.as_object().unwrap().keys() {
        let mut without = example.clone();
        without.as_object_mut().unwrap().remove(field);
        let by_schema = fits(&schemas, schema, &without, name).is_ok();
        // An answer is read by serde too, but what a client may leave out matters only for what it sends.
        if schema["additionalProperties"] == false {
            assert_eq!(json::parse::<T>(without.to_string().as_bytes()).is_ok(), by_schema, "{name} without {field}");
        }
        for other in [json!(null), json!(true), json!(17), json!("text"), json!([]), json!({ "nonsense": 1 })] {
            let mut changed = example.clone();
            changed[field] = other;
            let by_serde = json::parse::<T>(changed.to_string().as_bytes()).is_ok();
            let by_schema = fits(&schemas, schema, &changed, name).is_ok();
            // The schema leaves formats (dates, ids) to their parsers; a field that only answers have may be null or not.
            let is_formatted = changed[field].is_string() || changed[field].is_null() && schema["additionalProperties"] != false;
            assert!(
                by_serde == by_schema || is_formatted,
                "{name}.{field} = {}: serde {by_serde}, schema {by_schema}",
                changed[field]
            );
        }
    }
    let mut more = example.clone();
    more["nonsense"] = json!(1);
    if schema["additionalProperties"] == false {
        assert!(json::parse::<T>(more.to_string().as_bytes()).is_err(), "{name} takes unknown fields");
    }
}

/// poem-openapi's own reading and writing agrees too, so its derives were given the same attributes as serde's.
fn agree_with_poem<T: Serialize + DeserializeOwned + ParseFromJSON + ToJSON>(name: &str, example: &Value) {
    agree::<T>(name, example);
    let parsed = T::parse_from_json(Some(example.clone())).unwrap_or_else(|error| panic!("{name}: {}", error.into_message()));
    assert_eq!(&parsed.to_json().unwrap(), example, "{name}");
    assert_eq!(&serde_json::to_value(&parsed).unwrap(), example, "{name}");
}

#[test]
fn the_schema_of_each_type_and_serde_agree() {
    let checksum = json!({ "algorithm": "sha256", "value": "a".repeat(64) });
    let create = json!({
        "url": "https://example.org/a", "file_name": "a", "folder": "/b", "headers": { "A": "b" }, "checksum": checksum,
        "max_connections": 3, "priority": 4, "start_at": "2026-11-20T12:00:00Z", "max_attempts": 5,
    });
    let mut whole = download();
    let more = json!({
        "file_name": "a", "size_bytes": 9, "content_type": "text/plain", "sha256": "b", "checksum": checksum,
        "start_at": "2026-11-20T12:00:00Z", "next_attempt_at": "2026-11-20T12:00:00Z", "file_id": download()["id"],
        "error": { "code": "timeout", "detail": "x", "retryable": true }, "started_at": "2026-11-20T12:00:00Z",
        "finished_at": "2026-11-20T12:00:00Z",
    });
    whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut with_digest = file(3);
    let more = json!({
        "sha256": "c", "folder_id": FOLDER, "tags": ["a"], "description": "d", "expires_at": "2026-11-20T12:00:00Z",
    });
    with_digest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut reachable = account();
    reachable["email"] = json!("ada@example.org");
    reachable["display_name"] = json!("Ada");
    let register = json!({ "account_name": "ada", "password": "p", "email": "a@b", "display_name": "Ada" });
    let mut problem = serde_json::to_value(Problem::invalid("url", "no").with_request_id("r")).unwrap();
    problem["retry_after"] = json!(3);
    let key = json!({ "kid": "k", "kty": "RSA", "use": "sig", "alg": "RS256", "n": "n", "e": "AQAB" });

    let about = json!({ "kind": "file", "id": download()["id"] });
    let trigger = json!({ "type": "download.completed", "id": download()["id"] });
    let remind = json!({
        "title": "a", "note": "b", "due_at": "2026-12-24T07:00:00Z", "local_time": "2026-12-24T08:00:00", "time_zone": "UTC",
        "rrule": "FREQ=DAILY", "exdates": ["2026-12-25"], "ends_at": "2027-12-24T07:00:00Z", "channels": ["inbox", "email"],
        "about": about, "on_event": trigger, "unless_event": trigger,
    });
    let mut changes = remind.clone();
    changes["clear"] = json!(["note", "on_event"]);
    let mut whole_reminder = remind.clone();
    whole_reminder.as_object_mut().unwrap().extend(reminder().as_object().unwrap().clone());
    let more = json!({
        "snoozed_until": "2026-12-24T07:00:00Z", "last_fired_at": "2026-12-24T07:00:00Z", "ended_at": "2026-12-24T07:00:00Z",
    });
    whole_reminder.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());

    agree_with_poem::<CreateReminder>("CreateReminder", &remind);
    agree_with_poem::<ReminderChanges>("ReminderChanges", &changes);
    agree_with_poem::<Reminder>("Reminder", &whole_reminder);
    agree_with_poem::<Reminder>("Reminder", &reminder());
    agree::<Page<Reminder>>("ReminderPage", &json!({ "items": [reminder()], "next_cursor": null }));
    agree_with_poem::<CreateDownload>("CreateDownload", &create);
    agree_with_poem::<Register>("Register", &register);
    let change_account = json!({ "email": "a@b", "display_name": "Ada", "clear": ["display_name"], "password": "p" });
    agree_with_poem::<UpdateAccount>("UpdateAccount", &change_account);
    agree_with_poem::<Login>("Login", &json!({ "login": "a", "password": "b", "device_name": "c" }));
    agree_with_poem::<Refresh>("Refresh", &json!({ "refresh_token": "r" }));
    agree_with_poem::<Logout>("Logout", &json!({ "refresh_token": "r" }));
    agree_with_poem::<Download>("Download", &whole);
    agree_with_poem::<Download>("Download", &download());
    agree_with_poem::<File>("File", &with_digest);
    let announce = json!({ "file_name": "a", "size_bytes": 5, "content_type": "text/plain", "sha256": "a".repeat(64) });
    let mut whole_upload = upload();
    let more = json!({
        "content_type": "text/plain", "sha256": "a", "detected_content_type": "text/plain", "file_id": download()["id"],
        "error": { "code": "rejected", "detail": "x" }, "finished_at": "2026-11-20T12:00:00Z",
    });
    whole_upload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut stopped = report();
    stopped["stopped"] = json!("x");
    agree_with_poem::<CreateUpload>("CreateUpload", &announce);
    agree_with_poem::<Upload>("Upload", &whole_upload);
    agree_with_poem::<Upload>("Upload", &upload());
    agree_with_poem::<Transfer>("UploadTransfer", &transfer());
    agree::<Page<Upload>>("UploadPage", &json!({ "items": [upload()], "next_cursor": null }));
    agree_with_poem::<Reconcile>("Reconcile", &json!({ "dry_run": true, "force": true }));
    agree_with_poem::<Report>("ReconciliationReport", &stopped);
    let change_file = json!({
        "name": "a", "folder": "/b", "on_collision": "rename", "tags": ["c"], "description": "d",
        "expires_at": "2026-11-20T12:00:00Z", "clear": ["description"],
    });
    agree_with_poem::<FileChanges>("FileChanges", &change_file);
    agree_with_poem::<Folder>("Folder", &folder());
    agree_with_poem::<CreateFolder>("CreateFolder", &json!({ "path": "/films", "on_collision": "fail" }));
    agree_with_poem::<FolderChanges>("FolderChanges", &json!({ "name": "a", "parent": "/", "on_collision": "rename" }));
    let items = json!([{ "folder": folder() }, { "file": with_digest }]);
    agree::<Listing>("FolderListing", &json!({ "folder": folder(), "items": items, "next_cursor": "c" }));
    agree_with_poem::<CopyTarget>("CopyTarget", &json!({ "name": "a", "folder": "/b", "on_collision": "replace" }));
    let many = json!({ "action": "tag", "ids": [FOLDER], "folder": "/b", "tags": ["a"], "on_collision": "rename" });
    agree_with_poem::<BulkFiles>("BulkFiles", &many);
    let failed = json!({ "id": FOLDER, "error": { "code": "not_found", "detail": "d" } });
    agree_with_poem::<BulkResult>("BulkResult", &json!({ "items": [{ "id": FOLDER }, failed] }));
    let mut hashed = file_version();
    hashed["sha256"] = json!("c");
    agree_with_poem::<FileVersions>("FileVersions", &json!({ "items": [file_version(), hashed] }));
    let to_share = json!({
        "file_id": FOLDER, "folder_id": FOLDER, "password": "correct horse", "expires_at": "2026-11-20T12:00:00Z", "max_downloads": 3,
    });
    agree_with_poem::<CreateShare>("CreateShare", &to_share);
    let mut whole_share = share();
    let more = json!({
        "folder_id": FOLDER, "url": "u", "token": "t", "expires_at": "2026-11-20T12:00:00Z", "max_downloads": 3,
        "ended_at": "2026-11-20T12:00:00Z", "ended_by": "revoked",
    });
    whole_share.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    agree_with_poem::<Share>("Share", &whole_share);
    agree::<Page<Share>>("SharePage", &json!({ "items": [share()], "next_cursor": null }));
    agree_with_poem::<Sweeps>("Sweeps", &json!({ "items": [{ "name": "a", "every_seconds": 3 }] }));
    agree_with_poem::<Swept>("Swept", &json!({ "name": "a", "rows": 3 }));
    agree_with_poem::<Trashed>("Trashed", &trashed());
    agree::<Page<Trashed>>("TrashedPage", &json!({ "items": [trashed()], "next_cursor": null }));
    agree_with_poem::<Restored>("Restored", &json!({ "kind": "folder", "id": FOLDER, "name": "a", "folder": "/" }));
    agree_with_poem::<Link>("FileLink", &json!({ "url": "u", "expires_at": "2026-11-20T12:00:00Z" }));
    agree_with_poem::<Account>("Account", &reachable);
    agree_with_poem::<VerifyEmail>("VerifyEmail", &json!({ "token": "t" }));
    agree_with_poem::<Usage>("Usage", &usage());
    agree_with_poem::<TokenPair>("TokenPair", &token_pair());
    agree_with_poem::<Problem>("Problem", &problem);
    agree_with_poem::<KeySet>("KeySet", &json!({ "keys": [key] }));
    let mut replayed = dead_letter();
    replayed["replayed_at"] = json!("2026-11-20T12:00:00Z");
    agree_with_poem::<DeadLetter>("DeadLetter", &replayed);
    agree_with_poem::<DeadLetter>("DeadLetter", &dead_letter());
    let header = json!({ "name": "a", "value": "b" });
    let opened = json!({ "letter": dead_letter(), "headers": [header], "body_base64": "e30=" });
    agree_with_poem::<OpenedDeadLetter>("OpenedDeadLetter", &opened);
    agree_with_poem::<Statistics>("Statistics", &statistics());
    agree::<Page<DeadLetter>>("DeadLetterPage", &json!({ "items": [dead_letter()], "next_cursor": "c" }));
    let time = "2026-11-20T12:00:00Z";
    let mut whole_webhook = webhook();
    let more = json!({
        "description": "d", "status": "disabled", "disabled_reason": "gone", "disabled_at": time, "secret": "whsec_a",
        "old_secret_until": time, "last_success_at": time, "failing_since": time,
    });
    whole_webhook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let failure = json!({ "code": "http_status", "detail": "x" });
    let attempt = json!({
        "number": 1, "started_at": time, "duration_ms": 7, "response_status": 500, "response_body": "no", "error": failure,
    });
    let mut whole_delivery = delivery();
    let more = json!({
        "event_id": DOWNLOAD, "next_attempt_at": time, "response_status": 500, "error": failure, "finished_at": time, "body": "{}",
        "attempts": [attempt],
    });
    whole_delivery.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let create = json!({ "url": "https://example.org/", "event_types": ["file.*"], "description": "d" });
    agree_with_poem::<CreateWebhook>("CreateWebhook", &create);
    agree_with_poem::<Webhook>("Webhook", &webhook());
    agree_with_poem::<Webhook>("Webhook", &whole_webhook);
    agree_with_poem::<Delivery>("WebhookDelivery", &delivery());
    agree_with_poem::<Delivery>("WebhookDelivery", &whole_delivery);
    agree::<Page<Webhook>>("WebhookPage", &json!({ "items": [webhook()], "next_cursor": null }));
    agree::<Page<Delivery>>("WebhookDeliveryPage", &json!({ "items": [delivery()], "next_cursor": "c" }));
    let mut read = notification();
    read["body"] = json!("9 bytes in /");
    read["read_at"] = json!("2026-11-20T12:00:00Z");
    let quiet_hours = json!({ "from": "22:00", "until": "07:00", "time_zone": "Europe/Berlin" });
    let digest = json!({ "at": "08:00", "weekdays": ["monday"], "time_zone": "Europe/Berlin" });
    let mut settings = notification_settings();
    settings["quiet_hours"] = quiet_hours.clone();
    settings["digest"] = digest.clone();
    let change =
        json!({ "events": { "download.completed": ["inbox"] }, "email": false, "quiet_hours": quiet_hours, "digest": digest });
    agree_with_poem::<Notification>("Notification", &read);
    agree_with_poem::<Settings>("NotificationSettings", &settings);
    agree_with_poem::<ChangeSettings>("ChangeNotificationSettings", &change);
    agree::<Page<Notification>>("NotificationPage", &json!({ "items": [notification()], "next_cursor": null }));
    agree::<Page<Download>>("DownloadPage", &json!({ "items": [download()], "next_cursor": null }));
    agree::<Page<File>>("FilePage", &json!({ "items": [file(1)], "next_cursor": "c" }));
}
