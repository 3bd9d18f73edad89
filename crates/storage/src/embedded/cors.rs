//! Cross-origin requests (Fetch standard, "CORS protocol"): which origins a browser lets talk to the bucket.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use s3s::Body;

const METHODS: &str = "GET, HEAD, PUT, POST, DELETE";
const EXPOSED: &str = "ETag, Content-Length, Content-Range, Content-Disposition, Accept-Ranges, Last-Modified, \
                       x-amz-checksum-crc64nvme, x-amz-checksum-sha256, x-amz-request-id";

/// The origins that are allowed. Links are what grants access; this only tells browsers not to stand in the way.
#[derive(Clone, Debug)]
pub(super) struct Cors {
    origins: Vec<String>,
}

impl Cors {
    pub(super) fn new(origins: Vec<String>) -> Self {
        Cors { origins }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes())
    }

    /// Answer an OPTIONS request.
    pub(super) fn preflight(&self, asked: &HeaderMap) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        let (Some(origin), Some(_)) = (asked.get(header::ORIGIN), asked.get(header::ACCESS_CONTROL_REQUEST_METHOD)) else {
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        };
        if !self.allows(origin) {
            *response.status_mut() = StatusCode::FORBIDDEN;
            return response;
        }
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        self.decorate(origin, headers);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        response
    }

    /// Let the page of an allowed origin read a response.
    pub(super) fn decorate(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if self.allows(origin) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }
}
