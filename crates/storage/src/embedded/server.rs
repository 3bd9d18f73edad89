//! The HTTP side: connections with limits, and what must be decided before the protocol crate sees a request.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bowerbird_lifecycle::Tasks;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::{Body, S3Error, S3ErrorCode, service::S3Service};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::cors::Cors;

/// Time for a request's head to arrive, and for an idle connection to ask again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// A peer that acknowledges nothing for so long has gone.
const PEER_TIMEOUT: Duration = Duration::from_mins(2);

/// What connections share.
pub(super) struct Server {
    pub(super) service: S3Service,
    pub(super) cors: Cors,
    pub(super) max_connections: usize,
}

impl Server {
    /// Serve until `shutdown`; then let what runs finish.
    #[expect(clippy::disallowed_methods, reason = "a pause before the next accept")]
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener, connections: Tasks, shutdown: CancellationToken) {
        let permits = Arc::new(Semaphore::new(self.max_connections));
        loop {
            let permit = tokio::select! {
                () = shutdown.cancelled() => return,
                permit = Arc::clone(&permits).acquire_owned() => permit,
            };
            let Ok(permit) = permit else { return };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (server, shutdown) = (Arc::clone(&self), shutdown.clone());
                    connections.spawn(async move {
                        let _permit = permit;
                        server.connection(stream, peer, shutdown).await;
                    });
                }
                Err(error) => {
                    // Too many open files, most likely: what runs must end before more can begin.
                    tracing::warn!(%error, "the object store cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, shutdown: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %peer, "a connection ended at once");
            return;
        }
        // A reader that stopped reading must not hold its file for ever.
        let timeout = u32::try_from(PEER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, timeout) {
            tracing::debug!(%error, "no time limit for peers that vanish");
        }
        let service = service_fn(move |request| {
            let server = Arc::clone(&self);
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %peer, "a connection ended early");
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let origin = request.headers().get(header::ORIGIN).cloned();
        if request.method() == Method::OPTIONS {
            return self.cors.preflight(request.headers());
        }
        let mut response = match admit(&mut request) {
            Ok(()) => self.call(request).await,
            Err(error) => error.to_http_response().unwrap_or_else(|_| bare(StatusCode::BAD_REQUEST)),
        };
        let headers = response.headers_mut();
        // What is stored is somebody's file, never a page of ours.
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
        if let Some(origin) = origin {
            self.cors.decorate(&origin, headers);
        }
        response
    }

    async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        match self.service.call(request.map(Body::from)).await {
            Ok(response) => response,
            Err(error) => {
                let error: s3s::StdError = error.into();
                tracing::error!(%error, "the object store could not answer");
                bare(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// Decide what the protocol crate leaves open.
fn admit(request: &mut Request<Incoming>) -> Result<(), S3Error> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let is_post = request.method() == Method::POST;
    admit_head(is_post, &query, request.headers_mut())
}

fn admit_head(is_post: bool, query: &str, headers: &mut HeaderMap) -> Result<(), S3Error> {
    let refused = |code, why: &'static str| Err(S3Error::with_message(code, why));
    // Names are decoded before they are compared, as the protocol crate does: an escaped spelling is the same parameter.
    let parameters: Vec<(String, String)> =
        url::form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let parameter = |wanted: &str| parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    for name in LOOKED_FOR {
        if parameters.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name)).count() > 1 {
            return refused(S3ErrorCode::InvalidArgument, "a query parameter is given twice");
        }
    }
    if let Some(name) = UNSUPPORTED.iter().find(|name| headers.contains_key(**name)) {
        let why = format!("{name} is not supported; what it asks for would not be done");
        return Err(S3Error::with_message(S3ErrorCode::NotImplemented, why));
    }
    if parameter("versionId").is_some_and(|(_, version)| !version.is_empty() && version != "null") {
        return refused(S3ErrorCode::NoSuchVersion, "there are no versions here");
    }
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("multipart/form-data"));
    if is_post && is_form {
        // The protocol crate would read all of it into memory before it asks who sends it.
        return refused(S3ErrorCode::NotImplemented, "uploads by form are not supported; use a presigned PUT");
    }
    if parameter("Signature").is_some() || parameter("AWSAccessKeyId").is_some() {
        return refused(S3ErrorCode::InvalidRequest, "signature version 2 is not accepted; use version 4");
    }
    if let Some((_, signed)) = parameter("X-Amz-SignedHeaders") {
        // A client that followed a redirect here brings the header of where it came from.
        headers.remove(header::AUTHORIZATION);
        let signed = signed.to_ascii_lowercase();
        let signed: Vec<&str> = signed.split(';').collect();
        // What is not signed was not granted: with `x-amz-copy-source`, an upload link would read any object.
        let unsigned = headers.keys().any(|name| {
            let name = name.as_str();
            name.starts_with("x-amz-") && !HARMLESS.contains(&name) && !signed.contains(&name)
        });
        if unsigned {
            return refused(S3ErrorCode::AccessDenied, "a header that begins with x-amz- was not signed");
        }
    } else if headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"AWS ")) {
        return refused(S3ErrorCode::InvalidRequest, "signature version 2 is not accepted; use version 4");
    }
    Ok(())
}

/// Query parameters that are looked at before the protocol crate is. Given twice, it might look at the other one.
const LOOKED_FOR: [&str; 4] = ["versionId", "Signature", "AWSAccessKeyId", "X-Amz-SignedHeaders"];

/// Headers that ask for more than bytes and metadata. To ignore one would be to promise something and not do it.
const UNSUPPORTED: [&str; 8] = [
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
    "x-amz-tagging",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
];

/// Headers that clients add by themselves and that grant nothing.
const HARMLESS: [&str; 4] = ["x-amz-content-sha256", "x-amz-date", "x-amz-user-agent", "x-amz-checksum-mode"];

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(query: &str, headers: &[(&'static str, &'static str)]) -> Result<HeaderMap, S3Error> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        admit_head(false, query, &mut map).map(|()| map)
    }

    #[test]
    fn a_bearer_header_kept_across_a_redirect_is_ignored_where_the_query_is_signed() {
        let bearer = ("authorization", "Bearer token");
        let signed = admitted("X-Amz-SignedHeaders=host&X-Amz-Signature=00", &[bearer]).unwrap();
        assert!(!signed.contains_key("authorization"));
        let unsigned = admitted("", &[bearer]).unwrap();
        assert!(unsigned.contains_key("authorization"));
    }

    #[test]
    fn a_signed_link_grants_no_more_than_what_was_signed() {
        let copy = ("x-amz-copy-source", "/bucket/secret");
        assert!(admitted("X-Amz-SignedHeaders=host&X-Amz-Signature=00", &[copy]).is_err());
        assert!(admitted("X-Amz-SignedHeaders=host%3Bx-amz-copy-source&X-Amz-Signature=00", &[copy]).is_ok());
        assert!(admitted("X-Amz-SignedHeaders=host&X-Amz-Signature=00", &[("x-amz-date", "now")]).is_ok());
    }

    #[test]
    fn an_escaped_spelling_of_a_parameter_is_the_same_parameter() {
        let copy = ("x-amz-copy-source", "/bucket/secret");
        assert!(admitted("X-Amz-SignedHeader%73=host&X-Amz-Signature=00", &[copy]).is_err());
        assert!(admitted("X-Amz-SignedHeaders=host%3Bx-amz-copy-source&X-Amz-SignedHeader%73=host", &[copy]).is_err());
        assert!(admitted("AWSAccessKeyI%64=a&Signatur%65=b&Expires=1", &[]).is_err());
        assert!(admitted("version%49d=abc", &[]).is_err());
    }

    #[test]
    fn what_is_not_supported_is_refused_rather_than_ignored() {
        assert!(admitted("", &[("x-amz-write-offset-bytes", "10")]).is_err());
        assert!(admitted("", &[("x-amz-server-side-encryption-customer-algorithm", "AES256")]).is_err());
        assert!(admitted("versionId=abc", &[]).is_err());
        assert!(admitted("versionId=null", &[]).is_ok());
    }

    #[test]
    fn signatures_of_version_2_are_refused() {
        assert!(admitted("AWSAccessKeyId=a&Signature=b&Expires=1", &[]).is_err());
        assert!(admitted("", &[("authorization", "AWS key:signature")]).is_err());
    }
}
