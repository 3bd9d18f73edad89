//! Ranges that are not the ones that were asked for.

use bowerbird_outbound::{ErrorCode, RestartReason};
use bowerbird_testkit::{lying::Request, ranged_server::Content};

use super::{Answer, LEN, Outcome, broken_then, honest, partial, version, whole};
use crate::support::PART;

#[tokio::test]
async fn a_server_that_ignores_ranges_is_fetched_in_one_piece() {
    let content = version(6);
    let served = content.clone();
    let outcome = Outcome::of(std::slice::from_ref(&content), move |_| whole(&served).acts()).await;
    outcome.is(&content);
    assert_eq!(outcome.server.requests().len(), 1);
}

#[tokio::test]
async fn an_honest_server_that_breaks_is_resumed_where_it_broke() {
    let content = version(7);
    let served = content.clone();
    let outcome = broken_then(std::slice::from_ref(&content), move |request| honest(&served, request).acts()).await;
    outcome.is(&content);
    let second = &outcome.server.requests()[1];
    assert_eq!(second.header("range").map(str::to_owned), Some(format!("bytes={}-{}", PART + PART / 2, 2 * PART - 1)));
    assert_eq!(second.header("if-range").map(str::to_owned), Some(content.etag()));
    assert_eq!(outcome.restarts(), []);
}

#[tokio::test]
async fn a_range_that_was_not_asked_for_is_never_taken() {
    type Bend = fn(&Content, &Request) -> Answer;
    let lies: [(&str, Bend); 13] = [
        ("starts at zero", |content, request| {
            partial(content, request).set("content-range", format!("bytes 0-{}/{LEN}", LEN - 1))
        }),
        ("starts earlier", |content, request| shifted(content, request, -10)),
        ("starts later", |content, request| shifted(content, request, 10)),
        ("starts later, in chunks", |content, request| shifted(content, request, 10).chunked()),
        ("does not say", |content, request| partial(content, request).without("content-range")),
        ("says it wrongly", |content, request| partial(content, request).set("content-range", "bytes 0-")),
        ("says it as it was asked", |content, request| partial(content, request).set("content-range", "bytes=0-9/10")),
        ("ends before it starts", |content, request| partial(content, request).set("content-range", "bytes 9-0/10")),
        ("ends behind the end", |content, request| {
            partial(content, request).set("content-range", format!("bytes {}-{LEN}/{LEN}", request.range().expect("a range").0))
        }),
        ("does not say which", |content, request| partial(content, request).set("content-range", format!("bytes */{LEN}"))),
        ("counts something else", |content, request| {
            partial(content, request)
                .set("content-range", format!("items {}-{}/{LEN}", request.range().expect("a range").0, LEN - 1))
        }),
        ("several ranges", |content, request| {
            partial(content, request).without("content-range").set("content-type", "multipart/byteranges; boundary=x")
        }),
        ("has another length than it says", |content, request| {
            let answer = partial(content, request);
            let length = answer.body.len() - 1;
            answer.set("content-length", length.to_string())
        }),
    ];
    for (name, lie) in lies {
        let content = version(8);
        let served = content.clone();
        let outcome = broken_then(std::slice::from_ref(&content), move |request| {
            if request.range().is_some() { lie(&served, request).acts() } else { whole(&served).acts() }
        })
        .await;
        assert_eq!(outcome.completed().sha256, Some(content.sha256()), "{name}");
        assert_eq!(outcome.restarts(), [RestartReason::NotResumable], "{name}: fetched in one piece in the end");
    }
}

fn shifted(content: &Content, request: &Request, by: i64) -> Answer {
    let (first, last) = request.range().expect("a range was asked for");
    let first = first.saturating_add_signed(by);
    let end = last.map_or(content.len(), |last| last + 1);
    let body = content.read(first, end);
    partial(content, request).set("content-range", format!("bytes {first}-{}/{LEN}", end - 1)).with_body(body)
}

#[tokio::test]
async fn a_first_answer_with_a_range_that_makes_no_sense_is_asked_again_without() {
    for range in ["bytes 5-9/10", "bytes 0-", "bytes 0-99/50"] {
        let content = version(9);
        let served = content.clone();
        let outcome = Outcome::of(std::slice::from_ref(&content), move |request| match request.range() {
            Some(_) => partial(&served, request).set("content-range", range).acts(),
            None => whole(&served).acts(),
        })
        .await;
        outcome.is(&content);
    }
    let content = version(9);
    let always = move |_: &Request| whole(&content).status("206 Partial Content").set("content-range", "bytes 5-9/10").acts();
    assert_eq!(Outcome::of(&[], always).await.failed().code, ErrorCode::ProtocolError);
}

#[tokio::test]
async fn ranges_shorter_than_asked_are_asked_for_again() {
    let content = version(10);
    let served = content.clone();
    let outcome = Outcome::of(std::slice::from_ref(&content), move |request| {
        let (first, last) = request.range().expect("ranges work, so they are asked for");
        let last = last.unwrap_or(u64::MAX).min(first + 29_999);
        partial(&served, &Request { headers: vec![("range".to_owned(), format!("bytes={first}-{last}"))], ..request.clone() })
            .acts()
    })
    .await;
    outcome.is(&content);
    assert_eq!(outcome.restarts(), []);
}

#[tokio::test]
async fn content_whose_length_is_a_star_ends_with_416() {
    let content = version(11);
    let served = content.clone();
    let outcome = Outcome::of(std::slice::from_ref(&content), move |request| {
        let (first, _) = request.range().expect("a range");
        if first >= LEN {
            return partial(&served, request).acts();
        }
        let end = (first + 50_000).min(LEN);
        let asked = Request { headers: vec![("range".to_owned(), format!("bytes={first}-{}", end - 1))], ..request.clone() };
        partial(&served, &asked).set("content-range", format!("bytes {first}-{}/*", end - 1)).acts()
    })
    .await;
    outcome.is(&content);
}

#[tokio::test]
async fn what_is_said_about_ranges_beforehand_counts_for_nothing() {
    let content = version(12);
    let served = content.clone();
    let none = move |request: &Request| honest(&served, request).set("accept-ranges", "none").acts();
    Outcome::of(std::slice::from_ref(&content), none).await.is(&content);
    let served = content.clone();
    let ignoring = move |request: &Request| {
        let answer = whole(&served).set("accept-ranges", "bytes");
        if request.index == 0 { answer.cut(PART * 2) } else { answer.acts() }
    };
    let outcome = Outcome::of(std::slice::from_ref(&content), ignoring).await;
    outcome.is(&content);
    assert_eq!(outcome.restarts(), [RestartReason::NotResumable]);
}

#[tokio::test]
async fn short_ranges_without_a_validator_are_never_put_together() {
    for len in [LEN, PART / 2] {
        let (old, new) = (Content::new(33, len), Content::new(34, len));
        let (first, then) = (old.clone(), new.clone());
        let outcome = Outcome::of(&[old, new.clone()], move |request| {
            let served = if request.index == 0 { &first } else { &then };
            let Some((from, _)) = request.range() else { return whole(served).without("etag").acts() };
            let asked =
                Request { headers: vec![("range".to_owned(), format!("bytes={from}-{}", from + 19_999))], ..request.clone() };
            partial(served, &asked).without("etag").acts()
        })
        .await;
        outcome.is(&new);
        assert_eq!(outcome.restarts(), [RestartReason::NotResumable]);
    }
}
