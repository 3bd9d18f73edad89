//! A world of its own for a test: PostgreSQL, NATS, an object store, and as many nodes as it wants, each on a runtime of
//! its own, so that one can be killed without a farewell.

use std::{sync::Arc, time::Duration};

use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, IdSource, Metrics};
use bowerbird_nats::{
    AccountId, Bus, DownloadId, SessionId,
    account::Role,
    answer::Call,
    bus::Options as BusOptions,
    credential::Caller,
    download::{CreateDownload, Download, GetDownload, Status},
    id::NodeId,
};
use bowerbird_storage::{Bucket, BucketOptions, embedded};
use bowerbird_testkit::{NatsServer, TestDatabase, eventually};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{net::TcpListener, runtime::Runtime, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    accounts::hashing::Hashing,
    alarms::{Alarms, AlarmsAddress, Pace},
    downloads::{Downloads, Foundation, requests::Requests},
    events::Bell,
    files::{self, Files},
    metrics::Meters,
    requests::{Limits, Pool},
    supervision::{self, Root, Supervisor},
};

/// Longest that anything here may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
const BUCKET: &str = "bowerbird";
const MASTER_KEY: [u8; 32] = [7; 32];

/// What all nodes share.
pub(super) struct World {
    pub(super) database: TestDatabase,
    pub(super) nats: NatsServer,
    pub(super) bucket: Bucket,
    pub(super) pool: PgPool,
    bucket_options: BucketOptions,
    _store: embedded::Running,
    _objects: TempDir,
}

/// One node.
pub(super) struct Node {
    pub(super) requests: Requests,
    pub(super) files: files::Requests,
    pub(super) id: NodeId,
    pub(super) bus: Bus,
    root: Option<Root>,
    runtime: Option<Runtime>,
}

impl World {
    pub(super) async fn new() -> World {
        let (database, nats) = tokio::join!(TestDatabase::new(), NatsServer::start());
        let objects = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = embedded::Options::new(objects.path(), "key", "secret", BUCKET);
        let store = embedded::serve(options, listener, None, CancellationToken::new()).await.unwrap();
        let endpoint: url::Url = format!("http://{}", store.address()).parse().unwrap();
        let bucket_options = BucketOptions {
            endpoint: endpoint.clone(),
            public_endpoint: endpoint,
            region: "us-east-1".to_owned(),
            bucket: BUCKET.to_owned(),
            access_key_id: "key".to_owned(),
            secret_access_key: "secret".to_owned(),
            path_style: true,
            clock: Clock::system(),
        };
        let bucket = Bucket::connect(bucket_options.clone(), PATIENCE).await.unwrap();
        World { pool: database.pool(), database, nats, bucket, bucket_options, _store: store, _objects: objects }
    }

    pub(super) async fn account(&self, quota_bytes: i64) -> Caller {
        let id = IdSource.next();
        sqlx::query("INSERT INTO accounts (id, account_name, role, quota_bytes, created_at, updated_at) VALUES ($1, $2, 'user', $3, now(), now())")
            .bind(id)
            .bind(format!("a{}", &id.simple().to_string()[2..]))
            .bind(quota_bytes)
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
        let (url, nats, bucket_options) = (self.database.url().to_owned(), self.nats.url(), self.bucket_options.clone());
        let started = runtime.spawn(async move {
            let pool = PgPoolOptions::new().max_connections(8).connect(&url).await.unwrap();
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
            let bucket = Bucket::new(bucket_options);
            let workers = |area| Pool::new(area, Limits::default(), meters.clone(), bell.clone());
            let alarms_address = AlarmsAddress::default();
            let files = Files::new(files::Foundation {
                settings: &settings,
                pool: pool.clone(),
                bucket: bucket.clone(),
                bell: bell.clone(),
                meters: meters.clone(),
                workers: workers("file"),
                strangers: workers("stranger"),
                alarms: alarms_address.clone(),
                hashing: Hashing::new(&settings.auth, meters.clone()).unwrap(),
                clock: Clock::system(),
                master_key: &MASTER_KEY,
            });
            let downloads = Downloads::new(Foundation {
                settings: &settings,
                pool: pool.clone(),
                bus: bus.clone(),
                bucket,
                clock: clock.clone(),
                ids: IdSource,
                node_id,
                bell: bell.clone(),
                meters: meters.clone(),
                workers: workers("download"),
                purger: files.purger(),
                alarms: alarms_address.clone(),
                master_key: &MASTER_KEY,
                own_listeners: &[],
            })
            .unwrap();
            let area = |name: &str, children: Vec<supervision::ChildSpec>| {
                Supervisor::child(name, clock.clone(), move || children.clone())
            };
            let alarms = Alarms::new(
                pool,
                bus.clone(),
                bell,
                meters,
                [vec![downloads.wakes()], files.wakes()].concat(),
                Pace { horizon: Duration::from_hours(1), poll: Duration::from_secs(1) },
                alarms_address,
            );
            let children =
                vec![area("files", files.children(&clock)), area("downloads", downloads.children(&clock)), alarms.child()];
            let root = supervision::start("test", children, clock.clone()).await.unwrap();
            (downloads.requests.clone(), files.requests.clone(), root, bus)
        });
        let (requests, files, root, bus) = started.await.unwrap();
        Node { requests, files, id: node_id, bus, root: Some(root), runtime: Some(runtime) }
    }

    /// Ask until the download satisfies `fits`; it must before it ends.
    pub(super) async fn until(
        &self,
        node: &Node,
        caller: Caller,
        id: DownloadId,
        what: &str,
        fits: impl Fn(&Download) -> bool,
    ) -> Download {
        let download = eventually(PATIENCE, what, async || {
            let download = node.requests.clone().get(call(caller, GetDownload { id })).await.unwrap();
            (fits(&download) || has_ended(&download)).then_some(download)
        })
        .await;
        assert!(fits(&download), "it ended before this: {what}; {download:#?}");
        download
    }

    /// Wait for an end, which must be this one.
    pub(super) async fn ended(&self, node: &Node, caller: Caller, id: DownloadId, how: Status) -> Download {
        let download = self.until(node, caller, id, "it ends", has_ended).await;
        assert_eq!(download.status, how, "{download:#?}");
        download
    }

    /// Types of the events of one thing, in order.
    pub(super) async fn events(&self, id: uuid::Uuid) -> Vec<String> {
        sqlx::query_scalar("SELECT event_type FROM events WHERE entity_id = $1 ORDER BY entity_sequence")
            .bind(id)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Keys below an account.
    pub(super) async fn keys(&self, caller: Caller) -> Vec<String> {
        self.bucket
            .list(&format!("{}/", caller.account_id), None, 1000)
            .await
            .unwrap()
            .into_iter()
            .map(|object| object.key)
            .collect()
    }

    /// Uploads below an account that are neither completed nor aborted.
    pub(super) async fn uploads(&self, caller: Caller) -> usize {
        self.bucket.list_uploads(&format!("{}/", caller.account_id), 1000).await.unwrap().len()
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

    pub(super) async fn create(&self, caller: Caller, url: &str) -> Download {
        self.create_with(caller, url, |_| {}).await
    }

    pub(super) async fn create_with(&self, caller: Caller, url: &str, change: impl FnOnce(&mut CreateDownload)) -> Download {
        let mut request = create(url);
        change(&mut request);
        self.requests.clone().create(call(caller, request)).await.unwrap()
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

fn has_ended(download: &Download) -> bool {
    matches!(download.status, Status::Completed | Status::Failed | Status::Canceled)
}

/// Settings for tests, with these instead where they say otherwise.
fn settings(overrides: &str) -> Arc<Settings> {
    let mut text = overrides.to_owned();
    for (key, value) in [
        ("outbound.allow", "['127.0.0.0/8']"),
        ("outbound.ports", "[]"),
        ("downloads.retry_base", "'100ms'"),
        ("downloads.retry_max", "'400ms'"),
        ("leases.duration", "'3s'"),
        ("files.trash_grace", "'0s'"),
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

pub(super) fn create(url: &str) -> CreateDownload {
    CreateDownload {
        url: url.to_owned(),
        file_name: None,
        folder: None,
        headers: std::collections::BTreeMap::new(),
        checksum: None,
        max_connections: None,
        priority: None,
        start_at: None,
        max_attempts: None,
    }
}
