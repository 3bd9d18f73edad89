//! Registration, and what an account tells of itself.

use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, IdSource};
use bowerbird_nats::{
    Code,
    account::{GetAccount, GetUsage, Register, Role},
    session::Verify,
};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::stand::{PASSWORD, Servers, credentials, registration};

#[tokio::test]
async fn who_registers_can_log_in_and_read_the_account() {
    let servers = Servers::start().await;
    let node = servers.node("[accounts]\ndefault_quota = \"1GiB\"").await;
    let request =
        Register { email: Some("alice@example.org".into()), display_name: Some("Alice 🦜".into()), ..registration("Alice") };
    let account = node.ask(&request).await.unwrap();
    assert_eq!((account.account_name.as_str(), account.role, account.quota_bytes), ("Alice", Role::User, 1 << 30));

    let token = node.ask(&credentials("aLICE", PASSWORD)).await.unwrap().access_token;
    assert_eq!(node.ask_as(&GetAccount {}, Some(&token), None).await.unwrap(), account);
    let usage = node.ask_as(&GetUsage {}, Some(&token), None).await.unwrap();
    assert_eq!((usage.stored_bytes, usage.quota_bytes, usage.files), (0, 1 << 30, 0));
    assert_eq!(node.ask(&GetAccount {}).await.unwrap_err().code, Code::Unauthorized);

    sqlx::query("UPDATE accounts SET disabled_at = now()").execute(&node.pool).await.unwrap();
    assert_eq!(node.ask_as(&GetAccount {}, Some(&token), None).await.unwrap_err().code, Code::Unauthorized);
}

#[tokio::test]
async fn of_those_who_race_for_a_name_in_any_case_one_gets_it() {
    let servers = Servers::start().await;
    let node = std::sync::Arc::new(servers.node("").await);
    let mut racers = JoinSet::new();
    for racer in 0..16 {
        let node = std::sync::Arc::clone(&node);
        racers.spawn(async move { node.ask(&registration(if racer % 2 == 0 { "bowerman" } else { "BowerMan" })).await });
    }
    let outcomes = racers.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for problem in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(problem.code, Code::NameTaken);
    }
    assert_eq!(node.count("SELECT count(*) FROM accounts").await, 1);
    assert_eq!(node.count("SELECT count(*) FROM events WHERE event_type = 'account.registered'").await, 1);
}

#[tokio::test]
async fn every_field_at_fault_is_named_at_once() {
    let servers = Servers::start().await;
    let node = servers.node("").await;
    let request = Register {
        account_name: "1st".into(),
        password: "passwordpassword".into(),
        email: Some("nobody".into()),
        display_name: Some(String::new()),
    };
    let problem = node.ask(&request).await.unwrap_err();
    assert_eq!((problem.code, problem.status), (Code::InvalidValue, 400));
    let fields: Vec<&str> = problem.errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["account_name", "password", "email", "display_name"]);
    for name in ["ab", "a b c", "älice", "alice\n", "-alice", &"a".repeat(33), "alice>", "a.*"] {
        assert_eq!(node.ask(&registration(name)).await.unwrap_err().errors[0].field, "account_name", "{name:?}");
    }
    assert_eq!(node.count("SELECT count(*) FROM accounts").await, 0);
}

#[tokio::test]
async fn a_registration_that_is_sent_twice_makes_one_account_and_is_answered_the_same() {
    let servers = Servers::start().await;
    let node = servers.node("").await;
    let first = node.ask_as(&registration("alice"), None, Some("key-1")).await.unwrap();
    let again = node.ask_as(&registration("alice"), None, Some("key-1")).await.unwrap();
    assert_eq!(serde_json::to_string(&first).unwrap(), serde_json::to_string(&again).unwrap());
    let reused = node.ask_as(&registration("somebody"), None, Some("key-1")).await.unwrap_err();
    assert_eq!((reused.code, reused.status), (Code::IdempotencyKeyReused, 422));
    assert_eq!(node.count("SELECT count(*) FROM accounts").await, 1);
    assert_eq!(node.ask(&registration("alice")).await.unwrap_err().code, Code::NameTaken);
}

#[tokio::test]
async fn strangers_are_turned_away_where_registration_is_closed_and_admins_come_from_the_command_line() {
    let servers = Servers::start().await;
    let overrides = "[auth]\nopen_registration = false";
    let node = servers.node(overrides).await;
    assert_eq!(node.ask(&registration("alice")).await.unwrap_err().code, Code::RegistrationClosed);

    let settings = Settings::with_overrides(overrides).unwrap();
    let password = || Zeroizing::new(PASSWORD.to_owned());
    let create = async |name: &str| {
        bowerbird_actors::store_admin::create_admin(&node.pool, &settings, &Clock::system(), IdSource, name, password()).await
    };
    create("root").await.unwrap();
    assert!(create("ROOT").await.unwrap_err().to_string().contains("taken"));
    assert!(create("x").await.unwrap_err().to_string().contains("account_name"));
    let access_token = node.login("root").await.access_token;
    assert_eq!(node.ask(&Verify { access_token }).await.unwrap().role, Role::Admin);
}
