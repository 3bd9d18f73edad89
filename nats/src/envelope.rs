//! What travels around a body: header names, and how values get in and out of them.
//!
//! Events are CloudEvents 1.0 in binary mode (NATS protocol binding): attributes as `ce-*` headers, lower case because
//! NATS compares header names by case, values percent-encoded. Requests carry their credential, deadline, trace and
//! idempotency key the same way. Header names are found in any case, as clients in other languages rewrite them.

use std::{borrow::Cow, time::Duration};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    event::Event,
    id::EventId,
    subject::{Meaning, Subjects},
};

/// The access token, as `Bearer <token>`.
pub const AUTHORIZATION: &str = "Authorization";
/// What is left of the caller's patience when the request leaves, in milliseconds.
pub const TIMEOUT_MS: &str = "Bowerbird-Timeout-Ms";
/// Repeats of a request with the same key have the effect of one.
pub const IDEMPOTENCY_KEY: &str = "Bowerbird-Idempotency-Key";
/// Names the request in every log.
pub const REQUEST_ID: &str = "Bowerbird-Request-Id";
/// Trace (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";
/// Media type of the body.
pub const CONTENT_TYPE: &str = "Content-Type";
/// On a reply that is a problem: its title.
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
/// On a reply that is a problem: its HTTP status.
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
/// On a dead letter: why it was refused.
pub const DEAD_REASON: &str = "Bowerbird-Dead-Reason";
/// On a dead letter: the subject that it came on.
pub const DEAD_SUBJECT: &str = "Bowerbird-Dead-Subject";
/// On a dead letter: the stream that it was taken from.
pub const DEAD_STREAM: &str = "Bowerbird-Dead-Stream";
/// On a dead letter: its sequence in that stream.
pub const DEAD_SEQUENCE: &str = "Bowerbird-Dead-Sequence";
/// On a dead letter: the consumer that refused it.
pub const DEAD_CONSUMER: &str = "Bowerbird-Dead-Consumer";
/// On a dead letter: how often it had been delivered.
pub const DEAD_DELIVERIES: &str = "Bowerbird-Dead-Deliveries";

/// CloudEvents: identity of the event.
pub const CE_ID: &str = "ce-id";
/// CloudEvents: `download.completed`.
pub const CE_TYPE: &str = "ce-type";
/// CloudEvents: `/<prefix>/<area>`.
pub const CE_SOURCE: &str = "ce-source";
/// CloudEvents: `1.0`.
pub const CE_SPECVERSION: &str = "ce-specversion";
/// CloudEvents: when it happened.
pub const CE_TIME: &str = "ce-time";
/// CloudEvents: the thing that it happened to.
pub const CE_SUBJECT: &str = "ce-subject";
/// CloudEvents: names type and version of the body.
pub const CE_DATASCHEMA: &str = "ce-dataschema";
/// CloudEvents extension: whose; missing where no account is concerned.
pub const CE_ACCOUNT: &str = "ce-accountid";
/// CloudEvents extension: the event's place in the life of the thing.
pub const CE_SEQUENCE: &str = "ce-entitysequence";
/// CloudEvents extension (Distributed Tracing): the same as `traceparent`.
pub const CE_TRACEPARENT: &str = "ce-traceparent";

/// Every header with what it says, for the catalogue.
pub const CATALOGUE: &[(&str, &str)] = &[
    (AUTHORIZATION, "On requests: `Bearer <access token>`. The callee verifies it itself."),
    (TIMEOUT_MS, "On requests: what is left of the caller's patience, in milliseconds. What is late is not run."),
    (IDEMPOTENCY_KEY, "On requests: repeats with the same key have the effect of one."),
    (REQUEST_ID, "On requests and replies: names the request in every log."),
    (TRACEPARENT, "On requests and events: W3C Trace Context."),
    (CONTENT_TYPE, "`application/json`, or `application/problem+json` on a reply that is a problem."),
    (SERVICE_ERROR, "On a reply that is a problem: its title."),
    (SERVICE_ERROR_CODE, "On a reply that is a problem: its HTTP status."),
    (CE_ID, "On events: identity, the same as `Nats-Msg-Id`."),
    (CE_TYPE, "On events: the type, as `download.completed`."),
    (CE_SOURCE, "On events: `/<prefix>/<area>`."),
    (CE_SPECVERSION, "On events: `1.0`."),
    (CE_TIME, "On events: when it happened, RFC 3339."),
    (CE_SUBJECT, "On events: the thing that it happened to."),
    (CE_DATASCHEMA, "On events: names type and version of the body."),
    (CE_ACCOUNT, "On events: whose; missing where no account is concerned."),
    (CE_SEQUENCE, "On events: its place in the life of the thing, 1, 2, 3 …"),
    (DEAD_REASON, "On dead letters: why it was refused, percent-encoded."),
    (DEAD_SUBJECT, "On dead letters: the subject that it came on."),
    (DEAD_STREAM, "On dead letters: the stream that it was taken from."),
    (DEAD_SEQUENCE, "On dead letters: its sequence in that stream."),
    (DEAD_CONSUMER, "On dead letters: the consumer that refused it."),
    (DEAD_DELIVERIES, "On dead letters: how often it had been delivered."),
];

/// Longest header value of ours that is taken over; a longer one is cut.
const VALUE_MAX_BYTES: usize = 8 * 1024;
/// CloudEvents' NATS binding: what is not printable ASCII, and space, double quote and percent.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// A message does not carry an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEvent {
    /// A header is missing.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// A header does not say what it should.
    #[error("the header {0} does not say what it should")]
    Malformed(&'static str),
    /// The subject is not one of an event, or says otherwise than the headers.
    #[error("the subject is not the one of this event")]
    Subject,
    /// The body is not JSON.
    #[error("the body is not JSON")]
    Body,
}

/// A value as CloudEvents' bindings write it into a header.
pub fn percent_encode(value: &str) -> String {
    utf8_percent_encode(value, ENCODED).to_string()
}

/// What [`percent_encode`] wrote.
pub fn percent_decode(value: &str) -> Cow<'_, str> {
    percent_decode_str(value).decode_utf8_lossy()
}

/// Puts a value into a header if a header can hold it. Line breaks would end the header, so such a value is left out
/// (async-nats would panic); a value of absurd length as well.
pub(crate) fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if value.len() > VALUE_MAX_BYTES {
        return;
    }
    if let Ok(value) = value.parse::<HeaderValue>() {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// The last value under this name, in whatever case the name was written.
pub(crate) fn get<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    let headers = headers?;
    if let Some(value) = headers.get_last(name) {
        return Some(value.as_str());
    }
    headers.iter().find_map(|(candidate, values)| {
        let candidate: &str = candidate.as_ref();
        candidate.eq_ignore_ascii_case(name).then(|| values.last().map(HeaderValue::as_str)).flatten()
    })
}

/// What a request carries around its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestHead {
    /// The access token without `Bearer `.
    pub(crate) credential: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) traceparent: Option<String>,
}

impl RequestHead {
    pub(crate) fn write(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(credential) = &self.credential {
            put(&mut headers, AUTHORIZATION, &format!("Bearer {credential}"));
        }
        if let Some(timeout) = self.timeout {
            put(&mut headers, TIMEOUT_MS, &timeout.as_millis().to_string());
        }
        if let Some(key) = &self.idempotency_key {
            put(&mut headers, IDEMPOTENCY_KEY, &percent_encode(key));
        }
        if let Some(request_id) = &self.request_id {
            put(&mut headers, REQUEST_ID, &percent_encode(request_id));
        }
        if let Some(traceparent) = &self.traceparent {
            put(&mut headers, TRACEPARENT, traceparent);
        }
        put(&mut headers, CONTENT_TYPE, "application/json");
        headers
    }

    pub(crate) fn read(headers: Option<&HeaderMap>) -> RequestHead {
        let decoded = |name| get(headers, name).map(|value| percent_decode(value).into_owned());
        RequestHead {
            credential: get(headers, AUTHORIZATION).map(|value| bearer(value).to_owned()),
            timeout: get(headers, TIMEOUT_MS).and_then(|value| value.parse().ok()).map(Duration::from_millis),
            idempotency_key: decoded(IDEMPOTENCY_KEY),
            request_id: decoded(REQUEST_ID),
            traceparent: get(headers, TRACEPARENT).map(ToOwned::to_owned),
        }
    }
}

/// The token of an `Authorization` value: the scheme `Bearer` in any case is taken off.
pub fn bearer(value: &str) -> &str {
    match value.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token.trim_start(),
        _ => value,
    }
}

/// The headers of an event, `Nats-Msg-Id` not among them.
pub(crate) fn write_event(subjects: &Subjects, event: &Event) -> HeaderMap {
    let mut headers = HeaderMap::new();
    put(&mut headers, CE_SPECVERSION, "1.0");
    put(&mut headers, CE_ID, &event.id.to_string());
    put(&mut headers, CE_TYPE, event.event_type.as_str());
    put(&mut headers, CE_SOURCE, &format!("/{}/{}", subjects.prefix(), event.event_type.area()));
    if let Ok(time) = event.time.format(&Rfc3339) {
        put(&mut headers, CE_TIME, &time);
    }
    put(&mut headers, CE_SUBJECT, &event.entity_id.to_string());
    put(&mut headers, CE_DATASCHEMA, &format!("urn:bowerbird:event:{}:v1", event.event_type));
    put(&mut headers, CE_SEQUENCE, &event.entity_sequence.to_string());
    if let Some(account_id) = event.account_id {
        put(&mut headers, CE_ACCOUNT, &account_id.to_string());
    }
    if let Some(traceparent) = &event.traceparent {
        put(&mut headers, TRACEPARENT, &percent_encode(traceparent));
        put(&mut headers, CE_TRACEPARENT, &percent_encode(traceparent));
    }
    put(&mut headers, CONTENT_TYPE, "application/json");
    headers
}

/// The event that a message carries.
pub(crate) fn read_event(
    subjects: &Subjects,
    subject: &str,
    headers: Option<&HeaderMap>,
    body: &[u8],
) -> Result<Event, NotAnEvent> {
    let value = |name: &'static str| get(headers, name).map(percent_decode).ok_or(NotAnEvent::Missing(name));
    let event_type = value(CE_TYPE)?.parse().map_err(|_| NotAnEvent::Malformed(CE_TYPE))?;
    let Some(Meaning::Event { event_type: told, account_id, entity_id }) = subjects.read(subject) else {
        return Err(NotAnEvent::Subject);
    };
    if told != event_type {
        return Err(NotAnEvent::Subject);
    }
    Ok(Event {
        id: value(CE_ID)?.parse::<EventId>().map_err(|_| NotAnEvent::Malformed(CE_ID))?,
        event_type,
        account_id,
        entity_id,
        entity_sequence: value(CE_SEQUENCE)?.parse().map_err(|_| NotAnEvent::Malformed(CE_SEQUENCE))?,
        time: OffsetDateTime::parse(&value(CE_TIME)?, &Rfc3339).map_err(|_| NotAnEvent::Malformed(CE_TIME))?,
        data: serde_json::from_slice(body).map_err(|_| NotAnEvent::Body)?,
        traceparent: get(headers, TRACEPARENT).map(|value| percent_decode(value).into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{event, id::AccountId};

    fn event() -> Event {
        Event {
            id: EventId(Uuid::from_u128(1)),
            event_type: event::DOWNLOAD_COMPLETED,
            account_id: Some(AccountId(Uuid::from_u128(2))),
            entity_id: Uuid::from_u128(3),
            entity_sequence: 4,
            time: time::macros::datetime!(2026-02-03 04:05:06.789 UTC),
            data: serde_json::json!({"a": 1}),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        }
    }

    #[test]
    fn an_event_reads_back_as_it_was_written() {
        let (subjects, event) = (Subjects::new("bowerbird").unwrap(), event());
        let subject = subjects.event(&event.event_type, event.account_id, event.entity_id);
        let headers = write_event(&subjects, &event);
        let body = serde_json::to_vec(&event.data).unwrap();
        assert_eq!(read_event(&subjects, subject.as_str(), Some(&headers), &body), Ok(event.clone()));
        assert_eq!(get(Some(&headers), CE_SPECVERSION), Some("1.0"));
        assert_eq!(get(Some(&headers), CE_SOURCE), Some("/bowerbird/download"));

        let other = subjects.event(&event::DOWNLOAD_FAILED, event.account_id, event.entity_id);
        assert_eq!(read_event(&subjects, other.as_str(), Some(&headers), &body), Err(NotAnEvent::Subject));
        assert_eq!(
            read_event(&subjects, subject.as_str(), None, &body),
            Err(NotAnEvent::Missing(CE_TYPE)),
            "without headers it is not an event"
        );
    }

    #[test]
    fn a_header_is_found_however_its_name_is_written() {
        let mut headers = HeaderMap::new();
        headers.insert("AUTHORIZATION", "bearer abc");
        let head = RequestHead::read(Some(&headers));
        assert_eq!(head.credential.as_deref(), Some("abc"));
    }

    #[test]
    fn a_value_with_a_line_break_cannot_add_a_header() {
        let mut headers = HeaderMap::new();
        put(&mut headers, TRACEPARENT, "a\r\nAuthorization: Bearer x");
        assert!(headers.is_empty());
    }

    proptest! {
        #[test]
        fn a_request_head_reads_back_as_it_was_written(
            key in proptest::option::of(any::<String>()), request_id in any::<String>(), milliseconds in 0_u64..1_000_000
        ) {
            let head = RequestHead {
                credential: Some("a.b.c".to_owned()),
                timeout: Some(Duration::from_millis(milliseconds)),
                idempotency_key: key,
                request_id: Some(request_id),
                traceparent: None,
            };
            prop_assert_eq!(RequestHead::read(Some(&head.write())), head);
        }

        #[test]
        fn what_is_encoded_is_printable_and_decodes_to_itself(text in any::<String>()) {
            let encoded = percent_encode(&text);
            prop_assert!(encoded.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'"'));
            prop_assert_eq!(percent_decode(&encoded), text);
        }
    }
}
