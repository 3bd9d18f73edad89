//! Uploads in parts: cut as announced, resumed by asking for the links of what is missing, joined as the object store has
//! them.

use std::collections::BTreeSet;

use bowerbird_nats::{
    Code,
    upload::{AbortUpload, CompleteUpload, CreateUpload, Kind, LinkUpload, PartLink, Status, Transfer},
};
use bowerbird_testkit::eventually;

use super::world::{PATIENCE, World, announce, call, digest, proving, send};

const MIB: usize = 1 << 20;
const IN_PARTS: &str = "uploads.single_limit = '1MiB'\nuploads.part_size = '5MiB'";

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 13 & 0xff).unwrap()).collect()
}

async fn put_part(transfer: &Transfer, link: &PartLink, content: &[u8]) -> u16 {
    let size = usize::try_from(transfer.part_size_bytes.unwrap()).unwrap();
    let start = (link.part_number as usize - 1) * size;
    let end = start + usize::try_from(link.size_bytes).unwrap();
    let headers: Vec<(&str, &str)> = link.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    send(&transfer.method, &link.url, &headers, &content[start..end]).await
}

#[tokio::test]
async fn an_upload_in_parts_that_broke_off_goes_on_with_what_is_missing() {
    let world = World::new().await;
    let (node, caller) = (world.node(IN_PARTS).await, world.account(1 << 30).await);
    let content = content(if proving() { 200 * MIB } else { 22 * MIB + 17 });
    let request =
        CreateUpload { sha256: Some(digest(&content)), content_type: Some("video/mp4".to_owned()), ..announce(content.len()) };
    let upload = node.try_create(caller, request).await.unwrap();
    let transfer = upload.transfer.unwrap();
    let count = content.len().div_ceil(5 * MIB);
    assert_eq!((upload.kind, transfer.kind, transfer.parts.len()), (Kind::Multipart, Kind::Multipart, count));
    assert_eq!(transfer.missing_parts, u32::try_from(count).ok());
    // The client sends some, in any order, and is killed in the middle of one.
    let half = count / 2;
    for link in transfer.parts[..half].iter().rev() {
        assert_eq!(put_part(&transfer, link, &content).await, 200);
    }
    let broken = &transfer.parts[half];
    let headers: Vec<(&str, &str)> = broken.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_ne!(send("PUT", &broken.url, &headers, &content[..MIB]).await, 200);
    let complete = || node.requests.clone().complete(call(caller, CompleteUpload { id: upload.id }));
    let refused = complete().await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidState);
    assert!(refused.detail.contains(&format!("{} parts are missing", count - half)), "{}", refused.detail);

    // Another client asks what is missing, two at a time.
    let mut after_part = None;
    let mut sent = BTreeSet::new();
    loop {
        let link = LinkUpload { id: upload.id, after_part, limit: Some(2) };
        let page = node.requests.clone().link(call(caller, link)).await.unwrap();
        assert!(page.parts.len() <= 2);
        for link in &page.parts {
            assert_eq!(put_part(&page, link, &content).await, 200);
            sent.insert(link.part_number as usize);
        }
        after_part = page.next_after_part;
        if after_part.is_none() {
            break;
        }
    }
    assert_eq!(sent, (half + 1..=count).collect());
    let done = complete().await.unwrap();
    assert!(matches!(done.status, Status::Processing | Status::Completed));
    // Whether the answer got lost or not: it may be said again.
    complete().await.unwrap();
    let done = node.until(caller, upload.id, "the file is there", |upload| upload.status == Status::Completed).await;
    let file = node.file(caller, done.file_id.unwrap()).await;
    assert_eq!((file.size_bytes, file.sha256), (i64::try_from(content.len()).unwrap(), Some(digest(&content))));
    let stored = world.bucket.get(&world.key_of(upload.id).await, None).await.unwrap();
    assert!(stored.collect(1 << 30).await.unwrap() == content);
    assert_eq!(world.begun(caller).await, 0);
    assert_eq!(world.usage(caller).await, (i64::try_from(content.len()).unwrap(), 0, 1, 0));
}

#[tokio::test]
async fn a_part_of_another_length_or_number_is_refused_and_another_content_fails_the_upload() {
    let world = World::new().await;
    let (node, caller) = (world.node(IN_PARTS).await, world.account(1 << 30).await);
    let content = content(11 * MIB);
    let request = CreateUpload { sha256: Some(digest(b"something else")), ..announce(content.len()) };
    let upload = node.try_create(caller, request).await.unwrap();
    let transfer = upload.transfer.unwrap();
    let link = &transfer.parts[2];
    for (what, headers, url, body) in [
        ("another length", vec![("content-length", "5")], link.url.clone(), &content[..5]),
        ("another number", vec![], link.url.replace("partNumber=3", "partNumber=4"), &content[..MIB]),
        ("the whole", vec![], link.url.replace("partNumber=3&", ""), &content[..MIB]),
    ] {
        assert_eq!(send("PUT", &url, &headers, body).await, 403, "{what}");
    }
    for link in &transfer.parts {
        assert_eq!(put_part(&transfer, link, &content).await, 200);
    }
    node.requests.clone().complete(call(caller, CompleteUpload { id: upload.id })).await.unwrap();
    let failed = node.until(caller, upload.id, "it is refused", |upload| upload.status == Status::Failed).await;
    assert_eq!(failed.error.unwrap().code.as_str(), "checksum_mismatch");
    eventually(PATIENCE, "it is removed", async || world.keys(caller).await.is_empty().then_some(())).await;
    assert_eq!(world.usage(caller).await, (0, 0, 0, 0));
}

#[tokio::test]
async fn an_aborted_upload_leaves_no_part() {
    let world = World::new().await;
    let (node, caller) = (world.node(IN_PARTS).await, world.account(1 << 30).await);
    let content = content(11 * MIB);
    let upload = node.create(caller, &content).await;
    let transfer = upload.transfer.unwrap();
    assert_eq!(put_part(&transfer, &transfer.parts[0], &content).await, 200);
    assert_eq!(world.begun(caller).await, 1);
    node.requests.clone().abort(call(caller, AbortUpload { id: upload.id })).await.unwrap();
    eventually(PATIENCE, "the parts are gone", async || (world.begun(caller).await == 0).then_some(())).await;
    assert_eq!(put_part(&transfer, &transfer.parts[1], &content).await, 404);
    assert_eq!(world.usage(caller).await, (0, 0, 0, 0));
}

#[tokio::test]
async fn what_somebody_else_aborted_in_the_bucket_is_told_in_a_sentence() {
    let world = World::new().await;
    let (node, caller) = (world.node(IN_PARTS).await, world.account(1 << 30).await);
    let upload = node.create(caller, &content(6 * MIB)).await;
    for begun in world.bucket.list_uploads("", 10).await.unwrap() {
        world.bucket.abort_multipart(&begun.key, &begun.upload_id).await.unwrap();
    }
    let refused = node.requests.clone().complete(call(caller, CompleteUpload { id: upload.id })).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidState);
    assert!(refused.detail.contains("announce it anew"), "{}", refused.detail);
}
