//! Servers that are busy, slow, silent or gone, and digests that do not fit.

use std::time::Duration;

use bowerbird_outbound::{ErrorCode, Patience, Verified};
use bowerbird_testkit::{
    lying::{Act, LyingServer},
    ranged_server::Content,
};
use bytes::Bytes;

use super::{LEN, Outcome, broken_then, honest, version};
use crate::support::{Bench, PART, engine_with, failure, patience, transfer};

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_wants_to() {
    let waits = [("7", Some(7)), ("1000000000", Some(86_400)), ("-1", None), ("soon", None)];
    for (value, seconds) in waits {
        let text = format!("HTTP/1.1 503 Service Unavailable\nretry-after: {value}\ncontent-length: 0\n\n");
        let server = LyingServer::start(move |_| vec![Act::head(&text)]).await;
        let error = failure(Bench::new().run(transfer(&server.url("/"))).await);
        assert_eq!((error.code, error.retryable), (ErrorCode::HttpStatus, true));
        assert_eq!(error.retry_after, seconds.map(Duration::from_secs), "{value}");
    }
}

#[tokio::test]
async fn a_server_that_is_busy_in_between_is_waited_for() {
    let content = version(25);
    let served = content.clone();
    let outcome = broken_then(std::slice::from_ref(&content), move |request| {
        if request.index < 3 {
            return vec![Act::head("HTTP/1.1 429 Too Many Requests\nretry-after: 0\ncontent-length: 0\n\n")];
        }
        honest(&served, request).acts()
    })
    .await;
    outcome.is(&content);
    assert_eq!(outcome.restarts(), []);
}

#[tokio::test]
async fn a_server_that_stays_busy_fails_the_run_and_what_is_stored_is_kept() {
    let outcome = broken_then(&[version(26)], |_| vec![Act::head("HTTP/1.1 429 Too Many Requests\ncontent-length: 0\n\n")]).await;
    assert_eq!((outcome.failed().code, outcome.failed().retryable), (ErrorCode::HttpStatus, true));
    assert_eq!(outcome.bench.ledger.resume().expect("a plan").parts.len(), 1);
}

#[tokio::test]
async fn a_link_that_expires_half_way_can_be_replaced() {
    for status in ["401 Unauthorized", "403 Forbidden", "404 Not Found", "410 Gone"] {
        let content = version(27);
        let text = format!("HTTP/1.1 {status}\ncontent-length: 0\n\n");
        let outcome = broken_then(std::slice::from_ref(&content), move |_| vec![Act::head(&text)]).await;
        assert_eq!((outcome.failed().code, outcome.failed().retryable), (ErrorCode::SourceExpired, false), "{status}");
        let (bench, served) = (outcome.bench, content.clone());
        let server = LyingServer::start(move |request| honest(&served, request).acts()).await;
        let completed = bench.run(transfer(&server.url("/new"))).await.expect("the rest");
        assert_eq!(completed.sha256, Some(content.sha256()));
        assert_eq!(server.requests()[0].range().expect("a range").0, PART, "what was stored is kept");
    }
}

#[tokio::test]
async fn a_signed_redirect_that_expires_is_followed_anew() {
    let content = version(28);
    let served = content.clone();
    let outcome = Outcome::of(std::slice::from_ref(&content), move |request| match request.target.as_str() {
        "/file" => vec![Act::head(&format!("HTTP/1.1 302 Found\nlocation: /signed/{}\ncontent-length: 0\n\n", request.index))],
        "/signed/0" if request.index == 1 => honest(&served, request).cut(PART + 5),
        "/signed/0" => vec![Act::head("HTTP/1.1 403 Forbidden\ncontent-length: 0\n\n")],
        _ => honest(&served, request).acts(),
    })
    .await;
    outcome.is(&content);
    assert_eq!(outcome.restarts(), []);
}

#[tokio::test]
async fn an_endless_body_ends_at_the_limit() {
    let server = LyingServer::start(|_| {
        vec![
            Act::head("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n"),
            Act::Repeat(format!("4000\r\n{}\r\n", "x".repeat(0x4000)).into()),
        ]
    })
    .await;
    let bench = Bench::new();
    let mut limited = transfer(&server.url("/"));
    limited.max_size_bytes = 10 * PART;
    let error = failure(bench.run(limited).await);
    assert_eq!((error.code, error.retryable), (ErrorCode::TooLarge, false));
    assert_eq!(bench.sink.object(), None);
}

#[tokio::test]
async fn a_trickle_is_a_stall() {
    let server = LyingServer::start(|_| {
        vec![
            Act::head("HTTP/1.1 200 OK\ncontent-length: 100000\n\n"),
            Act::Dribble(vec![b'x'; 1000].into(), Duration::from_millis(20)),
        ]
    })
    .await;
    let impatient = Patience { rate_over: Duration::from_millis(200), min_rate: 10_000, ..patience() };
    let bench = Bench { engine: engine_with(64 * PART, impatient), ..Bench::new() };
    assert_eq!(failure(bench.run(transfer(&server.url("/"))).await).code, ErrorCode::Stalled);
}

#[tokio::test]
async fn a_stall_at_the_end_is_resumed_if_it_can_be() {
    let content = version(29);
    let served = content.clone();
    let outcome = Outcome::of(std::slice::from_ref(&content), move |request| {
        let mut answer = honest(&served, request);
        if request.index == 0 {
            answer.body.truncate(answer.body.len() - 3);
        }
        answer.acts()
    })
    .await;
    outcome.is(&content);
    assert!(outcome.server.requests()[1].range().expect("a range").0 >= LEN - 3);
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let server = LyingServer::start(|_| vec![Act::Silence]).await;
    let error = failure(Bench::new().run(transfer(&server.url("/"))).await);
    assert_eq!((error.code, error.retryable), (ErrorCode::Timeout, true));
}

#[tokio::test]
async fn content_that_is_encoded_unasked_is_stored_as_it_came() {
    let content = version(30);
    let served = content.clone();
    let outcome = Outcome::of(std::slice::from_ref(&content), move |request| {
        honest(&served, request).set("content-encoding", "gzip").acts()
    });
    outcome.await.is(&content);
}

#[tokio::test]
async fn the_digest_of_the_server_is_checked_and_garbage_in_it_ignored() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let content = version(31);
    let right = format!("sha-256=:{}:", STANDARD.encode(content.sha256()));
    let wrong = format!("sha-256=:{}:", STANDARD.encode([7; 32]));
    for (digest, expected) in
        [(right, Ok(Verified::Digest)), (wrong, Err(ErrorCode::ChecksumMismatch)), ("sha-256=?".to_owned(), Ok(Verified::Length))]
    {
        let served = content.clone();
        let outcome = Outcome::of(std::slice::from_ref(&content), move |request| {
            honest(&served, request).set("repr-digest", digest.clone()).acts()
        })
        .await;
        match expected {
            Ok(verified) => assert_eq!(outcome.completed().verified, verified),
            Err(code) => assert_eq!(outcome.failed().code, code),
        }
    }
}

#[tokio::test]
async fn a_part_that_backs_off_does_not_keep_the_memory_of_those_behind_it() {
    let content = Content::new(32, 24 * PART);
    let served = content.clone();
    let server = LyingServer::start(move |request| {
        let (first, _) = request.range().expect("ranges work");
        if first == 10 * PART && request.index % 2 == 0 {
            return vec![Act::head("HTTP/1.1 500 Oops\nretry-after: 1\ncontent-length: 0\n\n")];
        }
        let mut answer = honest(&served, request);
        let rest = answer.body.split_off(answer.body.len() / 2);
        let mut acts = answer.acts();
        // Slow enough that more connections are worth it.
        for piece in rest.chunks(30_000) {
            acts.extend([Act::Pause(Duration::from_millis(100)), Act::Send(Bytes::copy_from_slice(piece))]);
        }
        acts
    })
    .await;
    let bench = Bench { engine: engine_with(4 * PART, Patience { tries: 20, ..patience() }), ..Bench::new() };
    let completed = bench.run(transfer(&server.url("/"))).await.expect("a transfer");
    assert_eq!(completed.sha256, Some(content.sha256()));
    assert_eq!(bench.ledger.restarts(), []);
}
