//! Deaths: of `up` itself, of PostgreSQL, of nats-server.

use bowerbird_testkit::{eventually, process_exists};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Place, READY_WITHIN, Up, no_server_left};

fn kill9(process: u32) {
    let process = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    kill_process(process, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_killed_up_leaves_nothing_that_blocks_the_next() {
    let place = Place::new();
    for _ in 0..3 {
        let mut up = place.up();
        up.ready().await;
        up.readiness(200).await;
        up.process.kill9();
        // At once, without waiting for the servers to notice.
    }
    let mut last = place.up();
    last.ready().await;
    assert_eq!(last.stop().await, 0, "{}", last.said());
    no_server_left(&place.data()).await;
}

#[tokio::test]
async fn the_servers_of_a_killed_up_end_by_themselves() {
    let place = Place::new();
    let mut up = place.up();
    up.ready().await;
    assert!(up.server("postgres").is_some() && up.server("nats-server").is_some());
    up.process.kill9();
    no_server_left(&place.data()).await;
}

#[tokio::test]
async fn a_killed_server_is_started_again_and_the_house_is_ready_again() {
    let place = Place::new();
    let mut up = place.up();
    up.ready().await;
    for name in ["nats-server", "postgres"] {
        let first = up.server(name).unwrap();
        kill9(first);
        started_again(&up, name, first).await;
        up.readiness(200).await;
    }
    assert_eq!(up.stop().await, 0, "{}", up.said());
    no_server_left(&place.data()).await;
}

async fn started_again(up: &Up, name: &str, first: u32) {
    eventually(READY_WITHIN, &format!("another {name} runs"), async || {
        let now = up.server(name)?;
        (now != first && !process_exists(first)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_cannot_be_started_again_is_given_up_with_its_last_words() {
    let place = Place::new();
    let mut up = place.up();
    up.ready().await;
    let control = place.data().join("postgres/cluster/global/pg_control");
    std::fs::rename(&control, control.with_extension("away")).unwrap();
    kill9(up.server("postgres").unwrap());
    let status = up.process.wait(READY_WITHIN).await;
    let said = up.said();
    assert_eq!(status.code(), Some(70), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("bowerbird: PostgreSQL died") && last.contains("pg_control"), "{said}");
    no_server_left(&place.data()).await;
}
