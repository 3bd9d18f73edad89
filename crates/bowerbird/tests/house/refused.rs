//! Starts that are refused: one sentence that says what to do, one exit code, nothing left running.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

use crate::{Place, end_of, no_server_left};

/// What was said must be one sentence for people, with these words in it.
fn assert_refused((code, said): (i32, String), expected_code: i32, words: &[&str]) {
    assert_eq!(code, expected_code, "{said}");
    let sentences: Vec<&str> = said.lines().filter(|line| line.starts_with("bowerbird: ")).collect();
    assert_eq!(sentences.len(), 1, "{said}");
    for word in words {
        assert!(sentences[0].contains(word), "`{word}` is not in: {said}");
    }
}

#[tokio::test]
async fn a_second_up_on_the_same_data_directory_names_the_first() {
    let place = Place::new();
    let mut up = place.up();
    up.ready().await;
    let first = up.process.id().to_string();
    assert_refused(place.run(&["up"]).await, 69, &["another `bowerbird up`", &first, "data_dir"]);
    up.readiness(200).await;
    assert_eq!(up.stop().await, 0);
}

#[tokio::test]
async fn a_taken_port_names_its_setting() {
    let place = Place::new();
    for (port, key) in
        [(place.api, "gateway.listen"), (place.operations, "gateway.operations_listen"), (place.store, "storage.listen")]
    {
        let somebody = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert_refused(place.run(&["up"]).await, 69, &[key, "taken"]);
        drop(somebody);
    }
    no_server_left(&place.data()).await;
}

#[tokio::test]
async fn a_data_directory_with_too_long_a_path_for_a_socket_is_refused() {
    let place = Place::new();
    let long = place.data().join("d".repeat(100));
    let refused = place.run(&["up", "--data-dir", long.to_str().unwrap()]).await;
    assert_refused(refused, 64, &["data_dir", "socket", "shorter"]);
    assert!(!long.exists(), "nothing is left behind");
    no_server_left(&place.data()).await;
}

#[tokio::test]
async fn a_data_directory_that_the_servers_user_cannot_reach_is_refused() {
    if !rustix::process::geteuid().is_root() {
        // Then PostgreSQL runs as the same user.
        return;
    }
    let place = Place::new();
    let closed = place.data().join("closed");
    fs::create_dir_all(&closed).unwrap();
    fs::set_permissions(place.data(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let inside = closed.join("data");
    let refused = place.run(&["up", "--data-dir", inside.to_str().unwrap()]).await;
    assert_refused(refused, 64, &["data_dir", "`postgres`", closed.to_str().unwrap(), "chmod o+x"]);
    assert!(!inside.exists(), "nothing is left behind");
    no_server_left(&place.data()).await;
}

#[tokio::test]
async fn a_role_without_what_it_needs_names_the_missing_setting() {
    let place = Place::new();
    // Also where somebody else has the ports: what to set first is said first.
    let _taken = [place.api, place.operations].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
    for (role, key) in [("gateway", "nats.url"), ("actors", "database.url"), ("migrate", "database.url")] {
        assert_refused(place.run(&[role]).await, 64, &[key]);
    }
}

#[tokio::test]
async fn every_command_says_what_it_does() {
    let place = Place::new();
    for command in [&["up"][..], &["gateway"], &["actors"], &["store"], &["migrate"], &["admin"], &["config", "show"]] {
        let (code, said) = place.run(&[command, &["--help"]].concat()).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.starts_with(&format!("usage: bowerbird {}", command[0])), "{said}");
    }
}

#[tokio::test]
async fn a_wrong_setting_names_its_key_and_a_wrong_command_itself() {
    let place = Place::new();
    let mut command = place.command(&["up"]);
    command.env("BOWERBIRD__LEASES__DURATION", "soon");
    assert_refused(end_of(command).await, 64, &["leases.duration", "soon"]);
    let mut command = place.command(&["config", "show"]);
    command.env("BOWERBIRD__GATEWAY__LISSTEN", "127.0.0.1:1");
    assert_refused(end_of(command).await, 64, &["lissten", "BOWERBIRD__GATEWAY__LISSTEN"]);
    let mut command = place.command(&["config", "show"]);
    command.env("BOWERBIRD_GATEWAY__LISTEN", "127.0.0.1:1");
    assert_refused(end_of(command).await, 64, &["write BOWERBIRD__GATEWAY__LISTEN"]);
    assert_refused(place.run(&["fly"]).await, 64, &["`fly`"]);
}

#[tokio::test]
async fn settings_are_shown_without_their_secrets() {
    let place = Place::new();
    let mut command = place.command(&["config", "show"]);
    command.env("BOWERBIRD__DATABASE__URL", "postgres://ada:hunter2@localhost/birds").env("BOWERBIRD__OUTBOUND__PORTS", "[]");
    command.env("BOWERBIRD__NATS__URL", "nats://ada:hunter2@h:1").env("BOWERBIRD__SMTP__URL", "smtp://ada:4711@h");
    command.env("BOWERBIRD__SMTP__FROM", "ada@example.org");
    let (code, said) = end_of(command).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("127.0.0.1:{}", place.api)) && said.contains("ports = []"), "{said}");
    assert!(said.contains("@h:1") && !said.contains("hunter2") && !said.contains("4711"), "{said}");
}
