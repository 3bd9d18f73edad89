//! Asking and answering over a real server.

use std::{sync::Arc, time::Duration};

use bowerbird_nats::{AskContext, Bus, Call, Limit, Verifier, bus::Options, operation::Done, session::Logout};
use bowerbird_testkit::NatsServer;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

async fn bus(server: &NatsServer) -> Bus {
    let options =
        Options { url: server.url(), prefix: "bowerbird".to_owned(), replicas: 1, name: "test".to_owned(), ..Options::default() };
    Bus::connect(options, Duration::from_secs(10)).await.unwrap()
}

fn verifier() -> Verifier {
    Verifier::new("https://issuer.test".into(), "bowerbird".into(), Arc::new(|| OffsetDateTime::UNIX_EPOCH))
}

fn context() -> AskContext {
    AskContext { timeout: Duration::from_secs(5), request_id: "r-1".into(), ..AskContext::default() }
}

#[tokio::test]
async fn an_operation_is_answered() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    bus.ensure_topology().await.unwrap();
    bus.ensure_topology().await.unwrap();
    let running = bus
        .service("test", "1.0.0", verifier())
        .endpoint(Limit { concurrency: 2, queue: 2 }, |call: Call<Logout>| async move {
            assert_eq!(call.request.refresh_token, "abc");
            assert_eq!(call.request_id, "r-1");
            Ok(Done {})
        })
        .start(CancellationToken::new())
        .await
        .unwrap();
    let reply = bus.ask(&Logout { refresh_token: "abc".into() }, &context()).await.unwrap();
    assert_eq!(reply, Done {});
    assert!(running.stop(Duration::from_secs(5)).await);
    assert!(bus.close(Duration::from_secs(5)).await);
}
