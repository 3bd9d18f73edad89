//! Keys that follow their bucket.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::{PATIENCE, bus, token::SigningKey, verifier};
use aws_lc_rs::rsa::KeySize;
use bowerbird_nats::{Bus, Verifier, key::KeySet};
use bowerbird_testkit::{NatsServer, eventually};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

struct Follower {
    verifier: Verifier,
    ready: Arc<AtomicBool>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

fn follow(bus: &Bus) -> Follower {
    let (verifier, ready, shutdown) = (verifier(), Arc::new(AtomicBool::new(false)), CancellationToken::new());
    let (following, told, stop, bus) = (verifier.clone(), Arc::clone(&ready), shutdown.clone(), bus.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { following.follow(&bus, stop, move |in_step| told.store(in_step, Ordering::SeqCst)).await });
    Follower { verifier, ready, shutdown, tasks }
}

impl Follower {
    async fn becomes(&self, ready: bool) {
        eventually(PATIENCE, &format!("ready is {ready}"), async || (self.ready.load(Ordering::SeqCst) == ready).then_some(()))
            .await;
    }

    async fn has(&self, keys: &KeySet) {
        eventually(PATIENCE, "the keys are there", async || (self.verifier.key_set() == *keys).then_some(())).await;
    }
}

#[tokio::test]
async fn keys_arrive_and_go_as_the_bucket_says() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let (first, second) = (SigningKey::generate("1", KeySize::Rsa2048), SigningKey::generate("2", KeySize::Rsa2048));
    let mut follower = follow(&bus);
    bus.put_key_set(&first.set()).await.unwrap();
    follower.has(&first.set()).await;
    follower.becomes(true).await;
    assert!(follower.verifier.verify(&first.good()).is_ok());

    let began = Instant::now();
    bus.put_key_set(&second.set()).await.unwrap();
    follower.has(&second.set()).await;
    println!("a withdrawn key was refused {:?} after it was withdrawn", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(follower.verifier.verify(&first.good()).is_err());

    // One that starts later finds what is there.
    let late = follow(&bus);
    late.has(&second.set()).await;
    late.becomes(true).await;

    follower.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), follower.tasks.join_next()).await.unwrap();
}

#[tokio::test]
async fn a_killed_server_leaves_the_keys_and_takes_the_readiness_until_it_is_back() {
    let mut server = NatsServer::start().await;
    let bus = bus(&server).await;
    let (first, second) = (SigningKey::generate("1", KeySize::Rsa2048), SigningKey::generate("2", KeySize::Rsa2048));
    bus.put_key_set(&first.set()).await.unwrap();
    let follower = follow(&bus);
    follower.becomes(true).await;
    server.kill9();
    follower.becomes(false).await;
    assert!(follower.verifier.verify(&first.good()).is_ok(), "known tokens go on verifying");
    server.restart().await;
    follower.becomes(true).await;
    bus.put_key_set(&second.set()).await.unwrap();
    follower.has(&second.set()).await;
}

#[tokio::test]
async fn a_wiped_bucket_is_made_again_and_filled_by_who_owns_the_keys() {
    let mut server = NatsServer::start().await;
    let bus = bus(&server).await;
    let (first, second) = (SigningKey::generate("1", KeySize::Rsa2048), SigningKey::generate("2", KeySize::Rsa2048));
    for _ in 0..3 {
        bus.put_key_set(&first.set()).await.unwrap();
    }
    let follower = follow(&bus);
    follower.becomes(true).await;
    server.wipe_jetstream().await;
    follower.becomes(false).await;
    assert!(follower.verifier.verify(&first.good()).is_ok());
    bus.put_key_set(&second.set()).await.unwrap();
    follower.has(&second.set()).await;
    follower.becomes(true).await;
}

#[tokio::test]
async fn what_is_no_key_set_is_not_taken() {
    let server = NatsServer::start().await;
    let bus = bus(&server).await;
    let key = SigningKey::generate("1", KeySize::Rsa2048);
    bus.put_key_set(&key.set()).await.unwrap();
    let follower = follow(&bus);
    follower.becomes(true).await;
    let store = crate::support::outsider(&server).await.get_key_value("KEYS").await.unwrap();
    for nonsense in ["", "nonsense", "{}", r#"{"keys":[]}"#] {
        store.put("current", nonsense.into()).await.unwrap();
        follower.becomes(false).await;
        assert!(follower.verifier.verify(&key.good()).is_ok());
        bus.put_key_set(&key.set()).await.unwrap();
        follower.becomes(true).await;
    }
    store.delete("current").await.unwrap();
    follower.becomes(false).await;
}
