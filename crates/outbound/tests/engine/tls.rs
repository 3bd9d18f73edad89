//! Transfers over TLS: HTTP/1.1 and HTTP/2, certificates that nobody vouches for, ends without a farewell.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bowerbird_lifecycle::Clock;
use bowerbird_outbound::{AddressPolicy, Client, ClientOptions, Engine, Error, ErrorCode, MemoryBudget, Timeouts, Verified};
use bowerbird_testkit::{
    lying::{Act, LyingServer},
    ranged_server::Content,
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::support::{Bench, PART, failure, patience, transfer};

/// Made for these tests, valid for a hundred years, for localhost, source.example and 127.0.0.1.
const CERTIFICATE: &[u8] = include_bytes!("tls/certificate.der");
const PRIVATE_KEY: &[u8] = include_bytes!("tls/private_key.der");

fn acceptor(protocol: &[u8]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(PRIVATE_KEY.to_vec()));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("default versions")
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(CERTIFICATE.to_vec())], key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A TLS server that handles each connection as `serve` does. Ends with the returned set.
async fn serving<F, S>(protocol: &'static [u8], serve: F) -> (SocketAddr, JoinSet<()>)
where
    F: Fn(TlsStream<TcpStream>) -> S + Clone + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        let acceptor = acceptor(protocol);
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, serve) = (acceptor.clone(), serve.clone());
            connections.spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream).await;
                }
            });
        }
    });
    (address, listening)
}

fn client(trusting: bool) -> Client {
    Client::new(ClientOptions {
        policy: AddressPolicy::new(vec!["127.0.0.0/8".parse().expect("a network")], Vec::new(), Vec::new(), Vec::new()),
        timeouts: Timeouts { connect: Duration::from_millis(500), stall: Duration::from_millis(500), ..Timeouts::default() },
        extra_roots: if trusting { vec![CERTIFICATE.to_vec()] } else { Vec::new() },
        ..ClientOptions::default()
    })
    .expect("a client")
}

fn bench(trusting: bool) -> Bench {
    Bench { engine: Engine::new(client(trusting), MemoryBudget::new(64 * PART), patience(), Clock::system()), ..Bench::new() }
}

fn answer_h2(request: &Request<Incoming>, content: &Content) -> Response<Full<Bytes>> {
    assert_eq!(request.version(), http::Version::HTTP_2);
    assert_eq!(request.headers().get(header::HOST), None, "the authority says it");
    let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok()).and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().map_or(content.len(), |last| last + 1)))
    });
    let mut response = Response::new(Full::new(Bytes::new()));
    let (first, end) = range.unwrap_or((0, content.len()));
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = format!("bytes {first}-{}/{}", end - 1, content.len());
        response.headers_mut().insert(header::CONTENT_RANGE, value.parse().expect("a header value"));
    }
    response.headers_mut().insert(header::ETAG, content.etag().parse().expect("a header value"));
    *response.body_mut() = Full::new(content.read(first, end).into());
    response
}

#[tokio::test]
async fn a_transfer_over_http_2_arrives() {
    let content = Content::new(1, 10 * PART + 7);
    let served = content.clone();
    let (address, _serving) = serving(b"h2", move |stream| {
        let content = served.clone();
        async move {
            let service = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer_h2(&request, &content))));
            drop(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
        }
    })
    .await;
    for url in [format!("https://localhost:{}/file", address.port()), format!("https://{address}/file")] {
        let completed = bench(true).run(transfer(&url)).await.expect("a transfer");
        assert_eq!((completed.sha256, completed.verified), (Some(content.sha256()), Verified::Length), "{url}");
    }
}

#[tokio::test]
async fn a_connection_over_http_2_that_ends_in_the_middle_is_resumed() {
    let content = Content::new(2, 30 * PART);
    let (served, connections) = (content.clone(), Arc::new(AtomicUsize::new(0)));
    let (address, _serving) = serving(b"h2", move |stream| {
        let (content, connection) = (served.clone(), connections.fetch_add(1, Ordering::SeqCst));
        async move {
            let service = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer_h2(&request, &content))));
            let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
            let life = Duration::from_millis(if connection < 2 { 3 } else { 60_000 });
            drop(tokio::time::timeout(life, serving).await);
        }
    })
    .await;
    let bench = bench(true);
    let completed = bench.run_again_and_again(transfer(&format!("https://{address}/file")), 3).await.expect("a transfer");
    assert_eq!(completed.sha256, Some(content.sha256()));
}

/// Reads a request and answers with these bytes over HTTP/1.1; then ends the TLS session, or only the connection.
async fn say(mut stream: TlsStream<TcpStream>, answer: &'static str, farewell: bool) {
    let mut request = [0; 4096];
    drop(stream.read(&mut request).await);
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.flush().await);
    if farewell {
        drop(stream.shutdown().await);
    } else {
        drop(stream.into_inner().0.shutdown().await);
    }
}

#[tokio::test]
async fn content_that_ends_with_its_tls_session_is_told_from_content_that_was_cut_off() {
    for farewell in [true, false] {
        let (address, _serving) = serving(b"http/1.1", move |stream| say(stream, "HTTP/1.1 200 OK\r\n\r\nhello", farewell)).await;
        let bench = bench(true);
        let result = bench.run(transfer(&format!("https://{address}/"))).await;
        if farewell {
            assert_eq!(result.expect("a transfer").verified, Verified::Nothing);
        } else {
            assert_eq!(failure(result).code, ErrorCode::ConnectFailed);
            assert_eq!(bench.sink.object(), None);
        }
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_fails_for_good() {
    let (address, _serving) =
        serving(b"http/1.1", |stream| say(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true)).await;
    let error = failure(bench(false).run(transfer(&format!("https://{address}/"))).await);
    assert_eq!((error.code, error.retryable), (ErrorCode::TlsFailed, false));
    let error = failure(bench(true).run(transfer(&format!("https://other.localhost:{}/", address.port()))).await);
    assert_eq!((error.code, error.retryable), (ErrorCode::TlsFailed, false), "a certificate for another name");
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_not_followed() {
    let plain = LyingServer::start(|_| vec![Act::head("HTTP/1.1 200 OK\ncontent-length: 0\n\n")]).await;
    let location = plain.url("/");
    let answer: &'static str = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n").leak();
    let (address, _serving) = serving(b"http/1.1", move |stream| say(stream, answer, true)).await;
    let result = client(true).get(&format!("https://{address}/"), HeaderMap::new(), &CancellationToken::new()).await;
    assert!(matches!(result, Err(Error::Downgrade)));
    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn a_handshake_that_stalls_times_out_and_a_server_without_tls_fails() {
    let silent = LyingServer::start(|_| Vec::new()).await;
    let result = client(true).get(&format!("https://{}/", silent.address()), HeaderMap::new(), &CancellationToken::new()).await;
    assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let url = format!("https://{address}/");
    let (client, cancel) = (client(true), CancellationToken::new());
    let greeting = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        drop(stream.write_all(b"220 mail.example ESMTP\r\n").await);
        let mut ignored = [0; 1024];
        while matches!(stream.read(&mut ignored).await, Ok(read) if read > 0) {}
    };
    let (result, ()) = tokio::join!(client.get(&url, HeaderMap::new(), &cancel), greeting);
    assert!(matches!(result, Err(Error::Tls(_))), "{result:?}");
}
