//! Messages that end where they should not, or in two places at once.

use std::time::Duration;

use bowerbird_outbound::{ErrorCode, Verified};
use bowerbird_testkit::{
    lying::{Act, Request},
    ranged_server::Content,
};

use super::{LEN, Outcome, version, whole};

#[tokio::test]
async fn a_body_shorter_than_its_length_is_no_content() {
    let content = version(1);
    let outcome = Outcome::of(&[], move |_| whole(&content).without("etag").cut(LEN - 1)).await;
    assert_eq!((outcome.failed().code, outcome.failed().retryable), (ErrorCode::ConnectFailed, true));
    assert_eq!(outcome.server.requests().len(), 3, "each run asks once, as nothing can be resumed");
}

#[tokio::test]
async fn bytes_beyond_the_length_are_not_content() {
    let (content, short) = (version(2), Content::new(2, LEN - 100));
    Outcome::of(std::slice::from_ref(&short), move |_| whole(&content).set("content-length", (LEN - 100).to_string()).acts())
        .await
        .is(&Content::new(2, LEN - 100));
}

#[tokio::test]
async fn framing_that_makes_no_sense_is_refused() {
    for head in [
        "content-length: 5\ncontent-length: 6",
        "content-length: -5",
        "content-length: 99999999999999999999",
        "content-length: 5\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: gzip",
        "content-length: 5\nx: \0",
        "content-length: 5\n folded",
    ] {
        let text = format!("HTTP/1.1 200 OK\n{head}\n\n5\nhello\n0\n\n");
        let outcome = Outcome::of(&[], move |_| vec![Act::head(&text), Act::Close]).await;
        assert_eq!(outcome.failed().code, ErrorCode::ProtocolError, "{head}");
    }
}

#[tokio::test]
async fn a_length_beyond_all_reason_is_too_large() {
    let outcome =
        Outcome::of(&[], |_| vec![Act::head("HTTP/1.1 200 OK\ncontent-length: 9223372036854775807\n\nx"), Act::Silence]).await;
    assert_eq!((outcome.failed().code, outcome.failed().retryable), (ErrorCode::TooLarge, false));
}

#[tokio::test]
async fn chunks_with_extensions_and_trailers_arrive() {
    let content = version(3);
    let served = content.clone();
    let outcome = Outcome::of(std::slice::from_ref(&content), move |_| whole(&served).chunked().acts()).await;
    outcome.is(&content);
    assert_eq!(outcome.completed().verified, Verified::Length, "the last chunk is a mark");
}

#[tokio::test]
async fn chunks_that_stop_before_the_last_are_no_content() {
    for (bad, code) in [
        ("5\nhello\n", ErrorCode::ConnectFailed),
        ("5\nhello\nzz\n", ErrorCode::ProtocolError),
        ("5\nhello\nfffffffffffffffff\n", ErrorCode::ProtocolError),
        ("-5\nhello\n", ErrorCode::ProtocolError),
    ] {
        let text = format!("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n{bad}");
        let outcome = Outcome::of(&[], move |_| vec![Act::head(&text), Act::Close]).await;
        assert_eq!(outcome.failed().code, code, "{bad:?}");
    }
}

#[tokio::test]
async fn a_trailer_of_a_megabyte_is_no_end() {
    let trailer = format!("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n5\nhello\n0\nx: {}\n\n", "y".repeat(1 << 20));
    let outcome = Outcome::of(&[], move |_| vec![Act::head(&trailer), Act::Close]).await;
    assert!(outcome.bench.sink.object().is_none() && !outcome.failed().detail.is_empty());
}

#[tokio::test]
async fn content_that_ends_with_its_connection_is_marked_as_not_verified() {
    for protocol in ["1.1", "1.0"] {
        let content = version(4);
        let (served, head) = (content.clone(), format!("HTTP/{protocol} 200 OK\n\n"));
        let script = move |_: &Request| vec![Act::head(&head), Act::Send(served.read(0, LEN).into()), Act::Close];
        let outcome = Outcome::of(std::slice::from_ref(&content), script).await;
        outcome.is(&content);
        assert_eq!(outcome.completed().verified, Verified::Nothing);
    }
}

#[tokio::test]
async fn a_reset_is_not_the_end_of_content() {
    let content = version(5);
    let script = move |_: &Request| {
        vec![
            Act::head("HTTP/1.1 200 OK\n\n"),
            Act::Send(content.read(0, LEN).into()),
            Act::Pause(Duration::from_millis(100)),
            Act::Reset,
        ]
    };
    assert_eq!(Outcome::of(&[], script).await.failed().code, ErrorCode::ConnectFailed);
}

#[tokio::test]
async fn what_has_no_head_is_no_content() {
    let outcome = Outcome::of(&[], |_| vec![Act::Send("just bytes, as in HTTP/0.9".into()), Act::Close]).await;
    assert_eq!(outcome.failed().code, ErrorCode::ProtocolError);
}

#[tokio::test]
async fn statuses_without_content_are_no_content() {
    for status in
        ["201 Created", "202 Accepted", "204 No Content", "205 Reset Content", "304 Not Modified", "400 Bad Request", "302 Found"]
    {
        let text = format!("HTTP/1.1 {status}\ncontent-length: 5\n\nhello");
        let outcome = Outcome::of(&[], move |_| vec![Act::head(&text), Act::Close]).await;
        assert_eq!((outcome.failed().code, outcome.failed().retryable), (ErrorCode::HttpStatus, false), "{status}");
    }
}
