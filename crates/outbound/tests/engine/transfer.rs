//! Whole transfers against a truthful server: sizes, digests, resumption, memory, and what happens when the store fails.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::support::{Bench, MemoryLedger, MemorySink, PART, crc64, engine_with, failure, patience, transfer};
use bowerbird_outbound::{Checksum, ErrorCode, Patience, RestartReason, Stopped, Verified};
use bowerbird_testkit::{
    lying::{Act, LyingServer},
    ranged_server::{Content, Options, RangedServer},
};
use proptest::test_runner::{Config, TestRunner};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn content_of_every_size_arrives_bit_by_bit() {
    for len in [0, 1, 1000, PART - 1, PART, PART + 1, 2 * PART, 10 * PART, 10 * PART + 17] {
        for options in
            [Options::default(), Options { ranges: false, ..Options::default() }, Options { etag: false, ..Options::default() }]
        {
            let content = Content::new(len, len);
            let server = RangedServer::start(content.clone(), options.clone()).await;
            let bench = Bench::new();
            let completed =
                bench.run(transfer(&server.url())).await.unwrap_or_else(|error| panic!("{len} {options:?}: {error:?}"));
            let expected = content.read(0, len);
            assert_eq!(bench.sink.object().as_deref(), Some(&expected[..]), "{len} {options:?}");
            assert_eq!((completed.size_bytes, completed.crc64), (len, crc64(&expected)));
            assert_eq!(completed.sha256, Some(content.sha256()), "{len} {options:?}");
            assert_eq!(completed.verified, Verified::Length);
            assert_eq!(completed.file_name.as_deref(), Some("file.bin"));
            assert_eq!(completed.content_type.as_deref(), Some("application/octet-stream"));
            assert_eq!(bench.sink.open_uploads(), 0);
            assert_eq!(bench.sink.wholes.load(Ordering::SeqCst), usize::from(len <= PART), "small content is one call");
            assert_eq!(bench.sink.read_backs.load(Ordering::SeqCst), 0, "the order was kept");
        }
    }
}

#[tokio::test]
async fn one_connection_streams_all_parts_of_a_fast_source() {
    let content = Content::new(7, 40 * PART);
    let server = RangedServer::start(content, Options::default()).await;
    Bench::new().run(transfer(&server.url())).await.expect("a transfer");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_slow_source_is_fetched_over_more_and_more_connections() {
    let content = Content::new(8, 60 * PART);
    let server = RangedServer::start(content.clone(), Options { connection_rate: Some(8 * PART), ..Options::default() }).await;
    let bench = Bench::new();
    let started = Instant::now();
    let completed = bench.run(transfer(&server.url())).await.expect("a transfer");
    assert_eq!(completed.sha256, Some(content.sha256()));
    assert!(server.connections() >= 4, "{}", server.connections());
    assert!(started.elapsed() < Duration::from_secs(5), "one connection needs 7.5 s: {:?}", started.elapsed());
    let wasted = server.bytes_sent() - 60 * PART;
    assert!(wasted < 16 * PART, "{wasted}");
}

#[tokio::test]
async fn a_digest_that_fits_verifies_and_one_that_does_not_fails_after_one_more_try() {
    for len in [1000, 5 * PART] {
        let content = Content::new(9, len);
        let server = RangedServer::start(content.clone(), Options::default()).await;
        let bench = Bench::new();
        let mut right = transfer(&server.url());
        right.checksum = Some(Checksum::Sha256(content.sha256()));
        assert_eq!(bench.run(right).await.expect("a transfer").verified, Verified::Digest);

        let bench = Bench::new();
        let mut wrong = transfer(&server.url());
        wrong.checksum = Some(Checksum::Sha512([7; 64]));
        let error = failure(bench.run(wrong).await);
        assert_eq!((error.code, error.retryable), (ErrorCode::ChecksumMismatch, false));
        let found = error.detail.split_once("it has sha512 ").map(|(_, digits)| digits.len());
        assert_eq!(found, Some(128), "{}", error.detail);
        assert_eq!(bench.ledger.restarts(), [RestartReason::ChecksumMismatch; 2]);
        assert_eq!((bench.sink.object(), bench.sink.open_uploads()), (None, 0), "nothing becomes visible and nothing is left");
    }
}

#[tokio::test]
async fn no_digest_is_taken_when_none_is_wanted() {
    let server = RangedServer::start(Content::new(9, 5 * PART), Options::default()).await;
    let mut plain = transfer(&server.url());
    plain.digest = false;
    assert_eq!(Bench::new().run(plain).await.expect("a transfer").sha256, None);
}

#[tokio::test]
async fn what_is_larger_than_allowed_is_refused_before_it_is_fetched() {
    let server = RangedServer::start(Content::new(9, 5 * PART), Options::default()).await;
    let mut limited = transfer(&server.url());
    limited.max_size_bytes = 5 * PART - 1;
    let bench = Bench::new();
    assert_eq!(failure(bench.run(limited).await).code, ErrorCode::TooLarge);
    assert_eq!(bench.sink.bytes_stored.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_transfer_that_is_canceled_anywhere_goes_on_where_it_was() {
    let parts = 30;
    for stop_at in [1, 2, 3, 7, 16, 29] {
        let content = Content::new(stop_at as u64, parts * PART - 5);
        let server = RangedServer::start(content.clone(), Options::default()).await;
        let cancel = CancellationToken::new();
        let sink =
            MemorySink { cancel_at: Some((stop_at, cancel.clone())), delay: Duration::from_millis(2), ..MemorySink::default() };
        let mut bench = Bench { sink: Arc::new(sink), ..Bench::new() };
        let started = Instant::now();
        assert_eq!(bench.run_until(transfer(&server.url()), cancel).await, Err(Stopped::Canceled));
        assert!(started.elapsed() < Duration::from_secs(2));
        let kept: u64 = bench.ledger.resume().expect("a plan").parts.iter().map(|part| part.size_bytes).sum();
        assert!(kept >= PART && bench.sink.object().is_none());

        let sink = Arc::get_mut(&mut bench.sink).expect("nobody else has the sink");
        sink.cancel_at = None;
        let stored_before = bench.sink.bytes_stored.load(Ordering::SeqCst);
        let completed = bench.run(transfer(&server.url())).await.expect("the rest");
        assert_eq!(completed.sha256, Some(content.sha256()));
        assert_eq!(bench.sink.object().as_deref(), Some(&content.read(0, content.len())[..]));
        let stored_again = bench.sink.bytes_stored.load(Ordering::SeqCst) - stored_before;
        assert_eq!(stored_again, content.len() - kept, "only what was not noted is stored again");
        assert_eq!(bench.sink.read_backs.load(Ordering::SeqCst), 1);
        assert_eq!(bench.ledger.restarts(), []);
    }
}

#[test]
fn a_transfer_whose_process_dies_at_any_moment_goes_on_from_its_ledger() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().expect("a runtime");
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(proptest::collection::vec(0_u64..120, 1..4), 1_u32..5), |(deaths, connections)| {
        runtime.block_on(async {
            let content = Content::new(deaths[0], 40 * PART + 99);
            let server =
                RangedServer::start(content.clone(), Options { connection_rate: Some(200 * PART), ..Options::default() }).await;
            let bench = Bench::new();
            let mut plan = transfer(&server.url());
            plan.max_connections = connections;
            let mut runs = 1;
            for death in deaths {
                // Dropped in the middle, as if the process were gone: nothing is settled, nothing is noted any more.
                if tokio::time::timeout(Duration::from_millis(death), bench.run(plan.clone())).await.is_ok() {
                    return Ok(());
                }
                runs += 1;
            }
            let completed = bench.run(plan).await.expect("the rest");
            assert_eq!(completed.sha256, Some(content.sha256()));
            assert_eq!(bench.sink.object().as_deref(), Some(&content.read(0, content.len())[..]));
            // What was in flight, what was stored and not noted (a batch), and what the network holds.
            let refetched = bench.sink.bytes_stored.load(Ordering::SeqCst) - content.len();
            assert!(refetched <= (runs - 1) * (u64::from(connections) * 2 + 2 + 32) * PART, "{refetched}");
            Ok(())
        })
    });
    outcome.expect("no counterexample");
}

#[tokio::test]
async fn a_finished_ledger_needs_no_source() {
    let content = Content::new(3, 6 * PART);
    let server = RangedServer::start(content.clone(), Options::default()).await;
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let sink = MemorySink { cancel_at: Some((6, cancel.clone())), ..MemorySink::default() };
    let bench = Bench { sink: Arc::new(sink), ..bench };
    assert_eq!(bench.run_until(transfer(&server.url()), cancel).await, Err(Stopped::Canceled));
    assert_eq!(bench.ledger.resume().expect("a plan").parts.len(), 6);
    drop(server);
    let completed = bench.run(transfer("http://127.0.0.1:1/")).await.expect("everything is there");
    assert_eq!(completed.sha256, Some(content.sha256()));
}

#[tokio::test]
async fn a_store_that_fails_now_and_then_is_tried_again() {
    let content = Content::new(4, 10 * PART);
    let server = RangedServer::start(content.clone(), Options::default()).await;
    let sink = MemorySink { failures: 3.into(), ..MemorySink::default() };
    let bench = Bench { sink: Arc::new(sink), ..Bench::new() };
    assert_eq!(bench.run(transfer(&server.url())).await.expect("a transfer").sha256, Some(content.sha256()));
}

#[tokio::test]
async fn a_store_that_stays_away_fails_the_run_and_keeps_what_is_there() {
    let content = Content::new(4, 10 * PART);
    let server = RangedServer::start(content.clone(), Options::default()).await;
    let sink = MemorySink { failures: 1000.into(), ..MemorySink::default() };
    let bench = Bench { sink: Arc::new(sink), ..Bench::new() };
    let error = failure(bench.run(transfer(&server.url())).await);
    assert_eq!((error.code, error.retryable), (ErrorCode::StorageUnavailable, true));
    bench.sink.failures.store(0, Ordering::SeqCst);
    assert_eq!(bench.run(transfer(&server.url())).await.expect("a transfer").sha256, Some(content.sha256()));
}

#[tokio::test]
async fn an_upload_that_the_store_lost_is_begun_anew() {
    let content = Content::new(4, 10 * PART);
    let server = RangedServer::start(content.clone(), Options::default()).await;
    let sink = MemorySink { lose_upload_at: 5.into(), ..MemorySink::default() };
    let bench = Bench { sink: Arc::new(sink), ..Bench::new() };
    assert_eq!(bench.run(transfer(&server.url())).await.expect("a transfer").sha256, Some(content.sha256()));
    assert_eq!(bench.ledger.restarts(), [RestartReason::UploadLost]);
}

#[tokio::test]
async fn whoever_is_fenced_stops_at_once_and_touches_nothing_more() {
    let content = Content::new(5, 200 * PART);
    let server = RangedServer::start(content, Options { connection_rate: Some(100 * PART), ..Options::default() }).await;
    let ledger = MemoryLedger { fenced_at: 2.into(), ..MemoryLedger::default() };
    let bench = Bench { ledger: Arc::new(ledger), ..Bench::new() };
    assert_eq!(bench.run(transfer(&server.url())).await, Err(Stopped::Fenced));
    let stored = bench.sink.parts_stored.load(Ordering::SeqCst);
    assert!(stored < 150, "{stored}");
    assert_eq!(bench.sink.open_uploads(), 1, "the upload is somebody else's now");
    assert_eq!((bench.ledger.restarts(), bench.sink.object()), (vec![], None));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.sink.parts_stored.load(Ordering::SeqCst), stored);
}

#[tokio::test]
async fn a_ledger_that_fails_now_and_then_is_written_in_the_end() {
    let content = Content::new(6, 40 * PART);
    let server = RangedServer::start(content.clone(), Options::default()).await;
    let ledger = MemoryLedger { failures: 2.into(), ..MemoryLedger::default() };
    let bench = Bench { ledger: Arc::new(ledger), ..Bench::new() };
    assert_eq!(bench.run(transfer(&server.url())).await.expect("a transfer").sha256, Some(content.sha256()));
    assert_eq!(bench.ledger.parts.lock().expect("no poison").len(), 40);
}

#[tokio::test]
async fn many_transfers_share_a_small_memory_and_none_starves() {
    let content = Content::new(10, 12 * PART + 3);
    let server = RangedServer::start(content.clone(), Options::default()).await;
    let engine = engine_with(8 * PART, patience());
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let bench = Bench { engine: engine.clone(), ..Bench::new() };
        let transfer = transfer(&server.url());
        running.spawn(async move { bench.run(transfer).await });
    }
    while let Some(result) = running.join_next().await {
        assert_eq!(result.expect("no panic").expect("a transfer").sha256, Some(content.sha256()));
    }
}

#[tokio::test]
async fn cancelling_ends_a_transfer_within_a_second_whatever_it_waits_for() {
    let fast = RangedServer::start(Content::new(11, 20 * PART), Options::default()).await;
    let slow =
        RangedServer::start(Content::new(11, 20 * PART), Options { connection_rate: Some(PART), ..Options::default() }).await;
    let busy = LyingServer::start(|request| match request.index {
        0 => vec![
            Act::head("HTTP/1.1 206 Partial\netag: \"x\"\ncontent-range: bytes 0-999999/1000000\ncontent-length: 1000000\n\nxyz"),
            Act::Close,
        ],
        _ => vec![Act::head("HTTP/1.1 503 Busy\nretry-after: 2\ncontent-length: 0\n\n")],
    })
    .await;
    let hanging = || MemorySink { delay: Duration::from_mins(10), ..MemorySink::default() };
    for (what, url, sink, engine) in [
        ("the store", fast.url(), hanging(), engine_with(64 * PART, patience())),
        ("the source", slow.url(), MemorySink::default(), engine_with(64 * PART, patience())),
        ("the next try", busy.url("/"), MemorySink::default(), engine_with(64 * PART, Patience { tries: 100, ..patience() })),
    ] {
        let bench = Bench { sink: Arc::new(sink), engine, ..Bench::new() };
        let cancel = CancellationToken::new();
        let canceling = cancel.clone();
        let (result, canceled_at) = tokio::join!(bench.run_until(transfer(&url), cancel), async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            canceling.cancel();
            Instant::now()
        });
        assert_eq!(result, Err(Stopped::Canceled), "{what}");
        assert!(canceled_at.elapsed() < Duration::from_secs(1), "{what}: {:?}", canceled_at.elapsed());
    }
}
