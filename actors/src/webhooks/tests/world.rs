//! A world of its own for a test: PostgreSQL, NATS, and as many nodes as it wants, each on a runtime of its own, so that
//! one can be killed without a farewell. Alarms are woken by hand: a test looks when they are due, and does not wait.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, IdSource, Metrics};
use bowerbird_nats::{
    AccountId, Bus, Event, EventId, Outcome, SessionId, WebhookDeliveryId, WebhookId,
    account::Role,
    answer::Call,
    bus::Options as BusOptions,
    credential::Caller,
    event::EventType,
    id::NodeId,
    webhook::{CreateWebhook, Delivery, GetWebhookDelivery, ListWebhookDeliveries, Webhook},
};
use bowerbird_testkit::{
    NatsServer, TestDatabase, eventually,
    lying::{Act, LyingServer, Request},
};
use serde_json::Value;
use sqlx::{PgPool, Row as _, postgres::PgPoolOptions};
use time::OffsetDateTime;
use tokio::{runtime::Runtime, time::Instant};
use uuid::Uuid;

use crate::{
    alarms::{AlarmsAddress, Due, Kind, Wakes},
    events::{self, Bell, NewEvent},
    metrics::Meters,
    outbox::Outbox,
    requests::{Limits, Pool},
    supervision::{self, Address, ChildSpec, Root, Supervisor},
    webhooks::{Foundation, Webhooks, intake, requests::Requests},
};

/// Longest that anything here may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
pub(super) const MASTER_KEY: [u8; 32] = [7; 32];

/// What all nodes share.
pub(super) struct World {
    database: TestDatabase,
    nats: NatsServer,
    pub(super) pool: PgPool,
}

/// One node.
pub(super) struct Node {
    pub(super) requests: Requests,
    pub(super) id: NodeId,
    bell: Bell,
    wakes: Vec<Arc<dyn Wakes>>,
    intake: Arc<intake::Means>,
    root: Option<Root>,
    runtime: Option<Runtime>,
}

/// An alarm as it is armed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Armed {
    pub(super) subject_id: Uuid,
    pub(super) due_at: OffsetDateTime,
}

impl World {
    pub(super) async fn new() -> World {
        let (database, nats) = Box::pin(async { tokio::join!(TestDatabase::new(), NatsServer::start()) }).await;
        World { pool: database.pool(), database, nats }
    }

    pub(super) async fn account(&self) -> Caller {
        let id = IdSource.next();
        sqlx::query("INSERT INTO accounts (id, account_name, role, quota_bytes, created_at, updated_at) VALUES ($1, $2, 'user', 0, now(), now())")
            .bind(id)
            .bind(format!("a{}", &id.simple().to_string()[2..]))
            .execute(&self.pool)
            .await
            .unwrap();
        Caller {
            account_id: AccountId(id),
            session_id: SessionId(IdSource.next()),
            role: Role::User,
            expires_at: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(10_000_000_000),
        }
    }

    /// A node with these settings on top of those for tests.
    pub(super) async fn node(&self, overrides: &str) -> Node {
        self.node_again(NodeId(IdSource.next()), overrides).await
    }

    /// A node that was there before.
    pub(super) async fn node_again(&self, node_id: NodeId, overrides: &str) -> Node {
        let settings = settings(overrides);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (url, nats) = (self.database.url().to_owned(), self.nats.url());
        let started = runtime.spawn(async move {
            let pool = PgPoolOptions::new().max_connections(12).connect(&url).await.unwrap();
            let options = BusOptions {
                url: nats,
                user: None,
                credentials_file: None,
                prefix: "test".to_owned(),
                replicas: 1,
                name: format!("test {node_id}"),
            };
            let bus = Bus::connect(options, PATIENCE).await.unwrap();
            bus.ensure_topology().await.unwrap();
            let (clock, bell, meters) = (Clock::system(), Bell::default(), Meters::register(&Metrics::default()));
            let workers = |area| Pool::new(area, Limits::default(), meters.clone(), bell.clone());
            let outbox = Outbox::new(pool.clone(), bus.clone(), bell.clone(), meters.clone());
            let webhooks = Webhooks::new(Foundation {
                settings: &settings,
                pool,
                bus,
                clock: clock.clone(),
                ids: IdSource,
                node_id,
                bell: bell.clone(),
                meters: meters.clone(),
                workers: workers("webhook"),
                test_workers: workers("webhook_test"),
                alarms: AlarmsAddress::default(),
                master_key: &MASTER_KEY,
                own_listeners: &[],
            })
            .unwrap();
            let area = webhooks.children(&clock);
            let children = vec![
                ChildSpec::actor("outbox", &Address::default(), move || (outbox.clone(), ())),
                Supervisor::child("webhooks", clock.clone(), move || area.clone()),
            ];
            let root = supervision::start("test", children, clock.clone()).await.unwrap();
            (webhooks.requests.clone(), webhooks.wakes(), Arc::clone(&webhooks.intake.0), bell, root)
        });
        let (requests, wakes, intake, bell, root) = started.await.unwrap();
        Node { requests, id: node_id, bell, wakes, intake, root: Some(root), runtime: Some(runtime) }
    }

    /// Something happens to this account.
    pub(super) async fn happens(&self, node: &Node, caller: Caller, event_type: EventType, data: &Value) -> EventId {
        let event = NewEvent::new(IdSource, event_type, Some(caller.account_id), IdSource.next(), data);
        let id = event.id();
        let mut transaction = self.pool.begin().await.unwrap();
        events::record(&mut transaction, event).await.unwrap();
        transaction.commit().await.unwrap();
        node.bell.ring();
        id
    }

    /// An event as it comes out of the stream.
    pub(super) async fn recorded(&self, id: EventId) -> Event {
        let row =
            sqlx::query("SELECT event_type, account_id, entity_id, entity_sequence, recorded_at, data FROM events WHERE id = $1")
                .bind(id.0)
                .fetch_one(&self.pool)
                .await
                .unwrap();
        Event {
            id,
            event_type: row.get::<String, _>("event_type").parse().unwrap(),
            account_id: row.get::<Option<Uuid>, _>("account_id").map(AccountId),
            entity_id: row.get("entity_id"),
            entity_sequence: row.get("entity_sequence"),
            time: row.get("recorded_at"),
            data: row.get("data"),
            traceparent: None,
        }
    }

    /// The alarms of this kind, by their subjects.
    pub(super) async fn armed(&self, kind: Kind) -> Vec<Armed> {
        let rows: Vec<(Uuid, OffsetDateTime)> =
            sqlx::query_as("SELECT subject_id, due_at FROM alarms WHERE kind = $1 ORDER BY subject_id")
                .bind(kind.as_str())
                .fetch_all(&self.pool)
                .await
                .unwrap();
        rows.into_iter().map(|(subject_id, due_at)| Armed { subject_id, due_at }).collect()
    }

    /// Wake this alarm, as if its time had come: `now` is when it is due.
    pub(super) async fn wake(&self, node: &Node, kind: Kind, armed: Armed) {
        let wakes = node.wakes.iter().find(|wakes| wakes.kind() == kind).unwrap();
        let mut transaction = self.pool.begin().await.unwrap();
        sqlx::query("DELETE FROM alarms WHERE kind = $1 AND subject_id = $2")
            .bind(kind.as_str())
            .bind(armed.subject_id)
            .execute(&mut *transaction)
            .await
            .unwrap();
        let due = [Due { subject_id: armed.subject_id, due_at: armed.due_at, version: 1, now: armed.due_at }];
        wakes.wake(&mut transaction, &due).await.unwrap();
        transaction.commit().await.unwrap();
        wakes.committed(&due);
    }

    /// Types of the events of one thing, in order.
    pub(super) async fn events(&self, id: Uuid) -> Vec<String> {
        sqlx::query_scalar("SELECT event_type FROM events WHERE entity_id = $1 ORDER BY entity_sequence")
            .bind(id)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    pub(super) async fn execute(&self, statement: &'static str, id: Uuid) {
        sqlx::query(statement).bind(id).execute(&self.pool).await.unwrap();
    }
}

impl Node {
    /// `kill -9`: nothing that runs here gets to say anything.
    pub(super) fn kill(mut self) {
        self.end();
    }

    /// Stop in good order.
    pub(super) async fn stop(mut self) {
        let root = self.root.take().unwrap();
        let runtime = self.runtime.as_ref().unwrap();
        assert!(runtime.spawn(async move { root.stop(Duration::from_secs(20)).await }).await.unwrap(), "it stopped in time");
        self.end();
    }

    /// What becomes of an event that comes to the intake of this node.
    pub(super) async fn comes(&self, event: Event) -> Outcome {
        intake::take(&self.intake, event).await
    }

    pub(super) async fn create(&self, caller: Caller, url: &str) -> Webhook {
        self.create_for(caller, url, &[]).await
    }

    pub(super) async fn create_for(&self, caller: Caller, url: &str, types: &[&str]) -> Webhook {
        self.requests.clone().create(call(caller, create(url, types))).await.unwrap()
    }

    /// What was sent to a webhook and what is to be, newest first.
    pub(super) async fn deliveries(&self, caller: Caller, webhook_id: WebhookId) -> Vec<Delivery> {
        let list = ListWebhookDeliveries { webhook_id, status: None, limit: Some(200), cursor: None };
        self.requests.clone().list_deliveries(call(caller, list)).await.unwrap().items
    }

    pub(super) async fn delivery(&self, caller: Caller, webhook_id: WebhookId, id: WebhookDeliveryId) -> Delivery {
        self.requests.clone().get_delivery(call(caller, GetWebhookDelivery { webhook_id, id })).await.unwrap()
    }

    /// The one delivery of this webhook, once it is as it should be.
    pub(super) async fn until(
        &self,
        caller: Caller,
        webhook: &Webhook,
        what: &str,
        fits: impl Fn(&Delivery) -> bool,
    ) -> Delivery {
        let found = eventually(PATIENCE, what, async || {
            let deliveries = self.deliveries(caller, webhook.id).await;
            assert!(deliveries.len() <= 1, "{deliveries:#?}");
            deliveries.into_iter().next().filter(&fits)
        })
        .await;
        self.delivery(caller, webhook.id, found.id).await
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

/// Settings for tests, with these instead where they say otherwise.
fn settings(overrides: &str) -> Arc<Settings> {
    let mut text = overrides.to_owned();
    for (key, value) in [
        ("outbound.allow", "['127.0.0.1/32']"),
        ("outbound.ports", "[]"),
        ("leases.duration", "'1s'"),
        ("webhooks.timeout", "'10s'"),
    ] {
        if !overrides.contains(key) {
            text.extend([key, " = ", value, "\n"]);
        }
    }
    Arc::new(Settings::with_overrides(&text).unwrap())
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

pub(super) fn create(url: &str, types: &[&str]) -> CreateWebhook {
    let event_types = types.iter().map(|text| (*text).to_owned()).collect();
    CreateWebhook { url: url.to_owned(), event_types, description: None }
}

/// A receiver that answers with these statuses, one after the other, and then always with the last.
pub(super) async fn answering(statuses: &'static [u16]) -> LyingServer {
    LyingServer::start(move |request| {
        let status = statuses[request.index.min(statuses.len() - 1)];
        vec![Act::head(&format!("HTTP/1.1 {status} So\ncontent-length: 4\n\nseen"))]
    })
    .await
}

/// The signatures of a message, each checked as a receiver would that knows nothing but the specification: those that fit
/// this secret.
pub(super) fn fitting_signatures(request: &Request, secret: &str) -> usize {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let (id, timestamp) = (request.header("webhook-id").unwrap(), request.header("webhook-timestamp").unwrap());
    let mut signed = format!("{id}.{timestamp}.").into_bytes();
    signed.extend_from_slice(&request.body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    request
        .header("webhook-signature")
        .unwrap()
        .split(' ')
        .filter(|signature| {
            let tag = signature.strip_prefix("v1,").and_then(|encoded| STANDARD.decode(encoded).ok()).unwrap();
            hmac::verify(&key, &signed, &tag).is_ok()
        })
        .count()
}

/// How often each message came, by its id.
pub(super) fn by_id(requests: &[Request]) -> HashMap<String, usize> {
    requests.iter().fold(HashMap::new(), |mut seen, request| {
        *seen.entry(request.header("webhook-id").unwrap().to_owned()).or_default() += 1;
        seen
    })
}
