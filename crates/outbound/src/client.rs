//! The one HTTP client. It dials only what the rules allow, follows redirects itself, and judges every hop anew.
//!
//! No proxy, no cookies, no `Referer`, no decompression, no Alt-Svc. Connections are reused only within a [`Session`],
//! which belongs to one transfer, and only for the same scheme, name, port and address.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    address::AddressPolicy,
    connection::{Connection, Outgoing},
    dial::{Dialer, Reach, SetupError},
    error::Error,
    response::{Body, Response},
    target::{self, Target, TargetHost},
};

/// Longest `Location` that is followed.
const MAX_LOCATION_BYTES: usize = target::MAX_URL_BYTES;
/// Idle connections that a session keeps for one origin.
const MAX_IDLE: usize = 32;
/// A redirect's body up to this size is read, so that its connection can be used again.
const MAX_DRAINED_BYTES: u64 = 16 * 1024;

/// How long an exchange may take, step by step. Every step has an end of its own; a transfer as a whole has none here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Resolving the name.
    pub dns: Duration,
    /// Connecting, and again for the TLS handshake.
    pub connect: Duration,
    /// From the request to the head of the answer.
    pub first_byte: Duration,
    /// Between two reads of a body.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            dns: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(15),
            stall: Duration::from_secs(30),
        }
    }
}

/// What a guarded client is made of.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// What may be dialled.
    pub policy: AddressPolicy,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// `User-Agent` of every request that brings none of its own.
    pub user_agent: String,
    /// Name servers; none: those of the system.
    pub name_servers: Vec<SocketAddr>,
    /// Redirects that are followed.
    pub max_redirects: u32,
    /// Root certificates (DER) on top of those of the system.
    pub extra_roots: Vec<Vec<u8>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            policy: AddressPolicy::default(),
            timeouts: Timeouts::default(),
            user_agent: concat!("Bowerbird/", env!("CARGO_PKG_VERSION")).to_owned(),
            name_servers: Vec::new(),
            max_redirects: 5,
            extra_roots: Vec::new(),
        }
    }
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// Only an internal client keeps connections between calls: all of them go to the same endpoint.
    kept: Option<Session>,
}

struct Shared {
    dialer: Dialer,
    timeouts: Timeouts,
    user_agent: HeaderValue,
    max_redirects: u32,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("reach", self.shared.dialer.reach()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for URLs that strangers give.
    pub fn new(options: ClientOptions) -> Result<Client, SetupError> {
        let roots = options.extra_roots.into_iter().map(CertificateDer::from).collect();
        Client::over(
            Reach::Guarded(options.policy),
            options.timeouts,
            &options.user_agent,
            &options.name_servers,
            options.max_redirects,
            roots,
        )
    }

    /// A client for links into an object store of our own: it dials the endpoint (`http://minio:9000`) and nothing else,
    /// follows no redirects, and keeps connections between calls.
    pub fn internal(endpoint: &Url, timeouts: Timeouts) -> Result<Client, SetupError> {
        let endpoint = Target::without_policy(endpoint.clone()).map_err(SetupError::Endpoint)?;
        let mut client = Client::over(Reach::Only(endpoint), timeouts, "", &[], 0, Vec::new())?;
        client.kept = Some(client.session());
        Ok(client)
    }

    fn over(
        reach: Reach,
        timeouts: Timeouts,
        user_agent: &str,
        name_servers: &[SocketAddr],
        max_redirects: u32,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Client, SetupError> {
        let dialer = Dialer::new(reach, name_servers, roots, timeouts.dns, timeouts.connect)?;
        let user_agent = HeaderValue::from_str(user_agent).unwrap_or(HeaderValue::from_static("Bowerbird"));
        Ok(Client { shared: Arc::new(Shared { dialer, timeouts, user_agent, max_redirects }), kept: None })
    }

    /// Judge a URL by its text: scheme, user, port, literal address, kind of name. Asks no name server.
    pub fn check_url(&self, url: &str) -> Result<Url, target::Error> {
        let target = match self.shared.dialer.reach() {
            Reach::Guarded(policy) => Target::parse(url, policy)?,
            Reach::Only(_) => {
                Target::without_policy(Url::parse(url).map_err(|error| target::Error::Malformed(error.to_string()))?)?
            }
        };
        Ok(target.url().clone())
    }

    /// One GET. Statuses other than redirects are answers, not errors. Dropping the response closes its connection.
    pub async fn get(&self, url: &str, headers: HeaderMap, cancel: &CancellationToken) -> Result<Response, Error> {
        let session = self.kept.clone().unwrap_or_else(|| self.session());
        let url = self.check_url(url)?;
        cancel.run_until_cancelled(session.get(&url, &headers, &HeaderMap::new())).await.unwrap_or(Err(Error::Canceled))
    }

    /// Connections and resolved names of one transfer.
    pub fn session(&self) -> Session {
        let kept = Kept { idle: Mutex::default(), resolved: tokio::sync::Mutex::default() };
        Session { shared: Arc::clone(&self.shared), kept: Arc::new(kept) }
    }

    /// How long each step of an exchange may take.
    pub fn timeouts(&self) -> Timeouts {
        self.shared.timeouts
    }
}

/// What a connection may be used again for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    https: bool,
    host: TargetHost,
    port: u16,
}

impl Origin {
    fn of(target: &Target) -> Origin {
        Origin { https: target.is_https(), host: target.host().clone(), port: target.port() }
    }
}

pub(crate) struct Kept {
    idle: Mutex<HashMap<(Origin, SocketAddr), Vec<Connection>>>,
    resolved: tokio::sync::Mutex<HashMap<Origin, Arc<[SocketAddr]>>>,
}

/// Where a connection goes when its exchange is over.
pub(crate) struct ReturnTo {
    kept: Weak<Kept>,
    key: (Origin, SocketAddr),
}

impl ReturnTo {
    pub(crate) fn put(self, connection: Connection) {
        if let Some(kept) = self.kept.upgrade()
            && connection.is_open()
        {
            let mut idle = kept.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = idle.entry(self.key).or_default();
            if waiting.len() < MAX_IDLE {
                waiting.push(connection);
            }
        }
    }
}

/// Connections and resolved names of one transfer. A name is resolved once, and connections made for one name are never
/// used for another. Cheap to clone; the connections end with the last clone.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    kept: Arc<Kept>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// One GET, with redirects followed. `given` are headers of whoever gave the URL: they go to its origin and not
    /// beyond. `ours` (`Range`, `If-Range`) go everywhere.
    pub async fn get(&self, url: &Url, given: &HeaderMap, ours: &HeaderMap) -> Result<Response, Error> {
        let first = self.judge(url.clone())?;
        let mut target = first.clone();
        let mut seen = vec![target.url().clone()];
        let mut same_origin = true;
        loop {
            let mut headers = HeaderMap::with_capacity(8);
            headers.insert(header::USER_AGENT, self.shared.user_agent.clone());
            headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
            if same_origin {
                headers.extend(given.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            headers.extend(ours.iter().map(|(name, value)| (name.clone(), value.clone())));
            let mut response = self.exchange(&target, Outgoing::get(headers)).await?;
            response.redirected = seen.len() > 1;
            response.same_origin = same_origin;
            let Some(location) = self.redirects_to(&response)? else { return Ok(response) };
            let next = self.judge(target.url().join(&location).map_err(|error| target::Error::Malformed(error.to_string()))?)?;
            if target.is_https() && !next.is_https() {
                return Err(Error::Downgrade);
            }
            if seen.len() > self.shared.max_redirects as usize || seen.contains(next.url()) {
                return Err(Error::TooManyRedirects);
            }
            seen.push(next.url().clone());
            same_origin = same_origin && next.same_origin(&first);
            target = next;
            response.body.drain(MAX_DRAINED_BYTES).await;
        }
    }

    /// One POST over a connection that nothing was sent on before, so that it is never sent twice. A redirect is an
    /// answer like any other.
    pub(crate) async fn post(&self, url: Url, given: HeaderMap, body: Bytes) -> Result<Response, Error> {
        let target = self.judge(url)?;
        let mut headers = HeaderMap::with_capacity(given.len() + 3);
        headers.insert(header::USER_AGENT, self.shared.user_agent.clone());
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.extend(given);
        self.exchange(&target, Outgoing { method: Method::POST, headers, body }).await
    }

    fn judge(&self, url: Url) -> Result<Target, Error> {
        Ok(match self.shared.dialer.reach() {
            Reach::Guarded(policy) => Target::judge(url, policy)?,
            Reach::Only(_) => Target::without_policy(url)?,
        })
    }

    fn redirects_to(&self, response: &Response) -> Result<Option<String>, Error> {
        let redirect = matches!(
            response.status,
            StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT
        );
        if !redirect || matches!(self.shared.dialer.reach(), Reach::Only(_)) {
            return Ok(None);
        }
        let Some(location) = response.headers.get(header::LOCATION) else { return Ok(None) };
        match std::str::from_utf8(location.as_bytes()) {
            Ok(location) if location.len() <= MAX_LOCATION_BYTES => Ok(Some(location.to_owned())),
            _ => Err(Error::Protocol("the server redirects to something that is no URL".to_owned())),
        }
    }

    async fn exchange(&self, target: &Target, outgoing: Outgoing) -> Result<Response, Error> {
        let origin = Origin::of(target);
        let addresses = self.addresses(target, &origin).await?;
        let uri = uri(target)?;
        let host = host_header(target);
        // A kept connection may have been closed by the server in the meantime, which says nothing about the server.
        while let Some((mut connection, key)) = self.take_idle(&origin, &addresses) {
            let answer = timeout(self.shared.timeouts.first_byte, connection.send(&uri, &host, outgoing.clone())).await;
            match answer {
                Err(_) => return Err(Error::Timeout("the answer of the server")),
                Ok(Err(Error::Broken(_))) => {}
                Ok(Err(error)) => return Err(error),
                Ok(Ok(answer)) => return self.response(target, answer, connection, key),
            }
        }
        let (stream, address) = self.shared.dialer.connect(target, &addresses).await?;
        let mut connection = Connection::start(stream).await?;
        let answer = timeout(self.shared.timeouts.first_byte, connection.send(&uri, &host, outgoing)).await;
        let answer = answer.map_err(|_| Error::Timeout("the answer of the server"))??;
        self.response(target, answer, connection, (origin, address))
    }

    fn response(
        &self,
        target: &Target,
        answer: http::Response<hyper::body::Incoming>,
        connection: Connection,
        key: (Origin, SocketAddr),
    ) -> Result<Response, Error> {
        let return_to = ReturnTo { kept: Arc::downgrade(&self.kept), key };
        let (head, incoming) = answer.into_parts();
        let body = Body::new(&head, incoming, connection, return_to, self.shared.timeouts.stall)?;
        Ok(Response {
            status: head.status,
            headers: head.headers,
            url: target.url().clone(),
            redirected: false,
            same_origin: true,
            body,
        })
    }

    fn take_idle(&self, origin: &Origin, addresses: &[SocketAddr]) -> Option<(Connection, (Origin, SocketAddr))> {
        let mut idle = self.kept.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            let key = (origin.clone(), *address);
            while let Some(connection) = idle.get_mut(&key).and_then(Vec::pop) {
                if connection.is_open() {
                    return Some((connection, key));
                }
            }
        }
        None
    }

    async fn addresses(&self, target: &Target, origin: &Origin) -> Result<Arc<[SocketAddr]>, Error> {
        // An internal endpoint may move to another address while we run; what a user gave may not.
        if matches!(self.shared.dialer.reach(), Reach::Only(_)) {
            return Ok(self.shared.dialer.resolve(target).await?.into());
        }
        // Held while resolving, so that connections that start together ask once.
        let mut resolved = self.kept.resolved.lock().await;
        if let Some(known) = resolved.get(origin) {
            return Ok(Arc::clone(known));
        }
        let addresses: Arc<[SocketAddr]> = self.shared.dialer.resolve(target).await?.into();
        resolved.insert(origin.clone(), Arc::clone(&addresses));
        Ok(addresses)
    }
}

fn host_header(target: &Target) -> String {
    let host = target.url().host_str().unwrap_or_default();
    let host = host.strip_suffix('.').unwrap_or(host);
    target.url().port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The URL as the HTTP library wants it. The URL standard leaves a few characters alone that the library does not take.
fn uri(target: &Target) -> Result<Uri, Error> {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    const REFUSED: &AsciiSet =
        &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');
    let text = target.url().as_str();
    text.parse()
        .or_else(|_| utf8_percent_encode(text, REFUSED).to_string().parse())
        .map_err(|_| Error::Protocol("the URL cannot be put into a request".to_owned()))
}
