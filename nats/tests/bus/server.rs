//! The server configuration that is shipped: the server takes it, and each user may say and hear what is meant and no more.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::support::{completed, options};
use async_nats::{Client, ConnectOptions};
use bowerbird_nats::{Bus, bus::Options};
use bowerbird_testkit::{NatsServer, find_program};
use futures_util::StreamExt;

const USERS: [&str; 4] = ["CORE", "STORE", "SERVICE", "SYSTEM"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("server")
}

/// A server with the users that are shipped; each has its name as its password.
async fn server() -> NatsServer {
    let mut accounts = fs::read_to_string(folder().join("accounts.conf")).unwrap();
    for user in USERS {
        accounts = accounts.replace(&format!("$BOWERBIRD_NATS_{user}_PASSWORD"), &user.to_lowercase());
    }
    NatsServer::start_with(&accounts).await
}

async fn client(server: &NatsServer, user: &str) -> Client {
    ConnectOptions::with_user_and_password(user.into(), user.into())
        .custom_inbox_prefix(format!("_INBOX_{user}"))
        .connect(server.url())
        .await
        .unwrap()
}

async fn core(server: &NatsServer) -> Bus {
    let options = Options { user: Some(("core".into(), "core".into())), ..options(server) };
    let bus = Bus::connect(options, Duration::from_secs(20)).await.unwrap();
    bus.ensure_topology().await.unwrap();
    bus
}

#[test]
fn the_server_takes_the_configuration() {
    let mut command = Command::new(find_program("nats-server").unwrap());
    command.arg("-t").arg("-c").arg(folder().join("single.conf")).env("BOWERBIRD_NATS_DATA", std::env::temp_dir());
    for user in USERS {
        command.env(format!("BOWERBIRD_NATS_{user}_PASSWORD"), "secret");
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("is valid"), "{told}");
    let text = fs::read_to_string(folder().join("single.conf")).unwrap();
    assert!(text.lines().any(|line| line.trim() == "sync_interval: always"));
}

/// Which of these subjects a user can say something on.
async fn can_say(server: &NatsServer, user: &str, subjects: &[&str], at_last: &str) -> BTreeSet<String> {
    let listener = client(server, "core").await;
    let mut heard = listener.subscribe(">").await.unwrap();
    listener.publish("ready", "".into()).await.unwrap();
    heard.next().await.unwrap();
    let speaker = client(server, user).await;
    for subject in subjects {
        speaker.publish((*subject).to_owned(), "said".into()).await.unwrap();
    }
    speaker.publish(at_last.to_owned(), "last".into()).await.unwrap();
    let mut said = BTreeSet::new();
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), heard.next()).await.unwrap().unwrap();
        match message.payload.as_ref() {
            b"last" => return said,
            b"said" => _ = said.insert(message.subject.to_string()),
            _ => {}
        }
    }
}

fn set(subjects: &[&str]) -> BTreeSet<String> {
    subjects.iter().map(|subject| (*subject).to_owned()).collect()
}

const SUBJECTS: &[&str] = &[
    "bowerbird.v1.req.download.create",
    "bowerbird.v1.evt.download.completed.a.b",
    "bowerbird.v1.live.download.progress.a.b",
    "bowerbird.v1.work.download.a.1",
    "bowerbird.v1.node.a.download.stop",
    "bowerbird.v1.object.bucket.changed",
    "bowerbird.v1.object.other",
    "bowerbird.v1.dead.EVENTS.service",
    "$SRV.PING",
    "$SRV.INFO.bowerbird",
    "$JS.API.INFO",
    "$JS.API.STREAM.INFO.EVENTS",
    "$JS.API.STREAM.CREATE.X",
    "$JS.API.STREAM.DELETE.EVENTS",
    "$JS.API.STREAM.PURGE.EVENTS",
    "$JS.API.STREAM.MSG.GET.EVENTS",
    "$JS.API.CONSUMER.CREATE.EVENTS.service",
    "$JS.API.CONSUMER.DELETE.EVENTS.service",
    "$JS.API.CONSUMER.INFO.EVENTS.service",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.service",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.other",
    "$JS.API.CONSUMER.MSG.NEXT.DOWNLOADS.downloads",
    "$JS.API.DIRECT.GET.EVENTS",
    "JS.bowerbird.CONSUMER.INFO.EVENTS.service",
    "JS.bowerbird.CONSUMER.MSG.NEXT.EVENTS.service",
    "JS.bowerbird.CONSUMER.MSG.NEXT.EVENTS.other",
    "JS.bowerbird.STREAM.DELETE.EVENTS",
    "$JS.ACK.EVENTS.service.1.1.1.1.1",
    "$JS.ACK._.x.EVENTS.service.1.1.1.1.1.r",
    "$JS.ACK.EVENTS.other.1.1.1.1.1",
    "$JS.ACK.DOWNLOADS.downloads.1.1.1.1.1",
    "$KV.KEYS.current",
    "_INBOX.a.b",
    "_INBOX_bowerbird.a.b",
    "_INBOX_service.a.b",
    "anything",
];

#[tokio::test]
async fn each_user_may_say_what_is_meant_and_no_more() {
    let server = server().await;
    let _bus = core(&server).await;
    assert_eq!(
        can_say(&server, "service", SUBJECTS, "bowerbird.v1.req.at.last").await,
        set(&[
            "bowerbird.v1.req.download.create",
            "$SRV.PING",
            "$SRV.INFO.bowerbird",
            // As they arrive; the service says them under `JS.bowerbird`.
            "$JS.API.CONSUMER.INFO.EVENTS.service",
            "$JS.API.CONSUMER.MSG.NEXT.EVENTS.service",
            "$JS.ACK.EVENTS.service.1.1.1.1.1",
            "$JS.ACK._.x.EVENTS.service.1.1.1.1.1.r",
        ])
    );
    assert_eq!(
        can_say(&server, "store", SUBJECTS, "bowerbird.v1.object.bucket.changed").await,
        set(&["bowerbird.v1.object.bucket.changed"])
    );
}

#[tokio::test]
async fn each_user_may_hear_what_is_meant_and_no_more() {
    let server = server().await;
    let speaker = client(&server, "core").await;
    for (user, asks, inbox, may_hear) in [
        ("service", "bowerbird.v1.req.at.last", "_INBOX_service.at.last", set(&["bowerbird.v1.live.download.progress.a.b"])),
        ("store", "bowerbird.v1.object.bucket.changed", "_INBOX.at.last", set(&[])),
    ] {
        let mut asked = speaker.subscribe(asks).await.unwrap();
        speaker.publish(asks, "mine".into()).await.unwrap();
        asked.next().await.unwrap();
        let listener = client(&server, user).await;
        let mut heard = futures_util::stream::SelectAll::new();
        for subject in SUBJECTS.iter().chain([&inbox, &">", &"bowerbird.>", &"$SRV.>", &"$JS.>"]) {
            heard.push(listener.subscribe((*subject).to_owned()).await.unwrap());
        }
        // The server works off one connection in order: when this is there, so are the subscriptions.
        listener.publish_with_reply(asks, inbox, "".into()).await.unwrap();
        let asked = tokio::time::timeout(Duration::from_secs(20), asked.next()).await.unwrap().unwrap();
        for subject in SUBJECTS {
            speaker.publish((*subject).to_owned(), "said".into()).await.unwrap();
        }
        speaker.publish(asked.reply.unwrap(), "at last".into()).await.unwrap();
        let (mut got, mut over) = (BTreeSet::new(), false);
        while !over {
            // To the end of what came, so that nothing that should not be heard hides behind the last.
            while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(300), heard.next()).await {
                if message.subject.as_str() == inbox {
                    over = true;
                } else {
                    got.insert(message.subject.to_string());
                }
            }
        }
        assert_eq!(got, may_hear, "{user}");
    }
}

#[tokio::test]
async fn the_example_service_reads_events_through_its_durable_and_an_answer_is_heard_by_nobody_else() {
    let server = server().await;
    let bus = core(&server).await;
    let operator = async_nats::jetstream::new(client(&server, "core").await);
    let durable = async_nats::jetstream::consumer::pull::Config { durable_name: Some("service".into()), ..Default::default() };
    operator.create_consumer_on_stream(durable, "EVENTS").await.unwrap();
    let event = completed(1);
    bus.publish_event(&event).await.unwrap();

    let service = async_nats::jetstream::with_prefix(client(&server, "service").await, "JS.bowerbird");
    let consumer: async_nats::jetstream::consumer::Consumer<async_nats::jetstream::consumer::pull::Config> =
        service.get_consumer_from_stream("service", "EVENTS").await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let message = tokio::time::timeout(Duration::from_secs(20), messages.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(message.headers.as_ref().unwrap().get("ce-id").unwrap().as_str(), event.id.to_string());
    message.double_ack().await.unwrap();

    // The object store's user listens to every inbox that it may; the core's answers are not among them.
    let store = client(&server, "store").await;
    let mut inboxes = store.subscribe("_INBOX.>").await.unwrap();
    bus.publish_event(&completed(2)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), inboxes.next()).await.is_err());
    let store = async_nats::jetstream::new(
        ConnectOptions::with_user_and_password("store".into(), "store".into()).connect(server.url()).await.unwrap(),
    );
    let stored = store.publish("bowerbird.v1.object.bucket.changed", "{}".into()).await.unwrap().await.unwrap();
    assert_eq!(stored.stream, "OBJECTS");
}

/// The server checks what somebody publishes, but not the reply subject that goes with it.
#[tokio::test]
async fn nobody_has_an_answer_sent_where_they_may_not_publish() {
    let server = server().await;
    let bus = core(&server).await;
    let operator = async_nats::jetstream::new(client(&server, "core").await);
    let durable = async_nats::jetstream::consumer::pull::Config { durable_name: Some("service".into()), ..Default::default() };
    operator.create_consumer_on_stream(durable, "EVENTS").await.unwrap();
    bus.publish_event(&completed(1)).await.unwrap();
    let keys = operator.get_key_value("KEYS").await.unwrap();
    keys.put("current", "the keys".into()).await.unwrap();

    // Answers whatever it is asked, wherever to: what Bowerbird itself refuses must not be what saves it here.
    let answerer = client(&server, "core").await;
    let mut asked = answerer.subscribe("bowerbird.v1.req.>").await.unwrap();
    let mut discovered = answerer.subscribe("$SRV.>").await.unwrap();
    answerer.publish("bowerbird.v1.req.mine", "".into()).await.unwrap();
    asked.next().await.unwrap();

    let (service, store) = (client(&server, "service").await, client(&server, "store").await);
    for target in ["$JS.API.STREAM.DELETE.EVENTS", "$JS.API.STREAM.DELETE.DOWNLOADS", "$KV.KEYS.current"] {
        for (subject, body) in [
            ("bowerbird.v1.req.session.logout", "{}"),
            ("$SRV.PING", ""),
            ("JS.bowerbird.CONSUMER.INFO.EVENTS.service", ""),
            ("JS.bowerbird.CONSUMER.MSG.NEXT.EVENTS.service", r#"{"batch":2,"no_wait":true}"#),
            ("JS.bowerbird.CONSUMER.MSG.NEXT.EVENTS.service", "nonsense"),
            ("$JS.ACK.EVENTS.service.1.1.1.1.1", "+ACK"),
            ("$JS.ACK.EVENTS.service.1.1.1.1.1", r#"+NXT {"batch":1,"no_wait":true}"#),
        ] {
            service.publish_with_reply(subject, target, body.into()).await.unwrap();
        }
        let asked = tokio::time::timeout(Duration::from_secs(20), asked.next()).await.unwrap().unwrap();
        let discovered = tokio::time::timeout(Duration::from_secs(20), discovered.next()).await.unwrap().unwrap();
        for reply in [asked.reply.unwrap(), discovered.reply.unwrap()] {
            assert!(reply.starts_with("_R_."), "{reply}");
            answerer.publish(reply, "".into()).await.unwrap();
        }
        store.publish_with_reply("bowerbird.v1.object.bucket.changed", target, "{}".into()).await.unwrap();
    }
    // Each connection is worked off in order: when these are answered, what was said before has had its effect.
    service.publish_with_reply("bowerbird.v1.req.at.last", "_INBOX_service.x", "".into()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), asked.next()).await.unwrap().unwrap();
    let store = async_nats::jetstream::new(
        ConnectOptions::with_user_and_password("store".into(), "store".into()).connect(server.url()).await.unwrap(),
    );
    store.publish("bowerbird.v1.object.bucket.changed", "{}".into()).await.unwrap().await.unwrap();
    let stays = tokio::time::timeout(Duration::from_millis(500), async {
        loop {
            for stream in ["EVENTS", "DOWNLOADS", "OBJECTS"] {
                operator.get_stream(stream).await.unwrap();
            }
            assert_eq!(keys.get("current").await.unwrap().unwrap(), "the keys");
        }
    });
    assert!(stays.await.is_err());
}
