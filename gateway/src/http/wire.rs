//! The bytes of one connection: a request head must arrive in time, an answer must be taken in time, and what hyper
//! says by itself about a malformed head becomes a problem document.
//!
//! hyper reads heads only between requests, so the phase tells whose turn it is. Whole bodies have a deadline of their
//! own where they are read.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bowerbird_nats::{Code, Problem};
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// Between requests: the next bytes are a request head, and what is written is hyper's own.
const HEAD: u8 = 0;
/// A request was handed to the service and its answer is not complete.
const ANSWER: u8 = 1;
/// The answer is complete but perhaps not written out.
const FLUSH: u8 = 2;

/// Whose turn it is on one connection; shared by its bytes and its service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phase(Arc<AtomicU8>);

impl Phase {
    /// A request was handed over.
    pub(crate) fn answering(&self) {
        self.0.store(ANSWER, Ordering::Release);
    }

    fn is(&self, phase: u8) -> bool {
        self.0.load(Ordering::Acquire) == phase
    }
}

/// An answer's body that tells when it is over.
pub(crate) struct Answer<B> {
    body: B,
    phase: Phase,
}

impl<B> Answer<B> {
    pub(crate) fn new(body: B, phase: Phase) -> Self {
        Answer { body, phase }
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.phase.0.store(FLUSH, Ordering::Release);
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One connection.
pub(crate) struct Wire {
    stream: TcpStream,
    phase: Phase,
    patience: Duration,
    /// When the head, or its first byte, must be here.
    deadline: Pin<Box<Sleep>>,
    head_begun: bool,
    /// When the peer must have taken something of what is being written.
    taken_by: Option<Pin<Box<Sleep>>>,
    /// What is written in place of hyper's own answer.
    instead: Option<Bytes>,
}

impl Wire {
    #[expect(clippy::disallowed_methods, reason = "a bound on a slow client")]
    pub(crate) fn new(stream: TcpStream, phase: Phase, patience: Duration) -> Self {
        Wire {
            stream,
            phase,
            patience,
            deadline: Box::pin(tokio::time::sleep(patience)),
            head_begun: false,
            taken_by: None,
            instead: None,
        }
    }

    /// Stop writing, and read away for a moment what the peer still sends: closing with unread bytes resets the
    /// connection, and the peer might lose the answer that says why.
    pub(crate) async fn linger(mut self, for_at_most: Duration) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let away = async {
            if AsyncWriteExt::shutdown(&mut self).await.is_err() {
                return;
            }
            let mut buffer = vec![0_u8; 16 * 1024];
            while matches!(self.stream.read(&mut buffer).await, Ok(read) if read > 0) {}
        };
        // Past the moment the peer is not listening anyway.
        let _ = tokio::time::timeout(for_at_most, away).await;
    }

    #[expect(clippy::disallowed_methods, reason = "a bound on a slow client")]
    fn poll_taken(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            self.taken_by = None;
            return result;
        }
        let wait = self.patience * 2;
        let taken_by = self.taken_by.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        match taken_by.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no bytes"))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Write out what replaces hyper's answer.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(bytes) = &mut self.instead {
            if bytes.is_empty() {
                break;
            }
            let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
            if let Poll::Ready(Ok(written)) = &written {
                bytes.advance(*written);
            }
            ready!(self.poll_taken(cx, written))?;
        }
        Poll::Ready(Ok(()))
    }

    /// hyper answers a head that it cannot parse by itself, and by itself it writes only between requests.
    fn replaces(&mut self, buffer: &[u8]) -> bool {
        if self.instead.is_none() && self.phase.is(HEAD) {
            let Some(status) = buffer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)) else {
                return false;
            };
            self.instead = Some(match status {
                b"431" | b"414" => {
                    refusal(Code::HeadTooLarge, "the request line or the headers are too large, or there are too many of them")
                }
                _ => refusal(Code::BadRequest, "this is not a well-formed HTTP/1.1 request"),
            });
        }
        self.instead.is_some()
    }
}

/// A whole answer for a request that was never understood, so it has no request id.
fn refusal(code: Code, detail: &str) -> Bytes {
    let body = serde_json::to_string(&Problem::new(code, detail)).unwrap_or_default();
    let reason = match code {
        Code::HeadTooLarge => "Request Header Fields Too Large",
        Code::RequestTimeout => "Request Timeout",
        _ => "Bad Request",
    };
    Bytes::from(format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\nconnection: close\r\n\r\n{body}",
        code.status(),
        bowerbird_nats::problem::CONTENT_TYPE,
        body.len()
    ))
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.phase.is(HEAD) {
            this.head_begun = false;
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        if this.deadline.as_mut().poll(cx).is_ready() {
            if this.head_begun {
                let refusal = refusal(Code::RequestTimeout, "the request head took too long to arrive");
                // One try: it fits into an empty socket buffer, and a peer that does not read it has lost nothing.
                let _ = Pin::new(&mut this.stream).poll_write(cx, &refusal);
            }
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request head in time")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before && !this.head_begun {
            this.head_begun = true;
            this.deadline.as_mut().reset(Instant::now() + this.patience);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.replaces(buffer) {
            ready!(this.poll_instead(cx))?;
            return Poll::Ready(Ok(buffer.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, buffer);
        this.poll_taken(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buffers.first().is_some_and(|first| this.replaces(first)) {
            ready!(this.poll_instead(cx))?;
            return Poll::Ready(Ok(buffers.iter().map(|buffer| buffer.len()).sum()));
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, buffers);
        this.poll_taken(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_instead(cx))?;
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        if this.phase.is(FLUSH) {
            this.phase.0.store(HEAD, Ordering::Release);
            this.head_begun = false;
            this.deadline.as_mut().reset(Instant::now() + this.patience * 2);
            // Polled so that it wakes the connection: hyper need not read again before the peer sends something.
            let _ = this.deadline.as_mut().poll(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
