//! Names that lead where nobody may go. A name server of the tests answers whatever it is told to, and canaries listen
//! where a guard with a hole would arrive.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bowerbird_lifecycle::Clock;
use bowerbird_outbound::{
    AddressPolicy, Client, ClientOptions, Engine, Error, ErrorCode, MemoryBudget, Response, Stopped, Timeouts,
};
use bowerbird_testkit::{
    lying::{Act, LyingServer},
    names::{NameServer, Zone},
    ranged_server::{Content, Options, RangedServer},
};
use http::HeaderMap;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::{Bench, PART, failure, patience, transfer};

fn zone(addresses: &[&str]) -> Zone {
    Zone { alias: None, addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect() }
}

/// Listens on every address of this machine and counts who comes.
async fn canary() -> LyingServer {
    LyingServer::start(|_| vec![Act::head("HTTP/1.1 200 OK\ncontent-length: 6\n\nsecret")]).await
}

/// Opens the addresses of `allow` and nothing else.
fn client(name_server: &NameServer, allow: &[&str], own_listeners: Vec<SocketAddr>) -> Client {
    let allow = allow.iter().map(|net| net.parse().expect("a network")).collect();
    Client::new(ClientOptions {
        policy: AddressPolicy::new(allow, Vec::new(), Vec::new(), own_listeners),
        timeouts: Timeouts { dns: Duration::from_secs(2), connect: Duration::from_millis(500), ..Timeouts::default() },
        name_servers: vec![name_server.address()],
        ..ClientOptions::default()
    })
    .expect("a client")
}

async fn get(client: &Client, url: &str) -> Result<Response, Error> {
    client.get(url, HeaderMap::new(), &CancellationToken::new()).await
}

#[tokio::test]
async fn a_name_that_stands_for_a_closed_address_is_never_dialled() {
    let canary = canary().await;
    let port = canary.address().port();
    let vectors: [(&'static str, Zone); 15] = [
        ("loopback.example", zone(&["127.0.0.1"])),
        ("private.example", zone(&["10.0.0.1"])),
        ("metadata-by-name.example", zone(&["169.254.169.254"])),
        ("unspecified.example", zone(&["0.0.0.0"])),
        ("v6.example", zone(&["::1"])),
        ("v6-any.example", zone(&["::"])),
        ("mapped.example", zone(&["::ffff:127.0.0.1"])),
        ("compatible.example", zone(&["::127.0.0.1"])),
        ("nat64.example", zone(&["64:ff9b::7f00:1"])),
        ("six-to-four.example", zone(&["2002:7f00:1::"])),
        ("mixed.example", zone(&["8.8.8.8", "127.0.0.1"])),
        ("mixed-families.example", zone(&["8.8.8.8", "::1"])),
        ("alias.example", Zone { alias: Some("hidden.example"), addresses: zone(&["127.0.0.1"]).addresses }),
        ("alias-to-nowhere.example", Zone { alias: Some("localhost"), addresses: Vec::new() }),
        ("many.example", Zone { alias: None, addresses: many(299, Some("127.0.0.1")) }),
    ];
    let zones: HashMap<&'static str, Zone> = vectors.iter().cloned().collect();
    let names = NameServer::start(move |name, _| zones.get(name).cloned().unwrap_or_default()).await;
    let client = client(&names, &[], Vec::new());
    for (name, _) in &vectors {
        let error = get(&client, &format!("http://{name}:{port}/")).await.expect_err(name);
        assert!(matches!(error.code(), ErrorCode::BlockedTarget | ErrorCode::DnsFailure), "{name}: {error:?}");
        if *name != "alias-to-nowhere.example" {
            assert_eq!(error.code(), ErrorCode::BlockedTarget, "{name}: {error:?}");
        }
    }
    assert_eq!(canary.connections(), 0);
}

/// So many public addresses, and another at the end.
fn many(count: u32, last: Option<&str>) -> Vec<IpAddr> {
    let public = (0..count).map(|number| IpAddr::V4((0x0808_0000 + number).into()));
    public.chain(last.map(|last| last.parse().expect("an address"))).collect()
}

#[tokio::test]
async fn a_name_server_that_changes_its_mind_changes_nothing_within_a_transfer() {
    let content = Content::new(1, 8 * PART);
    let source = RangedServer::start(content.clone(), Options { connection_rate: Some(4 * PART), ..Options::default() }).await;
    let port = source.address().port();
    let canary = TcpListener::bind(("127.0.0.2", port)).await.expect("the same port of another address");
    let names = NameServer::start(|_, times| if times == 0 { zone(&["127.0.0.1"]) } else { zone(&["127.0.0.2"]) }).await;
    let client = client(&names, &["127.0.0.0/8"], Vec::new());
    let bench = Bench { engine: Engine::new(client, MemoryBudget::new(64 * PART), patience(), Clock::system()), ..Bench::new() };
    let completed = bench.run(transfer(&format!("http://flipping.example:{port}/file.bin"))).await.expect("a transfer");
    assert_eq!(completed.sha256, Some(content.sha256()));
    assert!(source.connections() > 1, "later connections were made too");
    assert_eq!(names.questions(), 2, "one question for each family");
    let visited = tokio::time::timeout(Duration::from_millis(50), canary.accept()).await;
    assert!(visited.is_err(), "nobody went to the second address");
}

#[tokio::test]
async fn a_name_that_flips_to_a_closed_address_is_refused_at_the_next_transfer() {
    let source = RangedServer::start(Content::new(2, 100), Options::default()).await;
    let port = source.address().port();
    let names = NameServer::start(|_, times| if times == 0 { zone(&["127.0.0.1"]) } else { zone(&["127.9.0.1"]) }).await;
    let client = client(&names, &["127.0.0.1/32"], Vec::new());
    let url = format!("http://flipping.example:{port}/file.bin");
    assert_eq!(get(&client, &url).await.expect("the allowed address").status, 200);
    assert_eq!(get(&client, &url).await.expect_err("the other").code(), ErrorCode::BlockedTarget);
    assert_eq!(source.connections(), 1);
}

#[tokio::test]
async fn hundreds_of_answers_are_all_judged_and_few_are_tried() {
    let names =
        NameServer::start(|_, _| Zone { alias: None, addresses: many(0, None).into_iter().chain(loopbacks(300)).collect() })
            .await;
    let source = RangedServer::start(Content::new(3, 100), Options::default()).await;
    let port = source.address().port();
    let allowed = client(&names, &["127.0.0.0/8"], Vec::new());
    assert_eq!(get(&allowed, &format!("http://many.example:{port}/file.bin")).await.expect("the first answers").status, 200);
    let not_the_last = client(&names, &["127.0.0.0/24"], Vec::new());
    let refused = get(&not_the_last, &format!("http://many.example:{port}/file.bin")).await;
    assert_eq!(refused.expect_err("one of 300 is closed").code(), ErrorCode::BlockedTarget);
    assert_eq!(source.connections(), 1);
}

fn loopbacks(count: u32) -> impl Iterator<Item = IpAddr> {
    (0..count).map(|number| IpAddr::V4((0x7f00_0001 + number).into()))
}

#[tokio::test]
async fn private_names_reach_only_what_the_operator_opened() {
    let source = RangedServer::start(Content::new(4, 100), Options::default()).await;
    let port = source.address().port();
    let names = NameServer::start(|name, _| match name {
        "nas.local" | "db.internal" => zone(&["127.0.0.1"]),
        "public.internal" => zone(&["8.8.8.8"]),
        _ => Zone::default(),
    })
    .await;
    let closed = client(&names, &[], Vec::new());
    let opened = client(&names, &["127.0.0.0/8"], Vec::new());
    for name in ["nas.local", "db.internal", "localhost", "LOCALHOST.", "a.localhost"] {
        let url = format!("http://{name}:{port}/file.bin");
        assert_eq!(get(&closed, &url).await.expect_err(name).code(), ErrorCode::BlockedTarget, "{name}");
        assert_eq!(get(&opened, &url).await.unwrap_or_else(|error| panic!("{name}: {error:?}")).status, 200);
    }
    let refused = get(&opened, &format!("http://public.internal:{port}/")).await;
    assert_eq!(refused.expect_err("not in what was opened").code(), ErrorCode::BlockedTarget);
}

#[tokio::test]
async fn our_own_listeners_are_never_dialled_although_loopback_is_open() {
    let own = canary().await;
    let everywhere = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
    let everywhere = everywhere.local_addr().expect("an address");
    let names = NameServer::start(|_, _| zone(&["127.0.0.1"])).await;
    let client = client(&names, &["127.0.0.0/8", "::1/128"], vec![own.address(), everywhere]);
    let mut urls = Vec::new();
    for host in ["127.0.0.1", "own.example", "localhost", "[::ffff:127.0.0.1]", "0x7f.1"] {
        urls.push(format!("http://{host}:{}/", own.address().port()));
        urls.push(format!("http://{host}:{}/", everywhere.port()));
    }
    urls.push(format!("http://127.77.0.1:{}/", everywhere.port()));
    for url in urls {
        assert_eq!(get(&client, &url).await.expect_err(&url).code(), ErrorCode::BlockedTarget, "{url}");
    }
    assert_eq!(own.connections(), 0);
}

#[tokio::test]
async fn a_redirect_to_a_name_that_is_closed_is_not_followed_at_any_hop() {
    let canary = canary().await;
    let port = canary.address().port();
    let names =
        NameServer::start(|name, _| if name == "open.example" { zone(&["127.0.0.1"]) } else { zone(&["127.0.0.99"]) }).await;
    for hops in 0..5 {
        let server = LyingServer::start(move |request| {
            let hop: usize = request.target.trim_start_matches('/').parse().unwrap_or(0);
            let location = if hop < hops { format!("/{}", hop + 1) } else { format!("http://closed.example:{port}/") };
            vec![Act::head(&format!("HTTP/1.1 302 Found\nlocation: {location}\ncontent-length: 0\n\n"))]
        })
        .await;
        let client = client(&names, &["127.0.0.1/32"], Vec::new());
        let url = format!("http://open.example:{}/0", server.address().port());
        assert_eq!(get(&client, &url).await.expect_err("closed").code(), ErrorCode::BlockedTarget);
        let engine = Engine::new(client, MemoryBudget::new(64 * PART), patience(), Clock::system());
        let bench = Bench { engine, ..Bench::new() };
        let error = failure(bench.run(transfer(&url)).await);
        assert_eq!((error.code, error.retryable), (ErrorCode::BlockedTarget, false));
        assert!(!error.detail.contains("127."), "the text names no address: {}", error.detail);
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_no_riddle() {
    let names = NameServer::start(|_, _| Zone::default()).await;
    let client = client(&names, &[], Vec::new());
    assert!(matches!(get(&client, "http://nothing.example/").await, Err(Error::NoSuchName)));
    let bench = Bench { engine: Engine::new(client, MemoryBudget::new(64 * PART), patience(), Clock::system()), ..Bench::new() };
    let result = bench.run(transfer("http://nothing.example/")).await;
    assert!(matches!(result, Err(Stopped::Failed(error)) if error.code == ErrorCode::DnsFailure && !error.retryable));
}
