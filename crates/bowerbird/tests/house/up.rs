//! A start, a stop, and what they say.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{Place, no_server_left};

#[tokio::test]
async fn up_says_where_it_is_and_stops_with_everything_that_it_started() {
    let place = Place::new();
    let mut up = place.up();
    let line = up.ready().await;
    for address in [
        format!("http://127.0.0.1:{}", place.api),
        format!("http://127.0.0.1:{}/docs", place.api),
        format!("http://127.0.0.1:{}", place.store),
    ] {
        assert!(line.contains(&address), "{line}");
    }
    up.readiness(200).await;
    for secret in ["credentials.toml", "master_key", "nats/nats.conf"] {
        let mode = fs::metadata(place.data().join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{secret} is for its owner alone");
    }

    let code = up.stop().await;
    let said = up.said();
    assert_eq!(code, 0, "{said}");
    assert!(said.trim_end().ends_with("Bowerbird has stopped"), "{said}");
    no_server_left(&place.data()).await;

    // The same again finds what it left: no second cluster is made.
    let mut again = place.up();
    again.ready().await;
    assert!(!again.said().contains("making a PostgreSQL cluster"), "{}", again.said());
    assert_eq!(again.stop().await, 0);
}

#[tokio::test]
async fn what_is_made_from_events_is_made_again_while_everything_runs() {
    let place = Place::new();
    let (code, said) = place.run(&["rebuild-statistics"]).await;
    assert!(code != 0 && !said.is_empty(), "nothing runs yet: {said}");
    let mut up = place.up();
    up.ready().await;
    // The first signing key was told of.
    let (code, said) = place.run(&["rebuild-statistics"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("days counted anew") && !said.contains(" 0 events"), "{said}");
    let (code, said) = place.run(&["rebuild-streams"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("events are published again") && !said.starts_with("0 "), "{said}");
    assert_eq!(up.stop().await, 0, "{}", up.said());
}

#[tokio::test]
async fn a_stop_that_comes_before_it_is_ready_leaves_nothing_behind() {
    let place = Place::new();
    let mut up = place.up();
    // As early as can be: the lock is taken first.
    let lock = place.data().join("lock");
    bowerbird_testkit::eventually(crate::READY_WITHIN, "it has begun", async || {
        fs::read_to_string(&lock).is_ok_and(|text| !text.is_empty()).then_some(())
    })
    .await;
    assert_eq!(up.stop().await, 0, "{}", up.said());
    no_server_left(&place.data()).await;
    let mut again = place.up();
    again.ready().await;
    assert_eq!(again.stop().await, 0);
}
