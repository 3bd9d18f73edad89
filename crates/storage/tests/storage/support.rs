//! A store of its own for a test, reached over HTTP as clients reach it.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
};
use bowerbird_storage::{
    Bucket, BucketOptions,
    embedded::{self, BoxFuture, Notifier, NotifyError, Options, Running},
    notification::Notification,
};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The bucket that every store has.
pub(crate) const BUCKET: &str = "bowerbird";
/// Its keys.
pub(crate) const KEY_ID: &str = "test-key";
/// Its secret.
pub(crate) const SECRET: &str = "test-secret";

/// A store that serves, in a directory of its own.
pub(crate) struct Store {
    pub(crate) root: TempDir,
    pub(crate) endpoint: String,
    running: Option<Running>,
    shutdown: CancellationToken,
}

impl Store {
    /// Start one.
    pub(crate) async fn start() -> Store {
        Store::start_with(|_| {}, None).await
    }

    /// Start one with other options, or a listener for its notifications.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Options), notifier: Option<Arc<dyn Notifier>>) -> Store {
        Store::in_directory(TempDir::new().unwrap(), change, notifier).await
    }

    /// Start one on what another left.
    pub(crate) async fn in_directory(
        root: TempDir,
        change: impl FnOnce(&mut Options),
        notifier: Option<Arc<dyn Notifier>>,
    ) -> Store {
        let mut options = options(root.path());
        change(&mut options);
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = embedded::serve(options, listener, notifier, shutdown.clone()).await.unwrap();
        let endpoint = format!("http://{}", running.address());
        Store { root, endpoint, running: Some(running), shutdown }
    }

    /// Stop, and hand the directory over.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.shutdown.cancel();
        assert!(self.running.take().unwrap().stopped(Duration::from_secs(20)).await, "the store did not stop");
        std::mem::replace(&mut self.root, TempDir::new().unwrap())
    }

    /// The port.
    pub(crate) async fn bucket(&self) -> Bucket {
        Bucket::connect(bucket_options(&self.endpoint), Duration::from_secs(10)).await.unwrap()
    }

    /// The SDK as others use it, with its defaults but without retries.
    pub(crate) fn client(&self) -> Client {
        let configuration = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(KEY_ID, SECRET, None, None, "test"))
            .force_path_style(true)
            .retry_config(RetryConfig::disabled())
            .build();
        Client::from_conf(configuration)
    }

    /// How many data files there are.
    pub(crate) fn data_files(&self) -> usize {
        data_files(self.root.path())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// How many data files there are in a store's directory.
pub(crate) fn data_files(root: &Path) -> usize {
    std::fs::read_dir(root.join("data"))
        .unwrap()
        .map(|directory| std::fs::read_dir(directory.unwrap().path()).unwrap().count())
        .sum()
}

/// Options for a store in `root`.
pub(crate) fn options(root: &Path) -> Options {
    Options::new(root, KEY_ID, SECRET, BUCKET)
}

/// Options for the port to a store at `endpoint`.
pub(crate) fn bucket_options(endpoint: &str) -> BucketOptions {
    BucketOptions {
        endpoint: endpoint.parse().unwrap(),
        public_endpoint: endpoint.parse().unwrap(),
        region: "us-east-1".to_owned(),
        bucket: BUCKET.to_owned(),
        access_key_id: KEY_ID.to_owned(),
        secret_access_key: SECRET.to_owned(),
        path_style: true,
        clock: bowerbird_lifecycle::Clock::system(),
    }
}

/// Bytes that repeat late, so that a block in the wrong place shows.
pub(crate) fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[4]
        })
        .collect()
}

/// CRC-64/NVME of bytes.
pub(crate) fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

/// The status of an SDK error.
pub(crate) fn status<E>(
    error: &aws_sdk_s3::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
) -> u16 {
    error.raw_response().map_or(0, |response| response.status().as_u16())
}

/// The code of an SDK error.
pub(crate) fn code<E: aws_sdk_s3::error::ProvideErrorMetadata>(
    error: &aws_sdk_s3::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
) -> String {
    aws_sdk_s3::error::ProvideErrorMetadata::code(error).unwrap_or_default().to_owned()
}

/// Wait until `probe` says yes.
pub(crate) async fn eventually(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !probe().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Keeps what it is told; refuses while `refusing`.
#[derive(Default)]
pub(crate) struct Listener {
    pub(crate) heard: Mutex<Vec<(String, Notification)>>,
    pub(crate) refusing: std::sync::atomic::AtomicBool,
    pub(crate) asked: std::sync::atomic::AtomicUsize,
}

impl Notifier for Listener {
    fn publish(&self, payload: Bytes, message_id: String) -> BoxFuture<'_, Result<(), NotifyError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if self.refusing.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(NotifyError("the bus is away".to_owned()));
            }
            self.heard.lock().unwrap().push((message_id, Notification::from_json(&payload).unwrap()));
            Ok(())
        })
    }
}

/// The answer to a raw request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Send a request byte by byte as given, and read the answer until the server hangs up.
pub(crate) async fn raw(store: &Store, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    raw_to(store.endpoint.trim_start_matches("http://"), method, target, headers, body).await
}

/// The same to any server, `host:port`.
pub(crate) async fn raw_to(host: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    use std::fmt::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[expect(clippy::disallowed_methods, reason = "a raw client for our own listener")]
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length") || *name == "Transfer-Encoding") {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer and hang up before it has read the body.
    let _ = stream.write_all(body).await;
    let declared = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if declared.is_some_and(|(_, length)| length.parse().is_ok_and(|length: usize| length > body.len())) {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body = answer.get(end + 4..).unwrap_or_default().to_vec();
    Answer { status: status.unwrap_or(0), headers, body }
}

/// Send what a link says, with other headers or another body than it demands if need be.
pub(crate) async fn follow(
    store: &Store,
    link: &bowerbird_storage::PresignedLink,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let target = format!("{}?{}", link.url.path(), link.url.query().unwrap_or_default());
    raw(store, &link.method, &target, headers, body).await
}
