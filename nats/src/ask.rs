//! Asking: one request, one reply, within one deadline. What changes something is never asked twice behind the caller's
//! back, as nobody here knows whether a request that got no answer was carried out. What only reads is asked again while
//! its answer is waited for: a process that hangs without being gone still gets its share of the questions.

use std::time::Duration;

use async_nats::{HeaderMap, Message, RequestErrorKind, client::RequestError};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::{
    bus::Bus,
    envelope::{self, RequestHead},
    operation::Operation,
    problem::{Code, Problem},
};

/// How long a request waits for a lost connection to come back before it is answered as unavailable.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// How often one that only reads is asked: at once, and after a quarter and a half of the time that its caller has.
const READ_TRIES: u32 = 3;

/// What goes along with a request.
#[derive(Clone, Default)]
pub struct AskContext {
    /// The caller's access token, without `Bearer `.
    pub credential: Option<String>,
    /// How long the caller is willing to wait.
    pub timeout: Duration,
    /// Repeats with the same key have the effect of one.
    pub idempotency_key: Option<String>,
    /// Names the request in every log.
    pub request_id: String,
    /// Trace (W3C Trace Context).
    pub traceparent: Option<String>,
}

impl std::fmt::Debug for AskContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AskContext").field("request_id", &self.request_id).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers this operation right now. It was not carried out.
    #[error("nobody answers {operation}")]
    NoResponders {
        /// `download.create`
        operation: String,
    },
    /// No answer in time; it may or may not have been carried out.
    #[error("no answer to {operation} in time")]
    Timeout {
        /// `download.create`
        operation: String,
    },
    /// The server is not reachable. It was not carried out.
    #[error("the NATS server is not reachable")]
    Disconnected,
    /// The request is larger than the server takes.
    #[error("the request is larger than the NATS server takes")]
    TooLarge,
    /// The answer is not one of this operation.
    #[error("the answer to {operation} is not one: {reason}")]
    BadReply {
        /// `download.create`
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer is a problem.
    #[error(transparent)]
    Refused(Problem),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(problem) => problem,
            Error::NoResponders { .. } => {
                Problem::unavailable("the part that does this is not running right now; try again soon", 1)
            }
            Error::Disconnected => Problem::unavailable("the message bus is not reachable right now; try again soon", 1),
            Error::Timeout { .. } => Problem::new(
                Code::Timeout,
                "no answer came in time; it may have been carried out all the same, so look before asking again, or ask with an idempotency key",
            ),
            Error::TooLarge => Problem::new(Code::BodyTooLarge, "the request is larger than the message bus carries"),
            Error::BadReply { .. } => Problem::internal(),
        }
    }
}

impl Bus {
    /// Asks an operation and waits for its reply.
    pub async fn ask<O: Operation>(&self, request: &O, context: &AskContext) -> Result<O::Reply, Error> {
        let operation = || format!("{}.{}", O::AREA, O::NAME);
        let deadline = Instant::now() + context.timeout;
        if !self.is_connected() && !self.connected(RECONNECT_PATIENCE.min(context.timeout)).await {
            return Err(Error::Disconnected);
        }
        let body = serde_json::to_vec(request)
            .map_err(|error| Error::BadReply { operation: operation(), reason: format!("the request has no JSON: {error}") })?;
        let reply = self.reply::<O>(body.into(), deadline, context).await?;
        if let Some(code) = envelope::get(reply.headers.as_ref(), envelope::SERVICE_ERROR_CODE) {
            return Err(Error::Refused(problem(code, reply.headers.as_ref(), &reply.payload, context)));
        }
        serde_json::from_slice(&reply.payload).map_err(|error| {
            warn!(request_id = context.request_id, operation = operation(), %error, "a reply is not of its type");
            Error::BadReply { operation: operation(), reason: "its body is not of the reply's type".to_owned() }
        })
    }

    /// The first reply to a request.
    async fn reply<O: Operation>(&self, body: Bytes, deadline: Instant, context: &AskContext) -> Result<Message, Error> {
        let operation = || format!("{}.{}", O::AREA, O::NAME);
        let began = Instant::now();
        let tries = if O::READS { READ_TRIES } else { 1 };
        let mut asked = FuturesUnordered::new();
        for number in 1..=tries {
            let head = RequestHead {
                credential: context.credential.clone(),
                timeout: Some(deadline.saturating_duration_since(Instant::now())),
                idempotency_key: context.idempotency_key.clone(),
                request_id: Some(context.request_id.clone()),
                traceparent: context.traceparent.clone(),
            };
            let message = async_nats::Request::new().headers(head.write()).payload(body.clone()).timeout(None);
            let subject = self.subjects().request(O::AREA, O::NAME).nats();
            asked.push(self.0.client.send_request(subject, message));
            let patience = if number == tries { deadline } else { deadline.min(began + context.timeout * number / 4) };
            // The bound covers handing the request to the client too: its queue is full when the connection is long gone.
            match timeout_at(patience, asked.next()).await {
                Ok(Some(Ok(reply))) => return Ok(reply),
                Ok(Some(Err(error))) => return Err(failed(&error, operation())),
                Ok(None) | Err(_) => {}
            }
        }
        Err(Error::Timeout { operation: operation() })
    }
}

fn failed(error: &RequestError, operation: String) -> Error {
    match error.kind() {
        RequestErrorKind::NoResponders => Error::NoResponders { operation },
        RequestErrorKind::MaxPayloadExceeded => Error::TooLarge,
        RequestErrorKind::InvalidSubject => Error::BadReply { operation, reason: "its subject is not one".to_owned() },
        // The client may also have been closed while the answer was waited for: as with a timeout, nobody knows.
        RequestErrorKind::TimedOut | RequestErrorKind::Other => Error::Timeout { operation },
    }
}

/// The problem that a reply carries. One that comes from somebody else's code may have headers only.
fn problem(code: &str, headers: Option<&HeaderMap>, body: &[u8], context: &AskContext) -> Problem {
    let problem = serde_json::from_slice(body).unwrap_or_else(|_| {
        let title = envelope::get(headers, envelope::SERVICE_ERROR).unwrap_or_default();
        warn!(request_id = context.request_id, code, title, "an error reply without a problem document");
        match code {
            "503" | "429" => Problem::unavailable("the part that does this is busy; try again soon", 1),
            _ => Problem::internal(),
        }
    });
    if problem.request_id.is_some() { problem } else { problem.with_request_id(&context.request_id) }
}
