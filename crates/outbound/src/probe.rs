//! The first request of a transfer: it asks for everything as a range, and what comes is kept as the first part.

use bowerbird_lifecycle::Clock;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    answer_head::{ContentRange, accepts_ranges, content_range, content_type, repr_digest, validator},
    client::Session,
    error::ErrorCode,
    fetch::{FetchError, Open, Route},
    file_name,
    response::{Framing, Response},
    transfer::{Checksum, Transfer},
};

/// What the source says about itself.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) total_bytes: Option<u64>,
    /// Whether it answers ranges, as far as can be told.
    pub(crate) ranged: bool,
    /// What tells this version from others.
    pub(crate) validator: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) file_name: Option<String>,
    /// The digest of the whole, if the server gives it.
    pub(crate) digest: Option<Checksum>,
    pub(crate) route: Option<Route>,
    /// Whether the end of the content is told by more than the end of the connection.
    pub(crate) end_is_marked: bool,
}

/// Ask for everything. With `whole`, no range is asked for: what comes is of one version whatever the server does.
pub(crate) async fn probe(
    session: &Session,
    transfer: &Transfer,
    whole: bool,
    clock: &Clock,
) -> Result<(Open, Facts), FetchError> {
    if !whole {
        let mut ours = HeaderMap::new();
        ours.insert(header::RANGE, HeaderValue::from_static("bytes=0-"));
        let response = session.get(&transfer.url, &transfer.headers, &ours).await?;
        match response.status {
            StatusCode::PARTIAL_CONTENT => {
                if let Some(opened) = from_range(response) {
                    return Ok(opened);
                }
            }
            // An empty file has no range that could be answered.
            StatusCode::RANGE_NOT_SATISFIABLE => {}
            _ => return from_whole(response, clock),
        }
    }
    let response = session.get(&transfer.url, &transfer.headers, &HeaderMap::new()).await?;
    from_whole(response, clock)
}

fn from_range(response: Response) -> Option<(Open, Facts)> {
    let Some(ContentRange::Part { first: 0, end, total }) = content_range(&response.headers) else { return None };
    match response.body.framing() {
        Framing::Length(length) if length == end => {}
        Framing::Marked => {}
        _ => return None,
    }
    let facts = Facts { total_bytes: total, ranged: true, end_is_marked: true, ..facts(&response) };
    Some((Open::new(response.body, 0, Some(end), false), facts))
}

fn from_whole(response: Response, clock: &Clock) -> Result<(Open, Facts), FetchError> {
    match response.status {
        StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => {}
        StatusCode::PARTIAL_CONTENT => {
            return Err(FetchError::Fatal {
                code: ErrorCode::ProtocolError,
                detail: "the server answers with a part of the content that was not asked for".to_owned(),
            });
        }
        status => return Err(FetchError::of_status(status, &response.headers, clock)),
    }
    let length = match response.body.framing() {
        Framing::Length(length) => Some(length),
        Framing::Marked | Framing::Close => None,
    };
    let facts = facts(&response);
    Ok((Open::new(response.body, 0, length, true), Facts { total_bytes: length, ..facts }))
}

fn facts(response: &Response) -> Facts {
    let headers = &response.headers;
    Facts {
        total_bytes: None,
        // Some servers answer a range that covers everything with everything, and honour others.
        ranged: accepts_ranges(headers),
        validator: validator(headers),
        content_type: content_type(headers),
        file_name: file_name::from_answer(headers, &response.url),
        digest: repr_digest(headers),
        route: Route::of(response),
        end_is_marked: response.body.framing() != Framing::Close,
    }
}
