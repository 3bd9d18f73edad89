//! Three servers with three copies of everything, one of which is always being killed.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bowerbird_nats::{Bus, Delivery, Event, Outcome, bus::Options, publish, topology::EVENTS};
use bowerbird_testkit::{NatsServer, eventually, free_port};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::support::completed;

/// An election may take its time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

async fn cluster() -> Vec<NatsServer> {
    let ports = [free_port(), free_port(), free_port()];
    let routes = ports.map(|port| format!("\"nats-route://127.0.0.1:{port}\"")).join(", ");
    let mut servers = Vec::new();
    for (number, port) in ports.iter().enumerate() {
        let extra = format!(
            "server_name: n{number}\ncluster {{ name: test, listen: \"127.0.0.1:{port}\", no_advertise: true, routes: [{routes}] }}"
        );
        servers.push(NatsServer::start_with(&extra).await);
    }
    servers
}

#[tokio::test]
async fn a_cluster_that_loses_one_server_after_the_other_loses_no_event() {
    let mut servers = cluster().await;
    let options = Options {
        url: servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(","),
        prefix: "bowerbird".into(),
        replicas: 3,
        name: "test".into(),
        ..Options::default()
    };
    let bus = Bus::connect(options, PATIENCE).await.unwrap();
    eventually(PATIENCE, "the streams are there", async || bus.ensure_topology().await.ok()).await;

    let (seen, stop) = (Arc::new(Mutex::new(Vec::<i64>::new())), CancellationToken::new());
    let (noted, consumer, shutdown) = (Arc::clone(&seen), bus.clone(), stop.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let spec = consumer.event_consumer("test", consumer.subjects().every_event());
        let handler = move |delivery: Delivery<Event>| {
            noted.lock().unwrap().push(delivery.message.entity_sequence);
            std::future::ready(Outcome::Done)
        };
        consumer.consume(spec, shutdown, Arc::new(Semaphore::new(8)), handler).await;
    });

    let over = Arc::new(AtomicBool::new(false));
    let (publisher, ended) = (bus.clone(), Arc::clone(&over));
    let mut publishing = JoinSet::new();
    publishing.spawn(async move {
        let (mut sequence, mut longest) = (0, Duration::ZERO);
        while !ended.load(Ordering::SeqCst) {
            let began = Instant::now();
            let event = completed(sequence);
            // Without acknowledgement it is sent again under the same id, as the outbox does.
            while let Err(error) = publisher.publish_event(&event).await {
                assert!(matches!(error, publish::Error::NotAcknowledged { .. }), "{error}");
            }
            longest = longest.max(began.elapsed());
            sequence += 1;
        }
        (sequence, longest)
    });
    let count = || seen.lock().unwrap().len();
    for server in &mut servers {
        let before = count();
        eventually(PATIENCE, "events flow", async || (count() > before + 20).then_some(())).await;
        server.kill9();
        let before = count();
        eventually(PATIENCE, "events flow over two servers", async || (count() > before + 20).then_some(())).await;
        server.restart().await;
        // The next may only be killed when this one has caught up.
        let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
        eventually(PATIENCE, "all three are current", async || {
            let info = jetstream.get_stream(EVENTS).await.ok()?.cached_info().clone();
            let replicas = info.cluster?.replicas;
            (replicas.len() == 2 && replicas.iter().all(|peer| peer.current && !peer.offline)).then_some(())
        })
        .await;
    }
    over.store(true, Ordering::SeqCst);
    let (published, longest) = publishing.join_next().await.unwrap().unwrap();
    eventually(PATIENCE, "every event was consumed", async || {
        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        seen.dedup();
        (seen == (0..published).collect::<Vec<_>>()).then_some(())
    })
    .await;
    println!("{published} events over three kills, {} deliveries, longest publish {longest:?}", count());
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}
