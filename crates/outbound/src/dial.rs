//! From a judged URL to a connected stream: resolve once, judge every answer, connect to exactly those addresses.
//!
//! The name is never resolved a second time for the same transfer, so a name server that changes its mind changes nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::warn;

use crate::{
    address::{AddressPolicy, Refusal},
    error::Error,
    target::{Target, TargetHost, is_localhost, is_private_name},
};

/// Addresses of one name that are tried at most.
const MAX_ADDRESSES: usize = 16;
/// How long an address is tried alone before the next one is tried beside it (RFC 8305 §5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// The dialler could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The system's resolver configuration cannot be read.
    #[error("the name servers of the system cannot be read; set outbound.name_servers: {0}")]
    NameServers(#[source] hickory_resolver::net::NetError),
    /// The TLS library refused its own parameters.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[source] rustls::Error),
    /// The endpoint is no `http` or `https` URL with a host.
    #[error("the endpoint is not one that can be dialled: {0}")]
    Endpoint(#[source] crate::target::Error),
}

/// What may be dialled.
#[derive(Debug)]
pub(crate) enum Reach {
    /// What the operator's rules allow.
    Guarded(AddressPolicy),
    /// One endpoint of our own, and nothing else.
    Only(Target),
}

pub(crate) struct Dialer {
    reach: Reach,
    resolver: TokioResolver,
    tls: Arc<rustls::ClientConfig>,
    dns_timeout: Duration,
    connect_timeout: Duration,
}

impl Dialer {
    pub(crate) fn new(
        reach: Reach,
        name_servers: &[SocketAddr],
        extra_roots: Vec<CertificateDer<'static>>,
        dns_timeout: Duration,
        connect_timeout: Duration,
    ) -> Result<Dialer, SetupError> {
        let mut builder = if name_servers.is_empty() {
            match TokioResolver::builder_tokio() {
                Ok(builder) => builder,
                // An endpoint of our own may well be an address.
                Err(error) if matches!(reach, Reach::Only(_)) => {
                    warn!(%error, "the name servers of the system cannot be read");
                    TokioResolver::builder_with_config(
                        ResolverConfig::from_name_servers(Vec::new()),
                        TokioRuntimeProvider::default(),
                    )
                }
                Err(error) => return Err(SetupError::NameServers(error)),
            }
        } else {
            let servers = name_servers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].into_iter().map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                NameServerConfig::new(server.ip(), true, connections.collect())
            });
            TokioResolver::builder_with_config(
                ResolverConfig::from_parts(None, Vec::new(), servers.collect()),
                TokioRuntimeProvider::default(),
            )
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.timeout = dns_timeout / 2;
        options.attempts = 1;
        // What a name server said for one account's transfer must not decide another's.
        options.cache_size = 0;
        let resolver = builder.build().map_err(SetupError::NameServers)?;
        Ok(Dialer { reach, resolver, tls: Arc::new(tls_config(extra_roots)?), dns_timeout, connect_timeout })
    }

    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Every address that the target stands for, all of them judged; at least one.
    pub(crate) async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, Error> {
        let found = match target.host() {
            TargetHost::Address(address) => vec![*address],
            TargetHost::Name(name) => self.look_up(name).await?,
        };
        let addresses = match &self.reach {
            Reach::Only(endpoint) if endpoint.same_origin(target) => {
                found.into_iter().map(|address| SocketAddr::new(address, target.port())).collect()
            }
            Reach::Only(_) => return Err(Error::Blocked(Refusal::NotPublic)),
            Reach::Guarded(policy) => judge(policy, target, found)?,
        };
        Ok(interleave(addresses))
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        // The dot at the end keeps the system's search list out of what strangers give.
        let dot = if matches!(self.reach, Reach::Only(_)) { "" } else { "." };
        let lookup = timeout(self.dns_timeout, self.resolver.lookup_ip(format!("{name}{dot}"))).await;
        let answer = match lookup {
            Err(_) => return Err(Error::Timeout("resolving the host name")),
            Ok(Err(error)) if error.is_nx_domain() || error.is_no_records_found() => return Err(Error::NoSuchName),
            Ok(Err(error)) => return Err(Error::Resolve(Box::new(error))),
            Ok(Ok(answer)) => answer,
        };
        let found: Vec<IpAddr> = answer.iter().collect();
        if found.is_empty() { Err(Error::NoSuchName) } else { Ok(found) }
    }

    /// Connect to one of these addresses, which [`Dialer::resolve`] gave, and speak TLS if the target wants it.
    pub(crate) async fn connect(&self, target: &Target, addresses: &[SocketAddr]) -> Result<(Stream, SocketAddr), Error> {
        let connecting = timeout(self.connect_timeout, connect_first(addresses)).await;
        let (stream, address) = connecting.map_err(|_| Error::Timeout("connecting"))?.map_err(Error::Connect)?;
        let peer = stream.peer_addr().map_err(Error::Connect)?;
        if peer.ip().to_canonical() != address.ip() || peer.port() != address.port() {
            warn!(expected = %address, %peer, "the connection leads to another address than the one that was judged");
            return Err(Error::Blocked(Refusal::NotPublic));
        }
        if !target.is_https() {
            return Ok((Stream::Plain(stream), address));
        }
        let name = match target.host() {
            TargetHost::Address(address) => ServerName::from(*address),
            TargetHost::Name(name) => ServerName::try_from(name.clone())
                .map_err(|error| Error::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?,
        };
        let handshake = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        match timeout(self.connect_timeout, handshake).await {
            Err(_) => Err(Error::Timeout("the TLS handshake")),
            Ok(Err(error)) if is_from_tls(&error) => Err(Error::Tls(error)),
            Ok(Err(error)) => Err(Error::Connect(error)),
            Ok(Ok(stream)) => Ok((Stream::Tls(Box::new(stream)), address)),
        }
    }
}

/// All answers must be allowed: to pick the good ones would tell an attacker which are the bad ones, and a name that has
/// both is an attack or a mistake.
fn judge(policy: &AddressPolicy, target: &Target, found: Vec<IpAddr>) -> Result<Vec<SocketAddr>, Error> {
    let port = target.port();
    let (private_name, localhost) = match target.host() {
        TargetHost::Address(_) => (false, false),
        TargetHost::Name(name) => (is_private_name(name), is_localhost(name)),
    };
    let mut addresses = Vec::with_capacity(found.len());
    let mut refused = None;
    for address in found {
        let judged = policy.check(address, port).and_then(|judged| {
            if private_name && !policy.allows(address) {
                Err(Refusal::NotPublic)
            } else if policy.listens_everywhere(port) && is_on_this_machine(judged.ip()) {
                Err(Refusal::OwnListener)
            } else {
                Ok(judged)
            }
        });
        match judged {
            Ok(judged) => addresses.push(judged),
            Err(refusal) => refused = Some((address, refusal)),
        }
    }
    match refused {
        // `localhost` always stands for both loopback addresses, of which the operator may have opened one.
        Some((_, refusal)) if localhost && !addresses.is_empty() && refusal == Refusal::NotPublic => Ok(addresses),
        Some((address, refusal)) => {
            warn!(
                host = target.url().host_str().unwrap_or_default(),
                %address,
                port,
                "a target was blocked: {refusal} (see outbound.allow in the settings)"
            );
            Err(Error::Blocked(refusal))
        }
        None => Ok(addresses),
    }
}

/// An address can be bound only on the machine that has it.
fn is_on_this_machine(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// IPv6 and IPv4 in turn, each in the order of the answer, at most [`MAX_ADDRESSES`] (RFC 8305 §4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv4);
    let longest = v4.len().max(v6.len());
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    (0..longest).flat_map(|_| [v4.next(), v6.next()]).flatten().take(MAX_ADDRESSES).collect()
}

async fn connect_first(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    if let [only] = addresses {
        return connect_to(*only).await;
    }
    let mut trying = JoinSet::new();
    let mut left = addresses.iter().copied();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = left.next() {
            trying.spawn(connect_to(address));
        } else if trying.is_empty() {
            return Err(last_error);
        }
        let joined = if left.len() > 0 {
            timeout(NEXT_ADDRESS_AFTER, trying.join_next()).await.ok()
        } else {
            Some(trying.join_next().await)
        };
        match joined.flatten() {
            Some(Ok(Ok(connected))) => return Ok(connected),
            Some(Ok(Err(error))) => last_error = error,
            Some(Err(_)) | None => {}
        }
    }
}

async fn connect_to(address: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    Ok((socket.connect(address).await?, address))
}

/// Whether the TLS library refused what came, as opposed to a connection that broke meanwhile.
pub(crate) fn is_from_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

fn tls_config(extra_roots: Vec<CertificateDer<'static>>) -> Result<rustls::ClientConfig, SetupError> {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    roots.add_parsable_certificates(extra_roots);
    if roots.is_empty() {
        warn!("this machine has no root certificates, so nothing can be fetched over https; install ca-certificates");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(SetupError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A connected stream, with or without TLS.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) fn speaks_h2(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
