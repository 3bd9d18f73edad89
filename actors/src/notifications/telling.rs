//! What people are told of an event: one line, and sometimes more. Whatever somebody else wrote is made one line of text
//! that can be seen, and short.

use bowerbird_nats::event::Event;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::mail::letter::moment;
use crate::downloads::check::is_deceiving;

/// Longest title, in characters.
const TITLE_MAX: usize = 200;
/// Longest body, in characters.
const BODY_MAX: usize = 2000;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Telling {
    /// One line.
    pub(crate) title: String,
    /// More of it.
    pub(crate) body: Option<String>,
}

/// What is told of this event. Of a type that this version does not know, its name.
pub(crate) fn tell(event: &Event) -> Telling {
    let data = &event.data;
    let (title, body) = match event.event_type.area() {
        "download" => download(event.event_type.name(), &data["download"]),
        "file" => file(event.event_type.name(), &data["file"]),
        "session" => session(event.event_type.name(), data),
        "reminder" => reminder(event.event_type.name(), data),
        "webhook" => webhook(event, data),
        _ => (plain(event), None),
    };
    let title = line(&title, TITLE_MAX);
    let title = if title.is_empty() { line(&plain(event), TITLE_MAX) } else { title };
    Telling { title, body: body.map(|body| text(&body, BODY_MAX)).filter(|body| !body.is_empty()) }
}

fn download(name: &str, download: &Value) -> (String, Option<String>) {
    let what = first_of(download, &["file_name", "url"]);
    match name {
        "completed" => {
            (format!("Downloaded: {what}"), size(download).map(|size| format!("{size} in {}", field(download, "folder"))))
        }
        "failed" => (format!("Download failed: {what}"), some(field(&download["error"], "detail"))),
        other => (format!("Download {other}: {what}"), None),
    }
}

fn file(name: &str, file: &Value) -> (String, Option<String>) {
    match name {
        "available" => {
            (format!("New file: {}", field(file, "name")), size(file).map(|size| format!("{size} in {}", field(file, "folder"))))
        }
        other => (format!("File {other}: {}", field(file, "name")), None),
    }
}

fn session(name: &str, data: &Value) -> (String, Option<String>) {
    match name {
        "opened" => ("New login".to_owned(), some(field(data, "device_name")).map(|device| format!("On {device}"))),
        _ => ("A login ended".to_owned(), None),
    }
}

fn reminder(name: &str, data: &Value) -> (String, Option<String>) {
    let reminder = if data["reminder"].is_object() { &data["reminder"] } else { data };
    let (title, note) = (field(reminder, "title"), some(field(reminder, "note")));
    match name {
        "fired" if data["late"] == true => {
            (title.to_owned(), lines([note, due(data).map(|due| format!("Was due {due}; this is late."))]))
        }
        "fired" => (title.to_owned(), note),
        "missed" => {
            let due = due(data).map(|due| match data["occurrences"].as_i64() {
                Some(many @ 2..) => format!("{many} times, first due {due}."),
                _ => format!("Was due {due}."),
            });
            (format!("Missed: {title}"), lines([note, due, some(field(data, "reason"))]))
        }
        other => (format!("Reminder {other}: {title}"), note),
    }
}

fn webhook(event: &Event, data: &Value) -> (String, Option<String>) {
    let why = some(field(&data["error"], "detail"));
    match event.event_type.name() {
        // Told in its place, so it looks as it would have there.
        "failed" if data["reminder"].is_object() => {
            let (title, note) = (field(&data["reminder"], "title"), some(field(&data["reminder"], "note")));
            let not_there = why.map(|why| format!("Your webhook did not take this: {why}"));
            (title.to_owned(), lines([note, not_there]))
        }
        "failed" => (format!("Webhook message given up: {}", field(data, "event_type")), why),
        "disabled" => {
            let which = [field(data, "origin"), field(data, "description")].into_iter().filter(|text| !text.is_empty());
            let reason = match field(data, "reason") {
                "gone" => Some("The receiver answered that it is gone (410).".to_owned()),
                "failing" => Some("Every try failed for days.".to_owned()),
                other => some(other),
            };
            let way_back = Some("Enable it again when the receiver is well; what was not received can be sent again.".to_owned());
            (format!("Webhook disabled: {}", which.collect::<Vec<_>>().join(", ")), lines([reason, way_back]))
        }
        _ => (plain(event), None),
    }
}

/// When it was due, as people read it.
fn due(data: &Value) -> Option<String> {
    OffsetDateTime::parse(field(data, "due_at"), &Rfc3339).ok().map(moment)
}

/// Those that there are, each in a line of its own.
fn lines<const N: usize>(parts: [Option<String>; N]) -> Option<String> {
    some(&parts.into_iter().flatten().collect::<Vec<_>>().join("\n"))
}

/// `share.opened` as `Share opened`.
fn plain(event: &Event) -> String {
    let words = event.event_type.as_str().replace(['.', '_'], " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn first_of<'a>(value: &'a Value, names: &[&str]) -> &'a str {
    names.iter().map(|name| field(value, name)).find(|text| !text.is_empty()).unwrap_or_default()
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// `1.4 GiB`
fn size(value: &Value) -> Option<String> {
    let bytes = value["size_bytes"].as_u64()?;
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    Some(match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = bytes / (unit / 10);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    })
}

/// One line: what cannot be seen becomes a space, runs of space become one.
pub(crate) fn line(given: &str, most: usize) -> String {
    let seen: String = given.chars().map(|c| if is_deceiving(c) { ' ' } else { c }).collect();
    shorten(&seen.split_whitespace().collect::<Vec<_>>().join(" "), most)
}

/// Several lines, otherwise as [`line`].
fn text(given: &str, most: usize) -> String {
    let lines: Vec<String> = given.replace("\r\n", "\n").split(['\n', '\r']).map(|part| line(part, most)).collect();
    shorten(lines.join("\n").trim(), most)
}

fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use bowerbird_nats::{EventId, EventType};
    use proptest::prelude::*;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn event(event_type: &str, data: Value) -> Event {
        Event {
            id: EventId(Uuid::from_u128(1)),
            event_type: event_type.parse::<EventType>().unwrap(),
            account_id: None,
            entity_id: Uuid::from_u128(2),
            entity_sequence: 1,
            time: time::OffsetDateTime::UNIX_EPOCH,
            data,
            traceparent: None,
        }
    }

    #[test]
    fn each_kind_of_event_is_told_in_words() {
        let download = json!({"download": {"url": "https://example.org/a", "file_name": "film.mkv", "folder": "/films",
            "size_bytes": 1_503_238_553, "error": {"detail": "the server answered 404"}}});
        let cases = [
            ("download.completed", download.clone(), "Downloaded: film.mkv", Some("1.4 GiB in /films")),
            ("download.failed", download.clone(), "Download failed: film.mkv", Some("the server answered 404")),
            ("download.paused", download, "Download paused: film.mkv", None),
            ("session.opened", json!({"device_name": "phone"}), "New login", Some("On phone")),
            ("reminder.fired", json!({"title": "Milk", "note": "two\nlitres"}), "Milk", Some("two\nlitres")),
            (
                "reminder.fired",
                json!({"title": "Milk", "note": "two", "late": true, "due_at": "2026-11-20T12:56:11Z"}),
                "Milk",
                Some("two\nWas due 2026-11-20 12:56 UTC; this is late."),
            ),
            ("reminder.fired", json!({"title": "Milk", "late": false, "due_at": "2026-11-20T12:56:11Z"}), "Milk", None),
            ("reminder.missed", json!({"reminder": {"title": "Milk"}}), "Missed: Milk", None),
            (
                "reminder.missed",
                json!({"title": "Milk", "due_at": "2026-11-20T12:56:11Z", "occurrences": 3, "reason": "the server was down"}),
                "Missed: Milk",
                Some("3 times, first due 2026-11-20 12:56 UTC.\nthe server was down"),
            ),
            (
                "webhook.disabled",
                json!({"origin": "https://example.org", "description": "media", "reason": "gone"}),
                "Webhook disabled: https://example.org, media",
                Some(
                    "The receiver answered that it is gone (410).\nEnable it again when the receiver is well; what was not received can \
                     be sent again.",
                ),
            ),
            (
                "webhook.failed",
                json!({"event_type": "file.available", "error": {"detail": "it answered 500"}}),
                "Webhook message given up: file.available",
                Some("it answered 500"),
            ),
            (
                "webhook.failed",
                json!({"event_type": "reminder.fired", "error": {"detail": "it answered 500"}, "reminder": {"title": "Milk"}}),
                "Milk",
                Some("Your webhook did not take this: it answered 500"),
            ),
            ("share.opened", json!({}), "Share opened", None),
            ("reminder.fired", json!({}), "Reminder fired", None),
            ("download.completed", json!(null), "Downloaded:", None),
        ];
        for (event_type, data, title, body) in cases {
            let telling = tell(&event(event_type, data));
            assert_eq!((telling.title.as_str(), telling.body.as_deref()), (title, body), "{event_type}");
        }
    }

    proptest! {
        #[test]
        fn whatever_somebody_wrote_becomes_one_visible_line_of_bounded_length(title in any::<String>(), note in any::<String>()) {
            let telling = tell(&event("reminder.fired", json!({"title": title, "note": note})));
            prop_assert!((1..=TITLE_MAX).contains(&telling.title.chars().count()));
            prop_assert!(!telling.title.chars().any(is_deceiving));
            let body = telling.body.unwrap_or_default();
            prop_assert!(body.chars().count() <= BODY_MAX && !body.chars().any(|c| c != '\n' && is_deceiving(c)));
        }
    }
}
