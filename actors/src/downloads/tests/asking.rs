//! What owners ask: created once, seen by nobody else, listed without gap or repeat.

use std::collections::BTreeSet;

use bowerbird_nats::{
    Code, DownloadId, FileId,
    download::{CancelDownload, DeleteDownload, GetDownload, ListDownloads, RetryDownload, Status, UpdateDownload},
    file::{DeleteFile, GetFile, ListFiles, PresignFile},
};
use proptest::{prelude::*, test_runner::TestRunner};
use time::{Duration, OffsetDateTime};

use super::world::{World, call, create};

const URL: &str = "http://127.0.0.1:9/file.bin?token=secret";
/// No slot is ever free, so nothing runs.
const IDLE: &str = "downloads.max_running_per_account = 0\n";

#[tokio::test]
async fn what_is_created_is_queued_and_shows_no_secret() {
    let world = World::new().await;
    let (node, caller) = (world.node(IDLE).await, world.account(1 << 30).await);
    let download = node
        .create_with(caller, URL, |request| {
            request.file_name = Some("Füße.bin".to_owned());
            request.headers.insert("Authorization".to_owned(), "Bearer hunter2".to_owned());
            request.priority = Some(9);
        })
        .await;
    assert_eq!((download.status, download.priority, download.folder.as_str()), (Status::Queued, 9, "/"));
    assert_eq!((download.url.as_str(), download.file_name.as_deref()), ("http://127.0.0.1:9/file.bin", Some("Füße.bin")));
    assert_eq!(node.requests.clone().get(call(caller, GetDownload { id: download.id })).await.unwrap(), download);
    assert_eq!(world.events(download.id.0).await, ["download.queued"]);
    let dump: String = sqlx::query_scalar(
        "SELECT (SELECT string_agg(downloads::text, '') FROM downloads) || (SELECT string_agg(events::text, '') FROM events)",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert!(!dump.contains("secret") && !dump.contains("hunter2"), "{dump}");

    let later = node
        .create_with(caller, URL, |request| request.start_at = Some(OffsetDateTime::UNIX_EPOCH + Duration::days(30_000)))
        .await;
    assert_eq!(later.status, Status::Scheduled);
}

#[tokio::test]
async fn the_same_request_twice_makes_one_download() {
    let world = World::new().await;
    let (node, caller) = (world.node(IDLE).await, world.account(1 << 30).await);
    let with_key = |url: &str| {
        let mut call = call(caller, create(url));
        call.idempotency_key = Some("key-1".to_owned());
        node.requests.clone().create(call)
    };
    let first = with_key(URL).await.unwrap();
    assert_eq!(with_key(URL).await.unwrap(), first);
    assert_eq!(with_key("http://127.0.0.1:9/other").await.unwrap_err().code, Code::IdempotencyKeyReused);
    let racing = (0..8).map(|_| {
        let mut call = call(caller, create(URL));
        call.idempotency_key = Some("key-2".to_owned());
        node.requests.clone().create(call)
    });
    let answers = futures_util::future::join_all(racing).await;
    let made: BTreeSet<DownloadId> = answers.iter().flatten().map(|download| download.id).collect();
    assert_eq!(made.len(), 1);
    assert!(
        answers.iter().all(
            |answer| answer.as_ref().is_ok() || answer.as_ref().is_err_and(|problem| problem.code == Code::RequestInProgress)
        )
    );
    let list = node.requests.clone().list(call(caller, ListDownloads::default())).await.unwrap();
    assert_eq!(list.items.len(), 2);
}

#[tokio::test]
async fn what_may_not_be_dialled_is_refused_before_anything_is_stored() {
    let world = World::new().await;
    let (node, caller) = (world.node(IDLE).await, world.account(1 << 30).await);
    for (url, code) in [
        ("http://169.254.169.254/latest/meta-data", Code::BlockedTarget),
        ("http://10.0.0.1/", Code::BlockedTarget),
        ("ftp://example.org/", Code::InvalidValue),
        ("https://user:word@example.org/", Code::InvalidValue),
        ("nonsense", Code::InvalidValue),
        ("example.org/x", Code::InvalidValue),
        ("example.org:8080/x", Code::InvalidValue),
    ] {
        let problem = node.requests.clone().create(call(caller, create(url))).await.unwrap_err();
        assert_eq!(problem.code, code, "{url}");
        let [fault] = &problem.errors[..] else { panic!("{url}: {problem:?}") };
        assert_eq!(fault.field, "url");
        let says_how = fault.message == "must begin with http:// or https://";
        assert_eq!(says_how, !url.starts_with("http"), "{url}: {problem:?}");
    }
    assert!(node.requests.clone().list(call(caller, ListDownloads::default())).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn limits_hold_for_each_account_alone() {
    let world = World::new().await;
    let node = world.node("downloads.max_running_per_account = 0\ndownloads.max_unfinished_per_account = 3\n").await;
    let (caller, other, poor) = (world.account(1 << 30).await, world.account(1 << 30).await, world.account(0).await);
    let mut last = None;
    for _ in 0..3 {
        last = Some(node.create(caller, URL).await.id);
    }
    let create = |caller| node.requests.clone().create(call(caller, create(URL)));
    assert_eq!(create(caller).await.unwrap_err().code, Code::TooMany);
    assert_eq!(create(poor).await.unwrap_err().code, Code::QuotaExceeded);
    create(other).await.unwrap();
    node.requests.clone().cancel(call(caller, CancelDownload { id: last.unwrap() })).await.unwrap();
    create(caller).await.unwrap();
    sqlx::query("UPDATE accounts SET disabled_at = now() WHERE id = $1")
        .bind(other.account_id.0)
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(create(other).await.unwrap_err().code, Code::Forbidden);
}

#[tokio::test]
async fn another_accounts_download_is_as_one_that_does_not_exist() {
    let world = World::new().await;
    let (node, owner, stranger) = (world.node(IDLE).await, world.account(1 << 30).await, world.account(1 << 30).await);
    let id = node.create(owner, URL).await.id;
    let nobody = DownloadId(uuid::Uuid::from_u128(1));
    let (requests, files) = (&node.requests, &node.files);
    for (theirs, none) in [
        (
            requests.clone().get(call(stranger, GetDownload { id })).await.unwrap_err(),
            requests.clone().get(call(stranger, GetDownload { id: nobody })).await.unwrap_err(),
        ),
        (
            requests.clone().cancel(call(stranger, CancelDownload { id })).await.unwrap_err(),
            requests.clone().cancel(call(stranger, CancelDownload { id: nobody })).await.unwrap_err(),
        ),
        (
            requests.clone().retry(call(stranger, RetryDownload { id })).await.unwrap_err(),
            requests.clone().retry(call(stranger, RetryDownload { id: nobody })).await.unwrap_err(),
        ),
        (
            requests.clone().update(call(stranger, UpdateDownload { id, url: None, priority: Some(1) })).await.unwrap_err(),
            requests
                .clone()
                .update(call(stranger, UpdateDownload { id: nobody, url: None, priority: Some(1) }))
                .await
                .unwrap_err(),
        ),
        (
            requests.clone().delete(call(stranger, DeleteDownload { id, with_file: true })).await.unwrap_err(),
            requests.clone().delete(call(stranger, DeleteDownload { id: nobody, with_file: true })).await.unwrap_err(),
        ),
    ] {
        assert_eq!(theirs, none);
        assert_eq!(theirs.code, Code::NotFound);
    }
    assert!(requests.clone().list(call(stranger, ListDownloads::default())).await.unwrap().items.is_empty());
    let file = FileId(id.0);
    assert_eq!(files.clone().get(call(stranger, GetFile { id: file })).await.unwrap_err().code, Code::NotFound);
    assert_eq!(files.clone().delete(call(stranger, DeleteFile { id: file })).await.unwrap_err().code, Code::NotFound);
    assert_eq!(
        files.clone().presign(call(stranger, PresignFile { id: file, internal: false })).await.unwrap_err().code,
        Code::NotFound
    );
    assert_eq!(requests.clone().get(call(owner, GetDownload { id })).await.unwrap().status, Status::Queued);
}

#[tokio::test]
async fn a_waiting_download_can_be_changed_canceled_and_tried_again() {
    let world = World::new().await;
    let (node, caller) = (world.node(IDLE).await, world.account(1 << 30).await);
    let id = node.create(caller, URL).await.id;
    let update = UpdateDownload { id, url: Some("http://127.0.0.1:9/new?token=other".to_owned()), priority: Some(0) };
    let changed = node.requests.clone().update(call(caller, update)).await.unwrap();
    assert_eq!((changed.url.as_str(), changed.priority), ("http://127.0.0.1:9/new", 0));
    assert_eq!(node.requests.clone().retry(call(caller, RetryDownload { id })).await.unwrap_err().code, Code::InvalidState);
    let canceled = node.requests.clone().cancel(call(caller, CancelDownload { id })).await.unwrap();
    assert_eq!(canceled.status, Status::Canceled);
    assert_eq!(node.requests.clone().cancel(call(caller, CancelDownload { id })).await.unwrap(), canceled);
    assert_eq!(node.requests.clone().retry(call(caller, RetryDownload { id })).await.unwrap().status, Status::Queued);
    assert_eq!(world.events(id.0).await, ["download.queued", "download.canceled", "download.queued"]);
    node.requests.clone().delete(call(caller, DeleteDownload { id, with_file: false })).await.unwrap();
    assert_eq!(node.requests.clone().get(call(caller, GetDownload { id })).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn pages_hold_everything_once_and_in_order_whatever_is_added_meanwhile() {
    let world = World::new().await;
    let (node, caller, other) = (world.node(IDLE).await, world.account(1 << 30).await, world.account(1 << 30).await);
    let mut all = Vec::new();
    for number in 0..60 {
        let url = format!("http://127.0.0.1:9/{}-{number}", if number % 3 == 0 { "100%_a" } else { "b" });
        all.push((node.create(caller, &url).await.id, number % 3 == 0));
        node.create(other, &url).await;
    }
    for (id, _) in all.iter().step_by(7) {
        node.requests.clone().cancel(call(caller, CancelDownload { id: *id })).await.unwrap();
    }
    let canceled: BTreeSet<DownloadId> = all.iter().step_by(7).map(|(id, _)| *id).collect();
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(ProptestConfig { cases: 40, ..ProptestConfig::default() });
        let filters =
            (1_u32..=25, any::<bool>(), prop_oneof![Just(None), Just(Some(Status::Queued)), Just(Some(Status::Canceled))]);
        runner
            .run(&filters, |(limit, search, status)| {
                handle.block_on(async {
                    let q = search.then(|| "100%_A".to_owned());
                    let expected: Vec<DownloadId> = all
                        .iter()
                        .rev()
                        .filter(|(_, matches)| !search || *matches)
                        .filter(|(id, _)| status.is_none_or(|status| (status == Status::Canceled) == canceled.contains(id)))
                        .map(|(id, _)| *id)
                        .collect();
                    let mut seen = Vec::new();
                    let mut cursor = None;
                    loop {
                        let request = ListDownloads { status, q: q.clone(), limit: Some(limit), cursor };
                        let page = node.requests.clone().list(call(caller, request)).await.unwrap();
                        prop_assert!(page.items.len() <= limit as usize);
                        seen.extend(page.items.iter().map(|download| download.id));
                        cursor = page.next_cursor;
                        if cursor.is_none() {
                            break;
                        }
                        prop_assert!(!page.items.is_empty());
                    }
                    prop_assert_eq!(seen, expected);
                    Ok(())
                })
            })
            .unwrap();
        handle.block_on(async {
            for limit in [0, 201] {
                let problem = node
                    .requests
                    .clone()
                    .list(call(caller, ListDownloads { limit: Some(limit), ..Default::default() }))
                    .await
                    .unwrap_err();
                assert_eq!(problem.code, Code::InvalidValue);
            }
            let page =
                node.requests.clone().list(call(caller, ListDownloads { limit: Some(5), ..Default::default() })).await.unwrap();
            let cursor = page.next_cursor;
            for (caller, status) in [(other, None), (caller, Some(Status::Queued))] {
                let request = ListDownloads { limit: Some(5), cursor: cursor.clone(), status, q: None };
                assert_eq!(node.requests.clone().list(call(caller, request)).await.unwrap_err().code, Code::InvalidCursor);
            }
            let files = ListFiles { cursor, ..Default::default() };
            assert_eq!(node.files.clone().list(call(caller, files)).await.unwrap_err().code, Code::InvalidCursor);
        });
    })
    .await
    .unwrap();
}
