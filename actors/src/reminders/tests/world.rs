//! A world of its own for a test: PostgreSQL, the operations, and a hand that wakes what is due as the alarms do.

use std::time::Duration as Patience;

use bowerbird_lifecycle::{IdSource, Metrics};
use bowerbird_nats::{
    AccountId, Bus, Event, EventType, Problem, ReminderId, SessionId,
    account::Role,
    answer::Call,
    bus::Options as BusOptions,
    credential::Caller,
    reminder::{CreateReminder, GetReminder, Reminder},
};
use bowerbird_testkit::{NatsServer, TestDatabase};
use serde_json::Value;
use sqlx::PgPool;
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    alarms::{AlarmsAddress, Due, Kind, Wakes as _},
    cursor::Cursors,
    events::{self, Bell, NewEvent},
    metrics::Meters,
    reminders::{
        requests::{Collaborators, Requests},
        triggers::Triggers,
        waking::Waking,
    },
};

/// Longest that anything here may take on a busy machine.
pub(super) const PATIENCE: Patience = Patience::from_mins(1);

pub(super) struct World {
    pub(super) pool: PgPool,
    pub(super) requests: Requests,
    pub(super) waking: Waking,
    _database: TestDatabase,
}

impl World {
    pub(super) async fn new() -> World {
        World::with_room_for(10_000).await
    }

    pub(super) async fn with_room_for(max_scheduled_per_account: u32) -> World {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let requests = Requests::new(Collaborators {
            pool: pool.clone(),
            ids: IdSource,
            cursors: Cursors::new(&[7; 32]),
            alarms: AlarmsAddress::default(),
            max_scheduled_per_account,
            catch_up: Duration::DAY,
        });
        let waking = Waking {
            ids: IdSource,
            bell: Bell::default(),
            meters: Meters::register(&Metrics::default()),
            catch_up: Duration::DAY,
        };
        World { pool, requests, waking, _database: database }
    }

    pub(super) async fn account(&self) -> Caller {
        let id = IdSource.next();
        sqlx::query("INSERT INTO accounts (id, account_name, role, quota_bytes, created_at, updated_at) VALUES ($1, $2, 'user', 1000, now(), now())")
            .bind(id)
            .bind(format!("a{}", &id.simple().to_string()[2..]))
            .execute(&self.pool)
            .await
            .unwrap();
        Caller {
            account_id: AccountId(id),
            session_id: SessionId(IdSource.next()),
            role: Role::User,
            expires_at: OffsetDateTime::UNIX_EPOCH + Patience::from_secs(10_000_000_000),
        }
    }

    pub(super) async fn now(&self) -> OffsetDateTime {
        sqlx::query_scalar("SELECT now()").fetch_one(&self.pool).await.unwrap()
    }

    /// A file of this account.
    pub(super) async fn file(&self, caller: Caller) -> Uuid {
        let id = IdSource.next();
        sqlx::query(
            "WITH root AS (INSERT INTO folders (id, account_id, name, path) VALUES ($1, $2, '', '/')
             ON CONFLICT (account_id, path) WHERE deleted_at IS NULL DO UPDATE SET name = '' RETURNING id)
             INSERT INTO files (id, account_id, name, folder_id, size_bytes, content_type, crc64, etag, object_key, status, source)
             SELECT $1, $2, $1::text, id, 1, 'text/plain', 0, 'e', $1::text, 'available', 'upload' FROM root",
        )
        .bind(id)
        .bind(caller.account_id.0)
        .execute(&self.pool)
        .await
        .unwrap();
        id
    }

    /// A download of this account that waits.
    pub(super) async fn download(&self, caller: Caller) -> Uuid {
        let id = IdSource.next();
        sqlx::query(
            "INSERT INTO downloads (id, account_id, file_id, source_sealed, display_url, folder, priority, max_attempts, status) \
             VALUES ($1, $2, gen_random_uuid(), '', 'http://example.org/', '/', 5, 8, 'queued')",
        )
        .bind(id)
        .bind(caller.account_id.0)
        .execute(&self.pool)
        .await
        .unwrap();
        id
    }

    pub(super) async fn create(&self, caller: Caller, request: CreateReminder) -> Reminder {
        self.try_create(caller, request).await.unwrap()
    }

    pub(super) async fn try_create(&self, caller: Caller, request: CreateReminder) -> Result<Reminder, Problem> {
        self.requests.clone().create(call(caller, request)).await
    }

    pub(super) async fn get(&self, caller: Caller, id: ReminderId) -> Reminder {
        self.requests.clone().get(call(caller, GetReminder { id })).await.unwrap()
    }

    /// As if this much time had passed for a reminder that waits for a time.
    pub(super) async fn let_pass(&self, id: ReminderId, time: Duration) {
        for statement in [
            "UPDATE reminders SET next_fire_at = next_fire_at - $2, next_local = next_local - $2, floor_at = floor_at - $2, start_local = start_local - $2 WHERE id = $1",
            "UPDATE alarms SET due_at = due_at - $2, wake_at = wake_at - $2 WHERE subject_id = $1",
        ] {
            let interval = std::time::Duration::try_from(time).unwrap();
            sqlx::query(statement).bind(id.0).bind(interval).execute(&self.pool).await.unwrap();
        }
    }

    /// Wake what is due, as the alarms do: claimed, taken away and woken in one transaction. How many were due.
    pub(super) async fn wake_due(&self) -> usize {
        let mut transaction = self.pool.begin().await.unwrap();
        let rows: Vec<(Uuid, OffsetDateTime, i64, OffsetDateTime)> = sqlx::query_as(
            "DELETE FROM alarms WHERE kind = $1 AND subject_id IN (SELECT subject_id FROM alarms WHERE kind = $1 AND wake_at <= now() \
             ORDER BY wake_at LIMIT 1000 FOR UPDATE SKIP LOCKED) RETURNING subject_id, due_at, version, now()",
        )
        .bind(Kind::Reminder.as_str())
        .fetch_all(&mut *transaction)
        .await
        .unwrap();
        let due: Vec<Due> =
            rows.into_iter().map(|(subject_id, due_at, version, now)| Due { subject_id, due_at, version, now }).collect();
        self.waking.wake(&mut transaction, &due).await.unwrap();
        transaction.commit().await.unwrap();
        due.len()
    }

    /// What hears of events, with the server that it needs and does not use: events are handed to it.
    pub(super) async fn triggers(&self) -> (NatsServer, Triggers) {
        let nats = NatsServer::start().await;
        let options = BusOptions {
            url: nats.url(),
            prefix: "test".to_owned(),
            replicas: 1,
            name: "test".to_owned(),
            ..BusOptions::default()
        };
        let bus = Bus::connect(options, PATIENCE).await.unwrap();
        let triggers = Triggers { pool: self.pool.clone(), bus, bell: Bell::default(), ids: IdSource, catch_up: Duration::DAY };
        (nats, triggers)
    }

    /// Something happens to this thing, as its own area would write it.
    pub(super) async fn happens(&self, event_type: EventType, thing: Uuid) -> Event {
        let mut transaction = self.pool.begin().await.unwrap();
        let event = NewEvent::new(IdSource, event_type.clone(), None, thing, &serde_json::json!({}));
        let id = event.id();
        let entity_sequence = events::record(&mut transaction, event).await.unwrap();
        transaction.commit().await.unwrap();
        let (time, data) = (self.now().await, serde_json::json!({}));
        Event { id, event_type, account_id: None, entity_id: thing, entity_sequence, time, data, traceparent: None }
    }

    /// When it is woken next.
    pub(super) async fn alarm(&self, id: ReminderId) -> Option<OffsetDateTime> {
        sqlx::query_scalar("SELECT due_at FROM alarms WHERE kind = 'reminder' AND subject_id = $1")
            .bind(id.0)
            .fetch_optional(&self.pool)
            .await
            .unwrap()
    }

    /// Names of the events of a reminder, in order, and what they say.
    pub(super) async fn events(&self, id: ReminderId) -> Vec<(String, Value)> {
        sqlx::query_as(
            "SELECT split_part(event_type, '.', 2), data FROM events WHERE entity_id = $1 AND event_type LIKE 'reminder.%' \
             ORDER BY entity_sequence",
        )
        .bind(id.0)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// Only their names.
    pub(super) async fn told(&self, id: ReminderId) -> Vec<String> {
        self.events(id).await.into_iter().map(|(name, _)| name).collect()
    }
}

/// A reminder for an instant.
pub(super) fn at(due_at: OffsetDateTime) -> CreateReminder {
    CreateReminder { title: "Look".to_owned(), due_at: Some(due_at), ..CreateReminder::default() }
}

/// One that repeats.
pub(super) fn repeating(due_at: OffsetDateTime, rrule: &str) -> CreateReminder {
    CreateReminder { rrule: Some(rrule.to_owned()), ..at(due_at) }
}

/// A request as it comes from the bus.
pub(super) fn call<O: serde::Serialize>(caller: Caller, request: O) -> Call<O> {
    Call {
        fingerprint: serde_json::to_string(&request).unwrap(),
        request,
        caller: Some(caller),
        idempotency_key: None,
        request_id: "test".to_owned(),
        deadline: Instant::now() + PATIENCE,
        traceparent: None,
    }
}
