//! Logging in, refreshing, logging out: races, expiry, overload, and a database that fails at the commit.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{sync::Arc, time::Duration};

use bowerbird_nats::{
    Code,
    session::{Login, Logout, Refresh, TokenPair, Verify},
};
use bowerbird_testkit::eventually;
use tokio::task::JoinSet;

use crate::stand::{Node, PASSWORD, PATIENCE, Servers, credentials};

async fn refresh(node: &Node, token: &str) -> Result<TokenPair, bowerbird_nats::Problem> {
    node.ask(&Refresh { refresh_token: token.to_owned() }).await
}

#[tokio::test]
async fn a_session_is_opened_verified_refreshed_and_closed() {
    let servers = Servers::start().await;
    let node = servers.node("").await;
    let account = node.register("alice").await;
    let login = Login { device_name: Some("a laptop".into()), ..credentials("alice", PASSWORD) };
    let pair = node.ask(&login).await.unwrap();
    assert_eq!((pair.token_type.as_str(), pair.expires_in, pair.refresh_expires_in), ("Bearer", 300, 604_800));
    assert!(pair.refresh_token.starts_with("bbr_"));

    let verified = node.ask(&Verify { access_token: format!("Bearer {}", pair.access_token) }).await.unwrap();
    assert_eq!((verified.account_id, verified.session_id), (account.id, pair.session_id));
    let mut forged = pair.access_token.clone();
    forged.replace_range(forged.len() - 6..forged.len() - 5, if forged.as_bytes()[forged.len() - 6] == b'A' { "B" } else { "A" });
    assert_eq!(node.ask(&Verify { access_token: forged }).await.unwrap_err().code, Code::Unauthorized);

    let next = refresh(&node, &format!("Bearer {}", pair.refresh_token)).await.unwrap();
    assert_eq!((next.session_id, next.account_id), (pair.session_id, account.id));
    assert_ne!(next.access_token, pair.access_token);
    assert_eq!(refresh(&node, &pair.refresh_token).await.unwrap_err().code, Code::InvalidRefreshToken);

    // Twice, with a token that is used and with one that is not, with the scheme and without: always harmless.
    for token in [format!("bearer {}", next.refresh_token), next.refresh_token.clone(), pair.refresh_token, "nonsense".into()] {
        node.ask(&Logout { refresh_token: token }).await.unwrap();
    }
    assert_eq!(refresh(&node, &next.refresh_token).await.unwrap_err().code, Code::InvalidRefreshToken);
    assert_eq!(node.count("SELECT count(*) FROM events WHERE event_type = 'session.closed'").await, 1);
}

#[tokio::test]
async fn of_sixteen_who_bring_the_same_refresh_token_one_gets_a_successor() {
    let servers = Servers::start().await;
    let node = Arc::new(servers.node("").await);
    node.register("alice").await;
    let mut token = node.login("alice").await.refresh_token;
    for round in 1..=20 {
        let mut racers = JoinSet::new();
        for _ in 0..16 {
            let (node, token) = (Arc::clone(&node), token.clone());
            racers.spawn(async move { refresh(&node, &token).await });
        }
        let (won, lost): (Vec<_>, Vec<_>) = racers.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}");
        assert!(lost.into_iter().all(|outcome| outcome.unwrap_err().code == Code::InvalidRefreshToken));
        assert_eq!(node.count("SELECT count(*) FROM refresh_tokens WHERE consumed_at IS NULL").await, 1);
        token = won.into_iter().next().unwrap().unwrap().refresh_token;
    }
    assert_eq!(node.count("SELECT count(*) FROM refresh_tokens").await, 21);
}

#[tokio::test]
async fn tokens_and_sessions_end_when_they_should() {
    let servers = Servers::start().await;
    let overrides = "[auth]\naccess_token_ttl = \"5m\"\nrefresh_token_ttl = \"1h\"\nsession_ttl = \"2h\"";
    let node = servers.node(overrides).await;
    node.register("alice").await;
    let unused = node.login("alice").await;
    let mut pair = node.login("alice").await;
    node.clock.advance(time::Duration::minutes(6));
    let expired = node.ask(&Verify { access_token: pair.access_token.clone() }).await.unwrap_err();
    assert_eq!(expired.code, Code::TokenExpired);

    for minutes in [44, 44] {
        node.clock.advance(time::Duration::minutes(minutes));
        pair = refresh(&node, &pair.refresh_token).await.unwrap();
    }
    // 94 minutes in: the session has 26 left, whatever a refresh token may live.
    assert_eq!(pair.refresh_expires_in, 26 * 60);
    assert_eq!(refresh(&node, &unused.refresh_token).await.unwrap_err().code, Code::InvalidRefreshToken);
    node.clock.advance(time::Duration::minutes(27));
    assert_eq!(refresh(&node, &pair.refresh_token).await.unwrap_err().code, Code::InvalidRefreshToken);
}

#[tokio::test]
async fn whoever_may_not_log_in_is_told_the_same() {
    let servers = Servers::start().await;
    let node = servers.node("").await;
    node.register("alice").await;
    node.register("disabled").await;
    node.register("passwordless").await;
    sqlx::query("UPDATE accounts SET disabled_at = now() WHERE account_name = 'disabled'").execute(&node.pool).await.unwrap();
    sqlx::query("UPDATE accounts SET password_hash = NULL WHERE account_name = 'passwordless'")
        .execute(&node.pool)
        .await
        .unwrap();
    let long = "x".repeat(2000);
    let attempts = [
        ("alice", "wrong horse battery staple"),
        ("nobody", PASSWORD),
        ("disabled", PASSWORD),
        ("passwordless", PASSWORD),
        ("", ""),
        ("alice", long.as_str()),
    ];
    let mut told = Vec::new();
    for (login, password) in attempts {
        told.push(node.ask(&credentials(login, password)).await.unwrap_err());
    }
    assert_eq!(told[0].code, Code::InvalidCredentials);
    assert!(told.iter().all(|problem| *problem == told[0]));
    assert_eq!(node.count("SELECT count(*) FROM sessions").await, 0);
}

#[tokio::test]
async fn a_login_renews_a_hash_that_was_made_with_weaker_parameters() {
    let servers = Servers::start().await;
    let weak = servers.node("[auth]\nargon2_memory_kib = 64").await;
    weak.register("alice").await;
    assert!(weak.actors.stop(PATIENCE).await);
    let node = servers.node("[auth]\nargon2_memory_kib = 128").await;
    node.login("alice").await;
    let hash: String = sqlx::query_scalar("SELECT password_hash FROM accounts").fetch_one(&node.pool).await.unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=128,"), "{hash}");
    node.login("alice").await;
}

#[tokio::test]
async fn two_hundred_logins_at_once_are_worked_off_within_the_bounds_and_nothing_fails_but_503() {
    let servers = Servers::start().await;
    let node = Arc::new(servers.node("[auth]\nhash_concurrency = 2\nhash_queue = 40").await);
    node.register("alice").await;
    let mut other = node.login("alice").await.refresh_token;
    let mut logins = JoinSet::new();
    for _ in 0..200 {
        let node = Arc::clone(&node);
        logins.spawn(async move { node.ask(&credentials("alice", PASSWORD)).await });
    }
    // Whoever does not need a hash does not wait for those who do.
    let mut slowest = Duration::ZERO;
    while logins.len() > 50 {
        let before = tokio::time::Instant::now();
        other = refresh(&node, &other).await.unwrap().refresh_token;
        slowest = slowest.max(before.elapsed());
        let waiting = gauge(&node, "bowerbird_password_hashes_waiting");
        assert!(waiting <= 42, "{waiting} hashes are waiting or running");
        while logins.try_join_next().is_some_and(|login| check(login.unwrap())) {}
    }
    while let Some(login) = logins.join_next().await {
        check(login.unwrap());
    }
    assert!(slowest < Duration::from_secs(5), "a refresh took {slowest:?}");
    assert_eq!(gauge(&node, "bowerbird_password_hashes_waiting"), 0);
    let opened = node.count("SELECT count(*) FROM sessions").await;
    println!("{opened} of 201 logged in; the slowest refresh meanwhile took {slowest:?}");
    assert!(opened >= 43, "{opened}");
}

fn check(login: Result<TokenPair, bowerbird_nats::Problem>) -> bool {
    if let Err(problem) = login {
        assert_eq!((problem.code, problem.retry_after.is_some()), (Code::Unavailable, true), "{problem}");
    }
    true
}

fn gauge(node: &Node, name: &str) -> i64 {
    let text = node.metrics.encode();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect("a line of this name");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_commit_that_fails_does_not_use_the_token_up() {
    let servers = Servers::start().await;
    let node = servers.node("").await;
    node.register("alice").await;
    let pair = node.login("alice").await;
    for statement in [
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the disk is full' USING ERRCODE = '53100'; END $$",
        "CREATE CONSTRAINT TRIGGER fails_at_commit AFTER INSERT ON refresh_tokens DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION fail()",
    ] {
        sqlx::query(statement).execute(&node.pool).await.unwrap();
    }
    for _ in 0..5 {
        assert_eq!(refresh(&node, &pair.refresh_token).await.unwrap_err().code, Code::Unavailable);
    }
    sqlx::query("DROP TRIGGER fails_at_commit ON refresh_tokens").execute(&node.pool).await.unwrap();
    assert!(refresh(&node, &pair.refresh_token).await.is_ok());
    assert_eq!(node.count("SELECT count(*) FROM refresh_tokens").await, 2);
}

#[tokio::test]
async fn connections_that_are_cut_again_and_again_lose_no_session_and_make_no_second_successor() {
    let servers = Servers::start().await;
    let node = Arc::new(servers.node("").await);
    node.register("alice").await;
    let first = node.login("alice").await.refresh_token;
    let cutting = {
        let node = Arc::clone(&node);
        tokio::task::JoinSet::from_iter([async move {
            for _ in 0..25 {
                let _ = sqlx::query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
                .execute(&node.pool)
                .await;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        }])
    };
    let mut token = first;
    let (mut refreshed, mut failed) = (0, 0);
    while refreshed < 30 {
        match refresh(&node, &token).await {
            Ok(pair) => (token, refreshed) = (pair.refresh_token, refreshed + 1),
            Err(problem) if problem.code == Code::InvalidRefreshToken => {
                // The commit was done and its answer lost. One successor was made, whose token nobody has.
                assert_eq!(node.count("SELECT count(*) FROM refresh_tokens WHERE consumed_at IS NULL").await, 1);
                token = node.login("alice").await.refresh_token;
                sqlx::query(
                    "UPDATE refresh_tokens SET consumed_at = now() WHERE consumed_at IS NULL AND parent_hash IS NOT NULL",
                )
                .execute(&node.pool)
                .await
                .unwrap();
            }
            Err(problem) => {
                assert!(matches!(problem.code, Code::Unavailable | Code::Internal), "{problem}");
                failed += 1;
            }
        }
    }
    cutting.join_all().await;
    println!("{refreshed} refreshed, {failed} told to try again");
    eventually(PATIENCE, "one good token is left", async || {
        let good =
            sqlx::query_scalar("SELECT count(*) FROM refresh_tokens WHERE consumed_at IS NULL").fetch_one(&node.pool).await;
        matches!(good, Ok(1_i64)).then_some(())
    })
    .await;
}
