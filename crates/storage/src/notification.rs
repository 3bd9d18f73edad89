//! Bucket notifications in the JSON that MinIO and RustFS send: written by the embedded store, read from any.
//!
//! A notification is a hint: at least once, in no order, and perhaps forged. Whoever acts on one asks the bucket first.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What became of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is there, new or in the place of another.
    Created,
    /// It is gone.
    Removed,
}

/// One thing that happened to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Which of the two.
    pub kind: Kind,
    /// The event's own name: `s3:ObjectCreated:Put`.
    pub name: String,
    /// When, in UTC.
    pub time: OffsetDateTime,
    /// Name of the bucket.
    pub bucket: String,
    /// The key, decoded.
    pub key: String,
    /// Length of the object; unknown when it is gone.
    pub size_bytes: Option<u64>,
    /// Its entity tag, without quotes.
    pub etag: Option<String>,
    /// Its media type.
    pub content_type: Option<String>,
    /// Its user metadata.
    pub metadata: BTreeMap<String, String>,
    /// Rises with every event of the same key; no order between keys.
    pub sequencer: Option<u64>,
}

/// It is not a notification.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not the JSON of one.
    #[error("not the JSON of a bucket notification")]
    Json(#[from] serde_json::Error),
    /// No record in it.
    #[error("a bucket notification without a record")]
    Empty,
    /// An event that says neither that an object came nor that it went.
    #[error("an event of another kind: {0}")]
    OtherKind(String),
    /// The key cannot be decoded.
    #[error("the key is missing, or not UTF-8 once decoded")]
    Key,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    event_name: &'a str,
    key: String,
    records: Vec<Record>,
}

/// What is read: each record by itself, so that one that is not understood takes no other along.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    records: Option<Vec<Value>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    #[serde(default, skip_deserializing)]
    event_version: String,
    #[serde(default, skip_deserializing)]
    event_source: String,
    #[serde(default, skip_deserializing)]
    aws_region: String,
    #[serde(default, deserialize_with = "or_empty")]
    event_time: String,
    event_name: String,
    s3: Subject,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subject {
    #[serde(default, skip_deserializing)]
    s3_schema_version: String,
    bucket: BucketName,
    object: Object,
}

#[derive(Serialize, Deserialize)]
struct BucketName {
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    #[serde(default, deserialize_with = "or_empty")]
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e_tag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_metadata: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequencer: Option<String>,
}

/// A text that may be missing, or be `null`.
fn or_empty<'de, D: Deserializer<'de>>(text: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(text)?.unwrap_or_default())
}

/// What MinIO leaves in a key: it escapes as a query does, so `/` becomes `%2F` and a space `+`.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

impl Notification {
    /// As JSON: one record.
    pub fn to_json(&self) -> Vec<u8> {
        let object = Object {
            key: utf8_percent_encode(&self.key, KEPT).to_string().replace(' ', "+"),
            size: self.size_bytes,
            e_tag: self.etag.clone(),
            content_type: self.content_type.clone(),
            user_metadata: (!self.metadata.is_empty()).then(|| self.metadata.clone()),
            sequencer: self.sequencer.map(|sequencer| format!("{sequencer:X}")),
        };
        let envelope = Written {
            event_name: &self.name,
            key: format!("{}/{}", self.bucket, self.key),
            records: vec![Record {
                event_version: "2.0".to_owned(),
                event_source: "bowerbird:s3".to_owned(),
                aws_region: String::new(),
                event_time: self.time.format(&Rfc3339).unwrap_or_default(),
                event_name: self.name.clone(),
                s3: Subject { s3_schema_version: "1.0".to_owned(), bucket: BucketName { name: self.bucket.clone() }, object },
            }],
        };
        // Strings, numbers and lists of them: there is nothing that could fail.
        serde_json::to_vec(&envelope).unwrap_or_default()
    }

    /// Read the JSON of MinIO, RustFS, AWS or ours, each record by itself. The error is for what is no notification at all;
    /// nothing comes of one without records, such as the test event that AWS sends when a rule is made.
    pub fn read_all(json: &[u8]) -> Result<Vec<Result<Self, ParseError>>, ParseError> {
        let envelope: Envelope = serde_json::from_slice(json)?;
        let whole = envelope.key.unwrap_or_default();
        let records = envelope.records.unwrap_or_default();
        Ok(records.into_iter().map(|record| Notification::of(serde_json::from_value(record)?, &whole)).collect())
    }

    /// Read the first record.
    pub fn from_json(json: &[u8]) -> Result<Self, ParseError> {
        Notification::read_all(json)?.into_iter().next().ok_or(ParseError::Empty)?
    }

    /// A record; `whole` is the `bucket/key` beside it, which is not escaped.
    fn of(record: Record, whole: &str) -> Result<Self, ParseError> {
        // AWS leaves the `s3:` out.
        let bare = record.event_name.strip_prefix("s3:").unwrap_or(&record.event_name);
        let kind = if bare.starts_with("ObjectCreated:") {
            Kind::Created
        } else if bare.starts_with("ObjectRemoved:") || bare.starts_with("LifecycleExpiration:") {
            Kind::Removed
        } else {
            return Err(ParseError::OtherKind(record.event_name));
        };
        let object = record.s3.object;
        let bucket = record.s3.bucket.name;
        let spaced = object.key.replace('+', " ");
        let mut key = percent_decode_str(&spaced).decode_utf8().map_err(|_| ParseError::Key)?.into_owned();
        if key.is_empty() {
            // Some releases of RustFS leave the key of a completed upload in parts out of the record.
            whole.strip_prefix(&bucket).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default().clone_into(&mut key);
        }
        if key.is_empty() {
            return Err(ParseError::Key);
        }
        Ok(Notification {
            kind,
            time: OffsetDateTime::parse(&record.event_time, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH),
            name: record.event_name,
            bucket,
            key,
            size_bytes: object.size,
            etag: object.e_tag.map(|tag| tag.trim_matches('"').to_owned()).filter(|tag| !tag.is_empty()),
            content_type: object.content_type,
            metadata: object.user_metadata.unwrap_or_default(),
            // Not padded, so it is compared as a number.
            sequencer: object.sequencer.and_then(|sequencer| u64::from_str_radix(&sequencer, 16).ok()),
        })
    }
}
