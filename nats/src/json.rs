//! Strict JSON: refuses what serde lets through and a contract must not, and says where it is.
//!
//! serde_json keeps the last of two equal keys, takes an array for a struct and a one-key object for a plain enum value,
//! nests 128 deep, and names a line where a caller wants a field. REST bodies and bus requests both come through here.

use std::fmt;

use serde::{
    Serialize,
    de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use crate::problem::{Code, Problem};

/// Levels of arrays and objects that a body may nest.
pub const MAX_DEPTH: usize = 64;

/// Parse a body. Answers `invalid_body`, naming the field and the position, for what is not JSON or not of this shape.
pub fn parse<T: DeserializeOwned + Serialize>(body: &[u8]) -> Result<T, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::new(Code::InvalidBody, "the body is empty; a JSON object is expected"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let tree = Tree { depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|tree| deserializer.end().map(|()| tree))
        .map_err(|error| refuse(body, &error))?;
    if !tree.is_object() {
        return Err(Problem::new(Code::InvalidBody, format!("a JSON object is expected, not {}", name_of(&tree))));
    }
    let parsed: T = serde_json::from_slice(body).map_err(|error| refuse(body, &error))?;
    let written = serde_json::to_value(&parsed).map_err(|_| Problem::internal())?;
    if let Some((field, message)) = differs(&tree, &written, String::new()) {
        return Err(Problem::at_field(Code::InvalidBody, field, message));
    }
    Ok(parsed)
}

/// Reads any JSON value, refusing equal keys, deep nesting and NUL characters.
#[derive(Clone, Copy)]
struct Tree {
    depth: usize,
}

impl Tree {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format!("nested more than {MAX_DEPTH} levels deep")));
        }
        Ok(Tree { depth: self.depth + 1 })
    }
}

fn text<E: serde::de::Error>(text: &str) -> Result<String, E> {
    if text.contains('\0') {
        return Err(E::custom("the character NUL is not allowed"));
    }
    Ok(text.to_owned())
}

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        text(value).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let key = text(&key)?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate field `{key}`")));
            }
            let value = entries.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// The first place where what was sent is of another kind than what was understood.
fn differs(sent: &Value, understood: &Value, path: String) -> Option<(String, String)> {
    match (sent, understood) {
        (Value::Null, _) => None,
        (Value::Object(sent), Value::Object(understood)) => sent
            .iter()
            .find_map(|(key, value)| understood.get(key).and_then(|understood| differs(value, understood, join(&path, key)))),
        (Value::Array(sent), Value::Array(understood)) => sent
            .iter()
            .zip(understood)
            .enumerate()
            .find_map(|(index, (sent, understood))| differs(sent, understood, join(&path, &index.to_string()))),
        _ if name_of(sent) == name_of(understood) => None,
        _ => Some((path, format!("must be {}, not {}", name_of(understood), name_of(sent)))),
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn join(path: &str, segment: &str) -> String {
    if path.is_empty() { segment.to_owned() } else { format!("{path}.{segment}") }
}

fn refuse(body: &[u8], error: &serde_json::Error) -> Problem {
    let position = format!("line {}, column {}", error.line(), error.column());
    let full = error.to_string();
    let said = full.rfind(" at line ").map_or(full.as_str(), |end| &full[..end]);
    let message = sentence(said);
    if !error.is_data() {
        return Problem::new(Code::InvalidBody, format!("the body is not JSON: {message} ({position})"));
    }
    let mut field = path_at(body, offset(body, error.line(), error.column()));
    if let Some(missing) = said.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        field = join(&field, missing);
    }
    if field.is_empty() {
        return Problem::new(Code::InvalidBody, format!("{message} ({position})"));
    }
    // A name as long as this was not meant for us, and is not sent back.
    let mut problem = Problem::at_field(Code::InvalidBody, field.chars().take(100).collect::<String>(), message);
    problem.detail = format!("{} ({position})", problem.detail);
    problem
}

const TIME: &str = "a time as RFC 3339 writes it, such as 2026-11-20T18:30:00Z";
const ID: &str = "a UUID such as 0198c0de-7a2b-7c3d-8e4f-0123456789ab";

/// What serde says, in the words of whoever wrote the body. Without the value that it repeats, which may be a secret:
/// `invalid type: string "hunter2", expected u8`.
fn sentence(message: &str) -> String {
    if message.starts_with("missing field ") {
        return "is missing".to_owned();
    }
    if message.starts_with("unknown field ") {
        return "unknown field".to_owned();
    }
    if let Some((found, wanted)) = message.rsplit_once(", expected ")
        && found.starts_with("invalid ")
    {
        let (fault, value) = found.split_once(": ").unwrap_or((found, ""));
        let kind = value.split(['`', '"']).next().unwrap_or_default().trim_end();
        return if fault == "invalid type" {
            format!("must be {}, not {}", wanted_words(wanted), kind_words(kind))
        } else {
            format!("must be {}", range_words(wanted))
        };
    }
    if let Some((_, wanted)) = message.strip_prefix("unknown variant ").and_then(|rest| rest.rsplit_once("`, expected ")) {
        return format!("must be {wanted}");
    }
    if message.starts_with("UUID parsing failed") {
        return format!("must be {ID}");
    }
    if is_about_time(message) {
        return format!("must be {TIME}");
    }
    message.to_owned()
}

/// What the crate `time` says of a text that is no time.
fn is_about_time(message: &str) -> bool {
    message == "a character literal was not valid"
        || message.starts_with("the '") && message.ends_with("' component could not be parsed")
        || message.starts_with("unexpected trailing characters; the end of input")
        || message.ends_with(" was not in range")
        || message.starts_with("the `Parsed` struct did not include enough information")
}

fn wanted_words(wanted: &str) -> &str {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a map" => "an object of names and values",
        "a sequence" => "an array",
        "string or map" | "variant identifier" => "a string",
        "a formatted UUID string" => ID,
        _ if wanted.starts_with("an RFC3339-formatted ") => TIME,
        _ if wanted.starts_with("struct ") => "an object",
        _ => wanted,
    }
}

fn kind_words(kind: &str) -> &str {
    match kind {
        "integer" => "a number",
        "floating point" => "a number with a fraction",
        "boolean" => "a boolean",
        "string" => "a string",
        "sequence" => "an array",
        "map" => "an object",
        _ => kind,
    }
}

fn range_words(wanted: &str) -> String {
    let most = match wanted {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" | "usize" => u64::MAX,
        _ => return wanted_words(wanted).to_owned(),
    };
    format!("a whole number from 0 to {most}")
}

/// Byte offset of a position as serde_json counts it: lines from 1, columns in bytes from 1.
fn offset(body: &[u8], line: usize, column: usize) -> usize {
    let mut start = 0;
    for _ in 1..line {
        match body[start..].iter().position(|byte| *byte == b'\n') {
            Some(end) => start += end + 1,
            None => break,
        }
    }
    (start + column).min(body.len())
}

enum Level {
    Object { key: Option<String> },
    Array { index: usize },
}

/// Path of the value that the first `end` bytes of valid JSON end in: `headers.Range`, `items.3`.
fn path_at(body: &[u8], end: usize) -> String {
    let mut levels: Vec<Level> = Vec::new();
    let mut at = 0;
    let mut expects_key = false;
    while at < end {
        match body[at] {
            b'{' => {
                levels.push(Level::Object { key: None });
                expects_key = true;
            }
            b'[' => {
                levels.push(Level::Array { index: 0 });
                expects_key = false;
            }
            // The closing bracket at the very end belongs to the value that the error is about.
            b'}' | b']' if at + 1 < end => {
                levels.pop();
                expects_key = false;
            }
            b'}' => {
                if let Some(Level::Object { key }) = levels.last_mut() {
                    *key = None;
                }
            }
            b',' => match levels.last_mut() {
                Some(Level::Object { key }) => {
                    *key = None;
                    expects_key = true;
                }
                Some(Level::Array { index }) => *index += 1,
                None => {}
            },
            b'"' => {
                let start = at;
                at += 1;
                while at < body.len() && body[at] != b'"' {
                    at += if body[at] == b'\\' { 2 } else { 1 };
                }
                if expects_key {
                    let text = body.get(start..=at).and_then(|text| serde_json::from_slice::<String>(text).ok());
                    if let Some(Level::Object { key }) = levels.last_mut() {
                        *key = text;
                    }
                    expects_key = false;
                }
            }
            _ => {}
        }
        at += 1;
    }
    let segments: Vec<String> = levels
        .into_iter()
        .filter_map(|level| match level {
            Level::Object { key } => key,
            Level::Array { index } => Some(index.to_string()),
        })
        .collect();
    segments.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{download::CreateDownload, session::Login};

    fn refused(body: &str) -> Problem {
        parse::<CreateDownload>(body.as_bytes()).expect_err(body)
    }

    #[test]
    fn a_body_of_the_right_shape_is_parsed() {
        let body = r#"{"url": "https://example.org/a", "headers": {"Range": "x"}, "checksum": {"algorithm": "sha256", "value": "00"},
            "priority": 3, "file_name": null, "start_at": "2030-01-01T00:00:00Z"}"#;
        let parsed: CreateDownload = parse(body.as_bytes()).unwrap();
        assert_eq!((parsed.url.as_str(), parsed.priority, parsed.file_name), ("https://example.org/a", Some(3), None));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let cases = [
            (r#"{"url": 5}"#, "url", "must be a string, not a number"),
            (r#"{"url": "x", "nonsense": 1}"#, "nonsense", "unknown field"),
            (r#"{"file_name": "x"}"#, "url", "is missing"),
            ("{}", "url", "is missing"),
            (r#"{"url": "x", "url": "y"}"#, "url", "duplicate field `url`"),
            (r#"{"url": "x", "headers": {"A": "1", "A": "2"}}"#, "headers.A", "duplicate field `A`"),
            (r#"{"url": "x", "headers": {"A": 1}}"#, "headers.A", "must be a string, not a number"),
            (r#"{"url": "x", "headers": ["a"]}"#, "headers", "must be an object of names and values, not an array"),
            (
                r#"{"url": "x", "checksum": {"algorithm": "md5", "value": ""}}"#,
                "checksum.algorithm",
                "must be `sha256` or `sha512`",
            ),
            (r#"{"url": "x", "checksum": {"algorithm": "sha256"}}"#, "checksum.value", "is missing"),
            (r#"{"url": "x", "checksum": ["sha256", "00"]}"#, "checksum", "must be an object, not an array"),
            (
                r#"{"url": "x", "checksum": "abc"}"#,
                "checksum",
                r#"must be an object such as {"algorithm": "sha256", "value": "64 hexadecimal digits"}, not a string"#,
            ),
            (
                r#"{"url": "x", "checksum": {"algorithm": {"sha256": null}, "value": "00"}}"#,
                "checksum.algorithm",
                "must be a string, not an object",
            ),
            (r#"{"url": "x", "priority": 300}"#, "priority", "must be a whole number from 0 to 255"),
            (r#"{"url": "x", "priority": -1}"#, "priority", "must be a whole number from 0 to 255"),
            (r#"{"url": "x", "priority": 1.5}"#, "priority", "must be a whole number, not a number with a fraction"),
            (r#"{"url": "x", "priority": "1, expected"}"#, "priority", "must be a whole number, not a string"),
            (r#"{"url": "x", "start_at": "tomorrow"}"#, "start_at", "must be a time as RFC 3339 writes it, such as 2026-"),
            (r#"{"url": "x", "start_at": "2026-11-20"}"#, "start_at", "must be a time as RFC 3339 writes it"),
            (r#"{"url": "x", "start_at": "2026-11-20T18:30:00"}"#, "start_at", "must be a time as RFC 3339 writes it"),
            (r#"{"url": "x", "start_at": "2026-11-20T18:30:00Zx"}"#, "start_at", "must be a time as RFC 3339 writes it"),
            (r#"{"url": "x", "start_at": "2026-11-31T18:30:00Z"}"#, "start_at", "must be a time as RFC 3339 writes it"),
            (r#"{"url": "x", "start_at": ""}"#, "start_at", "must be a time as RFC 3339 writes it"),
            (
                r#"{"url": "x", "start_at": 5}"#,
                "start_at",
                "must be a time as RFC 3339 writes it, such as 2026-11-20T18:30:00Z, not a number",
            ),
            (
                r#"{"url": "x", "start_at": {}}"#,
                "start_at",
                "must be a time as RFC 3339 writes it, such as 2026-11-20T18:30:00Z, not an object",
            ),
            (r#"{"url": true}"#, "url", "must be a string, not a boolean"),
            (r#"{"url": null}"#, "url", "must be a string, not null"),
            (r#"{"url": {}}"#, "url", "must be a string, not an object"),
            (r#"{"url": "a\u0000b"}"#, "url", "the character NUL is not allowed"),
        ];
        for (body, field, message) in cases {
            let problem = refused(body);
            assert_eq!(problem.code, Code::InvalidBody, "{body}");
            assert_eq!(problem.errors.len(), 1, "{body}: {problem:?}");
            assert_eq!(problem.errors[0].field, field, "{body}: {problem:?}");
            assert!(problem.errors[0].message.starts_with(message), "{body}: {problem:?}");
        }
    }

    #[test]
    fn an_id_that_is_none_is_told_what_one_looks_like() {
        for body in [r#"{"id": "x"}"#, r#"{"id": "0198c0de-7a2b-7c3d-8e4f-0123456789ag"}"#, r#"{"id": 5}"#] {
            let problem = parse::<crate::download::GetDownload>(body.as_bytes()).unwrap_err();
            assert!(problem.errors[0].message.starts_with("must be a UUID such as "), "{problem:?}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_position() {
        for body in [
            "",
            " \n",
            "nonsense",
            "{",
            "{\"url\": \"x\"} x",
            "{'url': 1}",
            "{\"url\": \"x\",}",
            "\u{feff}{}",
            "{\"url\": \"\\ud800\"}",
        ] {
            let problem = refused(body);
            assert_eq!(problem.code, Code::InvalidBody, "{body}");
            assert!(problem.errors.is_empty(), "{body}: {problem:?}");
        }
        assert!(refused("{\n\"url\": nope}").detail.contains("line 2, column"));
        assert!(parse::<CreateDownload>(b"{\"url\": \"\xff\"}").is_err());
    }

    #[test]
    fn an_array_is_not_taken_for_an_object() {
        let problem = parse::<Login>(br#"["name", "password"]"#).unwrap_err();
        assert_eq!(problem.detail, "a JSON object is expected, not an array");
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_is_at_risk() {
        let nested = |levels: usize| format!("{{\"url\": {}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(refused(&nested(MAX_DEPTH)).detail.contains("64 levels"));
        assert!(!refused(&nested(MAX_DEPTH - 1)).detail.contains("64 levels"));
        assert!(refused(&nested(100_000)).detail.contains("64 levels"));
    }
}
