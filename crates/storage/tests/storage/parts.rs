//! Objects in parts, through the SDK with its defaults.

use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart},
};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::support::{BUCKET, Store, code, content, status};

const PART: usize = 5 << 20;

async fn begin(client: &Client, key: &str) -> String {
    let begun = client.create_multipart_upload().bucket(BUCKET).key(key).content_type("text/plain");
    begun.send().await.unwrap().upload_id().unwrap().to_owned()
}

async fn upload(client: &Client, key: &str, id: &str, number: i32, body: Vec<u8>) -> CompletedPart {
    let part = client.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(number);
    let part = part.body(body.into()).send().await.unwrap();
    CompletedPart::builder().part_number(number).e_tag(part.e_tag().unwrap()).build()
}

fn listed(parts: &[CompletedPart]) -> CompletedMultipartUpload {
    CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build()
}

#[tokio::test]
async fn completing_copies_nothing_and_removes_what_was_not_listed() {
    use std::os::unix::fs::MetadataExt;
    let store = Store::start().await;
    let client = store.client();
    let id = begin(&client, "key").await;
    let first = upload(&client, "key", &id, 1, content(1, PART)).await;
    upload(&client, "key", &id, 2, content(9, PART)).await;
    // The same number again replaces the part.
    upload(&client, "key", &id, 7, content(8, PART)).await;
    let last = upload(&client, "key", &id, 7, content(2, 1000)).await;
    crate::support::eventually("a replaced part stays", async || store.data_files() == 3).await;
    let inodes = || -> Vec<u64> {
        let mut inodes: Vec<u64> = std::fs::read_dir(store.root.path().join("data"))
            .unwrap()
            .flat_map(|directory| std::fs::read_dir(directory.unwrap().path()).unwrap())
            .map(|file| file.unwrap().metadata().unwrap().ino())
            .collect();
        inodes.sort_unstable();
        inodes
    };
    let before = inodes();
    let complete = client.complete_multipart_upload().bucket(BUCKET).key("key").upload_id(&id);
    complete.multipart_upload(listed(&[first, last])).send().await.unwrap();
    crate::support::eventually("the part that was not listed stays", async || store.data_files() == 2).await;
    assert!(inodes().iter().all(|inode| before.contains(inode)), "a part was copied");
    let read = client.get_object().bucket(BUCKET).key("key").send().await.unwrap();
    assert_eq!(read.content_type(), Some("text/plain"));
    assert!(read.body.collect().await.unwrap().into_bytes() == [content(1, PART), content(2, 1000)].concat());
    let second = client.get_object().bucket(BUCKET).key("key").part_number(2).send().await.unwrap();
    assert_eq!((second.parts_count(), second.content_length()), (Some(2), Some(1000)));
    assert!(second.body.collect().await.unwrap().into_bytes() == content(2, 1000));
    assert_eq!(status(&client.head_object().bucket(BUCKET).key("key").part_number(3).send().await.unwrap_err()), 416);
}

#[tokio::test]
async fn a_completion_that_is_refused_leaves_the_upload_usable() {
    let store = Store::start().await;
    let client = store.client();
    client.put_object().bucket(BUCKET).key("key").body(ByteStream::from_static(b"before")).send().await.unwrap();
    let id = begin(&client, "key").await;
    let one = upload(&client, "key", &id, 1, content(1, PART)).await;
    let two = upload(&client, "key", &id, 2, content(2, 100)).await;
    let three = upload(&client, "key", &id, 3, content(3, 100)).await;
    let complete = || client.complete_multipart_upload().bucket(BUCKET).key("key").upload_id(&id);
    let forged = CompletedPart::builder().part_number(1).e_tag("\"forged\"").build();
    let missing = CompletedPart::builder().part_number(4).e_tag(two.e_tag().unwrap()).build();
    let zeros = STANDARD.encode([0; 8]);
    let wrong_part = CompletedPart::builder().part_number(1).e_tag(one.e_tag().unwrap()).checksum_crc64_nvme(&zeros).build();
    let refused = [
        (complete().multipart_upload(listed(&[forged, two.clone()])).send().await, "InvalidPart"),
        (complete().multipart_upload(listed(&[one.clone(), missing])).send().await, "InvalidPart"),
        (complete().multipart_upload(listed(&[two.clone(), one.clone()])).send().await, "InvalidPartOrder"),
        (complete().multipart_upload(listed(&[one.clone(), one.clone()])).send().await, "InvalidPartOrder"),
        (complete().multipart_upload(listed(&[one.clone(), two.clone(), three])).send().await, "EntityTooSmall"),
        (complete().multipart_upload(listed(&[wrong_part])).send().await, "BadDigest"),
        (complete().multipart_upload(listed(std::slice::from_ref(&one))).checksum_crc64_nvme(zeros).send().await, "BadDigest"),
        (complete().multipart_upload(listed(std::slice::from_ref(&one))).mpu_object_size(7).send().await, "InvalidRequest"),
        (complete().multipart_upload(listed(std::slice::from_ref(&one))).if_none_match("*").send().await, "PreconditionFailed"),
    ];
    for (outcome, expected) in refused {
        assert_eq!(code(&outcome.unwrap_err()), expected);
    }
    let read = client.get_object().bucket(BUCKET).key("key").send().await.unwrap();
    assert!(read.body.collect().await.unwrap().into_bytes() == b"before".as_slice());
    complete().multipart_upload(listed(&[one, two])).send().await.unwrap();
    let read = client.get_object().bucket(BUCKET).key("key").checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert!(read.body.collect().await.unwrap().into_bytes() == [content(1, PART), content(2, 100)].concat());
    let again = client.upload_part().bucket(BUCKET).key("key").upload_id(&id).part_number(1);
    assert_eq!(code(&again.body(ByteStream::from_static(b"x")).send().await.unwrap_err()), "NoSuchUpload");
}

#[tokio::test]
async fn a_part_is_checked_before_it_replaces_another() {
    let store = Store::start().await;
    let client = store.client();
    let id = begin(&client, "key").await;
    let good = upload(&client, "key", &id, 1, content(1, 10_000)).await;
    let part = || {
        let part = client.upload_part().bucket(BUCKET).key("key").upload_id(&id).part_number(1);
        part.body(content(2, 10_000).into())
    };
    let refused = [
        part().content_md5(STANDARD.encode([0; 16])).send().await.unwrap_err(),
        part().checksum_sha256(STANDARD.encode([0; 32])).send().await.unwrap_err(),
        part().checksum_crc32(STANDARD.encode([0; 4])).send().await.unwrap_err(),
    ];
    for error in refused {
        assert_eq!(code(&error), "BadDigest");
    }
    let number = client.upload_part().bucket(BUCKET).key("key").upload_id(&id).part_number(10_001);
    assert_eq!(status(&number.body(ByteStream::from_static(b"x")).send().await.unwrap_err()), 400);
    let parts = client.list_parts().bucket(BUCKET).key("key").upload_id(&id).send().await.unwrap();
    assert_eq!(parts.parts().iter().map(|part| part.e_tag().unwrap()).collect::<Vec<_>>(), [good.e_tag().unwrap()]);
    client.abort_multipart_upload().bucket(BUCKET).key("key").upload_id(&id).send().await.unwrap();
    crate::support::eventually("a part of an aborted upload stays", async || store.data_files() == 0).await;
    let gone = client.list_parts().bucket(BUCKET).key("key").upload_id(&id).send().await.unwrap_err();
    assert_eq!(code(&gone), "NoSuchUpload");
}

#[tokio::test]
async fn checksums_of_parts_make_the_checksum_of_the_whole() {
    let store = Store::start().await;
    let client = store.client();
    for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Sha256, ChecksumAlgorithm::Crc64Nvme] {
        let begun = client.create_multipart_upload().bucket(BUCKET).key("key").checksum_algorithm(algorithm.clone());
        let id = begun.send().await.unwrap().upload_id().unwrap().to_owned();
        let mut parts = Vec::new();
        for (number, size) in [(1, PART), (2, 77)] {
            let part = client.upload_part().bucket(BUCKET).key("key").upload_id(&id).part_number(number);
            let part = part.checksum_algorithm(algorithm.clone()).body(content(4, size).into()).send().await.unwrap();
            let part = CompletedPart::builder()
                .part_number(number)
                .e_tag(part.e_tag().unwrap())
                .set_checksum_crc32(part.checksum_crc32().map(str::to_owned))
                .set_checksum_sha256(part.checksum_sha256().map(str::to_owned))
                .set_checksum_crc64_nvme(part.checksum_crc64_nvme().map(str::to_owned));
            parts.push(part.build());
        }
        let complete = client.complete_multipart_upload().bucket(BUCKET).key("key").upload_id(&id);
        let done = complete.multipart_upload(listed(&parts)).send().await.unwrap();
        match algorithm {
            ChecksumAlgorithm::Crc32 => assert!(done.checksum_crc32().unwrap().ends_with("-2")),
            ChecksumAlgorithm::Sha256 => assert!(done.checksum_sha256().unwrap().ends_with("-2")),
            _ => assert!(!done.checksum_crc64_nvme().unwrap().contains('-')),
        }
        let read = client.get_object().bucket(BUCKET).key("key").checksum_mode(ChecksumMode::Enabled);
        let read = read.send().await.unwrap();
        assert!(read.body.collect().await.unwrap().into_bytes() == [content(4, PART), content(4, 77)].concat());
    }
}

#[tokio::test]
async fn unfinished_uploads_and_their_parts_are_listed_page_by_page() {
    let store = Store::start().await;
    let client = store.client();
    let mut ids = Vec::new();
    for key in ["a/1", "a/1", "a/2", "b"] {
        ids.push((key.to_owned(), begin(&client, key).await));
    }
    ids.sort();
    for limit in [1, 3, 1000] {
        let (mut found, mut key, mut id) = (Vec::new(), None, None);
        loop {
            let page = client.list_multipart_uploads().bucket(BUCKET).max_uploads(limit);
            let page = page.set_key_marker(key).set_upload_id_marker(id).send().await.unwrap();
            for upload in page.uploads() {
                found.push((upload.key().unwrap().to_owned(), upload.upload_id().unwrap().to_owned()));
            }
            if !page.is_truncated().unwrap() {
                break;
            }
            key = page.next_key_marker().map(str::to_owned);
            id = page.next_upload_id_marker().map(str::to_owned);
        }
        assert_eq!(found, ids);
    }
    let grouped = client.list_multipart_uploads().bucket(BUCKET).delimiter("/").send().await.unwrap();
    assert_eq!((grouped.uploads().len(), grouped.common_prefixes().len()), (1, 1));
    let (key, id) = &ids[3];
    for number in [3, 1, 2] {
        upload(&client, key, id, number, content(1, 10)).await;
    }
    let page = client.list_parts().bucket(BUCKET).key(key).upload_id(id).max_parts(2).send().await.unwrap();
    assert_eq!((page.parts().len(), page.is_truncated(), page.next_part_number_marker()), (2, Some(true), Some("2")));
    let page = client.list_parts().bucket(BUCKET).key(key).upload_id(id).part_number_marker("2").send().await.unwrap();
    assert_eq!((page.parts()[0].part_number(), page.is_truncated()), (Some(3), Some(false)));
}

#[tokio::test]
async fn a_part_can_be_copied_from_a_range_of_another_object() {
    let store = Store::start().await;
    let client = store.client();
    let body = content(1, 200_000);
    client.put_object().bucket(BUCKET).key("source").body(body.clone().into()).send().await.unwrap();
    let id = begin(&client, "key").await;
    let copy = client.upload_part_copy().bucket(BUCKET).key("key").upload_id(&id).part_number(1);
    let copy = copy.copy_source(format!("{BUCKET}/source")).copy_source_range("bytes=100-150099").send().await.unwrap();
    let etag = copy.copy_part_result().unwrap().e_tag().unwrap();
    let part = CompletedPart::builder().part_number(1).e_tag(etag).build();
    let complete = client.complete_multipart_upload().bucket(BUCKET).key("key").upload_id(&id);
    complete.multipart_upload(listed(&[part])).send().await.unwrap();
    let read = client.get_object().bucket(BUCKET).key("key").send().await.unwrap();
    assert!(read.body.collect().await.unwrap().into_bytes() == body[100..150_100]);
}
