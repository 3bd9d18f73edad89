//! Asking the actors: everything that the gateway answers comes from here.

use std::{sync::Arc, time::Duration};

use bowerbird_nats::{Operation, Problem, ask::AskContext, bus::Bus};
use poem::{FromRequest, Request, RequestBody};

use crate::{caller::Credential, http::entry::RequestId, refused::Refused};

/// The one who asks. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Actors {
    bus: Bus,
    timeout: Duration,
}

/// What goes along with every question of one request.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    request_id: Arc<str>,
    credential: Option<Credential>,
    traceparent: Option<String>,
    idempotency_key: Option<String>,
}

impl Actors {
    pub(crate) fn new(bus: Bus, timeout: Duration) -> Self {
        Actors { bus, timeout }
    }

    /// Ask and wait for the answer, at most `gateway.request_timeout`.
    pub(crate) async fn ask<O: Operation>(&self, request: &O, origin: &Origin) -> Result<O::Reply, Refused> {
        let context = AskContext {
            credential: origin.credential.as_ref().map(|credential| credential.token().to_owned()),
            timeout: self.timeout,
            idempotency_key: origin.idempotency_key.clone(),
            request_id: origin.request_id.to_string(),
            traceparent: origin.traceparent.clone(),
        };
        self.bus.ask(request, &context).await.map_err(|error| {
            tracing::debug!(area = O::AREA, name = O::NAME, %error, "a question got no good answer");
            Refused(Problem::from(error))
        })
    }
}

impl Origin {
    /// The same for a request whose repeats must have the effect of one.
    pub(crate) fn with_idempotency_key(mut self, key: Option<String>) -> Self {
        self.idempotency_key = key;
        self
    }

    pub(crate) fn of(request: &Request) -> Origin {
        Origin {
            request_id: request.data::<RequestId>().map_or_else(|| Arc::from(""), |id| Arc::clone(&id.0)),
            credential: request.data::<Credential>().cloned(),
            traceparent: request.header("traceparent").filter(|text| is_traceparent(text)).map(str::to_owned),
            idempotency_key: None,
        }
    }
}

impl<'a> FromRequest<'a> for Origin {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(Origin::of(request))
    }
}

/// W3C Trace Context, version 00: anything else is not handed on.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    matches!(parts[..], ["00", trace, span, flags] if is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_handed_on() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-x-y-z",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
