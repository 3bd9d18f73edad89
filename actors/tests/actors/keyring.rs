//! Signing keys: one active whoever races, no valid token refused over a rotation, nothing readable at rest.

use std::sync::Arc;

use bowerbird_actors::{
    keyring::Keyring,
    metrics::Meters,
    supervision::{self, Address, ChildSpec},
};
use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, Health, IdSource, Metrics};
use bowerbird_nats::{Code, key::KeySet, session::Verify};
use bowerbird_testkit::eventually;

use crate::stand::{MASTER_KEY, PATIENCE, Servers, now};

const RHYTHM: &str = "[auth]\nkey_rotation_interval = \"10h\"\nkey_overlap = \"1h\"";

async fn keyring(servers: &Servers, clock: &Clock, master_key: [u8; 32]) -> Keyring {
    let settings = Settings::with_overrides(RHYTHM).unwrap();
    let meters = Meters::register(&Metrics::default());
    let component = Health::default().component("keyring");
    let (pool, bus) = (servers.database.pool(), servers.bus().await);
    Keyring::new(pool, bus, clock.clone(), IdSource, &settings.auth, &master_key, meters, component).unwrap()
}

fn kids(set: &KeySet) -> Vec<&str> {
    set.keys.iter().map(|key| key.kid.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_and_rotate_at_once_make_one_key_each_time() {
    let servers = Servers::start().await;
    let clock = Clock::manual(now());
    let (one, other) = (keyring(&servers, &clock, MASTER_KEY).await, keyring(&servers, &clock, MASTER_KEY).await);
    let pool = servers.database.pool();
    let mut active = Vec::new();
    // First start; then, each time, a key is published ahead of time and signs an hour later.
    for hours in [0, 9, 1, 1, 8, 1] {
        clock.advance(time::Duration::hours(hours));
        let (first, second) = tokio::join!(one.refresh(), other.refresh());
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(first.keys.len() <= 3 && second.keys.len() <= 3, "{first:?}");
        // Whoever came second has seen what the first did, or will at its next look.
        let (first, second) = (one.refresh().await.unwrap(), other.refresh().await.unwrap());
        assert_eq!(kids(&first), kids(&second));
        assert_eq!(one.signer().kid(), other.signer().kid());
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM signing_keys WHERE state = 'active'").fetch_one(&pool).await.unwrap();
        assert_eq!(count, 1);
        active.push(one.signer().kid().unwrap());
    }
    active.dedup();
    assert_eq!(active.len(), 3, "two rotations");
    let keys: i64 = sqlx::query_scalar("SELECT count(*) FROM signing_keys").fetch_one(&pool).await.unwrap();
    assert_eq!(keys, 3, "none was made twice");
    let told: i64 =
        sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type = 'key.rotated'").fetch_one(&pool).await.unwrap();
    assert_eq!(told, 3);
    // What signs no more has no private part.
    let private: i64 =
        sqlx::query_scalar("SELECT count(*) FROM signing_keys WHERE private_key IS NOT NULL").fetch_one(&pool).await.unwrap();
    assert_eq!(private, 1);
}

#[tokio::test]
async fn a_token_outlives_the_rotation_of_its_key_and_not_its_removal() {
    let servers = Servers::start().await;
    let node = servers.node(&format!("{RHYTHM}\naccess_token_ttl = \"15m\"")).await;
    node.register("alice").await;
    let step = async |by: time::Duration, keys: usize| {
        node.clock.advance(by);
        node.keys_are_due().await;
        eventually(PATIENCE, "the set has as many keys", async || (node.verifier.key_set().keys.len() == keys).then_some(()))
            .await;
    };
    let published = node.verifier.key_set();
    step(time::Duration::hours(9), 2).await;
    assert_eq!(node.verifier.key_set().keys[0], published.keys[0]);
    node.clock.advance(time::Duration::minutes(59));
    let before = node.login("alice").await.access_token;
    node.clock.advance(time::Duration::minutes(1));
    node.keys_are_due().await;
    let after = eventually(PATIENCE, "the next key signs", async || {
        let token = node.login("alice").await.access_token;
        (token.split('.').next() != before.split('.').next()).then_some(token)
    })
    .await;
    for access_token in [&before, &after] {
        assert!(node.ask(&Verify { access_token: access_token.clone() }).await.is_ok());
    }
    // Its key is withdrawn before the token expires, as in an emergency: it stops to verify.
    sqlx::query("UPDATE signing_keys SET state = 'gone' WHERE state = 'retiring'").execute(&node.pool).await.unwrap();
    eventually(PATIENCE, "the withdrawn key is gone", async || (node.verifier.key_set().keys.len() == 1).then_some(())).await;
    assert_eq!(node.ask(&Verify { access_token: before }).await.unwrap_err().code, Code::Unauthorized);
    assert!(node.ask(&Verify { access_token: after }).await.is_ok());
}

#[tokio::test]
async fn nothing_at_rest_can_be_used_by_who_reads_it() {
    let servers = Servers::start().await;
    let node = servers.node("").await;
    node.register("alice").await;
    let pair = node.login("alice").await;
    let dump = node.dump().await;
    assert!(dump.contains("alice") && dump.contains("argon2id"), "the dump has the rows");
    // The object identifier of RSA, which every private key in PKCS#8 begins with, and its text forms.
    for secret in [
        "2a864886f70d010101",
        "PRIVATE KEY",
        &pair.access_token,
        &pair.refresh_token,
        &pair.refresh_token[4..],
        crate::stand::PASSWORD,
    ] {
        assert!(!dump.contains(secret), "{secret}");
        let bytes = secret.bytes().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert!(!dump.contains(&bytes), "{secret} as bytes");
    }
}

#[tokio::test]
async fn a_keyring_that_is_killed_comes_back_with_the_same_key() {
    let servers = Servers::start().await;
    let clock = Clock::manual(now());
    let ring = keyring(&servers, &clock, MASTER_KEY).await;
    let (signer, address) = (ring.signer(), Address::default());
    let child = ChildSpec::actor("keyring", &address, move || (ring.clone(), ()));
    let root = supervision::start("root", vec![child], Clock::system()).await.unwrap();
    let kid = signer.kid().expect("a key after the start");
    for lives in 1..=3_u32 {
        address.get().unwrap().kill();
        eventually(PATIENCE, "it lives again", async || {
            let nodes = root.tree().snapshot();
            nodes.iter().any(|node| node.restarts == lives && node.state == supervision::State::Running).then_some(())
        })
        .await;
        assert_eq!(signer.kid().as_ref(), Some(&kid));
        assert!(signer.sign("at+jwt", &serde_json::json!({"sub": "x"})).is_ok());
    }
    assert!(root.stop(PATIENCE).await);
}

#[tokio::test]
async fn another_master_key_is_refused_with_a_sentence() {
    let servers = Servers::start().await;
    let clock = Clock::manual(now());
    keyring(&servers, &clock, MASTER_KEY).await.refresh().await.unwrap();
    let error = keyring(&servers, &clock, [1; 32]).await.refresh().await.unwrap_err().to_string();
    assert!(error.contains("auth.master_key_file"), "{error}");
}

#[tokio::test]
async fn the_keys_are_published_again_when_jetstream_lost_them() {
    let mut servers = Servers::start().await;
    let node = Arc::new(servers.node("").await);
    node.register("alice").await;
    let access_token = node.login("alice").await.access_token;
    servers.nats.wipe_jetstream().await;
    eventually(PATIENCE, "the node notices", async || node.not_ready().is_empty().then_some(())).await;
    node.is_ready().await;
    eventually(PATIENCE, "the token verifies", async || node.ask(&Verify { access_token: access_token.clone() }).await.ok())
        .await;
    let fresh = servers.node("").await;
    assert_eq!(fresh.verifier.key_set(), node.verifier.key_set());
}
