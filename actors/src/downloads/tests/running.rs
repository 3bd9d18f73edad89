//! What runs: fetched, stored, checked, gone on with by another node, never written by two.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::time::Duration;

use bowerbird_nats::{
    Code, FileId,
    credential::Caller,
    download::{CancelDownload, DeleteDownload, Download, ErrorCode, RetryDownload, Status, UpdateDownload, Verified},
    file::{DeleteFile, File, GetFile, ListFiles, PresignFile},
    subject::WorkKind,
};
use bowerbird_outbound::{Client, Timeouts};
use bowerbird_testkit::{
    eventually,
    lying::{Act, LyingServer},
    ranged_server::{Content, Options, RangedServer},
};
use http::HeaderMap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::world::{Node, PATIENCE, World, call};
use crate::files::store as files;

const MIB: u64 = 1 << 20;
/// Five parts of the smallest kind, and a bit.
const LARGE: u64 = 41 * MIB + 12_345;

/// Slow enough to be interrupted.
fn slow() -> Options {
    Options { connection_rate: Some(2 * MIB), ..Options::default() }
}

/// Leases that do not lapse while a test runs, and so few connections that parts are finished one after the other.
const ONE_BY_ONE: &str = "leases.duration = '60s'\ndownloads.max_connections = 2\n";

/// What the finished download must have left: the content, one object, no upload, all on record.
async fn check_stored(world: &World, node: &Node, caller: Caller, download: &Download, content: &Content) -> File {
    assert_eq!(download.received_bytes, i64::try_from(content.len()).unwrap());
    assert_eq!(download.sha256.as_deref(), Some(content.sha256_hex().as_str()));
    let file = node.files.clone().get(call(caller, GetFile { id: download.file_id.unwrap() })).await.unwrap();
    assert_eq!(
        (file.sha256.clone(), file.download_id, file.size_bytes),
        (download.sha256.clone(), Some(download.id), download.received_bytes)
    );
    let keys = world.keys(caller).await;
    let prefix = format!("{}/{}/", caller.account_id, file.id);
    let mine: Vec<&String> = keys.iter().filter(|key| key.starts_with(&prefix)).collect();
    assert_eq!(mine.len(), 1, "{keys:?}");
    let bytes = world.bucket.get(mine[0], None).await.unwrap().collect(content.len()).await.unwrap();
    assert!(bytes == content.read(0, content.len()), "the object has other bytes");
    file
}

#[tokio::test]
async fn a_download_becomes_a_file_whatever_its_size() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(1 << 30).await);
    let server = RangedServer::start(Content::new(1, LARGE), Options::default()).await;
    let sizes = [0, 1, 4096, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, LARGE];
    let mut made = Vec::new();
    for size in sizes {
        let content = Content::new(size + 7, size);
        server.put(&format!("/{size}.bin"), content.clone());
        made.push((node.create(caller, &server.url_of(&format!("/{size}.bin?token=secret"))).await.id, content));
    }
    for (id, content) in &made {
        let download = world.ended(&node, caller, *id, Status::Completed).await;
        assert_eq!(download.file_name, Some(format!("{}.bin", content.len())));
        assert_eq!((download.verified, download.attempt, download.error.clone()), (Verified::Length, 1, None));
        let file = check_stored(&world, &node, caller, &download, content).await;
        assert_eq!(world.events(id.0).await, ["download.queued", "download.started", "download.completed"]);
        assert_eq!(world.events(file.id.0).await, ["file.available"]);
    }
    assert_eq!(world.uploads(caller).await, 0);
    let usage = files::usage(&world.pool, caller.account_id).await.unwrap();
    assert_eq!(usage.stored_bytes, sizes.iter().map(|size| i64::try_from(*size).unwrap()).sum::<i64>());
    assert_eq!((usage.reserved_bytes, usage.files, usage.unfinished_downloads), (0, 7, 0));
}

#[tokio::test]
async fn a_killed_nodes_download_is_gone_on_with_by_another() {
    let world = World::new().await;
    let caller = world.account(1 << 30).await;
    let content = Content::new(2, LARGE);
    let server = RangedServer::start(content.clone(), slow()).await;
    let first = world.node("downloads.max_connections = 2\n").await;
    let id = first.create(caller, &server.url()).await.id;
    world.until(&first, caller, id, "two parts are stored", |download| download.received_bytes >= 16 << 20).await;
    let killed = Instant::now();
    let before = server.bytes_sent();
    first.kill();
    let second = world.node("").await;
    eventually(PATIENCE, "it goes on", async || {
        let worker: Option<uuid::Uuid> =
            sqlx::query_scalar("SELECT worker FROM downloads WHERE id = $1").bind(id.0).fetch_one(&world.pool).await.unwrap();
        (worker == Some(second.id.0)).then_some(())
    })
    .await;
    let took = killed.elapsed();
    println!("gone on with after {took:?} (lease of 3 s)");
    assert!(took < Duration::from_secs(8), "{took:?}");
    let download = world.ended(&second, caller, id, Status::Completed).await;
    check_stored(&world, &second, caller, &download, &content).await;
    let after = server.bytes_sent() - before;
    println!("fetched {before} before and {after} after, of {LARGE}");
    assert!(after < LARGE - 12 * MIB, "it went on from what was stored");
    assert_eq!(world.uploads(caller).await, 0);
}

#[tokio::test]
async fn a_restarted_node_goes_on_at_once() {
    let world = World::new().await;
    let caller = world.account(1 << 30).await;
    let content = Content::new(3, LARGE);
    let server = RangedServer::start(content.clone(), slow()).await;
    let first = world.node(ONE_BY_ONE).await;
    let node_id = first.id;
    let id = first.create(caller, &server.url()).await.id;
    world.until(&first, caller, id, "a part is stored", |download| download.received_bytes >= 8 << 20).await;
    first.kill();
    let again = world.node_again(node_id, ONE_BY_ONE).await;
    let download = world.ended(&again, caller, id, Status::Completed).await;
    check_stored(&world, &again, caller, &download, &content).await;
}

#[tokio::test]
async fn a_stopping_node_hands_back_and_another_goes_on_at_once() {
    let world = World::new().await;
    let caller = world.account(1 << 30).await;
    let content = Content::new(4, LARGE);
    let server = RangedServer::start(content.clone(), slow()).await;
    let first = world.node(ONE_BY_ONE).await;
    let id = first.create(caller, &server.url()).await.id;
    world.until(&first, caller, id, "a part is stored", |download| download.received_bytes >= 8 << 20).await;
    let second = world.node(ONE_BY_ONE).await;
    first.stop().await;
    let stopped = Instant::now();
    world.until(&second, caller, id, "it goes on", |download| download.status == Status::Running).await;
    println!("gone on with {:?} after the stop", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(5));
    let download = world.ended(&second, caller, id, Status::Completed).await;
    check_stored(&world, &second, caller, &download, &content).await;
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_stops_and_leaves_nothing() {
    let world = World::new().await;
    let caller = world.account(1 << 30).await;
    let content = Content::new(5, LARGE);
    let server = RangedServer::start(content.clone(), slow()).await;
    let first = world.node("downloads.max_connections = 2\n").await;
    let second = world.node("downloads.max_connections = 2\n").await;
    let id = first.create(caller, &server.url()).await.id;
    for round in 0..4 {
        let stored = (2 + round) << 22;
        let runs = |download: &Download| {
            download.status == Status::Running && download.received_bytes >= stored || download.status == Status::Completed
        };
        world.until(&first, caller, id, "it runs", runs).await;
        // Whoever runs it is taken for dead, and works on without knowing.
        sqlx::query(
            "UPDATE downloads SET status = 'queued', worker = NULL, lease_until = NULL WHERE id = $1 AND status = 'running'",
        )
        .bind(id.0)
        .execute(&world.pool)
        .await
        .unwrap();
    }
    let download = world.ended(&first, caller, id, Status::Completed).await;
    check_stored(&world, &first, caller, &download, &content).await;
    let fence: i64 =
        sqlx::query_scalar("SELECT fence FROM downloads WHERE id = $1").bind(id.0).fetch_one(&world.pool).await.unwrap();
    assert!(fence > 1, "it was taken over");
    drop((first, second));
    assert_eq!(world.uploads(caller).await, 0);
}

#[tokio::test]
async fn a_work_message_that_comes_twice_runs_once() {
    let world = World::new().await;
    let caller = world.account(1 << 30).await;
    let content = Content::new(6, 12 * MIB);
    let server = RangedServer::start(content.clone(), slow()).await;
    let (first, second) = (world.node("").await, world.node("").await);
    let id = first.create(caller, &server.url()).await.id;
    world.until(&first, caller, id, "it runs", |download| download.status == Status::Running).await;
    for _ in 0..5 {
        first.bus.publish_work(WorkKind::Downloads, &id.0, 1).await.unwrap();
        second.bus.publish_work(WorkKind::Downloads, &id.0, 0).await.unwrap();
    }
    let download = world.ended(&second, caller, id, Status::Completed).await;
    check_stored(&world, &second, caller, &download, &content).await;
    let fence: i64 =
        sqlx::query_scalar("SELECT fence FROM downloads WHERE id = $1").bind(id.0).fetch_one(&world.pool).await.unwrap();
    assert_eq!(fence, 1);
    assert!(server.bytes_sent() < 20 * MIB);
}

#[tokio::test]
async fn a_running_download_that_is_canceled_ends_within_a_second() {
    let world = World::new().await;
    let caller = world.account(1 << 30).await;
    let server = RangedServer::start(Content::new(7, LARGE), slow()).await;
    let (runs_it, asked) =
        (world.node(ONE_BY_ONE).await, world.node("downloads.max_running_per_account = 0\nleases.duration = '60s'\n").await);
    let id = runs_it.create(caller, &server.url()).await.id;
    let running = world.until(&runs_it, caller, id, "it runs", |download| download.received_bytes > 0).await;
    assert!(running.size_bytes == Some(i64::try_from(LARGE).unwrap()) && running.connections > 0, "{running:?}");
    assert_eq!(world.uploads(caller).await, 1);

    let canceled = Instant::now();
    // Asked of whichever node; told to the one that runs it.
    asked.requests.clone().cancel(call(caller, CancelDownload { id })).await.unwrap();
    eventually(PATIENCE, "the upload is aborted", async || (world.uploads(caller).await == 0).then_some(())).await;
    let aborted = canceled.elapsed();
    let mut sent = server.bytes_sent();
    let quiet = eventually(PATIENCE, "the transfer stands still", async || {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let now = server.bytes_sent();
        let quiet = now == sent;
        sent = now;
        quiet.then(|| canceled.elapsed())
    })
    .await;
    println!("the upload was aborted after {aborted:?}, the transfer stood still at the latest after {quiet:?}");
    assert!(aborted < Duration::from_secs(1) && quiet < Duration::from_millis(1500), "{aborted:?} {quiet:?}");
    let usage = files::usage(&world.pool, caller.account_id).await.unwrap();
    assert_eq!((usage.reserved_bytes, usage.unfinished_downloads), (0, 0));
    assert_eq!(world.events(id.0).await, ["download.queued", "download.started", "download.canceled"]);

    // It can be begun again, from zero.
    let again = runs_it.requests.clone().retry(call(caller, RetryDownload { id })).await.unwrap();
    assert_eq!((again.status, again.received_bytes), (Status::Queued, 0));
    runs_it.requests.clone().delete(call(caller, DeleteDownload { id, with_file: true })).await.unwrap();
    eventually(PATIENCE, "nothing is left", async || {
        (world.uploads(caller).await == 0 && world.keys(caller).await.is_empty()).then_some(())
    })
    .await;
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<Act> {
    vec![Act::head(&format!("HTTP/1.1 {status}\n{headers}content-length: {}\n\n{body}", body.len()))]
}

#[tokio::test]
async fn failures_that_may_pass_are_tried_again_and_others_are_not() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(1 << 30).await);
    let server = LyingServer::start(|request| {
        let path = request.target.clone();
        match (path.as_str(), request.index) {
            ("/gone", _) => answer("404 Not Found", "", ""),
            ("/forbidden", _) => answer("403 Forbidden", "", ""),
            ("/busy", _) => answer("503 Service Unavailable", "retry-after: 100\n", ""),
            ("/broken", _) => answer("500 Internal Server Error", "", ""),
            _ => answer("200 OK", "", "content"),
        }
    })
    .await;
    for (path, detail) in [("/gone", "404"), ("/forbidden", "403")] {
        let id = node.create(caller, &server.url(path)).await.id;
        let failed = world.ended(&node, caller, id, Status::Failed).await;
        let error = failed.error.unwrap();
        assert_eq!((error.code, error.retryable, failed.attempt), (ErrorCode::HttpStatus, false, 1));
        assert!(error.detail.contains(detail), "{}", error.detail);
    }
    let broken = node.create_with(caller, &server.url("/broken"), |request| request.max_attempts = Some(2)).await.id;
    let failed = world.ended(&node, caller, broken, Status::Failed).await;
    assert_eq!((failed.attempt, failed.error.unwrap().code), (2, ErrorCode::HttpStatus));
    assert_eq!(
        world.events(broken.0).await,
        ["download.queued", "download.started", "download.queued", "download.started", "download.failed"]
    );
    let busy = node.create(caller, &server.url("/busy")).await.id;
    let waiting = world.until(&node, caller, busy, "it waits", |download| download.next_attempt_at.is_some()).await;
    let wait = waiting.next_attempt_at.unwrap() - waiting.started_at.unwrap();
    assert!((99..=110).contains(&wait.whole_seconds()), "{wait}");
    assert_eq!(files::usage(&world.pool, caller.account_id).await.unwrap().unfinished_downloads, 1);
}

#[tokio::test]
async fn a_link_that_expired_is_replaced_and_the_download_goes_on() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(1 << 30).await);
    let content = Content::new(8, 24 * MIB);
    let server = RangedServer::start(content.clone(), Options::default()).await;
    let (whole, etag) = (content.clone(), content.etag());
    let expiring = LyingServer::start(move |request| match request.range() {
        // The first part can be had, then the link expires.
        Some((0, _)) => {
            let head = format!(
                "HTTP/1.1 206 Partial Content\ncontent-range: bytes 0-{}/{}\ncontent-length: {}\netag: {etag}\n\n",
                whole.len() - 1,
                whole.len(),
                whole.len()
            );
            vec![Act::head(&head), Act::Send(whole.read(0, 9 * MIB).into()), Act::Close]
        }
        _ => answer("403 Forbidden", "", ""),
    })
    .await;
    let id = node.create(caller, &expiring.url("/signed?expires=1")).await.id;
    let failed = world.ended(&node, caller, id, Status::Failed).await;
    assert_eq!(failed.error.unwrap().code, ErrorCode::SourceExpired);
    assert_eq!(failed.received_bytes, i64::try_from(8 * MIB).unwrap());
    node.requests.clone().update(call(caller, UpdateDownload { id, url: Some(server.url()), priority: None })).await.unwrap();
    node.requests.clone().retry(call(caller, RetryDownload { id })).await.unwrap();
    let download = world.ended(&node, caller, id, Status::Completed).await;
    check_stored(&world, &node, caller, &download, &content).await;
    assert!(server.log().iter().all(|served| served.first >= 8 * MIB), "what was stored was not fetched again");
}

#[tokio::test]
async fn nothing_is_stored_beyond_the_quota() {
    let world = World::new().await;
    let node = world.node("").await;
    let (small, tight) = (world.account(20 << 20).await, world.account(70 << 20).await);
    let server = RangedServer::start(Content::new(9, LARGE), Options::default()).await;
    server.put("/small.bin", Content::new(10, MIB));
    // The length is known: refused before anything is stored.
    let id = node.create(small, &server.url()).await.id;
    let failed = world.ended(&node, small, id, Status::Failed).await;
    assert_eq!(failed.error.unwrap().code, ErrorCode::QuotaExceeded);
    eventually(PATIENCE, "nothing is left", async || {
        (world.uploads(small).await == 0 && world.keys(small).await.is_empty()).then_some(())
    })
    .await;
    let fits = node.create(small, &server.url_of("/small.bin")).await.id;
    world.ended(&node, small, fits, Status::Completed).await;
    // The length is not known: stopped at the limit.
    let endless =
        LyingServer::start(|_| vec![Act::head("HTTP/1.1 200 OK\nconnection: close\n\n"), Act::Repeat(vec![7; 1 << 16].into())])
            .await;
    let id = node.create(tight, &endless.url("/")).await.id;
    let failed = world.ended(&node, tight, id, Status::Failed).await;
    assert_eq!(failed.error.unwrap().code, ErrorCode::QuotaExceeded);
    eventually(PATIENCE, "nothing is left", async || {
        (world.uploads(tight).await == 0 && world.keys(tight).await.is_empty()).then_some(())
    })
    .await;
    assert_eq!(files::usage(&world.pool, tight.account_id).await.unwrap(), files::Usage::default());
}

#[tokio::test]
async fn what_jetstream_forgot_is_handed_out_again() {
    let mut world = World::new().await;
    let caller = world.account(1 << 30).await;
    let server =
        RangedServer::start(Content::new(11, 64 * 1024), Options { latency: Duration::from_millis(100), ..Options::default() })
            .await;
    let node = world.node("downloads.slots = 4\ndownloads.max_running_per_account = 4\n").await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(node.create(caller, &server.url()).await.id);
    }
    world.until(&node, caller, ids[4], "some are done", |download| download.status == Status::Completed).await;
    world.nats.wipe_jetstream().await;
    for id in ids {
        world.ended(&node, caller, id, Status::Completed).await;
    }
    assert_eq!(world.keys(caller).await.len(), 40);
}

#[tokio::test]
async fn a_file_is_handed_out_as_an_attachment_and_deleted_for_good() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(1 << 30).await);
    let content = Content::new(12, 9 * MIB);
    let headers = vec![("content-type".to_owned(), "text/html".to_owned())];
    let server = RangedServer::start(content.clone(), Options { headers, ..Options::default() }).await;
    let download = node
        .create_with(caller, &server.url(), |request| {
            request.file_name = Some("Füße \"2\".html".to_owned());
            request.folder = Some("/films/2026".to_owned());
        })
        .await;
    let download = world.ended(&node, caller, download.id, Status::Completed).await;
    let id = download.file_id.unwrap();
    let listed = node
        .files
        .clone()
        .list(call(
            caller,
            ListFiles { folder: Some("/films/2026".to_owned()), q: Some("FÜSSE".to_owned()), ..Default::default() },
        ))
        .await
        .unwrap();
    assert!(listed.items.is_empty());
    let listed = node
        .files
        .clone()
        .list(call(
            caller,
            ListFiles { folder: Some("/films/2026".to_owned()), q: Some("füße".to_owned()), ..Default::default() },
        ))
        .await
        .unwrap();
    assert_eq!(listed.items.iter().map(|file| (file.id, file.content_type.as_str())).collect::<Vec<_>>(), [(id, "text/html")]);
    let elsewhere = node
        .files
        .clone()
        .list(call(caller, ListFiles { folder: Some("/films".to_owned()), ..Default::default() }))
        .await
        .unwrap();
    assert!(elsewhere.items.is_empty());

    for internal in [false, true] {
        let link = node.files.clone().presign(call(caller, PresignFile { id, internal })).await.unwrap();
        let client = Client::internal(world.bucket.endpoint(), Timeouts::default()).unwrap();
        let mut response = client.get(&link.url, HeaderMap::new(), &CancellationToken::new()).await.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.headers["content-type"], "application/octet-stream");
        assert_eq!(
            response.headers["content-disposition"],
            "attachment; filename=\"F__e _2_.html\"; filename*=UTF-8''F%C3%BC%C3%9Fe%20%222%22.html"
        );
        let mut bytes = Vec::new();
        while let Some(chunk) = response.body.chunk().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        assert!(bytes == content.read(0, content.len()));
    }

    node.files.clone().delete(call(caller, DeleteFile { id })).await.unwrap();
    assert_eq!(node.files.clone().get(call(caller, GetFile { id })).await.unwrap_err().code, Code::NotFound);
    assert_eq!(
        node.files.clone().presign(call(caller, PresignFile { id, internal: false })).await.unwrap_err().code,
        Code::NotFound
    );
    eventually(PATIENCE, "the object is gone", async || world.keys(caller).await.is_empty().then_some(())).await;
    eventually(PATIENCE, "it is told", async || {
        (world.events(id.0).await == ["file.available", "file.trashed", "file.purged"]).then_some(())
    })
    .await;
    assert_eq!(files::usage(&world.pool, caller.account_id).await.unwrap(), files::Usage::default());
    // What is purged once more later, for the sake of workers that were stopped, is not due yet.
    eventually(PATIENCE, "nothing is left of it", async || {
        let rows: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM files) + (SELECT count(*) FROM object_purges WHERE due_at < now() + interval '5 minutes')",
        )
        .fetch_one(&world.pool)
        .await
        .unwrap();
        (rows == 0).then_some(())
    })
    .await;

    let id = node.create(caller, &server.url()).await.id;
    let file: FileId = world.ended(&node, caller, id, Status::Completed).await.file_id.unwrap();
    node.requests.clone().delete(call(caller, DeleteDownload { id, with_file: true })).await.unwrap();
    assert_eq!(node.files.clone().get(call(caller, GetFile { id: file })).await.unwrap_err().code, Code::NotFound);
    eventually(PATIENCE, "the object is gone", async || world.keys(caller).await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_crash_between_completing_and_saying_so_costs_no_second_transfer() {
    let world = World::new().await;
    let caller = world.account(1 << 30).await;
    let content = Content::new(13, 24 * MIB);
    let server = RangedServer::start(content.clone(), Options::default()).await;
    let node = world.node("").await;
    // The row cannot be completed: its file is there already.
    let download = node
        .create_with(caller, &server.url(), |request| {
            request.start_at = Some(time::OffsetDateTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000));
        })
        .await;
    sqlx::query("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'down' USING ERRCODE = '57P03'; END $$")
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query("CREATE TRIGGER refuse BEFORE INSERT ON files FOR EACH ROW EXECUTE FUNCTION refuse()")
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE downloads SET start_at = now()").execute(&world.pool).await.unwrap();
    sqlx::query("UPDATE alarms SET wake_at = now() WHERE kind = 'download'").execute(&world.pool).await.unwrap();
    eventually(PATIENCE, "the object is whole", async || (!world.keys(caller).await.is_empty()).then_some(())).await;
    assert_eq!(world.uploads(caller).await, 0);
    node.kill();
    let fetched = server.bytes_sent();
    sqlx::query("DROP TRIGGER refuse ON files").execute(&world.pool).await.unwrap();
    let node = world.node("").await;
    let download = world.ended(&node, caller, download.id, Status::Completed).await;
    check_stored(&world, &node, caller, &download, &content).await;
    assert_eq!(server.bytes_sent(), fetched);
}

#[tokio::test]
async fn nodes_that_are_killed_again_and_again_lose_nothing_and_leave_nothing() {
    let world = World::new().await;
    let caller = world.account(1 << 30).await;
    let server =
        RangedServer::start(Content::new(20, MIB), Options { connection_rate: Some(4 * MIB), ..Options::default() }).await;
    let mut node = world.node("").await;
    let mut made = Vec::new();
    for (number, size) in [LARGE, 24 * MIB, 100 * 1024, 17 * MIB].into_iter().enumerate() {
        let content = Content::new(30 + number as u64, size);
        server.put(&format!("/{number}"), content.clone());
        made.push((node.create(caller, &server.url_of(&format!("/{number}"))).await.id, content));
    }
    let mut kills = 0;
    loop {
        // Long enough to get somewhere, of no particular length.
        tokio::time::sleep(Duration::from_millis(300 + 170 * (kills % 7))).await;
        let finished: i64 = sqlx::query_scalar("SELECT count(*) FROM downloads WHERE finished_at IS NOT NULL")
            .fetch_one(&world.pool)
            .await
            .unwrap();
        if finished == 4 {
            break;
        }
        let node_id = node.id;
        if kills < 12 {
            node.kill();
            node = world.node_again(node_id, "").await;
            kills += 1;
        }
    }
    println!("killed {kills} times");
    assert!(kills >= 3);
    for (id, _) in &made {
        world.ended(&node, caller, *id, Status::Completed).await;
    }
    // What killed tries left is purged when a stopped worker must be still; that is now.
    sqlx::query("UPDATE object_purges SET due_at = now()").execute(&world.pool).await.unwrap();
    eventually(PATIENCE, "only the objects are left", async || {
        (world.uploads(caller).await == 0 && world.keys(caller).await.len() == made.len()).then_some(())
    })
    .await;
    for (id, content) in &made {
        let download = world.ended(&node, caller, *id, Status::Completed).await;
        check_stored(&world, &node, caller, &download, content).await;
    }
    let usage = files::usage(&world.pool, caller.account_id).await.unwrap();
    assert_eq!((usage.reserved_bytes, usage.files, usage.unfinished_downloads), (0, 4, 0));
}
