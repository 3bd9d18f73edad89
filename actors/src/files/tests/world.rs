//! A drive of its own for a test: PostgreSQL, an object store, the operations, and a purger that is run by hand.

use std::time::Duration;

use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, IdSource, Metrics};
use bowerbird_nats::{
    AccountId, DownloadId, FileId, SessionId, account::Role, answer::Call, credential::Caller, file::File, file::GetFile,
};
use bowerbird_storage::{Bucket, BucketOptions, embedded};
use bowerbird_testkit::TestDatabase;
use sqlx::PgPool;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    accounts::hashing::Hashing,
    alarms::{AlarmsAddress, Due, Wakes},
    events::Bell,
    files::{
        Files, Foundation, Requests,
        purger::Purger,
        store::{self, NewFile},
    },
    metrics::Meters,
    requests::{Limits, Pool},
};

pub(super) const PATIENCE: Duration = Duration::from_mins(1);
pub(super) const QUOTA: i64 = 1 << 30;

pub(super) struct World {
    pub(super) pool: PgPool,
    pub(super) bucket: Bucket,
    pub(super) requests: Requests,
    pub(super) files: Files,
    pub(super) purger: Purger,
    _database: TestDatabase,
    _store: embedded::Running,
    _objects: TempDir,
}

impl World {
    pub(super) async fn new() -> World {
        World::with("").await
    }

    /// With settings (TOML) over the defaults.
    pub(super) async fn with(overrides: &str) -> World {
        let settings = Settings::with_overrides(overrides).unwrap();
        let database = TestDatabase::new().await;
        let objects = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = embedded::Options::new(objects.path(), "key", "secret", "bowerbird");
        let store = embedded::serve(options, listener, None, CancellationToken::new()).await.unwrap();
        let endpoint: url::Url = format!("http://{}", store.address()).parse().unwrap();
        let bucket = Bucket::connect(
            BucketOptions {
                endpoint: endpoint.clone(),
                public_endpoint: endpoint,
                region: "us-east-1".to_owned(),
                bucket: "bowerbird".to_owned(),
                access_key_id: "key".to_owned(),
                secret_access_key: "secret".to_owned(),
                path_style: true,
                clock: Clock::system(),
            },
            PATIENCE,
        )
        .await
        .unwrap();
        let (pool, bell, meters) = (database.pool(), Bell::default(), Meters::register(&Metrics::default()));
        let files = Files::new(Foundation {
            settings: &settings,
            pool: pool.clone(),
            bucket: bucket.clone(),
            bell: bell.clone(),
            meters: meters.clone(),
            workers: Pool::new("file", Limits::default(), meters.clone(), bell.clone()),
            strangers: Pool::new("stranger", Limits::default(), meters.clone(), bell.clone()),
            alarms: AlarmsAddress::default(),
            hashing: Hashing::new(&settings.auth, meters.clone()).unwrap(),
            clock: Clock::system(),
            master_key: &[7; 32],
        });
        let purger = Purger { pool: pool.clone(), bucket: bucket.clone(), bell, meters };
        World {
            pool,
            bucket,
            requests: files.requests.clone(),
            files,
            purger,
            _database: database,
            _store: store,
            _objects: objects,
        }
    }

    pub(super) async fn account(&self) -> Caller {
        let id = IdSource.next();
        sqlx::query("INSERT INTO accounts (id, account_name, role, quota_bytes, created_at, updated_at) VALUES ($1, $2, 'user', $3, now(), now())")
            .bind(id)
            .bind(format!("a{}", &id.simple().to_string()[2..]))
            .bind(QUOTA)
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

    /// A file with this content, as a download makes one.
    pub(super) async fn file(&self, caller: Caller, folder: &str, name: &str, content: &str) -> File {
        let (id, account) = (FileId(IdSource.next()), caller.account_id);
        let key = format!("{account}/{id}/1");
        let stored = self.bucket.put(&key, content.as_bytes().to_vec(), Some("text/plain"), None).await.unwrap();
        let mut transaction = self.pool.begin().await.unwrap();
        store::enqueue(&mut transaction, account, 1_000_000).await.unwrap();
        let new = NewFile {
            id,
            account_id: account,
            name,
            folder,
            size_bytes: i64::try_from(content.len()).unwrap(),
            content_type: "text/plain",
            sha256: None,
            crc64: 0,
            etag: &stored.etag,
            object_key: &key,
            download_id: DownloadId(IdSource.next()),
            reserved_bytes: 0,
        };
        store::add(&mut transaction, &new).await.unwrap();
        transaction.commit().await.unwrap();
        self.get(caller, id).await.unwrap()
    }

    pub(super) async fn get(&self, caller: Caller, id: FileId) -> Option<File> {
        self.requests.clone().get(call(caller, GetFile { id })).await.ok()
    }

    /// What the object of a file holds; None without one.
    pub(super) async fn content(&self, id: FileId) -> Option<String> {
        let key: Option<String> =
            sqlx::query_scalar("SELECT object_key FROM files WHERE id = $1").bind(id.0).fetch_optional(&self.pool).await.unwrap();
        let stream = self.bucket.get(&key?, None).await.ok()?;
        Some(String::from_utf8(stream.collect(1 << 20).await.unwrap().to_vec()).unwrap())
    }

    /// Wake every alarm of this area that is due, as the alarms do it: with its removal, in one transaction.
    pub(super) async fn wake(&self) {
        for wakes in self.files.wakes() {
            self.wake_one(&*wakes).await;
        }
    }

    async fn wake_one(&self, wakes: &dyn Wakes) {
        let mut transaction = self.pool.begin().await.unwrap();
        let due: Vec<(Uuid, OffsetDateTime, i64, OffsetDateTime)> = sqlx::query_as(
            "DELETE FROM alarms WHERE ctid = ANY (ARRAY(SELECT ctid FROM alarms WHERE kind = $1 AND wake_at <= now() \
             ORDER BY wake_at LIMIT 100 FOR UPDATE SKIP LOCKED)) RETURNING subject_id, due_at, version, now()",
        )
        .bind(wakes.kind().as_str())
        .fetch_all(&mut *transaction)
        .await
        .unwrap();
        let due: Vec<Due> =
            due.into_iter().map(|(subject_id, due_at, version, now)| Due { subject_id, due_at, version, now }).collect();
        if !due.is_empty() {
            wakes.wake(&mut transaction, &due).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }

    /// Let the purger do all that it can.
    pub(super) async fn purge(&self) {
        while self.purger.work().await > 0 {}
    }

    /// Everything that this account has in the bucket.
    pub(super) async fn keys(&self, caller: Caller) -> Vec<String> {
        let listed = self.bucket.list(&format!("{}/", caller.account_id), None, 1000).await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    }

    /// Stored bytes and files.
    pub(super) async fn usage(&self, caller: Caller) -> (i64, i64) {
        let usage = store::usage(&self.pool, caller.account_id).await.unwrap();
        assert_eq!((usage.reserved_bytes, usage.unfinished_downloads), (0, 0));
        (usage.stored_bytes, usage.files)
    }

    /// Types of the events of a thing, in their order.
    pub(super) async fn events(&self, thing: Uuid) -> Vec<String> {
        sqlx::query_scalar("SELECT event_type FROM events WHERE entity_id = $1 ORDER BY entity_sequence")
            .bind(thing)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }
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
