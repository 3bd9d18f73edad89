//! Notifications, each in the exact form in which a server sends it.

use std::collections::BTreeMap;

use bowerbird_storage::notification::{Kind, Notification, ParseError};
use time::OffsetDateTime;

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

/// As RustFS 1.0 writes it: MinIO's form with its own source, a version of its own, an empty `versionId`, and the headers of the
/// request, credentials among them.
const OF_RUSTFS: &str = r#"{"EventName":"s3:ObjectCreated:Put","Key":"drive/0197/a+b c.txt","Records":[{"eventVersion":"2.1",
    "eventSource":"rustfs:s3","awsRegion":"","eventTime":"2026-11-20T12:00:00.123Z","eventName":"s3:ObjectCreated:Put",
    "userIdentity":{"principalId":"rustfsadmin"},"requestParameters":{"principalId":"rustfsadmin","region":"",
    "sourceIPAddress":"10.0.0.2","authorization":"AWS4-HMAC-SHA256 Credential=SECRETKEYID/20261120/us-east-1/s3/aws4_request",
    "x-amz-security-token":"SECRETTOKEN"},"responseElements":{"x-amz-request-id":"18","content-length":"0"},
    "s3":{"s3SchemaVersion":"1.0","configurationId":"bowerbird","bucket":{"name":"drive",
    "ownerIdentity":{"principalId":"rustfsadmin"},"arn":"arn:aws:s3:::drive"},"object":{"key":"0197%2Fa%2Bb+c.txt","size":9,
    "eTag":"d41d8cd98f00b204e9800998ecf8427e","contentType":"text/plain","userMetadata":{"content-type":"text/plain"},
    "versionId":"","sequencer":"18B9E8D3A1C00"}},"source":{"host":"10.0.0.2","port":"","userAgent":"aws-sdk-rust"}}]}"#;

#[test]
fn what_rustfs_sends_is_read_and_its_credentials_are_not_kept() {
    let read = Notification::from_json(OF_RUSTFS.as_bytes()).unwrap();
    assert_eq!((read.kind, read.bucket.as_str(), read.key.as_str()), (Kind::Created, "drive", "0197/a+b c.txt"));
    assert_eq!((read.size_bytes, read.etag.as_deref()), (Some(9), Some("d41d8cd98f00b204e9800998ecf8427e")));
    // Not padded: read as text it would be after "17ABCDEF01234567", as a number it is before.
    assert_eq!(read.sequencer, Some(0x0001_8B9E_8D3A_1C00));
    assert!(read.sequencer < Notification::from_json(OF_MINIO.as_bytes()).unwrap().sequencer);
    let kept = format!("{read:?}{}", String::from_utf8(read.to_json()).unwrap());
    assert!(!kept.contains("SECRET") && !kept.contains("AWS4"), "{kept}");
    for broken in [
        OF_RUSTFS.replace("\"size\":9", "\"size\":\"SECRETSIZE\""),
        OF_RUSTFS.replace("%2Fa", "%ff"),
        OF_RUSTFS.replace("\"bucket\":{\"name\"", "\"bucket\":{\"nom\""),
        OF_RUSTFS[..OF_RUSTFS.len() - 3].to_owned(),
    ] {
        let error = Notification::from_json(broken.as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
}

#[test]
fn an_object_without_versions_has_no_version_in_any_of_three_forms() {
    let without = OF_RUSTFS.replace("\"versionId\":\"\",", "");
    let null = OF_RUSTFS.replace("\"versionId\":\"\"", "\"versionId\":\"null\"");
    let read = [OF_RUSTFS, &without, &null].map(|json| Notification::from_json(json.as_bytes()).unwrap());
    assert!(read[0] == read[1] && read[1] == read[2], "{read:?}");
}

#[test]
fn an_entity_tag_is_bare_however_it_is_quoted() {
    let tag = "d41d8cd98f00b204e9800998ecf8427e";
    for written in [format!("\\\"{tag}\\\""), tag.to_owned(), String::new()] {
        let read = Notification::from_json(OF_RUSTFS.replace(tag, &written).as_bytes()).unwrap();
        assert_eq!(read.etag.as_deref(), (!written.is_empty()).then_some(tag), "{written}");
    }
}

#[test]
fn every_name_for_coming_and_going_is_understood() {
    for (name, kind) in [
        ("s3:ObjectCreated:Put", Kind::Created),
        ("s3:ObjectCreated:Post", Kind::Created),
        ("s3:ObjectCreated:Copy", Kind::Created),
        ("s3:ObjectCreated:CompleteMultipartUpload", Kind::Created),
        ("ObjectCreated:Put", Kind::Created),
        ("s3:ObjectRemoved:Delete", Kind::Removed),
        ("s3:ObjectRemoved:DeleteMarkerCreated", Kind::Removed),
        ("s3:ObjectRemoved:DeleteAllVersions", Kind::Removed),
        ("s3:LifecycleExpiration:Delete", Kind::Removed),
        ("LifecycleExpiration:DeleteMarkerCreated", Kind::Removed),
    ] {
        let read = Notification::from_json(OF_RUSTFS.replace("s3:ObjectCreated:Put", name).as_bytes()).unwrap();
        assert_eq!((read.kind, read.name.as_str()), (kind, name));
    }
    for name in ["s3:ObjectAccessed:Head", "s3:ObjectTagging:Put", "s3:ObjectTransition:Complete", ""] {
        let read = Notification::from_json(OF_RUSTFS.replace("s3:ObjectCreated:Put", name).as_bytes());
        assert!(matches!(read, Err(ParseError::OtherKind(_))), "{name}");
    }
}

#[test]
fn what_is_null_counts_as_left_out() {
    let json = br#"{"EventName":"s3:ObjectRemoved:Delete","Key":"drive/a","Records":[{"eventTime":null,"eventSource":null,
        "eventName":"s3:ObjectRemoved:Delete","s3":{"bucket":{"name":"drive"},"object":{"key":null,"size":null,"eTag":null,
        "contentType":null,"userMetadata":null,"sequencer":null}}}]}"#;
    let read = Notification::from_json(json).unwrap();
    assert_eq!((read.key.as_str(), read.size_bytes, read.etag, read.sequencer), ("a", None, None, None));
    assert!(Notification::read_all(br#"{"EventName":"x","Records":null}"#).unwrap().is_empty());
}

#[test]
fn one_record_that_is_not_understood_takes_no_other_along() {
    let mut whole: serde_json::Value = serde_json::from_str(OF_MINIO).unwrap();
    let good = whole["Records"][0].clone();
    let records = whole["Records"].as_array_mut().unwrap();
    records.extend([
        serde_json::json!({}),
        serde_json::json!("text"),
        serde_json::json!({"eventName": "s3:ObjectCreated:Put"}),
        good,
    ]);
    let read = Notification::read_all(whole.to_string().as_bytes()).unwrap();
    let read: Vec<bool> = read.iter().map(Result::is_ok).collect();
    assert_eq!(read, [true, false, false, false, true]);
}
