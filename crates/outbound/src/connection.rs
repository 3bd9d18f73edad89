//! One HTTP connection that carries one exchange at a time, driven by whoever waits for the exchange.
//!
//! No task runs beside an HTTP/1.1 exchange: dropping the response closes the socket at once. HTTP/2 needs tasks of its
//! own; they end with the connection.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::{
    body::{Body as _, Incoming},
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;

use crate::{dial::Stream, error::Error};

/// Most bytes of an answer's head.
const MAX_HEAD_BYTES: u32 = 64 * 1024;
/// Most headers of an answer.
const MAX_HEADERS: usize = 100;
/// Most bytes that are read from a socket at once: as much as stays in a core's own cache until it is copied.
const READ_BYTES: usize = 256 * 1024;
/// How far an HTTP/2 server may run ahead of us.
const H2_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What goes out besides where it goes to.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Outgoing {
    pub(crate) fn get(headers: HeaderMap) -> Self {
        Outgoing { method: Method::GET, headers, body: Bytes::new() }
    }
}

/// A connection between two exchanges, or during one.
pub(crate) struct Connection {
    sender: Sender,
    driver: Option<Driver>,
    tasks: ConnectionTasks,
}

/// The tasks of an HTTP/2 connection.
#[derive(Clone, Default)]
struct ConnectionTasks(Arc<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for ConnectionTasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            task.await;
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The tasks hold the set that holds them.
        self.tasks.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl Connection {
    /// Start to speak HTTP on a fresh stream.
    pub(crate) async fn start(stream: Stream) -> Result<Connection, Error> {
        let tasks = ConnectionTasks::default();
        if stream.speaks_h2() {
            let (sender, connection) = http2::Builder::new(tasks.clone())
                .timer(TokioTimer::new())
                .initial_stream_window_size(H2_WINDOW_BYTES)
                .initial_connection_window_size(H2_WINDOW_BYTES)
                .max_header_list_size(MAX_HEAD_BYTES)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(Error::from_hyper)?;
            let driver: Driver = Box::pin(async move { drop(connection.await) });
            return Ok(Connection { sender: Sender::Http2(sender), driver: Some(driver), tasks });
        }
        let (sender, connection) = http1::Builder::new()
            .max_header_size(MAX_HEAD_BYTES as usize)
            .max_headers(MAX_HEADERS)
            .max_buf_size(READ_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Error::from_hyper)?;
        let driver: Driver = Box::pin(async move { drop(connection.await) });
        Ok(Connection { sender: Sender::Http1(sender), driver: Some(driver), tasks })
    }

    fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Whether another exchange may be tried on it.
    pub(crate) fn is_open(&self) -> bool {
        self.driver.is_some()
            && match &self.sender {
                Sender::Http1(sender) => !sender.is_closed(),
                Sender::Http2(sender) => !sender.is_closed(),
            }
    }

    /// Give the connection its turn; what comes of it shows in the exchange.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    async fn drive_with<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            self.drive(cx);
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Send a request and wait for the head of the answer.
    pub(crate) async fn send(&mut self, uri: &Uri, host: &str, outgoing: Outgoing) -> Result<Response<Incoming>, Error> {
        let Outgoing { method, mut headers, body } = outgoing;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let malformed = |_| Error::Protocol("the URL cannot be put into a request".to_owned());
        if self.is_http2() {
            *request.version_mut() = http::Version::HTTP_2;
            *request.uri_mut() = uri.clone();
        } else {
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = path.parse().map_err(malformed)?;
            headers.insert(
                header::HOST,
                host.parse().map_err(|_| Error::Protocol("the host cannot be put into a header".to_owned()))?,
            );
        }
        *request.headers_mut() = headers;
        poll_fn(|cx| {
            let ready = |sender: &mut Sender, cx: &mut Context<'_>| match sender {
                Sender::Http1(sender) => sender.poll_ready(cx),
                Sender::Http2(sender) => sender.poll_ready(cx),
            };
            if let Poll::Ready(output) = ready(&mut self.sender, cx) {
                return Poll::Ready(output);
            }
            self.drive(cx);
            ready(&mut self.sender, cx)
        })
        .await
        .map_err(Error::from_hyper)?;
        let sent: Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>> = match &mut self.sender {
            Sender::Http1(sender) => Box::pin(sender.send_request(request)),
            Sender::Http2(sender) => Box::pin(sender.send_request(request)),
        };
        self.drive_with(sent).await.map_err(Error::from_hyper)
    }

    /// The next bytes of the body of the exchange that is under way.
    pub(crate) fn poll_chunk(&mut self, body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        for turn in 0..2 {
            loop {
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Ok(bytes) = frame.into_data()
                            && !bytes.is_empty()
                        {
                            return Poll::Ready(Some(Ok(bytes)));
                        }
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Error::from_hyper(error)))),
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => break,
                }
            }
            if turn == 0 {
                self.drive(cx);
            }
        }
        Poll::Pending
    }
}
