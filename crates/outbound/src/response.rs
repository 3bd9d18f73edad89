//! An answer whose body is still on its way.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, Sleep};
use url::Url;

use crate::{client::ReturnTo, connection::Connection, error::Error};

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// By a mark of the protocol: the last chunk, or the end of an HTTP/2 stream.
    Marked,
    /// By the end of the connection, which proves nothing.
    Close,
}

/// An answer. Dropping it closes its connection, unless the body was read to its end.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Where it came from in the end.
    pub url: Url,
    /// Whether a redirect led there.
    pub redirected: bool,
    /// Whether every hop was at the origin that was asked first.
    pub(crate) same_origin: bool,
    /// Its body.
    pub body: Body,
}

/// A body on its way, as a stream of the bytes as they were sent: nothing is decompressed. An error is the last item.
pub struct Body {
    incoming: Incoming,
    connection: Option<(Connection, ReturnTo)>,
    framing: Framing,
    stall: Duration,
    last_byte: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("framing", &self.framing).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Body {
    pub(crate) fn new(
        head: &http::response::Parts,
        incoming: Incoming,
        connection: Connection,
        return_to: ReturnTo,
        stall: Duration,
    ) -> Result<Body, Error> {
        let framing = framing(head, &incoming)?;
        Ok(Body {
            incoming,
            connection: Some((connection, return_to)),
            framing,
            stall,
            last_byte: Instant::now(),
            alarm: None,
            ended: false,
        })
    }

    /// How its end is told.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The next bytes, at least one; `None` at the end. Fails when nothing comes for the stall time.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        // The time in which nobody wanted bytes is not the server's fault.
        self.last_byte = Instant::now();
        poll_fn(|cx| self.poll_chunk(cx)).await.transpose()
    }

    /// Read what is left of a small body, so that its connection can be used again.
    pub(crate) async fn drain(&mut self, most: u64) {
        if !matches!(self.framing, Framing::Length(length) if length <= most) {
            return;
        }
        let drained = async { while let Ok(Some(_)) = self.chunk().await {} };
        drop(tokio::time::timeout(Duration::from_secs(1), drained).await);
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Some((connection, _)) = &mut self.connection else { return Poll::Ready(None) };
        match connection.poll_chunk(&mut self.incoming, cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.last_byte = Instant::now();
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.ended = true;
                self.connection = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.ended = true;
                if let Some((connection, return_to)) = self.connection.take()
                    && self.framing != Framing::Close
                {
                    return_to.put(connection);
                }
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.poll_stalled(cx));
                self.ended = true;
                self.connection = None;
                Poll::Ready(Some(Err(Error::Stalled)))
            }
        }
    }

    /// Ready once nothing has come for the stall time. The alarm is moved only when it rings, not with every read.
    #[expect(clippy::disallowed_methods, reason = "a stall: no byte came for too long")]
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (last_byte, stall) = (self.last_byte, self.stall);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(last_byte + stall)));
        loop {
            ready!(alarm.as_mut().poll(cx));
            if last_byte.elapsed() >= stall {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(last_byte + stall);
        }
    }
}

impl Stream for Body {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_chunk(cx).map_err(std::io::Error::other)
    }
}

/// How the body ends, strictly: what two readers could understand in two ways is refused (RFC 9112 §6.3).
fn framing(head: &http::response::Parts, incoming: &Incoming) -> Result<Framing, Error> {
    let refuse = |what: &str| Err(Error::Protocol(what.to_owned()));
    if head.version == http::Version::HTTP_2 {
        return Ok(incoming.size_hint().exact().map_or(Framing::Marked, Framing::Length));
    }
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        if head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED {
            return Ok(Framing::Length(0));
        }
        return Ok(match incoming.size_hint().exact() {
            Some(length) if head.headers.contains_key(header::CONTENT_LENGTH) => Framing::Length(length),
            _ => Framing::Close,
        });
    };
    if head.headers.contains_key(header::CONTENT_LENGTH) {
        return refuse("both Content-Length and Transfer-Encoding");
    }
    if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
        return refuse("a transfer coding that was not asked for");
    }
    Ok(Framing::Marked)
}
