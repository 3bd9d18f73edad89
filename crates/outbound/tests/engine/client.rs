//! The guarded client against real sockets: redirects, headers, framing, reuse, and what is never dialled.

use std::time::Duration;

use bowerbird_outbound::{AddressPolicy, Client, ClientOptions, Error, ErrorCode, Framing, Response, Timeouts};
use bowerbird_testkit::{
    lying::{Act, LyingServer},
    ranged_server::{Content, Options, RangedServer},
};
use http::{HeaderMap, HeaderValue, header};
use tokio_util::sync::CancellationToken;

fn options() -> ClientOptions {
    let loopback = vec!["127.0.0.0/8".parse().expect("a network")];
    ClientOptions {
        policy: AddressPolicy::new(loopback, Vec::new(), Vec::new(), Vec::new()),
        timeouts: Timeouts { first_byte: Duration::from_secs(2), stall: Duration::from_millis(300), ..Timeouts::default() },
        ..ClientOptions::default()
    }
}

fn client() -> Client {
    Client::new(options()).expect("a client")
}

async fn get(url: &str) -> Result<Response, Error> {
    client().get(url, HeaderMap::new(), &CancellationToken::new()).await
}

async fn body(response: &mut Response) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(bytes) = response.body.chunk().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// A server that answers every request with the same bytes and then closes.
async fn saying(text: &'static str) -> LyingServer {
    LyingServer::start(move |_| vec![Act::head(text), Act::Close]).await
}

#[tokio::test]
async fn a_file_comes_as_it_is() {
    let content = Content::new(1, 3_000_000);
    let server = RangedServer::start(content.clone(), Options::default()).await;
    let mut response = get(&server.url()).await.expect("an answer");
    assert_eq!(response.status, 200);
    assert_eq!(response.body.framing(), Framing::Length(3_000_000));
    assert_eq!(body(&mut response).await.expect("a body"), content.read(0, 3_000_000));
}

#[tokio::test]
async fn a_request_says_as_little_as_it_can() {
    let server = saying("HTTP/1.1 200 OK\ncontent-length: 0\n\n").await;
    get(&server.url("/a?b=c#d")).await.expect("an answer");
    let requests = server.requests();
    assert_eq!(requests[0].target, "/a?b=c");
    let mut names: Vec<&str> = requests[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "accept-encoding", "host", "user-agent"]);
    assert_eq!(requests[0].header("accept-encoding"), Some("identity"));
    assert_eq!(requests[0].header("host"), Some(server.address().to_string().as_str()));
}

#[tokio::test]
async fn headers_of_the_user_do_not_leave_the_origin() {
    let second = saying("HTTP/1.1 200 OK\ncontent-length: 0\n\n").await;
    let beyond = second.url("/");
    let first = LyingServer::start(move |request| {
        let location = if request.target == "/" { "/same".to_owned() } else { beyond.clone() };
        vec![Act::head(&format!("HTTP/1.1 302 Found\nlocation: {location}\ncontent-length: 0\n\n"))]
    })
    .await;
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
    headers.insert("x-anything", HeaderValue::from_static("private"));
    let response = client().get(&first.url("/"), headers, &CancellationToken::new()).await.expect("an answer");
    assert_eq!(response.url.as_str(), second.url("/"));
    assert!(response.redirected);
    assert!(first.requests().iter().all(|request| request.header("authorization").is_some()));
    assert_eq!(first.connections(), 1, "the second hop to the same origin reuses the connection");
    assert_eq!(second.requests()[0].header("authorization"), None);
    assert_eq!(second.requests()[0].header("x-anything"), None);
    assert_eq!(second.requests()[0].header("referer"), None);
}

#[tokio::test]
async fn redirects_end_after_five_and_in_circles() {
    let endless = LyingServer::start(|request| {
        vec![Act::head(&format!("HTTP/1.1 307 Temporary Redirect\nlocation: {}x\ncontent-length: 0\n\n", request.target))]
    })
    .await;
    assert!(matches!(get(&endless.url("/")).await, Err(Error::TooManyRedirects)));
    assert_eq!(endless.requests().len(), 6);
    let circle = saying("HTTP/1.1 301 Moved\nlocation: /\ncontent-length: 0\n\n").await;
    assert!(matches!(get(&circle.url("/")).await, Err(Error::TooManyRedirects)));
    assert_eq!(circle.requests().len(), 1);
}

#[tokio::test]
async fn a_redirect_out_of_the_allowed_world_is_not_followed() {
    for location in [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "//192.168.0.1/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://user:word@127.0.0.1/",
        "gopher://127.0.0.1:6379/_FLUSHALL",
    ] {
        let server = LyingServer::start(move |_| {
            vec![Act::head(&format!("HTTP/1.1 302 Found\nlocation: {location}\ncontent-length: 0\n\n"))]
        })
        .await;
        let error = get(&server.url("/")).await.expect_err(location);
        assert_eq!(error.code(), ErrorCode::BlockedTarget, "{location}: {error}");
    }
}

#[tokio::test]
async fn a_location_that_is_huge_or_no_url_is_refused() {
    let server = LyingServer::start(|_| {
        vec![Act::head(&format!("HTTP/1.1 302 Found\nlocation: /{}\n\n", "a".repeat(10_000))), Act::Close]
    })
    .await;
    assert_eq!(get(&server.url("/")).await.expect_err("too long").code(), ErrorCode::ProtocolError);
    let server = saying("HTTP/1.1 302 Found\nlocation: http://[::1\n\n").await;
    assert_eq!(get(&server.url("/")).await.expect_err("no URL").code(), ErrorCode::BlockedTarget);
}

#[tokio::test]
async fn an_answer_that_can_be_read_in_two_ways_is_refused() {
    for answer in [
        "HTTP/1.1 200 OK\ncontent-length: 3\ncontent-length: 4\n\nabcd",
        "HTTP/1.1 200 OK\ncontent-length: -3\n\nabc",
        "HTTP/1.1 200 OK\ncontent-length: 18446744073709551616\n\nabc",
        "HTTP/1.1 200 OK\ncontent-length: 3\ntransfer-encoding: chunked\n\n3\nabc\n0\n\n",
        "HTTP/1.1 200 OK\ntransfer-encoding: chunked, chunked\n\n3\nabc\n0\n\n",
        "HTTP/1.1 200 OK\ntransfer-encoding: chunked\ntransfer-encoding: chunked\n\n3\nabc\n0\n\n",
        "HTTP/1.1 200 OK\ntransfer-encoding: chunked, identity\n\n3\nabc\n0\n\n",
        "HTTP/1.1 200 OK\ntransfer-encoding: gzip, chunked\n\n3\nabc\n0\n\n",
        "HTTP/1.0 200 OK\ntransfer-encoding: chunked\n\n3\nabc\n0\n\n",
        "HTTP/1.1 200 OK\nx: a\n b\ncontent-length: 3\n\nabc",
        "HTTP/1.1 200 OK\nx: a\0b\ncontent-length: 3\n\nabc",
        "HTTP/1.1 200 OK\nx : a\ncontent-length: 3\n\nabc",
        "SSH-2.0-OpenSSH_9.2\n",
        "hello",
    ] {
        let server = saying(answer).await;
        let error = get(&server.url("/")).await.expect_err(answer);
        assert!(matches!(error, Error::Protocol(_) | Error::Broken(_)), "{answer:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_head_beyond_64_kib_or_100_lines_is_refused() {
    let large = format!("HTTP/1.1 200 OK\nx: {}\ncontent-length: 0\n\n", "a".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\n{}content-length: 0\n\n", "x: y\n".repeat(200));
    for head in [large, many] {
        let server = LyingServer::start(move |_| vec![Act::head(&head), Act::Close]).await;
        assert_eq!(get(&server.url("/")).await.expect_err("too large").code(), ErrorCode::ProtocolError);
    }
}

#[tokio::test]
async fn a_flood_of_interim_answers_ends() {
    let server = LyingServer::start(|_| vec![Act::Repeat("HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n".repeat(100).into())]).await;
    assert!(matches!(get(&server.url("/")).await, Err(Error::Timeout(_))));
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_an_error_and_one_that_stalls_too() {
    let cut = saying("HTTP/1.1 200 OK\ncontent-length: 10\n\nabc").await;
    let mut response = get(&cut.url("/")).await.expect("a head");
    assert!(matches!(body(&mut response).await, Err(Error::Broken(_))));
    let cut = saying("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n3\nabc\n").await;
    let mut response = get(&cut.url("/")).await.expect("a head");
    assert!(matches!(body(&mut response).await, Err(Error::Broken(_))));
    let bad = saying("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\nzz\nabc\n0\n\n").await;
    let mut response = get(&bad.url("/")).await.expect("a head");
    assert!(matches!(body(&mut response).await, Err(Error::Protocol(_))));
    let stalled = LyingServer::start(|_| vec![Act::head("HTTP/1.1 200 OK\ncontent-length: 10\n\nabc"), Act::Silence]).await;
    let mut response = get(&stalled.url("/")).await.expect("a head");
    assert!(matches!(body(&mut response).await, Err(Error::Stalled)));
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out_and_one_that_is_not_there_fails_at_once() {
    let silent = LyingServer::start(|_| vec![Act::Silence]).await;
    assert!(matches!(get(&silent.url("/")).await, Err(Error::Timeout(_))));
    let address = silent.address();
    drop(silent);
    assert!(matches!(get(&format!("http://{address}/")).await, Err(Error::Connect(_))));
}

#[tokio::test]
async fn a_session_reuses_its_connection_and_survives_that_it_was_closed() {
    let server = LyingServer::start(|request| {
        let mut acts = vec![Act::head("HTTP/1.1 200 OK\ncontent-length: 3\n\nabc")];
        if request.index == 1 {
            acts.push(Act::Close);
        }
        acts
    })
    .await;
    let session = client().session();
    let url = client().check_url(&server.url("/")).expect("an allowed URL");
    for _ in 0..4 {
        let mut response = session.get(&url, &HeaderMap::new(), &HeaderMap::new()).await.expect("an answer");
        assert_eq!(body(&mut response).await.expect("a body"), b"abc");
    }
    assert_eq!(server.connections(), 2);
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn cancelling_ends_a_request_at_once() {
    let server = LyingServer::start(|_| vec![Act::Silence]).await;
    let cancel = CancellationToken::new();
    let canceling = cancel.clone();
    let started = std::time::Instant::now();
    let (client, url) = (client(), server.url("/"));
    let asking = client.get(&url, HeaderMap::new(), &cancel);
    let (result, ()) = tokio::join!(asking, async {
        while server.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        canceling.cancel();
    });
    assert!(matches!(result, Err(Error::Canceled)));
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn an_internal_client_reaches_its_endpoint_and_nothing_else() {
    let server = saying("HTTP/1.1 302 Found\nlocation: /elsewhere\ncontent-length: 0\n\n").await;
    let other = saying("HTTP/1.1 200 OK\ncontent-length: 0\n\n").await;
    let by_name = format!("http://localhost:{}/", server.address().port());
    let named = Client::internal(&by_name.parse().expect("a URL"), Timeouts::default()).expect("a client");
    let response = named.get(&by_name, HeaderMap::new(), &CancellationToken::new()).await;
    assert_eq!(response.expect("an answer").status, 302);
    let endpoint = server.url("/").parse().expect("a URL");
    let client = Client::internal(&endpoint, Timeouts::default()).expect("a client");
    let response = client.get(&server.url("/bucket/key?signature=x"), HeaderMap::new(), &CancellationToken::new()).await;
    assert_eq!(response.expect("an answer").status, 302, "a redirect is an answer, not a way");
    let refused = client.get(&other.url("/"), HeaderMap::new(), &CancellationToken::new()).await;
    assert_eq!(refused.expect_err("another port").code(), ErrorCode::BlockedTarget);
    assert_eq!(other.connections(), 0);
}
