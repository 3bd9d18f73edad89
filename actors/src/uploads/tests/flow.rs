//! The way of an upload that goes well, and the ways in which it ends otherwise.

use std::{sync::Arc, time::Duration};

use bowerbird_nats::{
    Code,
    file::{DeleteFile, FileStatus, PresignFile, Source},
    trash::{PurgeTrashed, RestoreTrashed},
    upload::{AbortUpload, CompleteUpload, CreateUpload, Kind, LinkUpload, ListUploads, Status},
};
use bowerbird_testkit::eventually;
use tokio::{task::JoinSet, time::Instant};

use super::world::{PATIENCE, World, announce, call, digest, proving, put};

const QUOTA: i64 = 1 << 30;

#[tokio::test]
async fn what_is_put_to_the_link_becomes_a_file_without_another_call() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(QUOTA).await);
    let content = b"hello, \xc3\xbc".as_slice();
    let request = CreateUpload {
        file_name: "Gr\u{fc}\u{df}e \"1\".txt".to_owned(),
        content_type: Some("text/plain; charset=utf-8".to_owned()),
        sha256: Some(digest(content)),
        ..announce(content.len())
    };
    let upload = node.try_create(caller, request).await.unwrap();
    assert_eq!((upload.status, upload.kind, upload.file_id), (Status::Pending, Kind::Single, None));
    assert_eq!(world.usage(caller).await, (0, 9, 0, 1));
    let transfer = upload.transfer.unwrap();
    assert_eq!(transfer.headers["if-none-match"], "*");
    assert!(!transfer.url.as_deref().unwrap().contains("Gr"), "no text of a user is in the key");
    assert_eq!(put(&transfer, content).await, 200);

    let done = node.until(caller, upload.id, "the file is there", |upload| upload.status == Status::Completed).await;
    let file = node.file(caller, done.file_id.unwrap()).await;
    assert_eq!((file.status, file.source, file.upload_id), (FileStatus::Available, Source::Upload, Some(upload.id)));
    assert_eq!((file.name.as_str(), file.size_bytes), ("Gr\u{fc}\u{df}e \"1\".txt", 9));
    assert_eq!((file.content_type.as_str(), file.sha256), ("text/plain; charset=utf-8", Some(digest(content))));
    assert_eq!(done.detected_content_type.as_deref(), Some("text/plain"));
    assert_eq!(world.usage(caller).await, (9, 0, 1, 0));
    assert_eq!(world.events(upload.id.0).await, ["upload.created", "upload.completed"]);
    assert_eq!(world.events(file.id.0).await, ["file.available"]);
    let link = node.files.clone().presign(call(caller, PresignFile { id: file.id, internal: false })).await.unwrap();
    assert_eq!(super::world::send("GET", &link.url, &[], b"").await, 200);
    assert_eq!(world.run("DELETE FROM alarms WHERE kind = 'upload'").await, 0, "no alarm is left");
    // Saying that it is sent is harmless.
    let again = node.requests.clone().complete(call(caller, CompleteUpload { id: upload.id })).await.unwrap();
    assert_eq!(again.file_id, done.file_id);
}

#[tokio::test]
async fn an_empty_file_and_one_of_unknown_type_are_files_too() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(QUOTA).await);
    for (content, expected) in [
        (b"".as_slice(), "application/octet-stream"),
        (b"\x89PNG\r\n\x1a\n and more", "image/png"),
        (b"\0\x01\x02", "application/octet-stream"),
    ] {
        let upload = node.create(caller, content).await;
        assert_eq!(put(&upload.transfer.unwrap(), content).await, 200);
        let done = node.until(caller, upload.id, "the file is there", |upload| upload.status == Status::Completed).await;
        let file = node.file(caller, done.file_id.unwrap()).await;
        assert_eq!((file.content_type.as_str(), file.sha256), (expected, None));
    }
}

#[tokio::test]
async fn a_request_that_comes_again_is_the_same_upload_with_links_that_work() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(QUOTA).await);
    let create = || {
        let mut call = call(caller, announce(5));
        call.idempotency_key = Some("one".to_owned());
        node.requests.clone().create(call)
    };
    let (first, second) = (create().await.unwrap(), create().await.unwrap());
    assert_eq!(first.id, second.id);
    let kept: Vec<String> =
        sqlx::query_scalar("SELECT coalesce(reply::text, '') FROM idempotency_keys").fetch_all(&world.pool).await.unwrap();
    assert!(kept.iter().all(|reply| !reply.contains("X-Amz-Signature")), "no link is kept");
    assert_eq!(world.usage(caller).await, (0, 5, 0, 1));
    assert_eq!(put(&second.transfer.unwrap(), b"hello").await, 200);
    node.until(caller, first.id, "the file is there", |upload| upload.status == Status::Completed).await;
    assert_eq!(create().await.unwrap().status, Status::Completed);
}

#[tokio::test]
async fn a_stranger_sees_nothing_of_an_upload() {
    let world = World::new().await;
    let (node, ada, eve) = (world.node("").await, world.account(QUOTA).await, world.account(QUOTA).await);
    let id = node.create(ada, b"hello").await.id;
    let requests = || node.requests.clone();
    let link = LinkUpload { id, after_part: None, limit: None };
    let codes = [
        requests().get(call(eve, bowerbird_nats::upload::GetUpload { id })).await.unwrap_err().code,
        requests().link(call(eve, link)).await.unwrap_err().code,
        requests().complete(call(eve, CompleteUpload { id })).await.unwrap_err().code,
        requests().abort(call(eve, AbortUpload { id })).await.unwrap_err().code,
    ];
    assert_eq!(codes, [Code::NotFound; 4]);
    assert_eq!(requests().list(call(eve, ListUploads::default())).await.unwrap().items, []);
    assert_eq!(requests().list(call(ada, ListUploads::default())).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn an_aborted_upload_gives_back_its_quota_and_what_still_comes_is_removed() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(10).await);
    let upload = node.create(caller, b"0123456789").await;
    assert_eq!(node.try_create(caller, announce(1)).await.unwrap_err().code, Code::QuotaExceeded);
    let abort = || node.requests.clone().abort(call(caller, AbortUpload { id: upload.id }));
    abort().await.unwrap();
    abort().await.unwrap();
    assert_eq!(world.usage(caller).await, (0, 0, 0, 0));
    assert_eq!(node.get(caller, upload.id).await.status, Status::Aborted);
    assert_eq!(world.events(upload.id.0).await, ["upload.created", "upload.aborted"]);
    let link = LinkUpload { id: upload.id, after_part: None, limit: None };
    assert_eq!(node.requests.clone().link(call(caller, link)).await.unwrap_err().code, Code::InvalidState);
    // The link is out and cannot be called back.
    assert_eq!(put(&upload.transfer.unwrap(), b"0123456789").await, 200);
    eventually(PATIENCE, "it is removed", async || world.keys(caller).await.is_empty().then_some(())).await;
    assert_eq!(node.get(caller, upload.id).await.status, Status::Aborted);
}

#[tokio::test]
async fn a_link_that_is_used_after_the_file_was_purged_brings_nothing_back() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(QUOTA).await);
    let upload = node.create(caller, b"hello").await;
    let transfer = upload.transfer.unwrap();
    assert_eq!(put(&transfer, b"hello").await, 200);
    let done = node.until(caller, upload.id, "the file is there", |upload| upload.status == Status::Completed).await;
    let file = done.file_id.unwrap();
    node.files.clone().delete(call(caller, DeleteFile { id: file })).await.unwrap();
    node.files.clone().purge(call(caller, PurgeTrashed { id: file.0 })).await.unwrap();
    eventually(PATIENCE, "it is purged", async || world.keys(caller).await.is_empty().then_some(())).await;
    assert_eq!(put(&transfer, b"again").await, 200);
    eventually(PATIENCE, "it is removed again", async || world.keys(caller).await.is_empty().then_some(())).await;
    assert_eq!(world.usage(caller).await, (0, 0, 0, 0));
}

#[tokio::test]
async fn what_is_told_again_of_an_object_leaves_it_to_the_trash_and_to_the_file_that_took_it() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(QUOTA).await);
    let upload = node.create(caller, b"hello").await;
    assert_eq!(put(&upload.transfer.unwrap(), b"hello").await, 200);
    let done = node.until(caller, upload.id, "the file is there", |upload| upload.status == Status::Completed).await;
    let (file, key) = (done.file_id.unwrap(), world.key_of(upload.id).await);
    node.files.clone().delete(call(caller, DeleteFile { id: file })).await.unwrap();
    assert!(!node.landing.created(&key).await.unwrap(), "it is in the trash");
    node.files.clone().restore(call(caller, RestoreTrashed { id: file.0, on_collision: None })).await.unwrap();
    assert_eq!(node.file(caller, file).await.status, FileStatus::Available);

    // Another file has this content now, and the row of the upload's own is gone.
    assert_eq!(world.run("UPDATE files SET id = gen_random_uuid()").await, 1);
    assert!(!node.landing.created(&key).await.unwrap(), "it is another file's");
    assert_eq!((world.run("DELETE FROM object_purges").await, world.keys(caller).await), (0, vec![key]));
}

#[tokio::test]
async fn an_upload_that_nothing_comes_for_is_over_in_time() {
    let world = World::new().await;
    let node = world.node("uploads.ttl = '1s'\nuploads.link_ttl = '1s'").await;
    let caller = world.account(QUOTA).await;
    let upload = node.create(caller, b"hello").await;
    let over = node.until(caller, upload.id, "it is over", |upload| upload.status == Status::Expired).await;
    assert!(over.finished_at.is_some());
    assert_eq!(world.usage(caller).await, (0, 0, 0, 0));
    assert_eq!(world.events(upload.id.0).await, ["upload.created", "upload.expired"]);
    assert_eq!(put(&upload.transfer.unwrap(), b"hello").await, 403, "its link has lapsed");
}

#[tokio::test]
async fn what_arrived_unnoticed_is_found_when_its_time_is_over() {
    let world = World::new().await;
    let node = world.node("uploads.ttl = '3s'").await;
    let caller = world.account(QUOTA).await;
    world.messenger.silent.store(true, std::sync::atomic::Ordering::Release);
    let upload = node.create(caller, b"hello").await;
    assert_eq!(put(&upload.transfer.unwrap(), b"hello").await, 200);
    node.until(caller, upload.id, "it is found", |upload| upload.status == Status::Completed).await;
}

#[tokio::test]
async fn racing_uploads_never_go_over_the_quota() {
    let world = World::new().await;
    let node = Arc::new(world.node("").await);
    // Room for ten.
    let caller = world.account(10 * 1000).await;
    let mut racers = JoinSet::new();
    for _ in 0..64 {
        let node = Arc::clone(&node);
        racers.spawn(async move {
            let upload = node.try_create(caller, announce(1000)).await.ok()?;
            assert_eq!(put(&upload.transfer.unwrap(), &[7; 1000]).await, 200);
            Some(upload.id)
        });
    }
    let won: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
    assert_eq!(won.len(), 10);
    for id in won {
        node.until(caller, id, "the file is there", |upload| upload.status == Status::Completed).await;
    }
    assert_eq!(world.usage(caller).await, (10_000, 0, 10, 0));
    let stored: u64 = world
        .bucket
        .list(&format!("{}/", caller.account_id), None, 1000)
        .await
        .unwrap()
        .iter()
        .map(|object| object.size_bytes)
        .sum();
    assert_eq!(stored, 10_000, "the ledger is the bucket");
}

#[tokio::test]
async fn an_account_has_so_many_unfinished_uploads_and_no_more() {
    let world = World::new().await;
    let node = world.node("uploads.max_unfinished_per_account = 3").await;
    let caller = world.account(QUOTA).await;
    for _ in 0..3 {
        node.create(caller, b"").await;
    }
    assert_eq!(node.try_create(caller, announce(0)).await.unwrap_err().code, Code::TooMany);
}

/// From the acknowledged PUT to the file: how long the longest of a hundred takes, and of a thousand when proving.
#[tokio::test]
async fn a_file_is_there_soon_after_the_put_is_acknowledged() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(QUOTA).await);
    let count = if proving() { 1000 } else { 20 };
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let upload = node.create(caller, b"hello").await;
        assert_eq!(put(&upload.transfer.unwrap(), b"hello").await, 200);
        let sent = Instant::now();
        while node.get(caller, upload.id).await.status != Status::Completed {
            assert!(sent.elapsed() < PATIENCE, "the file is not there");
            #[expect(clippy::disallowed_methods, reason = "between two looks; what is measured is shorter than eventually's")]
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    eprintln!("PUT acknowledged to file available, of {count}: p50 {:?}, p99 {:?}", times[count / 2], times[count * 99 / 100]);
}
