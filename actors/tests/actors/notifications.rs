//! The inbox: what is told of events, once, to whom, where they chose.

use std::{collections::BTreeMap, time::Duration};

use bowerbird_actors::events::{self, NewEvent};
use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, Code, EventType, NotificationId,
    event::{self, DOWNLOAD_COMPLETED, DOWNLOAD_FAILED},
    notification::{
        ChangeSettings, Channel, Delivered, EmailStatus, GetSettings, ListNotifications, Notification, QuietHours,
        ReadAllNotifications, ReadNotification,
    },
};
use bowerbird_testkit::eventually;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stand::{Heard, Node, PATIENCE, Servers};

/// Record that this happened to a thing of the account; its event goes out by itself.
async fn happens(node: &Node, account: AccountId, event_type: &str, data: &Value) -> Uuid {
    let entity = IdSource.next();
    let event_type: EventType = event_type.parse().unwrap();
    let mut transaction = node.pool.begin().await.unwrap();
    events::record(&mut transaction, NewEvent::new(IdSource, event_type, Some(account), entity, data)).await.unwrap();
    transaction.commit().await.unwrap();
    entity
}

fn downloaded(name: &str) -> Value {
    json!({"download": {"file_name": name, "folder": "/", "size_bytes": 9}})
}

async fn list(node: &Node, token: &str, unread: Option<bool>) -> Vec<Notification> {
    node.ask_as(&ListNotifications { unread, ..ListNotifications::default() }, Some(token), None).await.unwrap().items
}

/// The inbox, once it holds as many.
async fn inbox(node: &Node, token: &str, items: usize) -> Vec<Notification> {
    eventually(PATIENCE, "the inbox has what it should", async || {
        Some(list(node, token, None).await).filter(|found| found.len() == items)
    })
    .await
}

#[tokio::test]
async fn what_happens_is_told_where_its_owner_chose_and_to_nobody_else() {
    let servers = Servers::start().await;
    let node = servers.node("").await;
    let (alice, bob) = (node.register("alice").await.id, node.register("bobby").await.id);
    let (to_alice, to_bob) = (node.login("alice").await.access_token, node.login("bobby").await.access_token);
    let heard = Heard::listen(&node.bus, "test");

    let before = node.ask_as(&GetSettings {}, Some(&to_alice), None).await.unwrap();
    assert_eq!(before.events.get("download.completed"), Some(&vec![Channel::Inbox]));
    assert_eq!((before.email, before.email_status), (true, EmailStatus::Off));

    let entity = happens(&node, alice, "download.completed", &downloaded("a.iso")).await;
    happens(&node, alice, "download.canceled", &downloaded("b.iso")).await;
    happens(&node, bob, "download.failed", &downloaded("c.iso")).await;
    let told = inbox(&node, &to_alice, 1).await.remove(0);
    assert_eq!((told.event_type.as_str(), told.entity_id), ("download.completed", entity));
    assert_eq!((told.title.as_str(), told.body.as_deref(), told.read_at), ("Downloaded: a.iso", Some("9 bytes in /"), None));
    assert_eq!(inbox(&node, &to_bob, 1).await[0].title, "Download failed: c.iso");
    let delivered = eventually(PATIENCE, "it is told that it was told", async || {
        heard.so_far().into_iter().find(|event| event.event_type == event::NOTIFICATION_DELIVERED && event.entity_id == told.id.0)
    })
    .await;
    assert_eq!(delivered.data_as::<Delivered>().unwrap(), Delivered { notification: told.clone(), channel: Channel::Inbox });

    // From now on: the other way round. A reminder goes where it says itself.
    let change = ChangeSettings {
        events: BTreeMap::from([("download.canceled".to_owned(), vec![Channel::Inbox])]),
        email: false,
        quiet_hours: Some(QuietHours { from: "22:00".into(), until: "07:00".into(), time_zone: "Europe/Berlin".into() }),
        digest: None,
    };
    let after = node.ask_as(&change, Some(&to_alice), None).await.unwrap();
    assert_eq!(node.ask_as(&GetSettings {}, Some(&to_alice), None).await.unwrap(), after);
    assert_eq!((after.events, after.email, after.quiet_hours), (change.events, false, change.quiet_hours));
    happens(&node, alice, "download.completed", &downloaded("d.iso")).await;
    happens(&node, alice, "reminder.fired", &json!({"title": "Milk", "channels": ["webhook"]})).await;
    happens(&node, alice, "reminder.fired", &json!({"title": "Eggs", "channels": ["inbox"]})).await;
    happens(&node, alice, "download.canceled", &downloaded("e.iso")).await;
    // She has no webhook, so what was for webhooks alone waits in the inbox.
    let titles: Vec<String> = inbox(&node, &to_alice, 4).await.into_iter().map(|told| told.title).collect();
    for title in ["Milk", "Eggs", "Download canceled: e.iso", "Downloaded: a.iso"] {
        assert!(titles.iter().any(|told| told == title), "{titles:?}");
    }

    // What her webhook did not take of a reminder is told, whatever she chose; of other messages only if she chose that.
    let error = json!({"code": "http_status", "detail": "it answered 500"});
    happens(&node, alice, "webhook.failed", &json!({"event_type": "file.available", "error": error})).await;
    let tea = json!({"event_type": "reminder.fired", "error": error, "reminder": {"title": "Tea"}});
    happens(&node, alice, "webhook.failed", &tea).await;
    let told = inbox(&node, &to_alice, 5).await.into_iter().find(|told| told.title == "Tea").unwrap();
    assert_eq!(told.body.as_deref(), Some("Your webhook did not take this: it answered 500"));

    let nobody = node.ask(&GetSettings {}).await.unwrap_err();
    assert_eq!(nobody.code, Code::Unauthorized);
    let wrong =
        ChangeSettings { events: BTreeMap::from([("cake.baked".to_owned(), vec![])]), quiet_hours: None, ..change_nothing() };
    assert_eq!(node.ask_as(&wrong, Some(&to_alice), None).await.unwrap_err().errors[0].field, "events.cake.baked");
}

fn change_nothing() -> ChangeSettings {
    ChangeSettings { events: BTreeMap::new(), email: true, quiet_hours: None, digest: None }
}

#[tokio::test]
async fn what_is_read_stays_read_and_what_is_somebody_elses_is_not_there() {
    let servers = Servers::start().await;
    let node = servers.node("").await;
    let alice = node.register("alice").await.id;
    node.register("bobby").await;
    let (to_alice, to_bob) = (node.login("alice").await.access_token, node.login("bobby").await.access_token);
    for number in 0..5 {
        happens(&node, alice, "download.completed", &downloaded(&format!("{number}.iso"))).await;
    }
    let all = inbox(&node, &to_alice, 5).await;
    let read = |token: &str, id: NotificationId| {
        let token = token.to_owned();
        let node = &node;
        async move { node.ask_as(&ReadNotification { id }, Some(&token), None).await }
    };
    let first = read(&to_alice, all[2].id).await.unwrap();
    assert!(first.read_at.is_some());
    assert_eq!(read(&to_alice, all[2].id).await.unwrap(), first, "reading again changes nothing");
    let (foreign, missing) =
        (read(&to_bob, all[2].id).await.unwrap_err(), read(&to_bob, NotificationId(IdSource.next())).await.unwrap_err());
    assert_eq!((foreign.code, &foreign.detail), (Code::NotFound, &missing.detail));
    assert_eq!(list(&node, &to_alice, Some(true)).await.len(), 4);
    assert_eq!(list(&node, &to_alice, Some(false)).await, [first]);

    node.ask_as(&ReadAllNotifications {}, Some(&to_bob), None).await.unwrap();
    assert_eq!(list(&node, &to_alice, Some(true)).await.len(), 4);
    let page = |cursor: Option<String>| {
        let (node, to_alice) = (&node, &to_alice);
        let list = ListNotifications { unread: None, limit: Some(2), cursor };
        async move { node.ask_as(&list, Some(to_alice), None).await }
    };
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = page(cursor).await.unwrap();
        seen.extend(page.items.into_iter().map(|told| told.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, all.iter().map(|told| told.id).collect::<Vec<_>>());
    let of_all = page(None).await.unwrap().next_cursor;
    let other = ListNotifications { unread: Some(true), limit: Some(2), cursor: of_all };
    assert_eq!(node.ask_as(&other, Some(&to_alice), None).await.unwrap_err().code, Code::InvalidCursor);

    node.ask_as(&ReadAllNotifications {}, Some(&to_alice), None).await.unwrap();
    assert!(list(&node, &to_alice, Some(true)).await.is_empty());
}

#[tokio::test]
async fn an_event_that_comes_again_is_told_once_whoever_hears_it() {
    let mut servers = Servers::start().await;
    let first = servers.node("").await;
    let second = servers.node("").await;
    let alice = first.register("alice").await.id;
    let to_alice = first.login("alice").await.access_token;
    let mut ids = Vec::new();
    for _ in 0..40 {
        let event = NewEvent::new(IdSource, DOWNLOAD_COMPLETED, Some(alice), IdSource.next(), &downloaded("a.iso"));
        ids.push(event.id());
        let mut transaction = first.pool.begin().await.unwrap();
        events::record(&mut transaction, event).await.unwrap();
        transaction.commit().await.unwrap();
    }
    inbox(&first, &to_alice, 40).await;
    // A stream that is lost is filled again from the database, and the inbox hears all of it a second time.
    servers.nats.wipe_jetstream().await;
    let marks = "SELECT count(*) FROM processed_events WHERE consumer = 'inbox'";
    let before = first.count(marks).await;
    let entity = happens(&first, alice, "download.failed", &downloaded("last.iso")).await;
    let all = inbox(&second, &to_alice, 41).await;
    assert_eq!(all.iter().filter(|told| told.entity_id == entity).count(), 1);
    let mut told: Vec<_> = all.iter().map(|told| told.event_id).filter(|id| ids.contains(id)).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 40);
    assert!(first.count(marks).await > before);
    // Exactly the same events again, under the noses of both.
    let rows: Vec<(Uuid, String, Uuid, i64)> = sqlx::query_as(
        "SELECT id, event_type, entity_id, entity_sequence FROM events WHERE account_id = $1 AND event_type LIKE 'download.%'",
    )
    .bind(alice.0)
    .fetch_all(&first.pool)
    .await
    .unwrap();
    let heard = Heard::listen(&first.bus, "again");
    servers.nats.wipe_jetstream().await;
    eventually(PATIENCE, "the bus is back", async || first.bus.is_connected().then_some(())).await;
    for (id, event_type, entity_id, entity_sequence) in rows {
        let event = event::Event {
            id: bowerbird_nats::EventId(id),
            event_type: event_type.parse().unwrap(),
            account_id: Some(alice),
            entity_id,
            entity_sequence,
            time: crate::stand::now(),
            data: downloaded("again.iso"),
            traceparent: None,
        };
        first.bus.publish_event(&event).await.unwrap();
    }
    let last = happens(&first, alice, "download.failed", &downloaded("after.iso")).await;
    eventually(PATIENCE, "all of it was heard", async || {
        heard.so_far().iter().any(|event| event.entity_id == last).then_some(())
    })
    .await;
    assert_eq!(inbox(&first, &to_alice, 42).await.iter().filter(|told| told.title.contains("again.iso")).count(), 0);
}

#[tokio::test]
async fn an_account_keeps_only_its_newest_and_none_that_is_too_old() {
    let servers = Servers::start().await;
    let node = servers.node("[notifications]\nmax_per_account = 3\nkeep = \"1h\"").await;
    let alice = node.register("alice").await.id;
    let to_alice = node.login("alice").await.access_token;
    for number in 0..7 {
        happens(&node, alice, "download.completed", &downloaded(&format!("{number}.iso"))).await;
        eventually(PATIENCE, "it is told", async || {
            list(&node, &to_alice, None).await.iter().any(|told| told.title == format!("Downloaded: {number}.iso")).then_some(())
        })
        .await;
    }
    let titles: Vec<String> = list(&node, &to_alice, None).await.into_iter().map(|told| told.title).collect();
    assert_eq!(titles, ["Downloaded: 6.iso", "Downloaded: 5.iso", "Downloaded: 4.iso"]);

    // What a stream that was made again brings after its time is not told.
    let old = event::Event {
        id: bowerbird_nats::EventId(IdSource.next()),
        event_type: DOWNLOAD_FAILED,
        account_id: Some(alice),
        entity_id: IdSource.next(),
        entity_sequence: 1,
        time: crate::stand::now() - Duration::from_hours(2),
        data: downloaded("old.iso"),
        traceparent: None,
    };
    node.bus.publish_event(&old).await.unwrap();
    eventually(PATIENCE, "it was heard", async || {
        (node.count("SELECT count(*) FROM processed_events WHERE consumer = 'inbox'").await >= 10).then_some(())
    })
    .await;
    let titles: Vec<String> = list(&node, &to_alice, None).await.into_iter().map(|told| told.title).collect();
    assert!(!titles.iter().any(|title| title.contains("old.iso")), "{titles:?}");
}

#[tokio::test]
async fn an_event_that_cannot_be_told_of_is_set_aside_and_the_others_are_told() {
    let servers = Servers::start().await;
    let node = servers.node("").await;
    let alice = node.register("alice").await.id;
    let to_alice = node.login("alice").await.access_token;
    // A text that PostgreSQL does not store.
    let mut poison = event::Event {
        id: bowerbird_nats::EventId(IdSource.next()),
        event_type: DOWNLOAD_COMPLETED,
        account_id: Some(alice),
        entity_id: IdSource.next(),
        entity_sequence: 1,
        time: crate::stand::now(),
        data: downloaded("x"),
        traceparent: None,
    };
    sqlx::query("ALTER TABLE notifications ADD CONSTRAINT no_poison CHECK (title NOT LIKE '%poison%')")
        .execute(&node.pool)
        .await
        .unwrap();
    poison.data = downloaded("poison");
    node.bus.publish_event(&poison).await.unwrap();
    for number in 0..10 {
        happens(&node, alice, "download.completed", &downloaded(&format!("{number}.iso"))).await;
    }
    assert_eq!(inbox(&node, &to_alice, 10).await.len(), 10);
    eventually(PATIENCE, "the poison is among the dead", async || {
        (node.count("SELECT count(*) FROM dead_letters WHERE consumer = 'inbox'").await == 1).then_some(())
    })
    .await;
}
