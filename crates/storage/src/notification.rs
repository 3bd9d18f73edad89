//! Bucket notifications in the JSON that MinIO and RustFS send: written by the embedded store, read from any.
//!
//! A notification is a hint: at least once, in no order, and perhaps forged. Whoever acts on one asks the bucket first.

use std::{borrow::Cow, collections::BTreeMap};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
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

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<'a> {
    #[serde(default, borrow)]
    event_name: Cow<'a, str>,
    #[serde(default, borrow)]
    key: Cow<'a, str>,
    #[serde(default)]
    records: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    #[serde(default)]
    event_version: String,
    #[serde(default)]
    event_source: String,
    #[serde(default)]
    aws_region: String,
    #[serde(default)]
    event_time: String,
    event_name: String,
    s3: Subject,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subject {
    #[serde(default)]
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
    #[serde(default)]
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
        let envelope = Envelope {
            event_name: Cow::Borrowed(&self.name),
            key: Cow::Owned(format!("{}/{}", self.bucket, self.key)),
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
        let envelope: Envelope<'_> = serde_json::from_slice(json)?;
        let whole = envelope.key;
        Ok(envelope.records.into_iter().map(|record| Notification::of(record, &whole)).collect())
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
        } else if bare.starts_with("ObjectRemoved:") {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn notification() -> Notification {
        Notification {
            kind: Kind::Created,
            name: "s3:ObjectCreated:Put".to_owned(),
            time: OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_000_000).unwrap(),
            bucket: "bowerbird".to_owned(),
            key: "a b/ü+~.txt".to_owned(),
            size_bytes: Some(12),
            etag: Some("17-ab".to_owned()),
            content_type: Some("text/plain".to_owned()),
            metadata: BTreeMap::from([("colour".to_owned(), "blue".to_owned())]),
            sequencer: Some(0x17AB),
        }
    }

    #[test]
    fn a_notification_has_the_json_of_minio() {
        let json: serde_json::Value = serde_json::from_slice(&notification().to_json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "EventName": "s3:ObjectCreated:Put",
                "Key": "bowerbird/a b/ü+~.txt",
                "Records": [{
                    "eventVersion": "2.0",
                    "eventSource": "bowerbird:s3",
                    "awsRegion": "",
                    "eventTime": "2023-11-14T22:13:20.123Z",
                    "eventName": "s3:ObjectCreated:Put",
                    "s3": {
                        "s3SchemaVersion": "1.0",
                        "bucket": { "name": "bowerbird" },
                        "object": {
                            "key": "a+b%2F%C3%BC%2B~.txt",
                            "size": 12,
                            "eTag": "17-ab",
                            "contentType": "text/plain",
                            "userMetadata": { "colour": "blue" },
                            "sequencer": "17AB"
                        }
                    }
                }]
            })
        );
    }

    #[test]
    fn what_was_written_reads_back_the_same() {
        assert_eq!(Notification::from_json(&notification().to_json()).unwrap(), notification());
        let removed = Notification {
            kind: Kind::Removed,
            name: "s3:ObjectRemoved:Delete".to_owned(),
            size_bytes: None,
            etag: None,
            content_type: None,
            metadata: BTreeMap::new(),
            ..notification()
        };
        assert_eq!(Notification::from_json(&removed.to_json()).unwrap(), removed);
    }

    #[test]
    fn what_rustfs_and_aws_add_or_leave_out_is_understood() {
        let json = br#"{"EventName":"x","Key":"b/k","Records":[{"eventTime":"2026-01-01T00:00:00Z",
            "eventName":"ObjectCreated:CompleteMultipartUpload","requestParameters":{"authorization":"secret"},
            "s3":{"bucket":{"name":"b","arn":"arn"},"object":{"key":"k","eTag":"\"tag\"","versionId":"null"}}}]}"#;
        let read = Notification::from_json(json).unwrap();
        assert_eq!((read.kind, read.etag.as_deref(), read.sequencer), (Kind::Created, Some("tag"), None));
    }

    #[test]
    fn what_is_no_notification_is_refused() {
        assert!(matches!(Notification::from_json(b"[1, 2"), Err(ParseError::Json(_))));
        assert!(matches!(Notification::from_json(b"{}"), Err(ParseError::Empty)));
        assert!(matches!(Notification::from_json(br#"{"Records":[]}"#), Err(ParseError::Empty)));
        let other = notification().to_json();
        let other = String::from_utf8(other).unwrap().replace("ObjectCreated:Put", "ObjectAccessed:Get");
        assert!(matches!(Notification::from_json(other.as_bytes()), Err(ParseError::OtherKind(_))));
    }

    /// As MinIO's `cmd/event-notification.go` writes it, with what stands beside the record.
    const OF_MINIO: &str = r#"{"EventName":"s3:ObjectCreated:Put","Key":"drive/a b/c+d.txt","Records":[{"eventVersion":"2.0",
        "eventSource":"minio:s3","awsRegion":"","eventTime":"2026-11-20T12:00:00.123Z","eventName":"s3:ObjectCreated:Put",
        "userIdentity":{"principalId":"minio"},"requestParameters":{"principalId":"minio","region":"","sourceIPAddress":"10.0.0.1"},
        "responseElements":{"x-amz-id-2":"x","x-amz-request-id":"17","x-minio-deployment-id":"d","x-minio-origin-endpoint":"http://m"},
        "s3":{"s3SchemaVersion":"1.0","configurationId":"Config","bucket":{"name":"drive","ownerIdentity":{"principalId":"minio"},
        "arn":"arn:aws:s3:::drive"},"object":{"key":"a+b%2Fc%2Bd.txt","size":9,"eTag":"d41d8cd98f00b204e9800998ecf8427e",
        "contentType":"text/plain","userMetadata":{"content-type":"text/plain"},"sequencer":"17ABCDEF01234567"}},
        "source":{"host":"10.0.0.1","port":"","userAgent":"MinIO (linux; amd64)"}}]}"#;

    /// As MinIO writes that an object was removed: no size, no entity tag, no type.
    const REMOVED_AT_MINIO: &str = r#"{"EventName":"s3:ObjectRemoved:Delete","Key":"drive/k","Records":[{"eventVersion":"2.0",
        "eventSource":"minio:s3","awsRegion":"","eventTime":"2026-11-20T12:00:00.123Z","eventName":"s3:ObjectRemoved:Delete",
        "s3":{"s3SchemaVersion":"1.0","configurationId":"Config","bucket":{"name":"drive"},
        "object":{"key":"k","sequencer":"17ABCDEF01234568"}},"source":{"host":"","port":"","userAgent":""}}]}"#;

    #[test]
    fn what_minio_sends_is_read() {
        let read = Notification::from_json(OF_MINIO.as_bytes()).unwrap();
        assert_eq!((read.bucket.as_str(), read.key.as_str(), read.size_bytes), ("drive", "a b/c+d.txt", Some(9)));
        assert_eq!(read.sequencer, Some(0x17AB_CDEF_0123_4567));
        let removed = Notification::from_json(REMOVED_AT_MINIO.as_bytes()).unwrap();
        assert_eq!((removed.kind, removed.key.as_str(), removed.size_bytes), (Kind::Removed, "k", None));
    }

    #[test]
    fn a_key_that_rustfs_left_out_of_its_record_is_taken_from_beside_it() {
        let json = br#"{"EventName":"s3:ObjectCreated:CompleteMultipartUpload","Key":"drive/a/b","Records":[{
            "eventName":"s3:ObjectCreated:CompleteMultipartUpload","s3":{"bucket":{"name":"drive"},"object":{"key":"","eTag":""}}}]}"#;
        let read = Notification::from_json(json).unwrap();
        assert_eq!((read.key.as_str(), read.etag, read.time), ("a/b", None, OffsetDateTime::UNIX_EPOCH));
    }

    #[test]
    fn each_record_is_read_by_itself_and_a_test_event_has_none() {
        let mut whole: serde_json::Value = serde_json::from_slice(&notification().to_json()).unwrap();
        let mut other = whole["Records"][0].clone();
        other["eventName"] = "s3:ObjectAccessed:Get".into();
        let mut undecodable = whole["Records"][0].clone();
        undecodable["s3"]["object"]["key"] = "%ff".into();
        let good = whole["Records"][0].clone();
        whole["Records"].as_array_mut().unwrap().extend([other, undecodable, good]);
        let read = Notification::read_all(whole.to_string().as_bytes()).unwrap();
        let read: Vec<bool> = read.iter().map(Result::is_ok).collect();
        assert_eq!(read, [true, false, false, true]);
        let test = br#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-20T12:00:00.000Z","Bucket":"drive"}"#;
        assert!(Notification::read_all(test).unwrap().is_empty());
    }
}
