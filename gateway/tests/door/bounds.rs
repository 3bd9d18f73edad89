//! Raw sockets: what is malformed, slow, endless or silent ends soon, with a reason where one can be told.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(20);

async fn dial(stage: &Stage) -> TcpStream {
    #[expect(clippy::disallowed_methods, reason = "a test talks to the server that it started")]
    TcpStream::connect(stage.running.api).await.unwrap()
}

/// Everything until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection is not closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn exchange(stage: &Stage, request: &str) -> String {
    let mut stream = dial(stage).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

/// The problem document at the end of an answer.
fn problem(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap(), "{answer}");
    serde_json::from_str(body).unwrap_or_else(|_| panic!("no problem: {answer:?}"))
}

#[tokio::test]
async fn exactly_one_sane_host_is_wanted() {
    let stage = Stage::set().await;
    for hosts in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host: \r\n",
        "Host: a b\r\n",
        "Host: user@a\r\n",
        "Host: a/b\r\n",
    ] {
        let answer = exchange(&stage, &format!("GET /v1/account HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{hosts:?}: {answer}");
        assert_eq!(problem(&answer)["code"], "bad_request", "{hosts:?}");
    }
    for host in ["a", "a:8080", "127.0.0.1", "[::1]:80"] {
        let answer = exchange(&stage, &format!("GET /v1/account HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{host}: {answer}");
    }
}

#[tokio::test]
async fn what_is_not_http_gets_a_problem_all_the_same() {
    let stage = Stage::set().await;
    let cases = [
        "garbage\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHo st: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: nonsense\r\n\r\n",
    ];
    for request in cases {
        let answer = exchange(&stage, request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
        assert_eq!(problem(&answer)["code"], "bad_request", "{request:?}");
    }
    // Cleartext HTTP/2 is not spoken.
    assert_eq!(exchange(&stage, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "");
}

#[tokio::test]
async fn odd_targets_are_answered_like_any_other() {
    let stage = Stage::set().await;
    let cases = [
        ("OPTIONS *", "404"),
        ("CONNECT a:80", "404"),
        ("GET http://elsewhere.example/v1/account", "401"),
        ("GET /v1/%61ccount", "404"),
        ("GET /v1/downloads/%30198c0de-7a2b-7c3d-8e4f-0123456789ad", "401"),
        ("GET /v1/downloads/../account", "404"),
        ("GET /%ff%00%0d%0a", "400"),
    ];
    for (line, status) in cases {
        let answer = exchange(&stage, &format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
        assert_eq!(problem(&answer)["status"].to_string(), status, "{line}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let stage = Stage::set().await;
    let long = "x".repeat(40_000);
    let many = "A: b\r\n".repeat(101);
    let cases = [
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
    ];
    for request in cases {
        let answer = exchange(&stage, &request).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert_eq!(problem(&answer)["code"], "head_too_large");
    }
}

#[tokio::test]
async fn garbage_behind_a_good_request_does_not_spoil_its_answer() {
    let stage = Stage::set().await;
    let answer = exchange(&stage, "GET /v1/account HTTP/1.1\r\nHost: a\r\n\r\ngarbage\r\n\r\n").await;
    let (first, second) = answer.split_at(answer.rfind("HTTP/1.1 400").unwrap());
    assert!(first.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(second.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(problem(second)["code"], "bad_request");
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let stage = Stage::set().await;
    let request = "GET /v1/account HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET /v1/account HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = exchange(&stage, &format!("{}{last}", request.repeat(20))).await;
    assert_eq!(answer.matches("HTTP/1.1 401 ").count(), 21, "{answer}");
}

#[tokio::test]
async fn slow_clients_are_sent_away() {
    let stage = Stage::with("gateway.read_timeout = '1s'").await;
    let within = |begun: Instant, least: u64, most: u64| {
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(least) && took < Duration::from_millis(most), "{took:?}");
    };

    // Says nothing at all.
    let begun = Instant::now();
    assert_eq!(rest(&mut dial(&stage).await).await, "");
    within(begun, 900, 6000);

    // Half a head.
    let begun = Instant::now();
    let answer = exchange(&stage, "GET /v1/account HTTP/1.1\r\nHost: a\r\n").await;
    assert_eq!(problem(&answer)["code"], "request_timeout");
    within(begun, 900, 6000);

    // A head that drips.
    let begun = Instant::now();
    let (mut reading, mut writing) = dial(&stage).await.into_split();
    let mut bytes = Vec::new();
    let drip = async {
        loop {
            if writing.write_all(b"A").await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = drip => {}
        _ = timeout(PATIENCE, reading.read_to_end(&mut bytes)) => {}
    }
    assert_eq!(problem(&String::from_utf8_lossy(&bytes))["code"], "request_timeout");
    within(begun, 900, 6000);

    // Half a body.
    let begun = Instant::now();
    let head = "POST /v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    let answer = exchange(&stage, head).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(problem(&answer)["code"], "request_timeout");
    within(begun, 900, 6000);

    // Idle after an answer.
    let begun = Instant::now();
    let answer = exchange(&stage, "GET /v1/account HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    within(begun, 1900, 8000);
}

#[tokio::test]
async fn who_does_not_take_the_answer_loses_the_connection() {
    let stage = Stage::with("gateway.read_timeout = '1s'\ngateway.max_connections = 1").await;
    let mut greedy = dial(&stage).await;
    greedy.write_all("GET /docs/swagger-ui.js HTTP/1.1\r\nHost: a\r\n\r\n".repeat(30).as_bytes()).await.unwrap();
    // There is one place, so this is answered when the greedy one has lost it.
    let answer = exchange(&stage, "GET /v1/account HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let stage = Stage::with("gateway.max_connections = 2").await;
    let request = "GET /v1/account HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = dial(&stage).await;
    let mut second = dial(&stage).await;
    for stream in [&mut first, &mut second] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut byte = [0];
        timeout(PATIENCE, stream.read_exact(&mut byte)).await.unwrap().unwrap();
    }
    let mut third = dial(&stage).await;
    third.write_all(request.as_bytes()).await.unwrap();
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(300), third.read_exact(&mut byte)).await.is_err(), "a third was served");
    drop(first);
    timeout(PATIENCE, third.read_exact(&mut byte)).await.unwrap().unwrap();
}

fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().unwrap()
}

/// Send a head and then chunks, blindly, until all is sent or the other side closes; its answer, when it was complete,
/// and by how much memory grew at most.
async fn pour(stage: &Stage, head: &str, chunk: &[u8], chunks: usize) -> (String, Duration, u64) {
    // Peak of this process, in which the gateway runs too, from here on.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status_kib("VmRSS");
    let begun = Instant::now();
    let (mut reading, mut writing) = dial(stage).await.into_split();
    let pouring = async {
        let mut sent = writing.write_all(head.as_bytes()).await;
        for _ in 0..chunks {
            if sent.is_err() {
                return;
            }
            sent = writing.write_all(chunk).await;
        }
    };
    let listening = async {
        let mut answer = Vec::new();
        let mut took = Duration::ZERO;
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = reading.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
            took = begun.elapsed();
        }
        (String::from_utf8_lossy(&answer).into_owned(), took)
    };
    let ((), (answer, took)) = timeout(PATIENCE, async { tokio::join!(pouring, listening) }).await.unwrap();
    (answer, took, status_kib("VmHWM").saturating_sub(before))
}

#[tokio::test]
async fn a_huge_body_is_refused_without_being_held() {
    let stage = Stage::set().await;
    stage.http.get("/v1/account").await.unwrap();
    let chunk = vec![b' '; 64 * 1024];
    let json = "POST /v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";

    let announced = format!("{json}Content-Length: 419430400\r\n\r\n");
    let (answer, took, grown) = pour(&stage, &announced, &chunk, 6400).await;
    println!("400 MiB with a length: answered in {took:?}, memory grew by {grown} KiB");
    assert_eq!(problem(&answer)["code"], "body_too_large");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(grown < 5 * 1024, "{grown} KiB");

    let endless = format!("{json}Transfer-Encoding: chunked\r\n\r\n");
    let framed = [b"10000\r\n", &chunk[..], b"\r\n"].concat();
    let (answer, took, grown) = pour(&stage, &endless, &framed, 6400).await;
    println!("400 MiB in chunks: answered in {took:?}, memory grew by {grown} KiB");
    assert_eq!(problem(&answer)["code"], "body_too_large");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(grown < 5 * 1024, "{grown} KiB");
}

#[tokio::test]
async fn a_body_that_will_not_be_read_is_not_asked_for() {
    let stage = Stage::set().await;
    let head = "POST /v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 419430400\r\nExpect: 100-continue\r\n\r\n";
    let answer = exchange(&stage, head).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}
