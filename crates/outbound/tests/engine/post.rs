//! Handing something over to a server that may be slow, lying, or not where it says.

use std::time::{Duration, Instant};

use bowerbird_outbound::{AddressPolicy, Answer, Client, ClientOptions, Error, ErrorCode, Post, Timeouts};
use bowerbird_testkit::{
    lying::{Act, LyingServer},
    names::{NameServer, Zone},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use time::OffsetDateTime;

const WITHIN: Duration = Duration::from_secs(10);

fn options() -> ClientOptions {
    let loopback = vec!["127.0.0.1/32".parse().expect("a network")];
    ClientOptions {
        policy: AddressPolicy::new(loopback, Vec::new(), Vec::new(), Vec::new()),
        timeouts: Timeouts { connect: Duration::from_secs(1), ..Timeouts::default() },
        ..ClientOptions::default()
    }
}

async fn post_by(client: &Client, url: &str, within: Duration) -> Result<Answer, Error> {
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    client.post(Post { url, headers, body: Bytes::from_static(b"{\"a\": 1}"), within, keep_bytes: 16 }).await
}

async fn post(url: &str) -> Result<Answer, Error> {
    post_by(&Client::new(options()).expect("a client"), url, WITHIN).await
}

async fn saying(text: &'static str) -> LyingServer {
    LyingServer::start(move |_| vec![Act::head(text), Act::Close]).await
}

#[tokio::test]
async fn a_body_arrives_as_it_is_with_its_length_and_the_answer_is_kept_in_part() {
    let server = saying("HTTP/1.1 202 Accepted\ncontent-length: 26\nx-a: b\n\nabcdefghijklmnopqrstuvwxyz").await;
    let answer = post(&server.url("/hook?a=b#c")).await.expect("an answer");
    assert_eq!(answer.status, 202);
    assert_eq!(answer.headers["x-a"], "b");
    assert_eq!(&answer.body[..], b"abcdefghijklmnop");
    let request = &server.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/hook?a=b"));
    assert_eq!(&request.body[..], b"{\"a\": 1}");
    assert_eq!(request.header("content-length"), Some("8"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("transfer-encoding"), None);
    assert_eq!(request.header("cookie"), None);
    assert_eq!(request.header("referer"), None);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_nobody_goes_there() {
    let elsewhere = saying("HTTP/1.1 200 OK\ncontent-length: 0\n\n").await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = elsewhere.url("/");
        let head = format!("HTTP/1.1 {status}\nlocation: {location}\ncontent-length: 0\n\n");
        let server = LyingServer::start(move |_| vec![Act::head(&head)]).await;
        let answer = post(&server.url("/")).await.expect("an answer");
        assert_eq!(answer.status.as_str(), &status[..3]);
        assert_eq!(server.requests().len(), 1);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn what_was_sent_is_not_sent_again_when_the_connection_breaks() {
    let server = LyingServer::start(|_| vec![Act::Reset]).await;
    let error = post(&server.url("/")).await.expect_err("a broken connection");
    assert_eq!(error.code(), ErrorCode::ConnectFailed, "{error:?}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn each_post_has_a_connection_of_its_own() {
    let server = LyingServer::start(|_| vec![Act::head("HTTP/1.1 200 OK\ncontent-length: 2\n\nok")]).await;
    let client = Client::new(options()).expect("a client");
    for _ in 0..3 {
        post_by(&client, &server.url("/"), WITHIN).await.expect("an answer");
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn a_server_that_says_nothing_or_dribbles_its_head_is_left_when_the_time_is_over() {
    let silent = LyingServer::start(|_| vec![Act::Silence]).await;
    let dribbling =
        LyingServer::start(|_| vec![Act::Dribble("HTTP/1.1 200 OK\r\n".repeat(100).into(), Duration::from_millis(100))]).await;
    let client = Client::new(options()).expect("a client");
    for server in [silent, dribbling] {
        let began = Instant::now();
        let error = post_by(&client, &server.url("/"), Duration::from_millis(600)).await.expect_err("too slow");
        assert!(matches!(error, Error::Timeout(_)), "{error:?}");
        assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&began.elapsed()));
    }
}

#[tokio::test]
async fn a_body_without_end_changes_nothing_about_the_status() {
    let endless =
        LyingServer::start(|_| vec![Act::head("HTTP/1.1 200 OK\n\n"), Act::Repeat(Bytes::from(vec![b'x'; 64 * 1024]))]).await;
    let stuck = LyingServer::start(|_| vec![Act::head("HTTP/1.1 200 OK\ncontent-length: 100\n\nabc"), Act::Silence]).await;
    let broken = saying("HTTP/1.1 200 OK\ncontent-length: 100\n\nabc").await;
    let client = Client::new(options()).expect("a client");
    for (server, kept) in [(endless, 16), (stuck, 3), (broken, 3)] {
        let answer = post_by(&client, &server.url("/"), Duration::from_secs(1)).await.expect("a status");
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, kept));
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_is_an_error() {
    for text in ["SSH-2.0-OpenSSH_9.2\n", "HTTP/1.1 200 OK\ncontent-length: 3\ncontent-length: 4\n\nabcd"] {
        let server = saying(text).await;
        let error = post(&server.url("/")).await.expect_err(text);
        assert!(matches!(error, Error::Protocol(_) | Error::Broken(_)), "{text:?}: {error:?}");
    }
}

#[tokio::test]
async fn what_the_rules_close_is_not_dialled_by_text_nor_by_name() {
    let canary = LyingServer::start(|_| vec![Act::head("HTTP/1.1 200 OK\ncontent-length: 0\n\n")]).await;
    let port = canary.address().port();
    let names = NameServer::start(|name, _| {
        let address = if name == "open.example" { "127.0.0.1" } else { "127.0.0.99" };
        Zone { alias: None, addresses: vec![address.parse().expect("an address")] }
    })
    .await;
    let client = Client::new(ClientOptions { name_servers: vec![names.address()], ..options() }).expect("a client");
    for host in ["closed.example", "127.0.0.2", "[::1]", "10.0.0.1", "169.254.169.254", "0x7f.2", "[::ffff:127.0.0.2]"] {
        let error = post_by(&client, &format!("http://{host}:{port}/"), WITHIN).await.expect_err(host);
        assert_eq!(error.code(), ErrorCode::BlockedTarget, "{host}: {error:?}");
    }
    for url in ["ftp://open.example/", "http://user:word@open.example/"] {
        assert_eq!(post_by(&client, url, WITHIN).await.expect_err(url).code(), ErrorCode::BlockedTarget);
    }
    assert_eq!(canary.connections(), 0);
    assert_eq!(post_by(&client, &format!("http://open.example:{port}/"), WITHIN).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_name_is_asked_for_again_with_each_post() {
    let server = LyingServer::start(|_| vec![Act::head("HTTP/1.1 200 OK\ncontent-length: 0\n\n")]).await;
    let names = NameServer::start(|_, times| {
        let address = if times == 0 { "127.0.0.1" } else { "127.0.0.99" };
        Zone { alias: None, addresses: vec![address.parse().expect("an address")] }
    })
    .await;
    let client = Client::new(ClientOptions { name_servers: vec![names.address()], ..options() }).expect("a client");
    let url = format!("http://flipping.example:{}/", server.address().port());
    assert_eq!(post_by(&client, &url, WITHIN).await.expect("the allowed address").status, 200);
    assert_eq!(post_by(&client, &url, WITHIN).await.expect_err("the other").code(), ErrorCode::BlockedTarget);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn retry_after_is_read_in_both_its_forms() {
    let now = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    for (value, seconds) in [("120", Some(120)), ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)), ("soon", None), ("-1", None)] {
        let head = format!("HTTP/1.1 503 Unavailable\nretry-after: {value}\ncontent-length: 0\n\n");
        let server = LyingServer::start(move |_| vec![Act::head(&head)]).await;
        let answer = post(&server.url("/")).await.expect("an answer");
        assert_eq!(answer.retry_after(now), seconds.map(Duration::from_secs), "{value}");
    }
}
