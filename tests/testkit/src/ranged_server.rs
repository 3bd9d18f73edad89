//! A truthful HTTP/1.1 file server: ranges, a strong ETag, Last-Modified, If-Range, and a log of what it was asked for.
//!
//! Content is a function of a seed and never held whole, so a file may be larger than memory.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use crate::lying::{Request, listen, read_request};

/// Bytes after which content repeats. Prime, so that no part of a usual size is like another.
const PERIOD: usize = 1_048_583;
/// Most bytes of one write.
const WRITE_BYTES: usize = 256 * 1024;

/// Content that is computed from a seed. Cheap to clone.
#[derive(Clone)]
pub struct Content {
    block: Arc<[u8]>,
    seed: u64,
    len: u64,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("seed", &self.seed).field("len", &self.len).finish_non_exhaustive()
    }
}

impl Content {
    /// `len` bytes that are the same for the same seed and differ everywhere for another.
    pub fn new(seed: u64, len: u64) -> Content {
        let mut state = seed;
        let mut block = Vec::with_capacity(PERIOD + 8);
        while block.len() < PERIOD {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            block.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
        block.truncate(PERIOD);
        Content { block: block.into(), seed, len }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Some bytes from `offset` on: at least one unless the end is reached, at most `most`.
    pub fn slice(&self, offset: u64, most: u64) -> &[u8] {
        let left = self.len.saturating_sub(offset).min(most);
        let start = usize::try_from(offset % PERIOD as u64).unwrap_or(0);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(PERIOD - start);
        &self.block[start..start + len]
    }

    /// The bytes from `first` up to and without `end`, in memory.
    pub fn read(&self, first: u64, end: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut offset = first;
        while offset < end.min(self.len) {
            let slice = self.slice(offset, end - offset);
            offset += slice.len() as u64;
            bytes.extend_from_slice(slice);
        }
        bytes
    }

    /// SHA-256 of all of it.
    pub fn sha256(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut offset = 0;
        while offset < self.len {
            let slice = self.slice(offset, self.len);
            context.update(slice);
            offset += slice.len() as u64;
        }
        let mut sum = [0; 32];
        sum.copy_from_slice(context.finish().as_ref());
        sum
    }

    /// SHA-256 of all of it, in hexadecimal.
    pub fn sha256_hex(&self) -> String {
        self.sha256().iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes all");
            text
        })
    }

    /// The strong ETag that the server gives it, with its quotes.
    pub fn etag(&self) -> String {
        format!("\"{:x}-{:x}\"", self.seed, self.len)
    }
}

/// How the server behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 for a free one.
    pub listen: SocketAddr,
    /// Bytes per second of one connection.
    pub connection_rate: Option<u64>,
    /// Time between a request and its answer.
    pub latency: Duration,
    /// Whether an ETag is sent and `If-Range` honoured.
    pub etag: bool,
    /// Whether `Range` is honoured.
    pub ranges: bool,
    /// Further headers of every answer with content.
    pub headers: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            connection_rate: None,
            latency: Duration::ZERO,
            etag: true,
            ranges: true,
            headers: Vec::new(),
        }
    }
}

/// One answer with content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which connection, counted from 0.
    pub connection: usize,
    /// Path of the request.
    pub path: String,
    /// The `Range` header as it came.
    pub asked: Option<String>,
    /// First byte of the answer.
    pub first: u64,
    /// End of the answer (the byte after its last).
    pub end: u64,
    /// Bytes of it that were handed to the network.
    pub sent: u64,
}

#[derive(Debug)]
struct State {
    options: Options,
    files: Mutex<HashMap<String, Content>>,
    log: Mutex<Vec<Served>>,
    requests: AtomicUsize,
}

/// The server. Ends, with its connections, when dropped.
#[derive(Debug)]
pub struct RangedServer {
    address: SocketAddr,
    state: Arc<State>,
    connections: Arc<AtomicUsize>,
    _listening: JoinSet<()>,
}

impl RangedServer {
    /// Serve `content` at `/file.bin`.
    pub async fn start(content: Content, options: Options) -> RangedServer {
        let listen_at = options.listen;
        let state = Arc::new(State {
            options,
            files: Mutex::new(HashMap::from([("/file.bin".to_owned(), content)])),
            log: Mutex::new(Vec::new()),
            requests: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        let (address, connections, listening) = listen(listen_at, move |stream, connection| {
            let state = Arc::clone(&shared);
            Box::pin(async move { serve(stream, connection, &state).await })
        })
        .await;
        RangedServer { address, state, connections, _listening: listening }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://<address>/file.bin`.
    pub fn url(&self) -> String {
        self.url_of("/file.bin")
    }

    /// `http://<address><path>`.
    pub fn url_of(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Serve `content` at `path` from the next request on, in place of what was there.
    pub fn put(&self, path: &str, content: Content) {
        self.state.files.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), content);
    }

    /// Every answer with content so far, those that are under way included.
    pub fn log(&self) -> Vec<Served> {
        self.state.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of content that were handed to the network so far. The client may not have read them.
    pub fn bytes_sent(&self) -> u64 {
        self.log().iter().map(|served| served.sent).sum()
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, connection: usize, state: &State) {
    let mut rest = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut rest, connection).await {
        state.requests.fetch_add(1, Ordering::SeqCst);
        if !state.options.latency.is_zero() {
            tokio::time::sleep(state.options.latency).await;
        }
        if answer(&mut stream, &request, state).await.is_err() {
            return;
        }
    }
}

async fn answer(stream: &mut TcpStream, request: &Request, state: &State) -> std::io::Result<()> {
    let path = request.target.split('?').next().unwrap_or_default().to_owned();
    let content = state.files.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
    let Some(content) = content else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    };
    let options = &state.options;
    let current = request.header("if-range").is_none_or(|validator| options.etag && validator == content.etag());
    let range = request.range().filter(|_| options.ranges && current);
    let (status, first, end) = match range {
        None => ("200 OK", 0, content.len()),
        Some((first, _)) if first >= content.len() => {
            let head = format!(
                "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-range: bytes */{}\r\ncontent-length: 0\r\n\r\n",
                content.len()
            );
            return stream.write_all(head.as_bytes()).await;
        }
        Some((first, last)) => {
            ("206 Partial Content", first, last.map_or(content.len(), |last| last.saturating_add(1).min(content.len())))
        }
    };
    let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", end - first);
    let ranged = status.starts_with("206");
    if ranged {
        write!(head, "content-range: bytes {first}-{}/{}\r\n", end - 1, content.len()).expect("a String takes all");
    }
    if options.etag {
        write!(head, "etag: {}\r\n", content.etag()).expect("a String takes all");
    }
    if options.ranges {
        head.push_str("accept-ranges: bytes\r\n");
    }
    if !options.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        head.push_str("content-type: application/octet-stream\r\n");
    }
    for (name, value) in &options.headers {
        write!(head, "{name}: {value}\r\n").expect("a String takes all");
    }
    head.push_str("\r\n");
    let entry = {
        let mut log = state.log.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = request.header("range").map(str::to_owned);
        log.push(Served { connection: request.connection, path, asked, first, end, sent: 0 });
        log.len() - 1
    };
    stream.write_all(head.as_bytes()).await?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let started = tokio::time::Instant::now();
    let mut offset = first;
    while offset < end {
        let most = options.connection_rate.map_or(WRITE_BYTES as u64, |rate| (rate / 20).clamp(1, WRITE_BYTES as u64));
        let slice = content.slice(offset, (end - offset).min(most));
        stream.write_all(slice).await?;
        offset += slice.len() as u64;
        state.log.lock().unwrap_or_else(PoisonError::into_inner)[entry].sent = offset - first;
        if let Some(rate) = options.connection_rate {
            let due = Duration::from_micros((offset - first).saturating_mul(1_000_000) / rate.max(1));
            tokio::time::sleep_until(started + due).await;
        }
    }
    Ok(())
}
