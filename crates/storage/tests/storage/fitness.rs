//! The trial at the start, against servers that do one thing wrong: the embedded store behind something that changes answers.

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    primitives::{DateTime, DateTimeFormat},
    types::{CorsConfiguration, CorsRule},
};
use bowerbird_lifecycle::Clock;
use bowerbird_storage::{Bucket, BucketOptions, ErrorKind, SetUp, SetUpReport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Store, bucket_options};

const PATIENCE: Duration = Duration::from_secs(20);

/// What to answer instead, of the head of a request and the true answer. None: the true answer.
type Lie = fn(request: &str, answer: &str) -> Option<String>;

/// A door to the store that lies so.
#[expect(clippy::disallowed_methods, reason = "the door is there for as long as the test")]
async fn lying(store: &Store, lie: Lie) -> BucketOptions {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let door = listener.local_addr().unwrap();
    let behind = Arc::<str>::from(store.endpoint.trim_start_matches("http://"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let behind = Arc::clone(&behind);
            tokio::spawn(async move { answer(stream, &behind, lie).await });
        }
    });
    bucket_options(&format!("http://{door}"))
}

/// Carry one request, and close.
async fn answer(mut stream: TcpStream, behind: &str, lie: Lie) -> Option<()> {
    let mut request = Vec::new();
    let end = loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        (stream.read_buf(&mut request).await.ok()? > 0).then_some(())?;
    };
    let head = String::from_utf8(request[..end].to_vec()).ok()?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    while request.len() < end + length.unwrap_or(0_usize) {
        (stream.read_buf(&mut request).await.ok()? > 0).then_some(())?;
    }
    #[expect(clippy::disallowed_methods, reason = "a raw client for our own listener")]
    let mut upstream = TcpStream::connect(behind).await.ok()?;
    upstream.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes()).await.ok()?;
    upstream.write_all(&request[end..]).await.ok()?;
    let mut truth = Vec::new();
    upstream.read_to_end(&mut truth).await.ok()?;
    let told = lie(&head, &String::from_utf8_lossy(&truth)).map_or(truth, String::into_bytes);
    stream.write_all(&told).await.ok()
}

fn empty(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nETag: \"lie\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn is_link(request: &str) -> bool {
    request.contains("X-Amz-Signature=")
}

fn without(answer: &str, header: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let kept: Vec<&str> = head.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with(header)).collect();
    Some(format!("{}\r\n\r\n{body}", kept.join("\r\n")))
}

/// The date in five minutes, as HTTP writes it.
fn soon() -> String {
    let soon = Clock::system().now() + Duration::from_mins(5);
    DateTime::from_secs(soon.unix_timestamp()).fmt(DateTimeFormat::HttpDate).unwrap()
}

#[tokio::test]
async fn a_server_that_lacks_what_is_needed_is_refused_with_a_sentence() {
    let store = Store::start().await;
    let lies: [(Lie, &str); 8] = [
        (|_, answer| answer.contains("BadDigest").then(|| empty("200 OK")), "does not check x-amz-checksum-crc64nvme"),
        (
            |request, answer| (!is_link(request) && answer.contains(" 412 ")).then(|| empty("200 OK")),
            "ignores If-None-Match on writes",
        ),
        (
            |request, answer| {
                answer
                    .contains(" 206 ")
                    .then(|| answer.replace("rbird", "bower").replace(" 206 ", " 200 "))
                    .filter(|_| request.starts_with("GET"))
            },
            "does not answer ranges",
        ),
        (
            |request, _| {
                let none = "<ListPartsResult></ListPartsResult>";
                let answer = || format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{none}", none.len());
                (request.starts_with("GET") && request.contains("uploadId=")).then(answer)
            },
            "does not list the parts",
        ),
        (
            |request, answer| (is_link(request) && answer.contains("SignatureDoesNotMatch")).then(|| empty("200 OK")),
            "does not check the signatures of links",
        ),
        (
            |request, answer| (is_link(request) && answer.contains(" 412 ")).then(|| empty("200 OK")),
            "ignores If-None-Match in links",
        ),
        (
            |request, answer| (is_link(request) && request.starts_with("GET")).then(|| without(answer, "content-disposition"))?,
            "ignores response-content-disposition",
        ),
        (
            |request, answer| {
                (request.starts_with("GET") && request.contains("-linked ") && answer.contains(" 403 ")).then(|| empty("200 OK"))
            },
            "lets everybody read it without a link",
        ),
    ];
    for (lie, sentence) in lies {
        let options = lying(&store, lie).await;
        let error = Bucket::connect(options, PATIENCE).await.expect_err(sentence);
        assert!(error.to_string().contains(sentence), "{sentence}: {error}");
        assert_eq!(error.kind(), ErrorKind::Unfit, "{error}");
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn a_server_that_does_less_is_told_of_and_not_believed() {
    let store = Store::start().await;
    let (bucket, shortcomings) = Bucket::try_out(bucket_options(&store.endpoint), PATIENCE).await.unwrap();
    assert_eq!(shortcomings, Vec::<String>::new());
    assert_eq!(bucket.list(".self-test/", None, 10).await.unwrap(), [], "the trial left something");

    let lies: [(Lie, &str); 4] = [
        (
            |request, answer| (is_link(request) && answer.contains("BadDigest")).then(|| empty("200 OK")),
            "does not check x-amz-checksum-sha256: what is uploaded with one is read back",
        ),
        (
            |request, _| {
                let none = "<ListMultipartUploadsResult></ListMultipartUploadsResult>";
                let answer = || format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{none}", none.len());
                (request.starts_with("GET") && request.contains("?uploads")).then(answer)
            },
            "lists unfinished uploads only by their exact keys",
        ),
        (
            |request, answer| {
                let copied = "<CopyObjectResult><ETag>\"x\"</ETag></CopyObjectResult>";
                let lie = || format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{copied}", copied.len());
                (request.contains("x-amz-copy-source:") && answer.contains(" 412 ")).then(lie)
            },
            "ignores x-amz-copy-source-if-match",
        ),
        (
            |_, answer| {
                without(answer, "date:")?
                    .split_once("\r\n\r\n")
                    .map(|(head, body)| format!("{head}\r\nDate: {}\r\n\r\n{body}", soon()))
            },
            "ahead of this machine's: links live that much shorter; set both by NTP",
        ),
    ];
    for (lie, sentence) in lies {
        let options = lying(&store, lie).await;
        let (bucket, shortcomings) = Bucket::try_out(options, PATIENCE).await.unwrap();
        assert!(matches!(&*shortcomings, [only] if only.contains(sentence)), "{sentence}: {shortcomings:?}");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"content");
        let put = store.client().put_object().bucket(bucket.name()).key("key").body(b"content".to_vec().into());
        put.checksum_sha256(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest)).send().await.unwrap();
        let believed = bucket.head("key").await.unwrap().unwrap().sha256.is_some();
        assert_eq!(believed, !sentence.contains("sha256"), "{sentence}");
    }
}

#[tokio::test]
async fn clocks_that_differ_are_named_when_a_link_is_refused() {
    let store = Store::start().await;
    let options = bucket_options(&store.endpoint);
    let clock = Clock::manual(Clock::system().now() - Duration::from_hours(1));
    let error = Bucket::connect(BucketOptions { clock, ..options }, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let text = error.to_string();
    assert!(text.contains("refuses a link that was just signed") && text.contains("set both by NTP"), "{text}");
    assert!(["3599 s", "3600 s", "3601 s"].iter().any(|skew| text.contains(skew)), "{text}");
}

#[tokio::test]
async fn rules_that_a_server_does_not_know_are_a_sentence_each_and_stand_in_nobodys_way() {
    let store = Store::start().await;
    let bucket = store.bucket().await;
    assert_eq!(bucket.set_up(&SetUp::default()).await, SetUpReport::default());
    let wish = SetUp {
        cors_origins: vec!["https://app.example".to_owned()],
        notify_target: Some("arn:minio:sqs::BOWERBIRD:nats".to_owned()),
    };
    let report = bucket.set_up(&wish).await;
    assert_eq!((report.changed.len(), report.refused.len()), (0, 2), "{report:?}");
    assert!(report.refused[0].contains("https://app.example") && report.refused[0].contains("own tools"), "{report:?}");
    assert!(report.refused[1].contains("storage.notify_target") && report.refused[1].contains("`complete`"), "{report:?}");
}

/// Needs a server that has such rules: `scripts/prove-s3-servers` names one.
#[tokio::test]
async fn rules_of_another_server_are_made_once_and_those_of_others_stay() {
    #[expect(clippy::disallowed_methods, reason = "whoever runs the suite names the store")]
    let Ok(endpoint) = std::env::var("BOWERBIRD_CONFORMANCE_ENDPOINT") else { return };
    let options = BucketOptions { bucket: format!("rules-{:016x}", rand::random::<u64>()), ..bucket_options(&endpoint) };
    let client = client_of(&options);
    client.create_bucket().bucket(&options.bucket).send().await.unwrap();
    let theirs = CorsRule::builder().allowed_origins("https://their.example").allowed_methods("GET").build().unwrap();
    let theirs = CorsConfiguration::builder().cors_rules(theirs).build().unwrap();
    client.put_bucket_cors().bucket(&options.bucket).cors_configuration(theirs).send().await.unwrap();
    let bucket = Bucket::new(options.clone());
    let wish = |origin: &str| SetUp { cors_origins: vec![origin.to_owned()], notify_target: None };
    let origins = async || {
        let found = client.get_bucket_cors().bucket(&options.bucket).send().await.unwrap();
        found.cors_rules().iter().flat_map(|rule| rule.allowed_origins().to_vec()).collect::<Vec<_>>()
    };
    let made = bucket.set_up(&wish("https://app.example")).await;
    assert_eq!((made.changed.len(), made.refused.len()), (1, 0), "{made:?}");
    assert_eq!(origins().await, ["https://their.example", "https://app.example"]);
    assert_eq!(
        bucket.set_up(&wish("https://app.example")).await,
        SetUpReport::default(),
        "the second time nothing is left to do"
    );
    bucket.set_up(&wish("https://new.example")).await;
    assert_eq!(origins().await, ["https://their.example", "https://new.example"]);
    let gone = bucket.set_up(&SetUp::default()).await;
    assert_eq!((gone.changed.len(), origins().await), (1, vec!["https://their.example".to_owned()]));
}

fn client_of(options: &BucketOptions) -> Client {
    let configuration = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(options.endpoint.as_str())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(&options.access_key_id, &options.secret_access_key, None, None, "test"))
        .force_path_style(true)
        .build();
    Client::from_conf(configuration)
}
