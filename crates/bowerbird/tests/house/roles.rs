//! The parts of `up`, each a process of its own, against servers that were there before.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use bowerbird_testkit::{ChildProcess, NatsServer, TestDatabase, eventually, free_port, process_exists};
use rustix::process::Signal;

use crate::{Place, READY_WITHIN, STOPPED_WITHIN, end_of};

/// Start a role and wait for the line that says that it serves.
async fn started(mut command: Command, log: &std::path::Path, line: &str) -> ChildProcess {
    let file = fs::File::create(log).unwrap();
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let mut process = ChildProcess::spawn(&mut command).unwrap();
    eventually(READY_WITHIN, line, async || {
        let said = fs::read_to_string(log).unwrap();
        assert!(process.try_wait().unwrap().is_none(), "{said}");
        said.contains(line).then_some(())
    })
    .await;
    process
}

#[tokio::test]
async fn gateway_actors_and_store_make_a_house_together_and_stop_cleanly() {
    let (place, nats, database) = (Place::new(), NatsServer::start().await, TestDatabase::empty().await);
    fs::create_dir_all(place.data()).unwrap();
    let master_key = place.data().join("the_key");
    fs::write(&master_key, "0f".repeat(32)).unwrap();
    let keys = ["BOWERBIRD__STORAGE__ACCESS_KEY_ID", "BOWERBIRD__STORAGE__SECRET_ACCESS_KEY"];
    let role = |name: &str| {
        let mut command = place.command(&[name]);
        command.env("BOWERBIRD__NATS__URL", nats.url()).env("BOWERBIRD__GATEWAY__PUBLIC_URL", "http://drop.test");
        command
    };
    let store_at = format!("http://127.0.0.1:{}", place.store);
    let remote_store = |mut command: Command| {
        command.env("BOWERBIRD__STORAGE__KIND", "s3").env("BOWERBIRD__STORAGE__ENDPOINT", &store_at);
        command
    };

    let mut store = role("store");
    store.env(keys[0], "house").env(keys[1], "a-secret-of-the-house");
    let mut store = started(store, &place.data().join("store.log"), "object store serves").await;

    let mut actors = remote_store(role("actors"));
    // Each has an operations listener; on one machine they need one port each.
    actors
        .env("BOWERBIRD__GATEWAY__OPERATIONS_LISTEN", format!("127.0.0.1:{}", free_port()))
        .env(keys[0], "house")
        .env(keys[1], "a-secret-of-the-house")
        .env("BOWERBIRD__DATABASE__URL", database.url())
        .env("BOWERBIRD__AUTH__MASTER_KEY_FILE", &master_key);
    let mut actors = started(actors, &place.data().join("actors.log"), "actors work").await;

    // The gateway has neither database nor keys.
    let gateway = remote_store(role("gateway"));
    let mut gateway = started(gateway, &place.data().join("gateway.log"), "gateway serves").await;
    eventually(READY_WITHIN, "the gateway is ready", async || (crate::readyz(place.operations) == Some(200)).then_some(())).await;

    for process in [&mut gateway, &mut actors, &mut store] {
        process.signal(Signal::TERM);
        let status = process.wait(STOPPED_WITHIN).await;
        assert_eq!(status.code(), Some(0));
        assert!(!process_exists(process.id()));
    }
}

#[tokio::test]
async fn an_admin_is_made_in_a_named_database_with_a_password_from_standard_input() {
    let (place, database) = (Place::new(), TestDatabase::empty().await);
    let admin = |name: &str| {
        let mut command = place.command(&["admin", "create", "--name", name]);
        command.env("BOWERBIRD__DATABASE__URL", database.url());
        command
    };
    let mut command = admin("ada");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse battery staple\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(said.contains("ada is an admin") && !said.contains("password"), "{said}");

    // The name is taken now; another account gets a password that is made up.
    let (code, said) = end_of(admin("ada")).await;
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("taken"), "{said}");
    let (code, said) = end_of(admin("grace")).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("its password is "), "{said}");
}
