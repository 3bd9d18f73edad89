//! Handing something over: one POST to a URL that a stranger gave, with an end for all of it.
//!
//! Guarded as every fetch is: the URL is judged by its text, the name is resolved once, every address is judged, and the
//! connection goes to exactly those. Nothing is followed and nothing is sent twice.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{answer_head, client::Client, error::Error, response::Body};

/// Bytes of an answer that are read at most, so that a small one is read to its end and a server that goes on without
/// one is left.
const MAX_READ_BYTES: usize = 64 * 1024;

/// What is handed over.
#[derive(Clone, Debug)]
pub struct Post<'a> {
    /// Where to. Judged again here, whatever was said of it before.
    pub url: &'a str,
    /// Request headers, `Content-Type` among them.
    pub headers: HeaderMap,
    /// The body, sent as it is, with its length announced.
    pub body: Bytes,
    /// How long all of it may take: resolving, connecting, sending, waiting, and reading the answer.
    pub within: Duration,
    /// Bytes of the answer that are kept.
    pub keep_bytes: usize,
}

/// What the server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status; every status is an answer.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The beginning of its body.
    pub body: Bytes,
}

impl Answer {
    /// How long the server wants to be left alone (`Retry-After`), at most a day.
    pub fn retry_after(&self, now: OffsetDateTime) -> Option<Duration> {
        answer_head::retry_after(&self.headers, now)
    }
}

impl Client {
    /// One POST over a connection of its own. Its status is known when the head of the answer is there: a body that
    /// breaks or does not end changes nothing about it.
    pub async fn post(&self, post: Post<'_>) -> Result<Answer, Error> {
        let end = Instant::now() + post.within;
        let url = self.check_url(post.url)?;
        // Lives until the answer is read; nobody else can use its connection.
        let session = self.session();
        let sending = session.post(url, post.headers, post.body);
        let mut response = timeout(post.within, sending).await.unwrap_or(Err(Error::Timeout("the answer of the server")))?;
        let body = beginning(&mut response.body, post.keep_bytes, end).await;
        Ok(Answer { status: response.status, headers: response.headers, body })
    }
}

/// The first bytes of a body, as many of them as come in time.
async fn beginning(body: &mut Body, keep_bytes: usize, end: Instant) -> Bytes {
    let mut kept = BytesMut::new();
    let mut read = 0;
    while read < MAX_READ_BYTES.max(keep_bytes) {
        let Ok(Ok(Some(bytes))) = timeout_at(end, body.chunk()).await else { break };
        read += bytes.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(keep_bytes - kept.len())]);
    }
    kept.freeze()
}
