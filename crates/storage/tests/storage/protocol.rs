//! What an S3 server owes its clients, through the SDK with its defaults: whole objects and listings.

use std::collections::BTreeSet;

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumMode, Delete, ObjectIdentifier},
};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::support::{BUCKET, Store, code, content, crc64, raw, status};

#[tokio::test]
async fn a_put_with_a_wrong_checksum_of_any_kind_replaces_nothing() {
    let store = Store::start().await;
    let client = store.client();
    let put = || client.put_object().bucket(BUCKET).key("key");
    let good = content(1, 10_000);
    put().body(good.clone().into()).send().await.unwrap();
    let bad = || ByteStream::from(content(2, 10_000));
    let zeros = |size: usize| STANDARD.encode(vec![0; size]);
    let refused = [
        put().body(bad()).content_md5(zeros(16)).send().await.unwrap_err(),
        put().body(bad()).checksum_crc32(zeros(4)).send().await.unwrap_err(),
        put().body(bad()).checksum_crc32_c(zeros(4)).send().await.unwrap_err(),
        put().body(bad()).checksum_crc64_nvme(zeros(8)).send().await.unwrap_err(),
        put().body(bad()).checksum_sha1(zeros(20)).send().await.unwrap_err(),
        put().body(bad()).checksum_sha256(zeros(32)).send().await.unwrap_err(),
    ];
    for error in refused {
        assert_eq!((status(&error), code(&error).as_str()), (400, "BadDigest"));
    }
    let malformed = put().body(bad()).checksum_crc32("nonsense").send().await.unwrap_err();
    assert_eq!(status(&malformed), 400);
    let read = client.get_object().bucket(BUCKET).key("key").checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert!(read.body.collect().await.unwrap().into_bytes() == good);
    assert_eq!(store.data_files(), 1);
}

#[tokio::test]
async fn every_checksum_that_the_sdk_can_send_is_kept_and_shown() {
    let store = Store::start().await;
    let client = store.client();
    for size in [9, 1 << 20] {
        let body = content(3, size);
        for algorithm in [
            ChecksumAlgorithm::Crc32,
            ChecksumAlgorithm::Crc32C,
            ChecksumAlgorithm::Crc64Nvme,
            ChecksumAlgorithm::Sha1,
            ChecksumAlgorithm::Sha256,
        ] {
            let put = client.put_object().bucket(BUCKET).key("key").checksum_algorithm(algorithm.clone());
            put.body(body.clone().into()).send().await.unwrap();
            let head = client.head_object().bucket(BUCKET).key("key").checksum_mode(ChecksumMode::Enabled);
            let head = head.send().await.unwrap();
            let shown = match algorithm {
                ChecksumAlgorithm::Crc32 => head.checksum_crc32(),
                ChecksumAlgorithm::Crc32C => head.checksum_crc32_c(),
                ChecksumAlgorithm::Sha1 => head.checksum_sha1(),
                ChecksumAlgorithm::Sha256 => head.checksum_sha256(),
                _ => head.checksum_crc64_nvme(),
            };
            assert!(shown.is_some(), "{algorithm} is not shown");
            assert_eq!(head.checksum_crc64_nvme(), Some(STANDARD.encode(crc64(&body).to_be_bytes()).as_str()));
            let read = client.get_object().bucket(BUCKET).key("key").send().await.unwrap();
            assert!(read.body.collect().await.unwrap().into_bytes() == body);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overwrite_is_all_of_one_writer() {
    let store = Store::start().await;
    let client = store.client();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..6_u64 {
        let client = client.clone();
        tasks.spawn(async move {
            for round in 0..15 {
                // Some are kept in the index, some in files.
                let body = content(writer, if (writer + round) % 2 == 0 { 3_000 } else { 70_000 });
                let put = client.put_object().bucket(BUCKET).key("key").metadata("writer", writer.to_string());
                put.body(body.into()).send().await.unwrap();
            }
        });
    }
    let mut reads = 0;
    while !tasks.is_empty() || reads < 100 {
        while tasks.try_join_next().is_some_and(|joined| joined.map(|()| true).unwrap()) {}
        let Ok(read) = client.get_object().bucket(BUCKET).key("key").send().await else {
            assert_eq!(reads, 0, "an object that was there is gone");
            continue;
        };
        let writer: u64 = read.metadata().unwrap()["writer"].parse().unwrap();
        // The SDK compares the checksum that came with it.
        let body = read.body.collect().await.unwrap().into_bytes();
        assert!(body == content(writer, body.len()), "body and metadata are of two writers");
        reads += 1;
    }
    crate::support::eventually("files of overwritten objects stay", async || store.data_files() <= 1).await;
}

#[tokio::test]
async fn a_reader_gets_the_version_that_it_began_to_read() {
    let store = Store::start().await;
    let client = store.client();
    let body = content(1, 20 << 20);
    client.put_object().bucket(BUCKET).key("key").body(body.clone().into()).send().await.unwrap();
    let mut read = client.get_object().bucket(BUCKET).key("key").send().await.unwrap();
    let first = read.body.next().await.unwrap().unwrap();
    client.delete_object().bucket(BUCKET).key("key").send().await.unwrap();
    let rest = read.body.collect().await.unwrap().into_bytes();
    assert!([first, rest].concat() == body);
    crate::support::eventually("the file of a removed object stays", async || store.data_files() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_create_a_key_one_wins() {
    let store = Store::start().await;
    let client = store.client();
    for size in [100, 50_000] {
        let key = format!("key-{size}");
        let mut tasks = tokio::task::JoinSet::new();
        for creator in 0..32_u64 {
            let put = client.put_object().bucket(BUCKET).key(&key).if_none_match("*");
            let put = put.body(content(creator, size).into());
            tasks.spawn(async move { (creator, put.send().await) });
        }
        let mut winners = Vec::new();
        for (creator, outcome) in tasks.join_all().await {
            match outcome {
                Ok(_) => winners.push(creator),
                Err(error) => assert_eq!((status(&error), code(&error).as_str()), (412, "PreconditionFailed")),
            }
        }
        assert_eq!(winners.len(), 1);
        let read = client.get_object().bucket(BUCKET).key(&key).send().await.unwrap();
        assert!(read.body.collect().await.unwrap().into_bytes() == content(winners[0], size));
    }
    assert_eq!(store.data_files(), 1);
}

#[tokio::test]
async fn a_write_can_demand_the_version_that_it_replaces() {
    let store = Store::start().await;
    let client = store.client();
    let put = |body: &'static str| client.put_object().bucket(BUCKET).key("key").body(ByteStream::from_static(body.as_bytes()));
    let missing = put("0").if_match("\"none\"").send().await.unwrap_err();
    assert_eq!(status(&missing), 404);
    let first = put("1").send().await.unwrap();
    let second = put("2").if_match(first.e_tag().unwrap()).send().await.unwrap();
    assert_ne!(first.e_tag(), second.e_tag());
    let stale = put("3").if_match(first.e_tag().unwrap()).send().await.unwrap_err();
    assert_eq!(status(&stale), 412);
    let other = put("4").if_none_match("\"etag\"").send().await.unwrap_err();
    assert_eq!(status(&other), 400);
}

#[tokio::test]
async fn an_entity_tag_is_quoted_and_no_md5() {
    let store = Store::start().await;
    let put = store.client().put_object().bucket(BUCKET).key("key").body(ByteStream::from_static(b"x"));
    let put = put.send().await.unwrap();
    let etag = put.e_tag().unwrap();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.contains('-'), "{etag}");
}

#[tokio::test]
async fn a_bucket_that_holds_something_cannot_be_deleted() {
    let store = Store::start().await;
    let client = store.client();
    let other = client.create_bucket().bucket(BUCKET).send().await.unwrap_err();
    assert_eq!(code(&other), "BucketAlreadyOwnedByYou");
    client.create_bucket().bucket("second").send().await.unwrap();
    let names = client.list_buckets().send().await.unwrap();
    assert_eq!(names.buckets().iter().filter_map(|bucket| bucket.name()).collect::<Vec<_>>(), [BUCKET, "second"]);
    client.get_bucket_location().bucket("second").send().await.unwrap();
    client.put_object().bucket("second").key("key").body(ByteStream::from_static(b"x")).send().await.unwrap();
    let refused = client.delete_bucket().bucket("second").send().await.unwrap_err();
    assert_eq!((status(&refused), code(&refused).as_str()), (409, "BucketNotEmpty"));
    client.delete_object().bucket("second").key("key").send().await.unwrap();
    let upload = client.create_multipart_upload().bucket("second").key("key").send().await.unwrap();
    let refused = client.delete_bucket().bucket("second").send().await.unwrap_err();
    assert_eq!(code(&refused), "BucketNotEmpty");
    let abort = client.abort_multipart_upload().bucket("second").key("key").upload_id(upload.upload_id().unwrap());
    abort.send().await.unwrap();
    client.delete_bucket().bucket("second").send().await.unwrap();
    assert_eq!(status(&client.head_bucket().bucket("second").send().await.unwrap_err()), 404);
}

#[tokio::test]
async fn a_put_into_a_missing_bucket_is_refused_and_makes_none() {
    let store = Store::start().await;
    let client = store.client();
    for size in [10, 100_000] {
        let put = client.put_object().bucket("missing").key("key").body(content(1, size).into());
        let refused = put.send().await.unwrap_err();
        assert_eq!((status(&refused), code(&refused).as_str()), (404, "NoSuchBucket"));
    }
    let refused = client.get_object().bucket("missing").key("key").send().await.unwrap_err();
    assert_eq!(code(&refused), "NoSuchBucket");
    assert_eq!(status(&client.head_bucket().bucket("missing").send().await.unwrap_err()), 404);
    assert_eq!(store.data_files(), 0);
}

#[tokio::test]
async fn a_key_is_any_utf8_of_up_to_1024_bytes_and_never_a_path() {
    let store = Store::start().await;
    let client = store.client();
    let long = |size: usize| "k".repeat(size);
    let keys = [
        "p",
        "p/q",
        "p/q/",
        "a//b",
        "a/b",
        "./x",
        "x",
        "x/../y",
        "../../etc/passwd",
        "/leading",
        "trailing/",
        " space ",
        "plus+and%25&?#",
        "ü/日本/🦀",
        "CON",
        "a\u{1}b",
    ];
    let mut keys: BTreeSet<String> = keys.into_iter().map(str::to_owned).collect();
    keys.extend([long(160), long(184), long(200), long(1024), "ü".repeat(512)]);
    for key in &keys {
        let body = ByteStream::from(key.clone().into_bytes());
        client.put_object().bucket(BUCKET).key(key).body(body).send().await.unwrap();
    }
    for key in &keys {
        let read = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert!(read.body.collect().await.unwrap().into_bytes() == key.as_bytes(), "{key}");
    }
    let listed = client.list_objects_v2().bucket(BUCKET).encoding_type("url".into()).send().await.unwrap();
    let listed: Vec<String> = listed
        .contents()
        .iter()
        .map(|object| percent_encoding::percent_decode_str(object.key().unwrap()).decode_utf8().unwrap().into_owned())
        .collect();
    assert_eq!(listed, keys.iter().cloned().collect::<Vec<_>>(), "not in the order of bytes");
    let put = client.put_object().bucket(BUCKET).key(long(1025)).body(ByteStream::from_static(b"x"));
    assert_eq!(code(&put.send().await.unwrap_err()), "KeyTooLongError");
    assert_eq!(status(&client.get_object().bucket(BUCKET).key("a").send().await.unwrap_err()), 404);
}

#[tokio::test]
async fn a_get_honours_its_conditions_and_its_range() {
    let store = Store::start().await;
    let client = store.client();
    let body = content(5, 1_000_000);
    let put = client.put_object().bucket(BUCKET).key("key").cache_control("no-cache").content_disposition("inline");
    let put = put.metadata("colour", "blue").body(body.clone().into()).send().await.unwrap();
    let etag = put.e_tag().unwrap();
    let get = || client.get_object().bucket(BUCKET).key("key");
    let head = || client.head_object().bucket(BUCKET).key("key");
    assert_eq!(status(&get().if_none_match(etag).send().await.unwrap_err()), 304);
    assert_eq!(status(&head().if_none_match(etag).send().await.unwrap_err()), 304);
    assert_eq!(status(&get().if_match("\"other\"").send().await.unwrap_err()), 412);
    assert_eq!(status(&head().if_match("\"other\"").send().await.unwrap_err()), 412);
    let read = get().if_match(etag).if_none_match("\"other\"").send().await.unwrap();
    assert_eq!((read.accept_ranges(), read.cache_control()), (Some("bytes"), Some("no-cache")));
    assert_eq!(read.metadata().unwrap()["colour"], "blue");
    let modified = *read.last_modified().unwrap();
    let later = aws_sdk_s3::primitives::DateTime::from_secs(modified.secs() + 60);
    let earlier = aws_sdk_s3::primitives::DateTime::from_secs(modified.secs() - 60);
    assert_eq!(status(&get().if_modified_since(later).send().await.unwrap_err()), 304);
    assert_eq!(status(&get().if_unmodified_since(earlier).send().await.unwrap_err()), 412);
    get().if_modified_since(earlier).if_unmodified_since(later).send().await.unwrap();

    for (range, expected, shown) in [
        ("bytes=0-0", 0..1, "bytes 0-0/1000000"),
        ("bytes=999990-", 999_990..1_000_000, "bytes 999990-999999/1000000"),
        ("bytes=-7", 999_993..1_000_000, "bytes 999993-999999/1000000"),
        ("bytes=5-99999999", 5..1_000_000, "bytes 5-999999/1000000"),
    ] {
        let read = get().range(range).send().await.unwrap();
        assert_eq!(read.content_range(), Some(shown));
        assert!(read.body.collect().await.unwrap().into_bytes() == body[expected], "{range}");
        assert_eq!(head().range(range).send().await.unwrap().content_range(), Some(shown));
    }
    let beyond = get().range("bytes=1000000-").send().await.unwrap_err();
    assert_eq!((status(&beyond), code(&beyond).as_str()), (416, "InvalidRange"));
    assert_eq!(beyond.raw_response().unwrap().headers().get("content-range"), Some("bytes */1000000"));
    client.put_object().bucket(BUCKET).key("empty").body(ByteStream::from_static(b"")).send().await.unwrap();
    for range in ["bytes=0-", "bytes=-1"] {
        let empty = client.get_object().bucket(BUCKET).key("empty").range(range).send().await.unwrap_err();
        assert_eq!(status(&empty), 416);
    }
}

#[tokio::test]
async fn a_listing_groups_by_delimiter_and_goes_on_where_it_stopped() {
    let store = Store::start().await;
    let client = store.client();
    let mut keys = Vec::new();
    for group in ["a", "b", "b0", "c"] {
        for number in 0..7 {
            keys.push(format!("{group}/{number}"));
        }
    }
    keys.extend(["b".to_owned(), "zz".to_owned()]);
    keys.sort();
    for key in &keys {
        client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(b"x")).send().await.unwrap();
    }
    for limit in [1, 2, 3, 30, 1000] {
        let (mut found, mut groups, mut token) = (Vec::new(), Vec::new(), None);
        loop {
            let page = client.list_objects_v2().bucket(BUCKET).max_keys(limit).set_continuation_token(token);
            let page = page.send().await.unwrap();
            assert!(page.key_count().unwrap() <= limit);
            for object in page.contents() {
                assert!(object.e_tag().is_some() && object.size() == Some(1));
                found.push(object.key().unwrap().to_owned());
            }
            token = page.next_continuation_token().map(str::to_owned);
            assert_eq!(page.is_truncated().unwrap(), token.is_some());
            if token.is_none() {
                break;
            }
        }
        assert_eq!(found, keys);
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            let page = client.list_objects_v2().bucket(BUCKET).max_keys(limit).delimiter("/").set_continuation_token(token);
            let page = page.send().await.unwrap();
            found.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
            groups.extend(page.common_prefixes().iter().map(|group| group.prefix().unwrap().to_owned()));
            token = page.next_continuation_token().map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        assert_eq!(
            (found, groups),
            (vec!["b".to_owned(), "zz".to_owned()], ["a/", "b/", "b0/", "c/"].map(str::to_owned).to_vec(),)
        );
        // The first version of the request, by marker.
        let (mut found, mut marker) = (Vec::new(), None);
        loop {
            let page = client.list_objects().bucket(BUCKET).prefix("b").max_keys(limit).set_marker(marker);
            let page = page.send().await.unwrap();
            found.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
            marker = page.next_marker().map(str::to_owned);
            if marker.is_none() {
                break;
            }
        }
        let expected: Vec<_> = keys.iter().filter(|key| key.starts_with('b')).cloned().collect();
        assert_eq!(found, expected);
    }
    let page = client.list_objects_v2().bucket(BUCKET).start_after("b/6").prefix("b").send().await.unwrap();
    assert_eq!(page.contents()[0].key(), Some("b0/0"));
    let none = client.list_objects_v2().bucket(BUCKET).prefix("nothing").send().await.unwrap();
    assert_eq!((none.key_count(), none.is_truncated()), (Some(0), Some(false)));
}

#[tokio::test]
async fn deleting_leaves_nothing_behind() {
    let store = Store::start().await;
    let client = store.client();
    for number in 0..10 {
        let put = client.put_object().bucket(BUCKET).key(format!("key-{number}"));
        put.body(content(number, 10_000).into()).send().await.unwrap();
    }
    assert_eq!(store.data_files(), 10);
    client.delete_object().bucket(BUCKET).key("key-0").send().await.unwrap();
    let keys = (1..10).chain([99]).map(|number| ObjectIdentifier::builder().key(format!("key-{number}")).build().unwrap());
    let delete = Delete::builder().set_objects(Some(keys.collect())).build().unwrap();
    let deleted = client.delete_objects().bucket(BUCKET).delete(delete).send().await.unwrap();
    // A key that is not there counts as deleted.
    assert_eq!((deleted.deleted().len(), deleted.errors().len()), (10, 0));
    crate::support::eventually("data files stay", async || store.data_files() == 0).await;
}

#[tokio::test]
async fn a_copy_shares_the_bytes_and_outlives_its_source() {
    let store = Store::start().await;
    let client = store.client();
    for size in [100_usize, 100_000] {
        let body = content(1, size);
        let put = client.put_object().bucket(BUCKET).key("a b").content_type("text/plain").metadata("colour", "blue");
        put.body(body.clone().into()).send().await.unwrap();
        let copy = client.copy_object().bucket(BUCKET).key("copy").copy_source(format!("{BUCKET}/a%20b"));
        copy.send().await.unwrap();
        client.delete_object().bucket(BUCKET).key("a b").send().await.unwrap();
        let read = client.get_object().bucket(BUCKET).key("copy").send().await.unwrap();
        assert_eq!((read.content_type(), read.metadata().unwrap()["colour"].as_str()), (Some("text/plain"), "blue"));
        assert!(read.body.collect().await.unwrap().into_bytes() == body);
    }
    let missing = client.copy_object().bucket(BUCKET).key("copy").copy_source(format!("{BUCKET}/none"));
    assert_eq!(code(&missing.send().await.unwrap_err()), "NoSuchKey");
}

#[tokio::test]
async fn a_truncated_upload_leaves_nothing() {
    let store = Store::start().await;
    let bucket = store.bucket().await;
    let put = bowerbird_storage::PresignPut { content_length: 100_000, content_type: None, sha256: None, if_none_match: false };
    let audience = bowerbird_storage::Audience::Internal;
    let link = bucket.presign_put("key", std::time::Duration::from_mins(1), &put, audience).await.unwrap();
    let answer = crate::support::follow(&store, &link, &[("Content-Length", "100000")], &content(1, 60_000)).await;
    assert!(answer.status == 400 || answer.status == 0, "{}", answer.status);
    assert_eq!(bucket.head("key").await.unwrap(), None);
    crate::support::eventually("a data file stays", async || store.data_files() == 0).await;
}

#[tokio::test]
async fn a_large_body_that_is_refused_still_gets_its_answer() {
    let store = Store::start().await;
    let client = store.client();
    client.put_object().bucket(BUCKET).key("key").body(ByteStream::from_static(b"x")).send().await.unwrap();
    for _ in 0..3 {
        let put = client.put_object().bucket(BUCKET).key("key").if_none_match("*").body(content(1, 8 << 20).into());
        assert_eq!(code(&put.send().await.unwrap_err()), "PreconditionFailed");
        let part = client.upload_part().bucket(BUCKET).key("key").upload_id("none").part_number(1);
        assert_eq!(code(&part.body(content(1, 8 << 20).into()).send().await.unwrap_err()), "NoSuchUpload");
    }
}

#[tokio::test]
async fn requests_without_or_with_wrong_signatures_are_refused() {
    let store = Store::start().await;
    let answer = raw(&store, "GET", &format!("/{BUCKET}/key"), &[], b"").await;
    assert_eq!(answer.status, 403);
    let answer = raw(&store, "PUT", &format!("/{BUCKET}/key"), &[], b"content").await;
    assert_eq!(answer.status, 403);
    let form = [("Content-Type", "multipart/form-data; boundary=x")];
    let answer = raw(&store, "POST", &format!("/{BUCKET}"), &form, b"--x--").await;
    assert_eq!(answer.status, 501);
    assert_eq!(store.data_files(), 0);
}

#[tokio::test]
async fn pages_of_allowed_origins_may_talk_to_the_bucket() {
    let store = Store::start_with(|options| options.cors_origins = vec!["https://app.example".to_owned()], None).await;
    let asked = [
        ("Origin", "https://app.example"),
        ("Access-Control-Request-Method", "PUT"),
        ("Access-Control-Request-Headers", "content-type,x-amz-checksum-sha256"),
    ];
    let answer = raw(&store, "OPTIONS", &format!("/{BUCKET}/key"), &asked, b"").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("content-type,x-amz-checksum-sha256"));
    assert!(answer.header("access-control-allow-methods").unwrap().contains("PUT"));
    let other = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "PUT")];
    assert_eq!(raw(&store, "OPTIONS", "/", &other, b"").await.status, 403);
    let answer = raw(&store, "GET", &format!("/{BUCKET}/key"), &asked[..1], b"").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("ETag"));
    let answer = raw(&store, "GET", &format!("/{BUCKET}/key"), &other[..1], b"").await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}
