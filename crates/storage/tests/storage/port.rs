//! The port, against the embedded store: what the rest of Bowerbird relies on.

use std::time::Duration;

use crate::support::{Store, bucket_options, content, crc64};
use bowerbird_storage::{Audience, Bucket, Disposition, ErrorKind, PresignGet, PresignPut};
use bytes::Bytes;

#[tokio::test]
async fn an_object_reads_back_as_it_was_written() {
    let store = Store::start().await;
    let bucket = store.bucket().await;
    for size in [0, 1, 4096, 4097, 1 << 20, (3 << 20) + 7] {
        let key = format!("sizes/{size}");
        let body = content(size as u64, size);
        let blocks: Vec<Bytes> = body.chunks(100_000).map(Bytes::copy_from_slice).collect();
        let stored = bucket.put(&key, blocks, Some("text/plain"), Some(crc64(&body))).await.unwrap();
        let info = bucket.head(&key).await.unwrap().unwrap();
        assert_eq!((info.size_bytes, info.crc64), (size as u64, Some(crc64(&body))));
        assert_eq!((info.etag, info.content_type.as_deref()), (stored.etag.clone(), Some("text/plain")));
        let read = bucket.get(&key, None).await.unwrap();
        assert_eq!(read.etag, stored.etag);
        assert!(read.collect(1 << 30).await.unwrap() == body, "{size} bytes came back different");
        if size > 10 {
            let range = bucket.get(&key, Some(3..size as u64 - 2)).await.unwrap().collect(1 << 30).await.unwrap();
            assert!(range == body[3..size - 2], "a range of {size} bytes came back different");
        }
    }
    let listed = bucket.list("sizes/", None, 1000).await.unwrap();
    assert_eq!(listed.len(), 6);
    assert!(bucket.list("sizes/", Some(&listed[4].key), 1000).await.unwrap() == listed[5..]);
    bucket.delete("sizes/1").await.unwrap();
    bucket.delete("sizes/1").await.unwrap();
    assert_eq!(bucket.head("sizes/1").await.unwrap(), None);
    assert_eq!(bucket.get("sizes/1", None).await.unwrap_err().kind(), ErrorKind::NoSuchKey);
}

#[tokio::test]
async fn an_object_in_parts_reads_back_as_the_parts_in_order() {
    let store = Store::start().await;
    let bucket = store.bucket().await;
    let body = content(7, (12 << 20) + 5);
    let upload = bucket.create_multipart("parts", Some("video/mp4")).await.unwrap();
    let mut parts = Vec::new();
    // Not in order, and with a gap in the numbers.
    for (number, range) in [(4_u32, 10 << 20..body.len()), (1, 0..5 << 20), (2, 5 << 20..10 << 20)] {
        let part = &body[range];
        let etag = bucket.upload_part("parts", &upload, number, part.to_vec(), crc64(part)).await.unwrap();
        parts.push((number, etag, crc64(part)));
    }
    parts.sort();
    let listed = bucket.list_parts("parts", &upload).await.unwrap();
    let numbers: Vec<_> = listed.into_iter().map(|part| (part.number, part.etag, part.crc64.unwrap())).collect();
    assert_eq!(numbers, parts);
    assert_eq!(bucket.list_uploads("par", 10).await.unwrap()[0].upload_id, upload);

    let size = body.len() as u64;
    let wrong = bucket.complete_multipart("parts", &upload, &parts, size, 1).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::BadDigest);
    let other = parts.iter().map(|(number, _, crc)| (*number, "other".to_owned(), *crc)).collect::<Vec<_>>();
    let wrong = bucket.complete_multipart("parts", &upload, &other, size, crc64(&body)).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidPart);
    assert_eq!(bucket.head("parts").await.unwrap(), None);

    let stored = bucket.complete_multipart("parts", &upload, &parts, size, crc64(&body)).await.unwrap();
    let info = bucket.head("parts").await.unwrap().unwrap();
    assert_eq!((info.size_bytes, info.etag, info.crc64), (size, stored.etag, Some(crc64(&body))));
    assert!(bucket.get("parts", None).await.unwrap().collect(1 << 30).await.unwrap() == body);
    let middle = (5 << 20) - 3..(10 << 20) + 9_u64;
    let read = bucket.get("parts", Some(middle.clone())).await.unwrap().collect(1 << 30).await.unwrap();
    assert!(read == body[usize::try_from(middle.start).unwrap()..usize::try_from(middle.end).unwrap()]);

    let again = bucket.complete_multipart("parts", &upload, &parts, size, crc64(&body)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NoSuchUpload);
}

#[tokio::test]
async fn bytes_that_do_not_have_their_checksum_replace_nothing() {
    let store = Store::start().await;
    let bucket = store.bucket().await;
    for body in [content(1, 100), content(2, 100_000)] {
        bucket.put("key", body.clone(), None, Some(crc64(&body))).await.unwrap();
        let refused = bucket.put("key", content(3, body.len()), None, Some(crc64(&body))).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BadDigest);
        assert!(bucket.get("key", None).await.unwrap().collect(1 << 30).await.unwrap() == body);
        let upload = bucket.create_multipart("key", None).await.unwrap();
        let refused = bucket.upload_part("key", &upload, 1, content(3, body.len()), crc64(&body)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BadDigest);
        assert_eq!(bucket.list_parts("key", &upload).await.unwrap(), []);
        bucket.abort_multipart("key", &upload).await.unwrap();
        bucket.abort_multipart("key", &upload).await.unwrap();
    }
    assert_eq!(store.data_files(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_in_one_sentence() {
    let options = bucket_options("http://127.0.0.1:9");
    let error = Bucket::connect(options, Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    let mut options = bucket_options(&Store::start().await.endpoint);
    let store = Store::start().await;
    options.endpoint = store.endpoint.parse().unwrap();
    options.secret_access_key = "wrong".to_owned();
    let error = Bucket::connect(options, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("storage.secret_access_key"), "{error}");
}

#[tokio::test]
async fn a_link_names_the_public_address_and_what_it_demands() {
    let store = Store::start().await;
    let mut options = bucket_options(&store.endpoint);
    options.public_endpoint = "http://files.example:9000".parse().unwrap();
    let bucket = Bucket::new(options);
    let get = PresignGet {
        file_name: Some("täst.txt".to_owned()),
        content_type: Some("text/plain".to_owned()),
        disposition: Disposition::Attachment,
    };
    let link = bucket.presign_get("k", Duration::from_mins(1), &get, Audience::Public).await.unwrap();
    assert_eq!(link.expires_at.nanosecond(), 0, "it is signed to the second");
    assert_eq!(link.url.host_str(), Some("files.example"));
    assert!(link.url.query().unwrap().contains("response-content-disposition=attachment"), "{}", link.url);
    assert!(!format!("{link:?}").contains("Signature"));
    let put =
        PresignPut { content_length: 3, content_type: Some("text/plain".to_owned()), sha256: Some([1; 32]), if_none_match: true };
    let link = bucket.presign_put("k", Duration::from_mins(1), &put, Audience::Internal).await.unwrap();
    let signed = link.url.query_pairs().find(|(name, _)| name == "X-Amz-SignedHeaders").unwrap().1.into_owned();
    for name in ["content-length", "content-type", "host", "if-none-match", "x-amz-checksum-sha256"] {
        assert!(signed.split(';').any(|signed| signed == name), "{name} is not signed: {signed}");
    }
    assert_eq!(link.method, "PUT");
}
