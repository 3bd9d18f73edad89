//! E-mail against a real mail server: who gets it, what is in it, what becomes of what is not taken.

use std::{collections::BTreeMap, time::Duration};

use bowerbird_actors::events::{self, NewEvent};
use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, Code,
    account::{Clearable, Field, GetAccount, Register, RequestEmailVerification, UpdateAccount, Updated, VerifyEmail},
    event::{ACCOUNT_UPDATED, Event, NOTIFICATION_DELIVERED, NOTIFICATION_FAILED},
    notification::{
        ChangeSettings, Channel, Delivered, Digest, EmailStatus, Failed, GetSettings, ListNotifications, Unsubscribe,
    },
};
use bowerbird_testkit::{
    eventually,
    smtp::{Email, Encryption, SmtpServer},
};
use serde_json::json;

use crate::stand::{Heard, Node, PASSWORD, PATIENCE, Servers, registration};

fn settings(server: &SmtpServer, more: &str) -> String {
    format!(
        "[gateway]\npublic_url = \"https://drop.example.org\"\n[smtp]\nurl = \"{}\"\nfrom = \"Bowerbird <drop@example.org>\"\n\
         ca_file = \"{}\"\nretry_base = \"100ms\"\nretry_max = \"200ms\"\n{more}",
        server.url(),
        server.ca_file().display()
    )
}

/// An account with this address, and its token.
async fn account(node: &Node, name: &str, address: &str) -> (AccountId, String) {
    let request = Register { email: Some(address.to_owned()), ..registration(name) };
    let account = node.ask(&request).await.unwrap();
    (account.id, node.login(name).await.access_token)
}

/// The same, its address verified.
async fn verified(node: &Node, name: &str, address: &str) -> (AccountId, String) {
    let (account, token) = account(node, name, address).await;
    sqlx::query("UPDATE accounts SET email_verified_at = now() WHERE id = $1").bind(account.0).execute(&node.pool).await.unwrap();
    (account, token)
}

/// A reminder fires that tells by e-mail.
async fn remind(node: &Node, account: AccountId, title: &str) {
    tell(node, account, "reminder.fired", &json!({"title": title, "channels": ["email"]})).await;
}

async fn tell(node: &Node, account: AccountId, event_type: &str, data: &serde_json::Value) {
    let event = NewEvent::new(IdSource, event_type.parse().unwrap(), Some(account), IdSource.next(), data);
    let mut transaction = node.pool.begin().await.unwrap();
    events::record(&mut transaction, event).await.unwrap();
    transaction.commit().await.unwrap();
}

/// What the server has taken, once it is as many.
async fn taken(server: &SmtpServer, emails: usize) -> Vec<Email> {
    eventually(PATIENCE, "the e-mails arrive", async || Some(server.taken()).filter(|taken| taken.len() >= emails)).await
}

/// The content as a reader sees it, as far as these tests look.
fn readable(email: &Email) -> String {
    email.content.replace("=\r\n", "").replace("=3D", "=")
}

/// The token of the link to this page.
fn token_of(email: &Email, page: &str) -> String {
    let text = readable(email);
    let (_, rest) = text.split_once(&format!("https://drop.example.org/{page}?token=")).unwrap_or_else(|| panic!("{text}"));
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect()
}

async fn heard(heard: &Heard, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
    eventually(PATIENCE, what, async || heard.so_far().into_iter().find(|event| wanted(event))).await
}

#[tokio::test]
async fn an_address_is_verified_by_the_link_that_is_sent_there_once() {
    let (servers, server) = tokio::join!(Servers::start(), SmtpServer::start());
    let node = servers.node(&settings(&server, "")).await;
    let (_, token) = account(&node, "alice", "alice@example.org").await;
    let ask = async || node.ask_as(&RequestEmailVerification {}, Some(&token), None).await;
    let status = async || node.ask_as(&GetSettings {}, Some(&token), None).await.unwrap().email_status;
    let prove = async |token: &str| node.ask(&VerifyEmail { token: token.to_owned() }).await;
    assert_eq!(status().await, EmailStatus::Unverified);
    ask().await.unwrap();
    let again = ask().await.unwrap_err();
    assert_eq!(again.code, Code::TooMany);
    assert!(again.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds)), "{:?}", again.retry_after);

    let email = taken(&server, 1).await.remove(0);
    assert_eq!((email.from.as_str(), email.to.as_slice()), ("drop@example.org", &["alice@example.org".to_owned()][..]));
    let first = token_of(&email, "verify-email");
    assert!(!node.dump().await.contains(&first), "the token is not kept");
    for wrong in ["", "x", &first[1..], &format!("B{}", &first[1..])] {
        assert_eq!(prove(wrong).await.unwrap_err().code, Code::InvalidValue, "{wrong}");
    }
    // A new link voids the one before; another address, the link.
    sqlx::query("UPDATE emails SET created_at = created_at - interval '2 minutes'").execute(&node.pool).await.unwrap();
    ask().await.unwrap();
    let second = token_of(&taken(&server, 2).await[1], "verify-email");
    assert_eq!(prove(&first).await.unwrap_err().code, Code::InvalidValue);
    sqlx::query("UPDATE accounts SET email = 'mallory@example.org'").execute(&node.pool).await.unwrap();
    assert_eq!(prove(&second).await.unwrap_err().code, Code::InvalidValue);
    sqlx::query("UPDATE accounts SET email = 'alice@example.org'").execute(&node.pool).await.unwrap();
    sqlx::query("UPDATE email_verifications SET expires_at = now()").execute(&node.pool).await.unwrap();
    assert_eq!(prove(&second).await.unwrap_err().code, Code::InvalidValue);
    sqlx::query("UPDATE email_verifications SET expires_at = now() + interval '1 hour'").execute(&node.pool).await.unwrap();
    assert!(!node.ask_as(&GetAccount {}, Some(&token), None).await.unwrap().email_verified);
    prove(&second).await.unwrap();
    assert_eq!(prove(&second).await.unwrap_err().code, Code::InvalidValue, "it is good once");
    assert!(node.ask_as(&GetAccount {}, Some(&token), None).await.unwrap().email_verified);
    assert_eq!(status().await, EmailStatus::On);
    ask().await.unwrap();
    assert_eq!(node.count("SELECT count(*) FROM emails").await, 2, "what is verified needs no link");

    let (_, without) = (node.register("nobody").await, node.login("nobody").await.access_token);
    let refused = node.ask_as(&RequestEmailVerification {}, Some(&without), None).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidState);
}

#[tokio::test]
async fn another_address_wants_the_password_and_is_verified_anew_and_the_former_one_is_told() {
    let (servers, server) = tokio::join!(Servers::start(), SmtpServer::start());
    let node = servers.node(&settings(&server, "")).await;
    let listening = Heard::listen(&node.bus, "test");
    let (alice, token) = verified(&node, "alice", "alice@example.org").await;
    let update = async |change: UpdateAccount| node.ask_as(&change, Some(&token), None).await;
    let to = |email: &str, password: Option<&str>| UpdateAccount {
        email: Some(email.to_owned()),
        password: password.map(str::to_owned),
        ..UpdateAccount::default()
    };
    for (change, field) in [
        (to("new@example.org", None), "password"),
        (to("new@example.org", Some("")), "password"),
        (to("new@example.org", Some("not the password")), "password"),
        (to("new@example.org", Some(&"x".repeat(100_000))), "password"),
        (to("nobody", Some(PASSWORD)), "email"),
        (UpdateAccount { clear: vec![Clearable::Email], ..UpdateAccount::default() }, "password"),
        (UpdateAccount { clear: vec![Clearable::Email], ..to("new@example.org", Some(PASSWORD)) }, "email"),
        (UpdateAccount { display_name: Some("\n".into()), ..UpdateAccount::default() }, "display_name"),
    ] {
        let problem = update(change).await.unwrap_err();
        assert_eq!((problem.code, problem.errors[0].field.as_str()), (Code::InvalidValue, field), "{}", problem.detail);
    }
    // What is the same, or nothing, is no change.
    for same in [UpdateAccount::default(), to("alice@example.org", Some(PASSWORD))] {
        let unchanged = update(same).await.unwrap();
        assert_eq!((unchanged.email.as_deref(), unchanged.email_verified), (Some("alice@example.org"), true));
    }
    assert_eq!(node.count("SELECT count(*) FROM events WHERE event_type = 'account.updated'").await, 0);

    let named = update(UpdateAccount { display_name: Some("Alice".into()), ..UpdateAccount::default() }).await.unwrap();
    assert_eq!((named.display_name.as_deref(), named.email_verified), (Some("Alice"), true));
    let moved = update(to("new@example.org", Some(PASSWORD))).await.unwrap();
    assert_eq!((moved.email.as_deref(), moved.email_verified), (Some("new@example.org"), false));
    assert_eq!(node.ask_as(&GetAccount {}, Some(&token), None).await.unwrap(), moved);
    let told = heard(&listening, "it is told", |event| {
        event.event_type == ACCOUNT_UPDATED && event.data_as::<Updated>().unwrap().changed == [Field::Email]
    })
    .await;
    assert!(told.account_id == Some(alice) && !told.data.to_string().contains("example.org"), "{}", told.data);
    let farewell = taken(&server, 1).await.remove(0);
    assert_eq!(farewell.to, ["alice@example.org"]);
    assert!(readable(&farewell).contains("no longer that of the account alice"), "{}", readable(&farewell));

    // A link to the address of before is void, and one that was never verified is not told of anything.
    node.ask_as(&RequestEmailVerification {}, Some(&token), None).await.unwrap();
    let link = token_of(&taken(&server, 2).await[1], "verify-email");
    let cleared = UpdateAccount { clear: vec![Clearable::Email], password: Some(PASSWORD.into()), ..UpdateAccount::default() };
    assert_eq!(update(cleared).await.unwrap().email, None);
    update(to("new@example.org", Some(PASSWORD))).await.unwrap();
    assert_eq!(node.ask(&VerifyEmail { token: link }).await.unwrap_err().code, Code::InvalidValue);
    assert_eq!(node.count("SELECT count(*) FROM emails WHERE kind = 'address_changed'").await, 1);
}

#[tokio::test]
async fn nobody_is_flooded_with_links_however_many_accounts_name_the_address() {
    let (servers, server) = tokio::join!(Servers::start(), SmtpServer::start());
    let node = servers.node(&settings(&server, "")).await;
    let mut codes = Vec::new();
    for number in 0..7 {
        let (_, token) = account(&node, &format!("account{number}"), "victim@example.org").await;
        codes.push(node.ask_as(&RequestEmailVerification {}, Some(&token), None).await.err().map(|problem| problem.code));
    }
    assert_eq!(codes, [None, None, None, None, None, Some(Code::TooMany), Some(Code::TooMany)]);
    taken(&server, 5).await;
}

#[tokio::test]
async fn an_email_has_both_parts_goes_to_verified_addresses_only_and_can_be_ended_with_its_link() {
    let (servers, server) = tokio::join!(Servers::start(), SmtpServer::start());
    let node = servers.node(&settings(&server, "")).await;
    let listening = Heard::listen(&node.bus, "test");
    let (alice, token) = verified(&node, "alice", "alice@example.org").await;
    let (stranger, _) = account(&node, "stranger", "stranger@example.org").await;
    remind(&node, stranger, "not for you").await;
    remind(&node, alice, "Milk & <bread>\r\nBcc: mallory@example.org").await;
    let email = taken(&server, 1).await.remove(0);
    assert_eq!(email.to, ["alice@example.org"]);
    let text = readable(&email);
    for expected in [
        "Subject: Milk & <bread> Bcc: mallory@example.org\r\n",
        "From: Bowerbird <drop@example.org>\r\n",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Type: text/html; charset=utf-8",
        "<h2>Milk &amp; &lt;bread&gt; Bcc: mallory@example.org</h2>",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
        "Auto-Submitted: auto-generated\r\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("\r\nBcc:"));
    let told = heard(&listening, "it is told that it was sent", |event| {
        event.event_type == NOTIFICATION_DELIVERED && event.account_id == Some(alice)
    })
    .await;
    let told = told.data_as::<Delivered>().unwrap();
    assert_eq!((told.channel, told.notification.title.as_str()), (Channel::Email, "Milk & <bread> Bcc: mallory@example.org"));
    let inbox = node.ask_as(&ListNotifications::default(), Some(&token), None).await.unwrap();
    assert!(inbox.items.is_empty(), "by e-mail alone");

    node.ask(&Unsubscribe { token: token_of(&email, "unsubscribe") }).await.unwrap();
    assert_eq!(node.ask(&Unsubscribe { token: "AZjA3nosfD2OTwAAAAAAAQ".into() }).await.unwrap_err().code, Code::InvalidValue);
    let settings = node.ask_as(&GetSettings {}, Some(&token), None).await.unwrap();
    assert_eq!((settings.email, settings.email_status), (false, EmailStatus::Disabled));
    assert!(!settings.events.is_empty(), "only e-mail is off");
    tell(&node, alice, "reminder.fired", &json!({"title": "Eggs", "channels": ["email", "inbox"]})).await;
    eventually(PATIENCE, "the inbox has it", async || {
        let inbox = node.ask_as(&ListNotifications::default(), Some(&token), None).await.unwrap();
        inbox.items.iter().any(|told| told.title == "Eggs").then_some(())
    })
    .await;
    assert_eq!(node.count("SELECT count(*) FROM emails").await, 1);
    assert_eq!(server.taken().len(), 1);
}

#[tokio::test]
async fn what_is_put_off_is_tried_again_and_what_is_refused_is_given_up() {
    let (servers, mut server) = tokio::join!(Servers::start(), SmtpServer::start());
    let node = servers.node(&settings(&server, "max_attempts = 6")).await;
    let listening = Heard::listen(&node.bus, "test");
    let (patient, _) = verified(&node, "patient", "later3@example.org").await;
    let (refused, _) = verified(&node, "refused", "refuse@example.org").await;
    let (never, _) = verified(&node, "never", "later99@example.org").await;
    remind(&node, patient, "Milk").await;
    remind(&node, refused, "Eggs").await;
    remind(&node, never, "Bread").await;
    assert_eq!(taken(&server, 1).await[0].to, ["later3@example.org"]);
    let reason = async |account: AccountId| {
        let event = heard(&listening, "it is told that it was given up", |event| {
            event.event_type == NOTIFICATION_FAILED && event.account_id == Some(account)
        })
        .await;
        let failed = event.data_as::<Failed>().unwrap();
        assert_eq!(failed.channel, Channel::Email);
        failed.reason
    };
    let (refusal, exhaustion) = (reason(refused).await, reason(never).await);
    assert!(refusal.contains("550"), "{refusal}");
    assert!(exhaustion.contains("given up after 6 tries") && exhaustion.contains("451"), "{exhaustion}");
    let attempts: Vec<i32> =
        sqlx::query_scalar("SELECT attempt FROM emails JOIN accounts a ON a.id = account_id ORDER BY account_name DESC")
            .fetch_all(&node.pool)
            .await
            .unwrap();
    assert_eq!(attempts, [1, 4, 6], "refused, patient, never");

    // What was to go by e-mail alone waits in the inbox instead, and that is told.
    for account in [refused, never] {
        let moved = heard(&listening, "it is told that it is in the inbox", |event| {
            let told = event.data_as::<Delivered>().ok().filter(|_| event.event_type == NOTIFICATION_DELIVERED);
            event.account_id == Some(account) && told.is_some_and(|told| told.channel == Channel::Inbox)
        });
        let id = moved.await.entity_id;
        let listed: bool =
            sqlx::query_scalar("SELECT in_inbox FROM notifications WHERE id = $1").bind(id).fetch_one(&node.pool).await.unwrap();
        assert!(listed);
    }
    assert_eq!(node.count("SELECT count(*) FROM notifications WHERE NOT in_inbox").await, 1, "the one that was sent");

    // A server that is away for a while.
    let (alice, _) = verified(&node, "alice", "alice@example.org").await;
    server.kill9();
    remind(&node, alice, "Tea").await;
    eventually(PATIENCE, "it was tried in vain", async || {
        (node.count("SELECT count(*) FROM emails WHERE status = 'waiting' AND attempt >= 1").await == 1).then_some(())
    })
    .await;
    server.restart().await;
    assert_eq!(taken(&server, 2).await[1].to, ["alice@example.org"]);
    // Nobody is written to twice.
    assert_eq!(server.taken().len(), 2);
}

#[tokio::test]
async fn the_connection_is_encrypted_and_the_login_is_not_told_without() {
    let servers = Servers::start().await;
    for encryption in [Encryption::StartTls, Encryption::Wrapped] {
        let server = SmtpServer::start_with(encryption, Some(("bird", "s3cret"))).await;
        let node = servers.node(&settings(&server, "")).await;
        let (alice, _) = verified(&node, &format!("{encryption:?}"), "alice@example.org").await;
        remind(&node, alice, "Milk").await;
        let email = taken(&server, 1).await.remove(0);
        assert_eq!((email.encrypted, email.login.as_deref()), (true, Some("bird")));
        node.actors.stop(PATIENCE).await;
    }
    // A certificate that nobody vouches for is not spoken to.
    let server = SmtpServer::start_with(Encryption::StartTls, None).await;
    let untrusting = settings(&server, "").replace(&server.ca_file().display().to_string(), "/etc/ssl/certs/ca-certificates.crt");
    let node = servers.node(&untrusting).await;
    let (bob, _) = verified(&node, "bobby", "bob@example.org").await;
    remind(&node, bob, "Milk").await;
    let why = eventually(PATIENCE, "it was tried in vain", async || {
        sqlx::query_scalar::<_, String>("SELECT last_error FROM emails WHERE status = 'waiting'")
            .fetch_optional(&node.pool)
            .await
            .unwrap()
    })
    .await;
    assert!(why.contains("certificate"), "{why}");
    assert!(server.taken().is_empty());
}

#[tokio::test]
async fn what_is_held_back_is_gathered_in_one_email_that_goes_when_its_time_comes() {
    let (servers, server) = tokio::join!(Servers::start(), SmtpServer::start());
    let node = servers.node(&settings(&server, "max_per_account_and_hour = 3")).await;
    let (alice, to_alice) = verified(&node, "alice", "alice@example.org").await;
    let (bob, to_bob) = verified(&node, "bobby", "bob@example.org").await;
    let digest = |digest| ChangeSettings {
        events: BTreeMap::from([("download.completed".to_owned(), vec![Channel::Email])]),
        email: true,
        quiet_hours: None,
        digest,
    };
    // Alice gathers until an hour that is not now, Bob's are too many for an hour.
    let at = (crate::stand::now() + Duration::from_hours(6)).hour();
    let daily = Digest { at: format!("{at:02}:00"), weekdays: vec![], time_zone: "UTC".into() };
    node.ask_as(&digest(Some(daily)), Some(&to_alice), None).await.unwrap();
    node.ask_as(&digest(None), Some(&to_bob), None).await.unwrap();
    for number in 0..10 {
        for account in [alice, bob] {
            let data = json!({"download": {"file_name": format!("{number}.iso"), "folder": "/", "size_bytes": 9}});
            tell(&node, account, "download.completed", &data).await;
        }
    }
    let mut first = taken(&server, 3).await;
    first.retain(|email| email.to == ["bob@example.org"]);
    assert_eq!(first.len(), 3);
    eventually(PATIENCE, "the rest is gathered", async || {
        let gathered = "SELECT count(*) FROM notifications n JOIN emails e ON e.id = n.email_id WHERE e.status = 'gathering'";
        (node.count(gathered).await == 17).then_some(())
    })
    .await;
    assert_eq!(
        node.count("SELECT count(*) FROM emails WHERE status = 'gathering' AND due_at > now() + interval '50 minutes'").await,
        2
    );
    assert_eq!(node.count("SELECT count(*) FROM alarms WHERE kind = 'email'").await, 2);
    // A reminder is not held back, neither by the choice nor by how many there were.
    for (account, title, so_many) in [(alice, "Milk", 4), (bob, "Eggs", 5)] {
        remind(&node, account, title).await;
        assert!(readable(&taken(&server, so_many).await[so_many - 1]).contains(&format!("Subject: {title}\r\n")));
    }

    // Choosing anew moves what gathers to its new time, which is now.
    node.ask_as(&digest(None), Some(&to_alice), None).await.unwrap();
    node.ask_as(&digest(None), Some(&to_bob), None).await.unwrap();
    let emails = taken(&server, 7).await;
    let subjects = |address: &str| -> Vec<String> {
        let to: Vec<_> = emails[5..].iter().filter(|email| email.to == [address]).collect();
        to.iter().map(|email| email.content.lines().find(|line| line.starts_with("Subject:")).unwrap().to_owned()).collect()
    };
    assert_eq!(
        (subjects("alice@example.org"), subjects("bob@example.org")),
        (vec!["Subject: 10 notifications".into()], vec!["Subject: 7 notifications".into()])
    );
    assert_eq!(node.count("SELECT count(*) FROM emails WHERE status <> 'sent'").await, 0);
}

#[tokio::test]
async fn an_email_whose_process_died_is_sent_by_the_next() {
    let (servers, server) = tokio::join!(Servers::start(), SmtpServer::start());
    let node = servers.node(&settings(&server, "")).await;
    let (alice, _) = verified(&node, "alice", "alice@example.org").await;
    let email = IdSource.next();
    for statement in [
        "INSERT INTO notifications (id, account_id, event_id, event_type, entity_id, title, in_inbox, email_id, occurred_at)
         VALUES (gen_random_uuid(), $2, gen_random_uuid(), 'reminder.fired', gen_random_uuid(), 'Milk', false, $1, now())",
        "INSERT INTO emails (id, account_id, kind, status, attempt, lease_until) VALUES ($1, $2, 'notifications', 'sending', 1, now() - interval '1 second')",
    ] {
        sqlx::query(statement).bind(email).bind(alice.0).execute(&node.pool).await.unwrap();
    }
    let sent = taken(&server, 1).await.remove(0);
    assert!(sent.content.contains(&format!("Message-ID: <{email}@example.org>")));
    eventually(PATIENCE, "it is noted", async || {
        (node.count("SELECT count(*) FROM emails WHERE status = 'sent' AND attempt = 2").await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_mail_server_it_is_said_so_and_everything_else_works() {
    let servers = Servers::start().await;
    let node = servers.node("").await;
    let (alice, token) = verified(&node, "alice", "alice@example.org").await;
    assert_eq!(node.ask_as(&GetSettings {}, Some(&token), None).await.unwrap().email_status, EmailStatus::Off);
    let refused = node.ask_as(&RequestEmailVerification {}, Some(&token), None).await.unwrap_err();
    assert!(refused.code == Code::InvalidState && refused.detail.contains("smtp.url"), "{}", refused.detail);
    remind(&node, alice, "Milk").await;
    eventually(PATIENCE, "the inbox has it instead", async || {
        let inbox = node.ask_as(&ListNotifications::default(), Some(&token), None).await.unwrap();
        (inbox.items.len() == 1).then_some(())
    })
    .await;
    assert_eq!(node.count("SELECT count(*) FROM emails").await, 0);

    // What was on its way when e-mail was switched off is given up once nobody can be about to send it.
    for (title, ago) in [("Eggs", "2 hours"), ("Bread", "1 minute")] {
        let email = IdSource.next();
        for statement in [
            "INSERT INTO emails (id, account_id, kind, status, due_at)
             SELECT $1, $2, 'notifications', 'due', now() - $4::text::interval WHERE $3::text IS NOT NULL",
            "INSERT INTO notifications (id, account_id, event_id, event_type, entity_id, title, in_inbox, email_id, occurred_at)
             SELECT gen_random_uuid(), $2, gen_random_uuid(), 'reminder.fired', gen_random_uuid(), $3::text, false, $1, now()
             WHERE $4::text IS NOT NULL",
        ] {
            sqlx::query(statement).bind(email).bind(alice.0).bind(title).bind(ago).execute(&node.pool).await.unwrap();
        }
    }
    sqlx::query("UPDATE alarms SET wake_at = now() WHERE kind = 'sweep'").execute(&node.pool).await.unwrap();
    eventually(PATIENCE, "the inbox has the one that is overdue", async || {
        let inbox = node.ask_as(&ListNotifications::default(), Some(&token), None).await.unwrap();
        inbox.items.iter().any(|told| told.title == "Eggs").then_some(())
    })
    .await;
    assert_eq!(node.count("SELECT count(*) FROM emails WHERE status = 'failed'").await, 1);
    assert_eq!(node.count("SELECT count(*) FROM emails WHERE status = 'due'").await, 1);
}
