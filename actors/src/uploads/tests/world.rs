//! A world of its own for a test: PostgreSQL, NATS, an object store that notifies over NATS, well or badly, and as many nodes
//! as it wants, each on a runtime of its own, so that one can be killed without a farewell.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, IdSource, Metrics};
use bowerbird_nats::{
    AccountId, Bus, FileId, Problem, SessionId, UploadId,
    account::Role,
    answer::Call,
    bus::Options as BusOptions,
    credential::Caller,
    file::{File, GetFile},
    id::NodeId,
    reconciliation::{Reconcile, Report},
    upload::{CreateUpload, GetUpload, Transfer, Upload},
};
use bowerbird_storage::{
    Bucket, BucketOptions,
    embedded::{self, BoxFuture, Notifier, NotifyError},
};
use bowerbird_testkit::{NatsServer, TestDatabase, eventually};
use bytes::Bytes;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    accounts::hashing::Hashing,
    alarms::{Alarms, AlarmsAddress, Pace},
    events::Bell,
    files::{self, Files},
    ingest::{self, Ingest, Landing, Reconciler},
    metrics::Meters,
    requests::{Limits, Pool},
    supervision::{self, Root, Supervisor},
    uploads::{Foundation, Requests, Uploads},
};

/// Longest that anything here may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
pub(super) const BUCKET: &str = "bowerbird";
const MASTER_KEY: [u8; 32] = [7; 32];

/// What all nodes share.
pub(super) struct World {
    pub(super) database: TestDatabase,
    pub(super) nats: NatsServer,
    pub(super) bus: Bus,
    pub(super) bucket: Bucket,
    pub(super) pool: PgPool,
    pub(super) messenger: Arc<Messenger>,
    bucket_options: BucketOptions,
    stop_store: CancellationToken,
    store: Mutex<Option<embedded::Running>>,
    _objects: TempDir,
}

/// Carries notifications, or does not.
pub(super) struct Messenger {
    bus: Bus,
    pub(super) silent: AtomicBool,
    /// Drops some, sends some twice, and holds some back until others have passed.
    pub(super) careless: AtomicBool,
    held: Mutex<Vec<Bytes>>,
}

/// One node.
pub(super) struct Node {
    pub(super) requests: Requests,
    pub(super) files: files::Requests,
    pub(super) reconciler: Reconciler,
    pub(super) landing: Landing,
    root: Option<Root>,
    runtime: Option<Runtime>,
}

impl Messenger {
    async fn send(&self, payload: Bytes) {
        // Each with an id of its own: JetStream is not to recognise what comes twice.
        self.bus.publish_object(payload, &IdSource.next().to_string()).await.unwrap();
    }

    /// Sends what is held back.
    pub(super) async fn let_go(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        for payload in held {
            self.send(payload).await;
        }
    }
}

impl Notifier for Messenger {
    fn publish(&self, payload: Bytes, _: String) -> BoxFuture<'_, Result<(), NotifyError>> {
        Box::pin(async move {
            if self.silent.load(Ordering::Acquire) {
                return Ok(());
            }
            if !self.careless.load(Ordering::Acquire) {
                self.send(payload).await;
                return Ok(());
            }
            match rand::random_range(0..10) {
                0..3 => {}
                3..6 => {
                    self.send(payload.clone()).await;
                    self.held.lock().unwrap().push(payload);
                }
                6..8 => self.held.lock().unwrap().push(payload),
                _ => self.send(payload).await,
            }
            if self.held.lock().unwrap().len() > 20 {
                self.let_go().await;
            }
            Ok(())
        })
    }
}

async fn bus(nats: &NatsServer, name: &str) -> Bus {
    let options = BusOptions {
        url: nats.url(),
        user: None,
        credentials_file: None,
        prefix: "test".to_owned(),
        replicas: 1,
        name: name.to_owned(),
    };
    let bus = Bus::connect(options, PATIENCE).await.unwrap();
    bus.ensure_topology().await.unwrap();
    bus
}

impl World {
    pub(super) async fn new() -> World {
        let (database, nats) = tokio::join!(TestDatabase::new(), NatsServer::start());
        let bus = bus(&nats, "the world").await;
        let messenger =
            Arc::new(Messenger { bus: bus.clone(), silent: false.into(), careless: false.into(), held: Mutex::default() });
        let objects = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = embedded::Options::new(objects.path(), "key", "secret", BUCKET);
        let stop_store = CancellationToken::new();
        let notifier: Arc<dyn Notifier> = Arc::clone(&messenger) as _;
        let store = embedded::serve(options, listener, Some(notifier), stop_store.clone()).await.unwrap();
        let endpoint: Url = format!("http://{}", store.address()).parse().unwrap();
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
        World {
            pool: database.pool(),
            database,
            nats,
            bus,
            bucket,
            messenger,
            bucket_options,
            stop_store,
            store: Some(store).into(),
            _objects: objects,
        }
    }

    /// The object store is away from now on.
    pub(super) async fn stop_store(&self) {
        self.stop_store.cancel();
        let store = self.store.lock().unwrap().take();
        assert!(store.unwrap().stopped(PATIENCE).await, "the object store stops");
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

    /// A node with these settings.
    pub(super) async fn node(&self, overrides: &str) -> Node {
        let settings = Arc::new(Settings::with_overrides(overrides).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (url, nats, bucket_options) = (self.database.url().to_owned(), self.nats.url(), self.bucket_options.clone());
        let started = runtime.spawn(async move {
            let pool = PgPoolOptions::new().max_connections(16).connect(&url).await.unwrap();
            let options = BusOptions {
                url: nats,
                user: None,
                credentials_file: None,
                prefix: "test".to_owned(),
                replicas: 1,
                name: format!("test {}", NodeId(IdSource.next())),
            };
            let bus = Bus::connect(options, PATIENCE).await.unwrap();
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
                clock: clock.clone(),
                master_key: &MASTER_KEY,
            });
            let ingest = Ingest::new(ingest::Foundation {
                settings: &settings,
                pool: pool.clone(),
                bus: bus.clone(),
                bucket: bucket.clone(),
                bell: bell.clone(),
                meters: meters.clone(),
                workers: workers("sweep"),
                purger: files.purger(),
            })
            .unwrap();
            let uploads = Uploads::new(Foundation {
                settings: &settings,
                pool: pool.clone(),
                bucket,
                ids: IdSource,
                workers: workers("upload"),
                purger: files.purger(),
                landing: ingest.landing(),
                master_key: &MASTER_KEY,
            });
            let area = |name: &str, children: Vec<supervision::ChildSpec>| {
                Supervisor::child(name, clock.clone(), move || children.clone())
            };
            let alarms = Alarms::new(
                pool,
                bus,
                bell,
                meters,
                [vec![ingest.wakes()], files.wakes()].concat(),
                Pace { horizon: Duration::from_hours(1), poll: Duration::from_millis(200) },
                alarms_address,
            );
            let children = vec![
                area("files", files.children(&clock)),
                area("uploads", uploads.children(&clock)),
                area("ingest", ingest.children(&clock)),
                alarms.child(),
            ];
            let root = supervision::start("test", children, clock.clone()).await.unwrap();
            (uploads.requests.clone(), files.requests.clone(), ingest.reconciler(), ingest.landing(), root)
        });
        let (requests, files, reconciler, landing, root) = started.await.unwrap();
        Node { requests, files, reconciler, landing, root: Some(root), runtime: Some(runtime) }
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
        let prefix = format!("{}/", caller.account_id);
        self.bucket.list(&prefix, None, 1000).await.unwrap().into_iter().map(|object| object.key).collect()
    }

    /// Uploads in parts below an account that are neither completed nor aborted.
    pub(super) async fn begun(&self, caller: Caller) -> usize {
        self.bucket.list_uploads(&format!("{}/", caller.account_id), 1000).await.unwrap().len()
    }

    /// Stored bytes, reserved bytes, files, unfinished uploads.
    pub(super) async fn usage(&self, caller: Caller) -> (i64, i64, i64, i64) {
        sqlx::query_as("SELECT stored_bytes, reserved_bytes, files, unfinished_uploads FROM account_usage WHERE account_id = $1")
            .bind(caller.account_id.0)
            .fetch_optional(&self.pool)
            .await
            .unwrap()
            .unwrap_or_default()
    }

    pub(super) async fn run(&self, statement: &'static str) -> u64 {
        sqlx::query(statement).execute(&self.pool).await.unwrap().rows_affected()
    }

    pub(super) async fn key_of(&self, id: UploadId) -> String {
        sqlx::query_scalar("SELECT object_key FROM uploads WHERE id = $1").bind(id.0).fetch_one(&self.pool).await.unwrap()
    }
}

impl Node {
    /// `kill -9`: nothing that runs here gets to say anything.
    pub(super) fn kill(mut self) {
        self.end();
    }

    pub(super) async fn create(&self, caller: Caller, content: &[u8]) -> Upload {
        self.try_create(caller, announce(content.len())).await.unwrap()
    }

    pub(super) async fn try_create(&self, caller: Caller, request: CreateUpload) -> Result<Upload, Problem> {
        self.requests.clone().create(call(caller, request)).await
    }

    pub(super) async fn get(&self, caller: Caller, id: UploadId) -> Upload {
        self.requests.clone().get(call(caller, GetUpload { id })).await.unwrap()
    }

    /// Wait until it is as `fits` wants it.
    pub(super) async fn until(&self, caller: Caller, id: UploadId, what: &str, fits: impl Fn(&Upload) -> bool) -> Upload {
        eventually(PATIENCE, what, async || {
            let upload = self.get(caller, id).await;
            fits(&upload).then_some(upload)
        })
        .await
    }

    pub(super) async fn file(&self, caller: Caller, id: FileId) -> File {
        self.files.clone().get(call(caller, GetFile { id })).await.unwrap()
    }

    pub(super) async fn reconcile(&self, dry_run: bool) -> Report {
        self.reconciler.now(Reconcile { dry_run, force: false }).await.unwrap()
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.root.take();
        self.end();
    }
}

pub(super) fn announce(size: usize) -> CreateUpload {
    CreateUpload { file_name: "a.txt".to_owned(), size_bytes: i64::try_from(size).unwrap(), content_type: None, sha256: None }
}

pub(super) fn digest(content: &[u8]) -> String {
    crate::downloads::row::hexadecimal(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content).as_ref())
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

/// Send what a link says. The status of the answer; 0 when there was none.
pub(super) async fn put(transfer: &Transfer, content: &[u8]) -> u16 {
    let headers: Vec<(&str, &str)> = transfer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    send(&transfer.method, transfer.url.as_deref().unwrap(), &headers, content).await
}

/// Send anything. A `content-length` among the headers is believed, whatever the body is.
pub(super) async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> u16 {
    use std::fmt::Write as _;

    let url = Url::parse(url).unwrap();
    let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut head =
        format!("{method} {}?{} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", url.path(), url.query().unwrap_or_default());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head.push_str("\r\n");
    #[expect(clippy::disallowed_methods, reason = "a raw client for our own listener")]
    let mut stream = TcpStream::connect(&host).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer and hang up before it has read the body.
    let _ = stream.write_all(body).await;
    let declared = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if declared.is_some_and(|(_, length)| length.parse().is_ok_and(|length: usize| length > body.len())) {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or(0)
}

/// Whether the proofs are to run at full length.
#[expect(clippy::disallowed_methods, reason = "`make prove` chooses the size of the proof")]
pub(super) fn proving() -> bool {
    std::env::var("BOWERBIRD_PROVE").is_ok()
}
