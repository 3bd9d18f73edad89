//! `/v1/events`: what happens to the caller's things, as it happens.

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderName, HeaderValue, header};
use poem::{Body, IntoResponse, Response};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::Header,
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
};

use crate::{api::Area, caller::Caller, feed::Feed, refused::Refused};

const CONTENT_TYPE: &str = "text/event-stream";

pub(crate) struct EventsApi {
    pub(crate) feed: Feed,
}

/// A stream of server-sent events.
pub(crate) struct EventStream(Response);

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        self.0
    }
}

impl ApiResponse for EventStream {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "Events as they happen, each with its place as `id`; comments in between say that the stream is \
                              still there. It ends with an event `end` that says why.",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType { content_type: CONTENT_TYPE, schema: frame() }],
                headers: vec![],
            }],
        }
    }

    fn register(_: &mut Registry) {}
}

/// What one event of the stream is. Tools that read such streams by the document take the schema as that of each event.
fn frame() -> MetaSchemaRef {
    let text =
        |description| MetaSchemaRef::Inline(Box::new(MetaSchema { description: Some(description), ..MetaSchema::new("string") }));
    let mut schema = MetaSchema::new("object");
    schema.description = Some("One event of the stream");
    schema.properties = vec![
        ("id", text("Its place, for `Last-Event-ID`")),
        ("event", text("Its type, such as `download.completed`; `end` is the last")),
        ("data", text("JSON")),
        ("retry", MetaSchemaRef::Inline(Box::new(MetaSchema::new("integer")))),
    ];
    MetaSchemaRef::Inline(Box::new(schema))
}

#[OpenApi(tag = "Area::Notifications")]
impl EventsApi {
    /// Follow what happens
    ///
    /// Server-sent events of this account: every event of its things, notifications among them, and the progress of what
    /// runs. Come back with `Last-Event-ID` and nothing in between is missed; without it, it begins now. The stream ends when
    /// the access token expires.
    #[oai(path = "/v1/events", method = "get", operation_id = "follow_events")]
    async fn follow(
        &self,
        caller: Caller,
        /// `id` of the last event that was received.
        #[oai(name = "Last-Event-ID", validator(max_length = 64))]
        last_event_id: Header<Option<String>>,
    ) -> Result<EventStream, Refused> {
        let frames = self.feed.follow(caller.verified, caller.credential, last_event_id.0.as_deref()).await?;
        let mut response =
            Response::builder().content_type(CONTENT_TYPE).body(Body::from_bytes_stream(frames.map(Ok::<Bytes, std::io::Error>)));
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // nginx would gather a buffer full before it hands anything on.
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        Ok(EventStream(response))
    }
}
