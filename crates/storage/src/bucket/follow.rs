//! Following a link of our own as its receiver would, without our keys: by this the trial at the start knows that links work.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut},
    },
    error::BoxError,
    primitives::{DateTime, DateTimeFormat},
};
use bytes::Bytes;
use time::OffsetDateTime;

use super::{Blocks, Bucket, Error, PresignedLink, instant};

/// What came of it.
pub(super) struct Followed {
    /// Whether the server did what the link says.
    pub(super) outcome: Result<(), Error>,
    headers: Headers,
}

impl Followed {
    /// A header of the answer; empty if it had none of that name.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// What the server's clock said.
    pub(super) fn date(&self) -> Option<OffsetDateTime> {
        DateTime::from_str(self.header("date"), DateTimeFormat::HttpDate).ok().map(|date| instant(&date))
    }
}

/// Names and values of the headers of an answer.
type Headers = Vec<(String, String)>;

/// Sends a link in the place of the request that was signed, and keeps the headers of the answer.
#[derive(Debug)]
struct Instead {
    link: PresignedLink,
    heard: Arc<Mutex<Headers>>,
}

impl Intercept for Instead {
    fn name(&self) -> &'static str {
        "Instead"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        request.set_uri(self.link.url.as_str())?;
        let names: Vec<String> = request.headers().iter().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            request.headers_mut().remove(name);
        }
        for (name, value) in &self.link.headers {
            request.headers_mut().try_insert(name.clone(), value.clone())?;
        }
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = headers;
        Ok(())
    }
}

impl Bucket {
    /// Read what a link opens.
    pub(super) async fn follow_get(&self, link: &PresignedLink) -> Followed {
        let (instead, heard) = instead(link);
        let answer = self.client.get_object().bucket(self.name()).key("link").customize().interceptor(instead).send().await;
        followed(answer.map(drop).map_err(|error| Error::of("follow a link to read", error)), &heard)
    }

    /// Send this where a link says.
    pub(super) async fn follow_put(&self, link: &PresignedLink, body: Bytes) -> Followed {
        let (instead, heard) = instead(link);
        let put = self.client.put_object().bucket(self.name()).key("link").body(Blocks::from(body).into_byte_stream());
        let answer = put.customize().disable_payload_signing().interceptor(instead).send().await;
        followed(answer.map(drop).map_err(|error| Error::of("follow a link to write", error)), &heard)
    }
}

fn instead(link: &PresignedLink) -> (Instead, Arc<Mutex<Headers>>) {
    let heard = Arc::default();
    (Instead { link: link.clone(), heard: Arc::clone(&heard) }, heard)
}

fn followed(outcome: Result<(), Error>, heard: &Mutex<Headers>) -> Followed {
    Followed { outcome, headers: std::mem::take(&mut heard.lock().unwrap_or_else(PoisonError::into_inner)) }
}
