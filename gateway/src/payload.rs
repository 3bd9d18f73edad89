//! The one JSON payload: serde parses and writes, poem-openapi only describes.

use std::{pin::pin, time::Duration};

use bowerbird_nats::{Code, Problem, json};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::header;
use poem::{Body, IntoResponse, Request, RequestBody, Response};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions,
    payload::Payload,
    registry::{MetaMediaType, MetaRequest, MetaResponse, MetaResponses, MetaSchemaRef, Registry},
    types::Type,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::refused::Refused;

/// How large a body may be, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyBounds {
    /// Bytes.
    pub(crate) limit_bytes: usize,
    /// For all of it.
    pub(crate) patience: Duration,
}

/// A JSON body, of a request or of an answer.
#[derive(Clone, Debug)]
pub(crate) struct StrictJson<T>(pub(crate) T);

impl<T: Type> Payload for StrictJson<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Serialize + Send> IntoResponse for StrictJson<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => Response::builder().content_type("application/json").body(body),
            Err(error) => {
                tracing::error!(%error, "an answer could not be written as JSON");
                crate::refused::carry(Problem::internal())
            }
        }
    }
}

impl<T: Type + Serialize> ApiResponse for StrictJson<T> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType { content_type: Self::CONTENT_TYPE, schema: T::schema_ref() }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<'a, T: Type + Serialize + DeserializeOwned> ApiExtractor<'a> for StrictJson<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType { content_type: Self::CONTENT_TYPE, schema: T::schema_ref() }],
            required: true,
        })
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let mut content_types = request.headers().get_all(header::CONTENT_TYPE).iter();
        let is_json = match (content_types.next(), content_types.next()) {
            (Some(content_type), None) => content_type.to_str().is_ok_and(is_json),
            _ => false,
        };
        if !is_json {
            return Err(Refused::new(Code::UnsupportedMediaType, "the body has to be `Content-Type: application/json`").into());
        }
        let bounds = request.data::<BodyBounds>().copied().ok_or_else(|| Refused(Problem::internal()))?;
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let bytes = read(body.take()?, announced, bounds).await.map_err(Refused)?;
        Ok(StrictJson(json::parse(&bytes).map_err(Refused)?))
    }
}

/// `application/json`, with no parameter but `charset=utf-8`.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("charset") && value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            })
        })
}

/// Read a body, never more of it than allowed.
pub(crate) async fn read(body: Body, announced: Option<u64>, bounds: BodyBounds) -> Result<Bytes, Problem> {
    let limit = bounds.limit_bytes;
    let too_large = || Problem::new(Code::BodyTooLarge, format!("the body is larger than the {limit} bytes that are allowed"));
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
        return Err(too_large());
    }
    let mut chunks = pin!(body.into_bytes_stream());
    let whole = async {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk =
                chunk.map_err(|_| Problem::new(Code::BadRequest, "the body ended early or is not framed as it should"))?;
            if bytes.len() + chunk.len() > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(bounds.patience, whole)
        .await
        .unwrap_or_else(|_| Err(Problem::new(Code::RequestTimeout, "the body took too long to arrive")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf8_is_json() {
        for good in ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON;charset=\"UTF-8\""] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "text/json",
            "application/json; charset=latin1",
            "application/problem+json",
            "application/json; x",
            "application/jsonp",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_and_no_further() {
        let bounds = BodyBounds { limit_bytes: 8, patience: Duration::from_secs(5) };
        let chunks = |count: usize| {
            Body::from_bytes_stream(futures_util::stream::iter(
                (0..count).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"1234"))),
            ))
        };
        assert_eq!(&read(chunks(2), None, bounds).await.unwrap()[..], b"12341234");
        assert_eq!(read(chunks(usize::MAX), None, bounds).await.unwrap_err().code, Code::BodyTooLarge);
        assert_eq!(read(chunks(1), Some(9), bounds).await.unwrap_err().code, Code::BodyTooLarge);
        let silent = Body::from_bytes_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let impatient = BodyBounds { patience: Duration::from_millis(20), ..bounds };
        assert_eq!(read(silent, None, impatient).await.unwrap_err().code, Code::RequestTimeout);
    }
}
