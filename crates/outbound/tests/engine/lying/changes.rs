//! Content that changes while it is fetched, and what tells its versions apart.

use std::sync::atomic::{AtomicUsize, Ordering};

use bowerbird_outbound::{Checksum, ErrorCode, RestartReason, Verified};
use bowerbird_testkit::{
    lying::{Act, LyingServer, Request},
    ranged_server::Content,
};

use super::{Answer, LEN, Outcome, broken_then, honest, partial, version, whole};
use crate::support::{Bench, PART, transfer};

#[tokio::test]
async fn a_new_version_restarts_the_transfer_whether_if_range_is_honoured_or_not() {
    for honours in [true, false] {
        let (old, new) = (version(13), Content::new(14, LEN));
        let served = new.clone();
        let outcome = broken_then(&[old, new.clone()], move |request| {
            let answer = if honours || request.range().is_none() { honest(&served, request) } else { partial(&served, request) };
            answer.acts()
        })
        .await;
        outcome.is(&new);
        assert_eq!(outcome.restarts(), [RestartReason::SourceChanged]);
    }
}

#[tokio::test]
async fn a_version_of_another_length_restarts_the_transfer() {
    for len in [LEN - 1, LEN + 1, PART] {
        let (old, new) = (version(15), Content::new(16, len));
        let (served, tag) = (new.clone(), old.etag());
        // The tag stays, so only the length, or the 416, tells.
        let outcome = broken_then(&[old, new.clone()], move |request| match request.range() {
            Some(_) => partial(&served, request).set("etag", tag.clone()).acts(),
            None => whole(&served).acts(),
        })
        .await;
        outcome.is(&new);
        assert!(outcome.restarts().contains(&RestartReason::SourceChanged), "{len}");
    }
}

#[tokio::test]
async fn a_416_that_explains_nothing_restarts_the_transfer() {
    let content = version(17);
    let served = content.clone();
    let refusing = AtomicUsize::new(1);
    let outcome = broken_then(std::slice::from_ref(&content), move |request| {
        if refusing.swap(0, Ordering::SeqCst) == 1 {
            return vec![Act::head("HTTP/1.1 416 Range Not Satisfiable\ncontent-length: 0\n\n")];
        }
        honest(&served, request).acts()
    })
    .await;
    outcome.is(&content);
    assert_eq!(outcome.restarts(), [RestartReason::SourceChanged]);
}

#[tokio::test]
async fn other_bytes_under_the_same_tag_are_found_out_by_a_digest() {
    let (old, new) = (version(18), Content::new(19, LEN));
    for (digest, completes) in [(new.sha256(), true), ([7; 32], false)] {
        let (first, then, tag) = (old.clone(), new.clone(), old.etag());
        let server = LyingServer::start(move |request| {
            if request.index == 0 { honest(&first, request).cut(PART + 5) } else { partial_or_whole(&then, request, &tag).acts() }
        })
        .await;
        let bench = Bench::new();
        let mut checked = transfer(&server.url("/"));
        checked.checksum = Some(Checksum::Sha256(digest));
        let result = bench.run(checked).await;
        let outcome = Outcome { bench, server, result };
        outcome.check(&[old.clone(), new.clone()]);
        assert_eq!(outcome.restarts()[0], RestartReason::ChecksumMismatch);
        if completes {
            outcome.is(&new);
            assert_eq!(outcome.completed().verified, Verified::Digest);
        } else {
            assert_eq!(outcome.failed().code, ErrorCode::ChecksumMismatch);
        }
    }
}

fn partial_or_whole(content: &Content, request: &Request, tag: &str) -> Answer {
    if request.range().is_some() { partial(content, request).set("etag", tag) } else { whole(content).set("etag", tag) }
}

#[tokio::test]
async fn without_a_strong_validator_nothing_is_resumed() {
    let unsafe_validators: [&[(&str, &str)]; 4] = [
        &[],
        &[("etag", "W/\"weak\"")],
        &[("last-modified", "Fri, 20 Nov 2026 10:00:00 GMT")],
        &[("last-modified", "Fri, 20 Nov 2026 10:00:00 GMT"), ("date", "Fri, 20 Nov 2026 10:00:00 GMT")],
    ];
    for headers in unsafe_validators {
        let (old, new) = (version(20), Content::new(21, LEN));
        let (first, then) = (old.clone(), new.clone());
        let outcome = Outcome::of(&[old, new.clone()], move |request| {
            let served = if request.index == 0 { &first } else { &then };
            let mut answer = honest(served, request).without("etag");
            for (name, value) in headers {
                answer = answer.set(name, *value);
            }
            if request.index == 0 { answer.cut(PART + 5) } else { answer.acts() }
        })
        .await;
        outcome.is(&new);
        assert_eq!(outcome.restarts(), [RestartReason::NotResumable], "{headers:?}");
        assert!(outcome.server.requests().iter().all(|request| request.header("if-range").is_none()));
    }
}

#[tokio::test]
async fn a_date_that_is_strong_resumes() {
    let content = version(22);
    let served = content.clone();
    let modified = "Fri, 20 Nov 2026 10:00:00 GMT";
    let outcome = Outcome::of(std::slice::from_ref(&content), move |request| {
        let answer =
            partial(&served, request).without("etag").set("last-modified", modified).set("date", "Fri, 20 Nov 2026 10:05:00 GMT");
        if request.index == 0 { answer.cut(PART + 5) } else { answer.acts() }
    })
    .await;
    outcome.is(&content);
    assert_eq!(outcome.server.requests()[1].header("if-range"), Some(modified));
    assert_eq!(outcome.restarts(), []);
}

#[tokio::test]
async fn a_digest_stands_in_for_a_validator() {
    let content = version(23);
    let served = content.clone();
    let server = LyingServer::start(move |request| {
        let answer = honest(&served, request).without("etag");
        if request.index == 0 { answer.cut(PART + 5) } else { answer.acts() }
    })
    .await;
    let bench = Bench::new();
    let mut checked = transfer(&server.url("/"));
    checked.checksum = Some(Checksum::Sha256(content.sha256()));
    bench.run(checked).await.expect("a transfer");
    assert_eq!(bench.ledger.restarts(), []);
    assert!(server.requests()[1].range().expect("a range").0 > PART);
}

#[tokio::test]
async fn a_tag_that_comes_and_goes_ends_in_one_piece() {
    let content = version(24);
    let served = content.clone();
    let outcome = broken_then(std::slice::from_ref(&content), move |request| {
        let answer = honest(&served, request);
        if request.header("if-range").is_some() {
            answer.without("etag").acts()
        } else if request.range().is_some() {
            answer.cut(PART + 5)
        } else {
            answer.acts()
        }
    })
    .await;
    outcome.is(&content);
    assert_eq!(outcome.restarts(), [RestartReason::SourceChanged; 3]);
}

#[tokio::test]
async fn a_source_that_changes_with_every_request_is_fetched_in_one_piece_in_the_end() {
    let versions: Vec<Content> = (0..40).map(|seed| Content::new(100 + seed, LEN)).collect();
    let served = versions.clone();
    let outcome = Outcome::of(&versions, move |request| {
        let answer = honest(&served[request.index % served.len()], request);
        if request.range().is_some() { answer.cut(PART + 5) } else { answer.acts() }
    })
    .await;
    outcome.completed();
    assert_eq!(outcome.restarts(), [RestartReason::SourceChanged; 3]);
}

#[tokio::test]
async fn a_source_that_changed_three_times_and_breaks_again_is_not_spliced() {
    let versions: Vec<Content> = (0..40).map(|seed| Content::new(200 + seed, LEN)).collect();
    let served = versions.clone();
    let outcome =
        Outcome::of(&versions, move |request| honest(&served[request.index % served.len()], request).cut(PART + 5)).await;
    assert_eq!(outcome.failed().code, ErrorCode::ConnectFailed);
}
