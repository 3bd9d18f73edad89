//! The threshold: what every request must have, and what every answer carries.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{Code, Problem};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::Scheme};
use hyper::body::Incoming;
use poem::{
    Addr, Endpoint, Request, Response,
    endpoint::BoxEndpoint,
    web::{LocalAddr, RemoteAddr},
};
use poem_openapi::OperationId;
use tracing::{Instrument, debug, error, info_span, warn};

use super::{
    cors::Cors,
    server::{Outgoing, Peer, Respond},
};
use crate::{metrics::Measured, payload::BodyBounds, refused};

/// Name of the header that says which request an answer, or a line in a log, belongs to.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A request id from outside is kept if it is not longer than this.
const MAX_REQUEST_ID: usize = 64;

/// The id of a request, in its extensions.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// Everything in front of the routes.
pub(crate) struct Entry {
    pub(crate) routes: BoxEndpoint<'static, Response>,
    pub(crate) ids: IdSource,
    pub(crate) cors: Cors,
    pub(crate) body: BodyBounds,
    /// Whether we are reached over TLS, so that browsers may be told to insist on it.
    pub(crate) secure: bool,
    pub(crate) measured: Measured,
}

impl Respond for Entry {
    async fn respond(&self, request: http::Request<Incoming>, peer: Peer) -> Outgoing {
        let begun = Instant::now();
        let request_id = self.request_id(request.headers());
        let method = request.method().clone();
        let origin = self.cors.allowed(request.headers());
        let with_credential = request.headers().contains_key(header::AUTHORIZATION);
        let span = info_span!("request", id = %request_id, %method, path = request.uri().path());
        let mut response = match refuses(&request) {
            Some(problem) => refused::carry(problem),
            None if origin.is_some() && Cors::is_preflight(&method, request.headers()) => {
                let mut response = Response::from(StatusCode::NO_CONTENT);
                Cors::permit(response.headers_mut());
                response
            }
            None => self.answer(request, &request_id, peer).instrument(span.clone()).await,
        };
        let refused = response.extensions_mut().remove::<Problem>().or_else(|| {
            let status = response.status();
            let starts = |content_type: &str| ["application/json", "text/html"].iter().any(|ours| content_type.starts_with(ours));
            let is_ours = response.content_type().is_some_and(starts);
            // The report of /readyz is an answer, although its status is 503; a page for people says what is wrong itself.
            ((status.is_client_error() || status.is_server_error()) && !is_ours).then(|| refused::from_status(status))
        });
        if let Some(problem) = refused {
            refused::write(&mut response, problem, &request_id, with_credential);
        }
        self.mark(response.headers_mut(), &request_id, origin);
        let operation = response.data::<OperationId>().map_or("none", |operation| operation.0);
        self.measured.answered(operation, response.status(), begun.elapsed());
        let status = response.status().as_u16();
        span.in_scope(|| debug!(operation, status, "answered"));
        response.into()
    }
}

impl Entry {
    async fn answer(&self, request: http::Request<Incoming>, request_id: &Arc<str>, peer: Peer) -> Response {
        let local = LocalAddr(Addr::SocketAddr(peer.local));
        let remote = RemoteAddr(Addr::SocketAddr(peer.remote));
        let mut request = Request::from((request, local, remote, Scheme::HTTP));
        if !is_known(request.method()) {
            // No path takes it; so that the answer says which methods it does take, it goes to the route like any other.
            request.set_method(Method::TRACE);
        }
        request.set_data(RequestId(Arc::clone(request_id)));
        request.set_data(self.body);
        self.run(request).await
    }

    /// A panic ends its request and nothing else.
    async fn run(&self, request: Request) -> Response {
        match AssertUnwindSafe(self.routes.get_response(request)).catch_unwind().await {
            Ok(response) => {
                if response.data::<Problem>().is_some_and(|problem| problem.code == Code::Internal) {
                    warn!("a request failed because of a fault on our side");
                }
                response
            }
            Err(panic) => {
                let reason = panic
                    .downcast_ref::<&str>()
                    .copied()
                    .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                    .unwrap_or("unknown");
                error!(reason, "the handler of a request panicked");
                refused::carry(Problem::internal())
            }
        }
    }

    fn request_id(&self, headers: &HeaderMap) -> Arc<str> {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_request_id(id));
        given.map_or_else(|| self.ids.next().simple().to_string().into(), Arc::from)
    }

    fn mark(&self, headers: &mut HeaderMap, request_id: &str, origin: Option<HeaderValue>) {
        if let Ok(value) = HeaderValue::from_str(request_id) {
            headers.insert(REQUEST_ID, value);
        }
        let mut unless_set = |name: HeaderName, value: &'static str| {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        };
        unless_set(header::CACHE_CONTROL, "no-store");
        unless_set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
        unless_set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        unless_set(header::REFERRER_POLICY, "no-referrer");
        unless_set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
        if self.secure {
            unless_set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
        }
        self.cors.mark(origin, headers);
    }
}

/// What no operation takes.
fn refuses(request: &http::Request<Incoming>) -> Option<Problem> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) => return Some(Problem::new(Code::BadRequest, "the request has no Host header")),
        (Some(_), Some(_)) => return Some(Problem::new(Code::BadRequest, "the request has more than one Host header")),
    };
    let is_authority = |host: &str| host.parse::<http::uri::Authority>().is_ok_and(|parsed| !parsed.as_str().contains('@'));
    if !host.to_str().is_ok_and(is_authority) {
        return Some(Problem::new(Code::BadRequest, "the Host header is not a host name with an optional port"));
    }
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Some(Problem::new(
            Code::UnsupportedMediaType,
            "compressed bodies are not taken; send it without Content-Encoding",
        ));
    }
    None
}

fn is_known(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ]
    .contains(method)
}

/// Short, and of letters that are safe in headers, logs and shells.
fn is_request_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_REQUEST_ID
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use poem::EndpointExt;

    use super::*;

    #[test]
    fn a_request_id_from_outside_is_short_and_plain() {
        for good in ["a", "0198c0de-7a2b", "A_b-9", &"x".repeat(64)] {
            assert!(is_request_id(good), "{good}");
        }
        for bad in ["", "a b", "a\nb", "ä", "a;b", "../x", &"x".repeat(65)] {
            assert!(!is_request_id(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_problem_and_ends_nothing_else() {
        let entry = Entry {
            routes: poem::endpoint::make_sync(|_| -> Response { panic!("on purpose") }).boxed(),
            ids: IdSource,
            cors: Cors::new(Vec::new()),
            body: BodyBounds { limit_bytes: 1, patience: std::time::Duration::from_secs(1) },
            secure: false,
            measured: Measured::register(&bowerbird_lifecycle::Metrics::default()),
        };
        for _ in 0..2 {
            let response = entry.run(Request::default()).await;
            assert_eq!(response.data::<Problem>().map(|problem| problem.code), Some(Code::Internal));
        }
    }
}
