//! An HTTP/1.1 server on a raw socket that says whatever a test tells it to, so that it can lie.
//!
//! A test gives one function from a request to a list of [`Act`]s. The server keeps what was asked of it and ends, with
//! all its connections, when it is dropped.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A request as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// `/path?query`.
    pub target: String,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, String)>,
    /// As many bytes as `Content-Length` said; empty without one.
    pub body: Bytes,
    /// How many requests the server had before this one.
    pub index: usize,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
}

impl Request {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// First and last position of `Range: bytes=first-last`, if there is one.
    pub fn range(&self) -> Option<(u64, Option<u64>)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()))
    }
}

/// What the server does next on the connection of a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Write these bytes as they are.
    Send(Bytes),
    /// Write these bytes, one at a time, with this pause between them.
    Dribble(Bytes, Duration),
    /// Do nothing for so long.
    Pause(Duration),
    /// Write these bytes again and again until the client hangs up.
    Repeat(Bytes),
    /// End the connection in an orderly way.
    Close,
    /// End the connection with a reset.
    Reset,
    /// Keep the connection open and say nothing more.
    Silence,
}

impl Act {
    /// [`Act::Send`] of text, in which every `\n` is sent as `\r\n`.
    pub fn head(text: &str) -> Act {
        Act::Send(Bytes::from(text.replace('\n', "\r\n")))
    }
}

/// Largest head, and largest body, of a request.
const MAX_REQUEST_BYTES: usize = 1 << 20;

type Script = dyn Fn(&Request) -> Vec<Act> + Send + Sync;

/// The server. Ends when dropped.
#[derive(Debug)]
pub struct LyingServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    _listening: JoinSet<()>,
}

impl LyingServer {
    /// Listen on a free port of 127.0.0.1 and act as `script` says on each request.
    pub async fn start(script: impl Fn(&Request) -> Vec<Act> + Send + Sync + 'static) -> LyingServer {
        let script: Arc<Script> = Arc::new(script);
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let (address, connections, listening) = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), move |stream, connection| {
            let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
            Box::pin(async move { answer(stream, connection, &script, &seen).await })
        })
        .await;
        LyingServer { address, requests, connections, _listening: listening }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port><path>`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything that was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn answer(mut stream: TcpStream, connection: usize, script: &Arc<Script>, seen: &Mutex<Vec<Request>>) {
    let mut rest = Vec::new();
    while let Some(mut request) = read_request(&mut stream, &mut rest, connection).await {
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            request.index = seen.len();
            seen.push(request.clone());
        }
        for act in script(&request) {
            let alive = match act {
                Act::Send(bytes) => stream.write_all(&bytes).await.is_ok(),
                Act::Dribble(bytes, pause) => {
                    let mut alive = true;
                    for byte in bytes {
                        alive = stream.write_all(&[byte]).await.is_ok();
                        if !alive {
                            break;
                        }
                        tokio::time::sleep(pause).await;
                    }
                    alive
                }
                Act::Pause(pause) => {
                    tokio::time::sleep(pause).await;
                    true
                }
                Act::Repeat(bytes) => {
                    while stream.write_all(&bytes).await.is_ok() {}
                    false
                }
                Act::Close => {
                    drop(stream.shutdown().await);
                    false
                }
                Act::Reset => {
                    drop(stream.set_zero_linger());
                    return;
                }
                Act::Silence => {
                    let mut ignored = [0; 1024];
                    while matches!(stream.read(&mut ignored).await, Ok(read) if read > 0) {}
                    false
                }
            };
            if !alive {
                return;
            }
        }
    }
}

/// The next request of a connection; `None` when the client hung up or sent something that is no request.
pub(crate) async fn read_request(stream: &mut TcpStream, rest: &mut Vec<u8>, connection: usize) -> Option<Request> {
    let end = loop {
        if let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if rest.len() > MAX_REQUEST_BYTES || stream.read_buf(rest).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&rest[..end]).into_owned();
    rest.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request = Request { method, target, headers, body: Bytes::new(), index: 0, connection };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while rest.len() < length {
        if length > MAX_REQUEST_BYTES || stream.read_buf(rest).await.ok()? == 0 {
            return None;
        }
    }
    request.body = rest.drain(..length).collect();
    Some(request)
}

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Accept connections and serve each in a task of its own, all of which end with the returned set.
pub(crate) async fn listen(
    at: SocketAddr,
    serve: impl Fn(TcpStream, usize) -> Serving + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind(at).await.expect("a free port on the loopback interface");
    let address = listener.local_addr().expect("a bound listener has an address");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream.set_nodelay(true));
            let connection = counted.fetch_add(1, Ordering::SeqCst);
            serving.spawn(serve(stream, connection));
            while serving.try_join_next().is_some() {}
        }
    });
    (address, count, listening)
}
