//! `openapi.json`: what poem-openapi derives, completed with what it cannot say: which problems each operation can
//! answer with, and that bodies have no other fields.

use bowerbird_nats::{Code, problem::CONTENT_TYPE};
use serde_json::{Map, Value, json};

/// Methods of a path item.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// What any operation can answer: a malformed request, a fault of ours.
const ALWAYS: &[Code] =
    &[Code::BadRequest, Code::InvalidValue, Code::HeadTooLarge, Code::RequestTimeout, Code::UnsupportedMediaType, Code::Internal];
/// What any operation with a body can.
const WITH_BODY: &[Code] = &[Code::InvalidBody, Code::BodyTooLarge];
/// What any operation with a token can.
const WITH_TOKEN: &[Code] = &[Code::Unauthorized, Code::TokenExpired, Code::Forbidden, Code::TooMany];
/// What any question to the actors can.
const ASKED: &[Code] = &[Code::Unavailable, Code::Timeout];

/// What each operation can answer beyond that.
const PROBLEMS: &[(&str, &[Code])] = &[
    (
        "register",
        &[
            Code::RegistrationClosed,
            Code::NameTaken,
            Code::RequestInProgress,
            Code::IdempotencyKeyReused,
            Code::TooMany,
            Code::Unavailable,
            Code::Timeout,
        ],
    ),
    ("login", &[Code::InvalidCredentials, Code::Forbidden, Code::TooMany, Code::Unavailable, Code::Timeout]),
    ("refresh", &[Code::InvalidRefreshToken, Code::Forbidden, Code::TooMany, Code::Unavailable, Code::Timeout]),
    ("logout", &[Code::InvalidRefreshToken, Code::TooMany, Code::Unavailable, Code::Timeout]),
    ("verify_email", &[Code::TooMany, Code::Unavailable, Code::Timeout]),
    ("request_email_verification", &[Code::InvalidState]),
    ("get_account", &[Code::NotFound]),
    ("update_account", &[]),
    ("get_usage", &[Code::NotFound]),
    ("create_download", &[Code::RequestInProgress, Code::QuotaExceeded, Code::IdempotencyKeyReused, Code::BlockedTarget]),
    ("list_downloads", &[Code::InvalidCursor]),
    ("get_download", &[Code::NotFound]),
    ("update_download", &[Code::NotFound, Code::InvalidState, Code::BlockedTarget]),
    ("delete_download", &[Code::NotFound, Code::InvalidState]),
    ("cancel_download", &[Code::NotFound, Code::InvalidState]),
    ("retry_download", &[Code::NotFound, Code::InvalidState, Code::QuotaExceeded, Code::BlockedTarget]),
    ("get_download_file", &[Code::NotFound, Code::InvalidState, Code::RangeNotSatisfiable, Code::StorageUnavailable]),
    ("list_files", &[Code::InvalidCursor]),
    ("get_file", &[Code::NotFound]),
    ("update_file", &[Code::NotFound, Code::NameTaken, Code::VersionMismatch]),
    ("delete_file", &[Code::NotFound]),
    (
        "copy_file",
        &[
            Code::NotFound,
            Code::InvalidState,
            Code::NameTaken,
            Code::QuotaExceeded,
            Code::RequestInProgress,
            Code::IdempotencyKeyReused,
            Code::StorageUnavailable,
        ],
    ),
    ("bulk_files", &[]),
    ("list_file_versions", &[Code::NotFound]),
    ("restore_file_version", &[Code::NotFound, Code::InvalidState]),
    ("create_folder", &[Code::NameTaken, Code::RequestInProgress, Code::IdempotencyKeyReused]),
    ("list_folder", &[Code::NotFound, Code::InvalidCursor]),
    ("list_folder_children", &[Code::NotFound, Code::InvalidCursor]),
    ("get_folder", &[Code::NotFound]),
    ("update_folder", &[Code::NotFound, Code::InvalidState, Code::NameTaken, Code::VersionMismatch]),
    ("delete_folder", &[Code::NotFound, Code::InvalidState]),
    ("get_folder_zip", &[Code::NotFound, Code::StorageUnavailable]),
    ("create_share", &[Code::NotFound, Code::RequestInProgress, Code::IdempotencyKeyReused]),
    ("list_shares", &[Code::InvalidCursor]),
    ("revoke_share", &[Code::NotFound]),
    ("list_trash", &[Code::InvalidCursor]),
    ("restore_trashed", &[Code::NotFound, Code::NameTaken]),
    ("purge_trashed", &[Code::NotFound]),
    ("get_file_url", &[Code::NotFound, Code::InvalidState, Code::StorageUnavailable]),
    ("get_file_content", &[Code::NotFound, Code::InvalidState, Code::RangeNotSatisfiable, Code::StorageUnavailable]),
    ("create_upload", &[Code::RequestInProgress, Code::QuotaExceeded, Code::IdempotencyKeyReused]),
    ("list_uploads", &[Code::InvalidCursor]),
    ("get_upload", &[Code::NotFound]),
    ("link_upload", &[Code::NotFound, Code::InvalidState, Code::StorageUnavailable]),
    ("complete_upload", &[Code::NotFound, Code::InvalidState, Code::StorageUnavailable]),
    ("abort_upload", &[Code::NotFound, Code::InvalidState]),
    ("reconcile", &[Code::InvalidState]),
    ("get_statistics", &[]),
    ("get_system_statistics", &[]),
    ("list_sweeps", &[]),
    ("run_sweep", &[Code::NotFound]),
    ("list_dead_letters", &[Code::InvalidCursor]),
    ("get_dead_letter", &[Code::NotFound]),
    ("replay_dead_letter", &[Code::NotFound]),
    ("delete_dead_letter", &[Code::NotFound]),
    ("create_reminder", &[Code::RequestInProgress, Code::IdempotencyKeyReused]),
    ("list_reminders", &[Code::InvalidCursor]),
    ("get_reminder", &[Code::NotFound]),
    ("update_reminder", &[Code::NotFound, Code::InvalidState, Code::VersionMismatch]),
    ("cancel_reminder", &[Code::NotFound, Code::InvalidState]),
    ("snooze_reminder", &[Code::NotFound, Code::InvalidState]),
    ("skip_reminder", &[Code::NotFound, Code::InvalidState]),
    ("complete_reminder", &[Code::NotFound, Code::InvalidState]),
    ("create_webhook", &[Code::RequestInProgress, Code::IdempotencyKeyReused, Code::BlockedTarget]),
    ("list_webhooks", &[Code::InvalidCursor]),
    ("get_webhook", &[Code::NotFound]),
    ("update_webhook", &[Code::NotFound, Code::BlockedTarget]),
    ("delete_webhook", &[Code::NotFound]),
    ("test_webhook", &[Code::NotFound]),
    ("rotate_webhook_secret", &[Code::NotFound, Code::RequestInProgress, Code::IdempotencyKeyReused]),
    ("list_webhook_deliveries", &[Code::NotFound, Code::InvalidCursor]),
    ("get_webhook_delivery", &[Code::NotFound]),
    ("retry_webhook_delivery", &[Code::NotFound, Code::InvalidState]),
    ("list_notifications", &[Code::InvalidCursor]),
    ("read_notification", &[Code::NotFound]),
    ("read_all_notifications", &[]),
    ("get_notification_settings", &[]),
    ("change_notification_settings", &[]),
    ("follow_events", &[]),
    ("get_keys", &[]),
];

/// Complete a derived document. Fails only for a document that is not one.
pub(crate) fn complete(derived: &str) -> Result<String, serde_json::Error> {
    let mut document: Value = serde_json::from_str(derived)?;
    document["openapi"] = json!("3.0.3");
    close_bodies(&mut document);
    plain_references(&mut document["components"]["schemas"]);
    if let Some(paths) = document["paths"].as_object_mut() {
        for item in paths.values_mut() {
            for method in METHODS {
                if let Some(operation) = item.get_mut(method) {
                    add_problems(operation);
                }
            }
        }
    }
    serde_json::to_string_pretty(&sorted(document)).map(|text| text + "\n")
}

fn add_problems(operation: &mut Value) {
    let codes = codes_of(operation);
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    // What poem-openapi says of the error type stands for all of them.
    responses.remove("default");
    if let Some(good) = responses.get_mut("200").filter(|response| response["description"] == "") {
        good["description"] = json!("What was asked for.");
    }
    for response in responses.values_mut() {
        if let Some(headers) = response.get_mut("headers").and_then(Value::as_object_mut) {
            *headers = std::mem::take(headers).into_iter().map(|(name, header)| (as_written(&name), header)).collect();
        }
    }
    let mut statuses: Vec<u16> = codes.iter().map(|code| code.status()).collect();
    statuses.sort_unstable();
    statuses.dedup();
    for status in statuses {
        let meant: Vec<Code> = codes.iter().copied().filter(|code| code.status() == status).collect();
        let lines: Vec<String> = meant.iter().map(|code| format!("`{code}`: {}", code.meaning())).collect();
        let mut response = json!({
            "description": lines.join("\n\n"),
            "content": { CONTENT_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } },
        });
        if let Some((name, header)) = header_of(status) {
            response["headers"] = json!({ name: header });
        }
        responses.insert(status.to_string(), response);
    }
}

/// poem-openapi writes names of headers in capitals: `CACHE-CONTROL` for `Cache-Control`.
fn as_written(name: &str) -> String {
    if name.contains(|c: char| c.is_ascii_lowercase()) {
        return name.to_owned();
    }
    let mut begins = true;
    name.chars()
        .map(|c| {
            let written = if begins { c } else { c.to_ascii_lowercase() };
            begins = c == '-';
            written
        })
        .collect()
}

fn codes_of(operation: &Value) -> Vec<Code> {
    let id = operation["operationId"].as_str().unwrap_or_default();
    let own = PROBLEMS.iter().find(|(known, _)| *known == id).map_or(&[][..], |(_, codes)| codes);
    let mut codes = [ALWAYS, own].concat();
    if operation.get("requestBody").is_some() {
        codes.extend(WITH_BODY);
    }
    if operation.get("security").is_some() {
        codes.extend([WITH_TOKEN, ASKED].concat());
    }
    Code::ALL.iter().copied().filter(|code| codes.contains(code)).collect()
}

fn header_of(status: u16) -> Option<(&'static str, Value)> {
    let header = |description: &str, kind: &str| json!({ "description": description, "schema": { "type": kind } });
    match status {
        401 => Some(("WWW-Authenticate", header("`Bearer`, with an `error` if the token was not good.", "string"))),
        416 => Some(("Content-Range", header("How many bytes there are.", "string"))),
        429 | 503 => Some(("Retry-After", header("Seconds after which another try makes sense.", "integer"))),
        _ => None,
    }
}

/// Bodies that are sent to us have no other fields than the documented ones.
fn close_bodies(document: &mut Value) {
    let mut open: Vec<String> = Vec::new();
    if let Some(paths) = document["paths"].as_object() {
        for operation in paths.values().filter_map(Value::as_object).flat_map(Map::values) {
            references(&operation["requestBody"], &mut open);
        }
    }
    let mut closed = Vec::new();
    while let Some(name) = open.pop() {
        let schema = &mut document["components"]["schemas"][&name];
        references(schema, &mut open);
        if schema["type"] == "object" {
            schema["additionalProperties"] = json!(false);
        }
        closed.push(name);
        open.retain(|name| !closed.contains(name));
    }
}

/// poem-openapi says what it adds to a reference twice: beside it and in a part of its own.
fn plain_references(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::Array(parts)) = object.get_mut("allOf") {
                parts.retain(|part| part.get("$ref").is_some());
            }
            object.values_mut().for_each(plain_references);
        }
        Value::Array(items) => items.iter_mut().for_each(plain_references),
        _ => {}
    }
}

/// Names of the schemas that a value refers to.
fn references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let Some(name) = object.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
                names.push(name.to_owned());
            }
            object.values().for_each(|value| references(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, names)),
        _ => {}
    }
}

/// The same however serde_json keeps its maps.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<(String, Value)> = object.into_iter().collect();
            entries.sort_by(|(left, _), (right, _)| left.cmp(right));
            Value::Object(entries.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi_document;

    #[test]
    fn each_operation_has_its_problems_listed_and_none_is_listed_in_vain() {
        let document: Value = serde_json::from_str(&openapi_document().unwrap()).unwrap();
        let mut documented: Vec<&str> = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
            .map(|operation| operation["operationId"].as_str().unwrap())
            .collect();
        let mut listed: Vec<&str> = PROBLEMS.iter().map(|(id, _)| *id).collect();
        documented.sort_unstable();
        listed.sort_unstable();
        assert_eq!(documented, listed);
    }

    #[test]
    fn bodies_are_closed_and_answers_stay_open() {
        let document: Value = serde_json::from_str(&openapi_document().unwrap()).unwrap();
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["CreateDownload"]["additionalProperties"], false);
        assert_eq!(schemas["Download"].get("additionalProperties"), None);
    }

    #[test]
    fn no_answer_is_documented_as_a_default() {
        assert!(!openapi_document().unwrap().contains("\"default\": {\n"));
    }
}
