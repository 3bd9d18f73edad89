//! The accept loop: so many connections, each HTTP/1.1, each ending in order when the process stops.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, task::Poll, time::Duration};

use bowerbird_lifecycle::{Shutdown, Tasks};
use http::Response;
use http_body_util::combinators::BoxBody;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tracing::{debug, warn};

use super::wire::{Answer, Phase, Wire};

/// Bytes that a request line and its headers may have: the longest filters of a list, each character escaped to twelve.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Headers that a request may have.
const MAX_HEADERS: usize = 100;
/// Bytes that a connection reads ahead of whoever consumes them.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// How long a finished connection is read away before it is closed.
const LINGER: Duration = Duration::from_secs(1);

/// An answer on its way out.
pub(crate) type Outgoing = Response<BoxBody<bytes::Bytes, io::Error>>;

/// Answers requests.
pub(crate) trait Respond: Send + Sync + 'static {
    /// Answer one request that came from this peer.
    fn respond(&self, request: http::Request<Incoming>, peer: Peer) -> impl Future<Output = Outgoing> + Send;
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Our end.
    pub(crate) local: SocketAddr,
    /// The other.
    pub(crate) remote: SocketAddr,
}

/// What a listener allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Open connections at most; the next waits in the listen queue.
    pub(crate) max_connections: usize,
    /// Time for a whole head; twice this for the next request to begin, and for the peer to take some of an answer.
    pub(crate) patience: Duration,
}

/// Accept and serve until the process stops. Ends when every connection has ended.
#[expect(clippy::disallowed_methods, reason = "a pause before the next accept")]
pub(crate) async fn serve<R: Respond>(
    listener: TcpListener,
    responder: Arc<R>,
    bounds: Bounds,
    shutdown: Shutdown,
    tasks: Tasks,
) {
    let places = Arc::new(Semaphore::new(bounds.max_connections));
    loop {
        let accepted = tokio::select! {
            () = shutdown.stopping() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, say: without a pause this would spin.
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (responder, shutdown) = (Arc::clone(&responder), shutdown.clone());
        tasks.spawn(async move {
            let aborting = shutdown.clone();
            tokio::select! {
                () = connection(stream, responder, bounds.patience, shutdown) => {}
                () = aborting.aborting() => {}
            }
            drop(place);
        });
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection<R: Respond>(stream: TcpStream, responder: Arc<R>, patience: Duration, shutdown: Shutdown) {
    let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr()) else { return };
    // Answers are written whole; waiting for more bytes would only delay them.
    let _ = stream.set_nodelay(true);
    let phase = Phase::default();
    let wire = Wire::new(stream, phase.clone(), patience);
    let service = service_fn(move |request| {
        phase.answering();
        let (responder, phase) = (Arc::clone(&responder), phase.clone());
        let answer: Pin<Box<dyn Future<Output = Result<_, Infallible>> + Send>> = Box::pin(async move {
            let answer = responder.respond(request, Peer { local, remote }).await;
            Ok(answer.map(|body| Answer::new(body, phase)))
        });
        answer
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The wire has the deadlines, as it can say why it closes.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(READ_AHEAD_BYTES)
        .serve_connection(TokioIo::new(wire), service);
    let mut stopping = Box::pin(shutdown.stopping());
    let mut told = false;
    let ended = std::future::poll_fn(|cx| {
        if !told && stopping.as_mut().poll(cx).is_ready() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        match connection.poll_without_shutdown(cx) {
            Poll::Ready(ended) => Poll::Ready(ended),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    if let Err(error) = &ended {
        debug!(%remote, %error, "a connection ended early");
    }
    connection.into_parts().io.into_inner().linger(LINGER).await;
}
