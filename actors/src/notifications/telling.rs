//! What people are told of an event: one line, and sometimes more. Whatever somebody else wrote is made one line of text
//! that can be seen, and short.

use bowerbird_nats::event::Event;
use serde_json::Value;

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
        "fired" => (title.to_owned(), note),
        "missed" => (format!("Missed: {title}"), note),
        other => (format!("Reminder {other}: {title}"), note),
    }
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
            ("reminder.missed", json!({"reminder": {"title": "Milk"}}), "Missed: Milk", None),
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
