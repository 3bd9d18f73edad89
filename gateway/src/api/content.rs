//! The content of a file: a redirect to the object store, or the bytes streamed through here, whole or one range.
//!
//! Ranges are decided here from the length and the entity tag that the actors know, so the object store is only asked
//! for what will be sent. Whatever a file holds, a browser must not run it in our origin: always an attachment.

use std::{io, ops::Range, sync::Arc};

use bowerbird_lifecycle::prometheus_client::metrics::gauge::Gauge;
use bowerbird_nats::{
    Code, FileId, Problem,
    file::{FileStatus, GetFile, PresignFile},
    share,
};
use bowerbird_outbound::Client;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use poem::{Body, IntoResponse, Response};
use poem_openapi::{
    ApiResponse,
    payload::{Binary, Payload},
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::Type,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    actors::{Actors, Origin},
    refused::Refused,
};

/// What stays as it is in the extended notation of a file name (RFC 8187 `attr-char`).
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'!').remove(b'+');

/// What nothing else is known of.
const OPAQUE: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Fetches content. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) actors: Actors,
    /// Dials the object store and nothing else.
    pub(crate) client: Client,
    /// How many streams may run at once.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) running: Gauge,
    pub(crate) stopping: CancellationToken,
}

/// How a caller wants the content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) proxied: bool,
    pub(crate) range: Option<String>,
    pub(crate) if_range: Option<String>,
}

/// A redirect, or bytes.
pub(crate) enum ContentAnswer {
    /// To a presigned link.
    Redirect(String),
    /// Streamed.
    Bytes(Response),
}

impl IntoResponse for ContentAnswer {
    fn into_response(self) -> Response {
        match self {
            ContentAnswer::Redirect(link) => {
                Response::builder().status(StatusCode::FOUND).header(header::LOCATION, link).finish()
            }
            ContentAnswer::Bytes(response) => response,
        }
    }
}

impl ApiResponse for ContentAnswer {
    fn meta() -> MetaResponses {
        let named = |name: &str, description: &str| MetaHeader {
            name: name.to_owned(),
            description: Some(description.to_owned()),
            required: true,
            deprecated: false,
            schema: String::schema_ref(),
        };
        let bytes = || vec![MetaMediaType { content_type: "*/*", schema: Binary::<Vec<u8>>::schema_ref() }];
        let response = |status, description, content, headers| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content,
            headers,
        };
        MetaResponses {
            responses: vec![
                response(200, "All bytes, with `proxy=true`.", bytes(), vec![named("ETag", "Entity tag of the content.")]),
                response(
                    206,
                    "The bytes of the range, with `proxy=true`.",
                    bytes(),
                    vec![named("Content-Range", "Which bytes, of how many."), named("ETag", "Entity tag of the content.")],
                ),
                response(302, "The content is at this link, for a short time.", vec![], vec![named("Location", "The link.")]),
            ],
        }
    }

    fn register(_: &mut Registry) {}
}

/// A zip.
pub(crate) struct Packed(pub(crate) Response);

impl IntoResponse for Packed {
    fn into_response(self) -> Response {
        self.0
    }
}

impl ApiResponse for Packed {
    fn meta() -> MetaResponses {
        let content = vec![MetaMediaType { content_type: "application/zip", schema: Binary::<Vec<u8>>::schema_ref() }];
        let description = "The zip.";
        let good = MetaResponse { description, status: Some(200), status_range: None, content, headers: vec![] };
        MetaResponses { responses: vec![good] }
    }

    fn register(_: &mut Registry) {}
}

impl Content {
    /// The content of a file, as it is wanted.
    pub(crate) async fn answer(&self, id: FileId, wanted: Wanted, origin: &Origin) -> Result<ContentAnswer, Refused> {
        if !wanted.proxied {
            let link = self.actors.ask(&PresignFile { id, internal: false }, origin).await?;
            return Ok(ContentAnswer::Redirect(link.url));
        }
        let file = self.actors.ask(&GetFile { id }, origin).await?;
        if file.status != FileStatus::Available {
            return Err(Refused::new(Code::InvalidState, "the content of this file is not available"));
        }
        let size = u64::try_from(file.size_bytes).map_err(|_| Refused(Problem::internal()))?;
        let range = match choose(&wanted, &entity_tag(&file.etag), size) {
            Chosen::All => None,
            Chosen::Range(range) => Some(range),
            Chosen::Outside => return Ok(ContentAnswer::Bytes(outside(size))),
        };
        let place = self.place()?;
        let link = self.actors.ask(&PresignFile { id, internal: true }, origin).await?;
        let (bytes, content_type) = self.fetch(&link.url, range.as_ref(), size, Some(&entity_tag(&file.etag))).await?;
        let body =
            Body::from_bytes_stream(Streamed { bytes, _place: place, _running: Running::begin(&self.running) }.into_stream());
        let tag = Some(entity_tag(&file.etag));
        let described = Described { name: &file.name, content_type, tag, range, size };
        Ok(ContentAnswer::Bytes(described.response(body)?))
    }

    /// Room for one more stream.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, Refused> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            Refused(Problem::unavailable("too many files are being streamed right now; try again, or fetch it by its link", 1))
        })
    }

    /// All of a content that somebody fetches by a link of ours.
    pub(crate) async fn stream(&self, streamed: &share::Streamed, place: OwnedSemaphorePermit) -> Result<Response, Refused> {
        let size = u64::try_from(streamed.size_bytes).map_err(|_| Refused(Problem::internal()))?;
        let (bytes, _) = self.fetch(&streamed.link.url, None, size, None).await?;
        let body =
            Body::from_bytes_stream(Streamed { bytes, _place: place, _running: Running::begin(&self.running) }.into_stream());
        let content_type = HeaderValue::from_str(&streamed.content_type).unwrap_or(OPAQUE);
        Described { name: &streamed.name, content_type, tag: None, range: None, size }.response(body)
    }

    /// Ask the object store, and make sure that it is about to send what was asked for.
    ///
    /// The media type is what the link was signed with: one that runs nothing, whatever the source declared. `tag`: only of the
    /// content that has it, where the file was looked at before its link was made.
    pub(crate) async fn fetch(
        &self,
        link: &str,
        range: Option<&Range<u64>>,
        size: u64,
        tag: Option<&str>,
    ) -> Result<(bowerbird_outbound::Body, HeaderValue), Refused> {
        let unavailable = || Refused::new(Code::StorageUnavailable, "the object store did not give the content; try again soon");
        let mut headers = HeaderMap::new();
        if let Some(range) = range {
            let value = format!("bytes={}-{}", range.start, range.end - 1);
            headers.insert(header::RANGE, HeaderValue::from_str(&value).map_err(|_| Refused(Problem::internal()))?);
        }
        if let Some(tag) = tag {
            headers.insert(header::IF_MATCH, HeaderValue::from_str(tag).map_err(|_| Refused(Problem::internal()))?);
        }
        let response = self.client.get(link, headers, &self.stopping).await.map_err(|error| {
            tracing::warn!(%error, "the object store could not be asked for a file");
            unavailable()
        })?;
        if response.status == StatusCode::PRECONDITION_FAILED {
            return Err(Refused::new(Code::StorageUnavailable, "the content was replaced in this moment; ask again"));
        }
        let expected = range.map_or(size, |range| range.end - range.start);
        let expected_status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let length = response.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if response.status != expected_status || length.is_some_and(|length| length != expected) {
            tracing::warn!(status = %response.status, ?length, expected, "the object store has not what the files table says");
            return Err(unavailable());
        }
        let content_type = response.headers.get(header::CONTENT_TYPE).cloned().unwrap_or(OPAQUE);
        Ok((response.body, content_type))
    }
}

/// A stream with its place among those that may run at once.
struct Streamed {
    bytes: bowerbird_outbound::Body,
    _place: OwnedSemaphorePermit,
    _running: Running,
}

impl Streamed {
    fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures_util::stream::try_unfold(self, |mut streamed| async move {
            Ok::<_, bowerbird_outbound::Error>(streamed.bytes.chunk().await?.map(|bytes| (bytes, streamed)))
        })
        .map_err(io::Error::other)
    }
}

/// Counts itself while it lives.
pub(crate) struct Running(Gauge);

impl Running {
    pub(crate) fn begin(gauge: &Gauge) -> Self {
        gauge.inc();
        Running(gauge.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is sent, and as what.
struct Described<'a> {
    name: &'a str,
    content_type: HeaderValue,
    /// Its entity tag, if ranges of it can be asked for.
    tag: Option<String>,
    range: Option<Range<u64>>,
    size: u64,
}

impl Described<'_> {
    fn response(self, body: Body) -> Result<Response, Refused> {
        let Described { name, content_type, tag, range, size } = self;
        let mut response = Response::from(if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK });
        let headers = response.headers_mut();
        let text = |text: &str| HeaderValue::from_str(text).map_err(|_| Refused(Problem::internal()));
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::CONTENT_LENGTH, range.as_ref().map_or(size, |range| range.end - range.start).into());
        if let Some(tag) = tag {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            headers.insert(header::ETAG, text(&tag)?);
        }
        headers.insert(header::CONTENT_DISPOSITION, text(&attachment(name))?);
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        if let Some(range) = range {
            headers.insert(header::CONTENT_RANGE, text(&format!("bytes {}-{}/{size}", range.start, range.end - 1))?);
        }
        response.set_body(body);
        Ok(response)
    }
}

fn outside(size: u64) -> Response {
    let mut response = crate::refused::carry(Problem::new(
        Code::RangeNotSatisfiable,
        format!("the file has {size} bytes, the range begins beyond them"),
    ));
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

/// As a header writes it: in quotes.
fn entity_tag(etag: &str) -> String {
    format!("\"{}\"", etag.trim_matches('"'))
}

/// `Content-Disposition` with a name that every client understands, and the real one (RFC 6266 §4.3).
pub(crate) fn attachment(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\' | '%' | '/' | ';') { c } else { '_' })
        .collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(name, NAME))
}

#[derive(Debug, PartialEq, Eq)]
enum Chosen {
    All,
    Range(Range<u64>),
    Outside,
}

/// RFC 9110 §14.2: a range that is not understood, of several parts, or of an older version is ignored.
fn choose(wanted: &Wanted, etag: &str, size: u64) -> Chosen {
    let Some(range) = wanted.range.as_deref().and_then(|range| range.strip_prefix("bytes=")) else { return Chosen::All };
    // A date is never a strong validator here, and neither is a weak tag.
    if wanted.if_range.as_deref().is_some_and(|if_range| if_range != etag) {
        return Chosen::All;
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Chosen::All };
    let number = |text: &str| if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<u64>().ok() } else { None };
    let range = match (first, last) {
        ("", last) => match number(last) {
            Some(suffix) => size.saturating_sub(suffix)..size,
            None => return Chosen::All,
        },
        (first, "") => match number(first) {
            Some(first) => first..size,
            None => return Chosen::All,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
            _ => return Chosen::All,
        },
    };
    if range.is_empty() { Chosen::Outside } else { Chosen::Range(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(range: &str, if_range: Option<&str>, size: u64) -> Chosen {
        let wanted = Wanted { proxied: true, range: Some(range.to_owned()), if_range: if_range.map(str::to_owned) };
        choose(&wanted, "\"v1\"", size)
    }

    #[test]
    fn one_range_is_served_and_everything_doubtful_is_served_whole() {
        assert_eq!(chosen("bytes=0-9", None, 100), Chosen::Range(0..10));
        assert_eq!(chosen("bytes=90-", None, 100), Chosen::Range(90..100));
        assert_eq!(chosen("bytes=90-1000", None, 100), Chosen::Range(90..100));
        assert_eq!(chosen("bytes=-10", None, 100), Chosen::Range(90..100));
        assert_eq!(chosen("bytes=-1000", None, 100), Chosen::Range(0..100));
        assert_eq!(chosen("bytes=0-18446744073709551615", None, 100), Chosen::Range(0..100));
        for whole in ["bytes=0-1,3-4", "bytes=9-3", "bytes=a-b", "bytes=", "bytes=-", "items=0-1", "bytes=+1-2", "0-1"] {
            assert_eq!(chosen(whole, None, 100), Chosen::All, "{whole}");
        }
        for outside in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            assert_eq!(chosen(outside, None, 100), Chosen::Outside, "{outside}");
        }
        assert_eq!(chosen("bytes=0-", None, 0), Chosen::Outside);
        assert_eq!(chosen("bytes=-1", None, 0), Chosen::Outside);
    }

    #[test]
    fn a_range_of_another_version_is_not_served() {
        assert_eq!(chosen("bytes=0-9", Some("\"v1\""), 100), Chosen::Range(0..10));
        for other in ["\"v2\"", "W/\"v1\"", "Fri, 20 Nov 2026 00:00:00 GMT", ""] {
            assert_eq!(chosen("bytes=0-9", Some(other), 100), Chosen::All, "{other}");
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_header() {
        assert_eq!(attachment("a.txt"), "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt");
        let nasty = attachment("a\"; x=\r\nSet-Cookie: b\u{202e}é.html");
        assert!(HeaderValue::from_str(&nasty).is_ok());
        assert_eq!(nasty.matches('"').count(), 2);
        assert!(!nasty.contains('\r') && nasty.contains("%C3%A9"));
    }
}
