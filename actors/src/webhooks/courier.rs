//! One try: a signed POST to a receiver, and what its answer means.

use std::{sync::Arc, time::Duration};

use bowerbird_lifecycle::Clock;
use bowerbird_nats::{
    WebhookDeliveryId,
    webhook::{ErrorCode, Failure},
};
use bowerbird_outbound::{self as outbound, Answer, Client, Post};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::debug;

use super::{
    row::{RESPONSE_BYTES, Tried},
    secret::Secret,
    signature::sign,
};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Hands messages over. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Courier(Arc<Means>);

struct Means {
    client: Client,
    clock: Clock,
}

/// A message and where it goes.
pub(crate) struct Parcel<'a> {
    pub(crate) id: WebhookDeliveryId,
    pub(crate) url: &'a str,
    pub(crate) body: &'a str,
    /// The newest first.
    pub(crate) secrets: &'a [Secret],
}

/// What the receiver's answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has the message.
    Received,
    /// It wants nothing any more, ever (410).
    Gone,
    /// It does not have the message.
    Missed {
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
}

impl Courier {
    /// A courier over this client, which is to be a guarded one.
    pub(crate) fn new(client: Client, clock: Clock) -> Self {
        Courier(Arc::new(Means { client, clock }))
    }

    /// May this be dialled, as far as its text tells?
    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    /// Hand a message over within this time. Never fails: what goes wrong is how the try went.
    pub(crate) async fn deliver(&self, parcel: &Parcel<'_>, within: Duration) -> (Tried, Verdict) {
        let (started_at, began) = (self.0.clock.now(), Instant::now());
        let posted = match headers(parcel, started_at) {
            Ok(headers) => {
                let body = Bytes::copy_from_slice(parcel.body.as_bytes());
                self.0.client.post(Post { url: parcel.url, headers, body, within, keep_bytes: RESPONSE_BYTES }).await
            }
            Err(error) => Err(outbound::Error::Protocol(error.to_string())),
        };
        let duration_ms = i32::try_from(began.elapsed().as_millis()).unwrap_or(i32::MAX);
        match posted {
            Ok(answer) => {
                let (verdict, failure) = judge(&answer, self.0.clock.now());
                let tried = Tried {
                    started_at,
                    duration_ms,
                    response_status: Some(i32::from(answer.status.as_u16())),
                    response_body: Some(answer.body.to_vec()).filter(|body| !body.is_empty()),
                    failure,
                };
                (tried, verdict)
            }
            Err(error) => {
                debug!(delivery = %parcel.id, ?error, "a message could not be handed over");
                let failure = Failure { code: code_of(&error), detail: error.to_string() };
                let tried = Tried { started_at, duration_ms, response_status: None, response_body: None, failure: Some(failure) };
                (tried, Verdict::Missed { retry_after: None })
            }
        }
    }
}

/// Of the time of this try, so that a receiver can refuse what somebody recorded and plays again.
fn headers(parcel: &Parcel<'_>, at: OffsetDateTime) -> Result<HeaderMap, header::InvalidHeaderValue> {
    let (id, timestamp) = (parcel.id.to_string(), at.unix_timestamp());
    let signature = sign(&id, timestamp, parcel.body.as_bytes(), parcel.secrets);
    Ok(HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (WEBHOOK_ID, HeaderValue::try_from(id)?),
        (WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp)),
        (WEBHOOK_SIGNATURE, HeaderValue::try_from(signature)?),
    ]))
}

fn judge(answer: &Answer, now: OffsetDateTime) -> (Verdict, Option<Failure>) {
    let status = answer.status;
    if status.is_success() {
        return (Verdict::Received, None);
    }
    let mut detail = format!("the receiver answered {status}");
    if status.is_redirection() {
        detail.push_str("; redirects are not followed, give the address that it leads to");
    }
    let verdict = match status {
        StatusCode::GONE => Verdict::Gone,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Verdict::Missed { retry_after: answer.retry_after(now) },
        _ => Verdict::Missed { retry_after: None },
    };
    (verdict, Some(Failure { code: ErrorCode::HttpStatus, detail }))
}

fn code_of(error: &outbound::Error) -> ErrorCode {
    match error.code() {
        outbound::ErrorCode::BlockedTarget => ErrorCode::BlockedTarget,
        outbound::ErrorCode::DnsFailure => ErrorCode::DnsFailure,
        outbound::ErrorCode::TlsFailed => ErrorCode::TlsFailed,
        outbound::ErrorCode::Timeout | outbound::ErrorCode::Stalled => ErrorCode::Timeout,
        outbound::ErrorCode::ProtocolError => ErrorCode::ProtocolError,
        _ => ErrorCode::ConnectFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&'static str>) -> (Verdict, Option<Failure>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(value));
        }
        let answer = Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::new() };
        judge(&answer, OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn only_2xx_is_received_410_is_the_end_and_a_busy_receiver_may_ask_for_time() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(answer(status, None), (Verdict::Received, None));
        }
        for status in [301, 302, 307, 400, 401, 404, 500] {
            let (verdict, failure) = answer(status, Some("60"));
            assert_eq!(verdict, Verdict::Missed { retry_after: None }, "{status}");
            let failure = failure.unwrap();
            assert!(failure.code == ErrorCode::HttpStatus && failure.detail.contains(&status.to_string()));
        }
        assert_eq!(answer(410, None).0, Verdict::Gone);
        for status in [429, 502, 503, 504] {
            assert_eq!(answer(status, Some("60")).0, Verdict::Missed { retry_after: Some(Duration::from_mins(1)) });
            assert_eq!(answer(status, None).0, Verdict::Missed { retry_after: None });
        }
    }
}
