//! A gateway with everything around it: a nats-server, a signing key, and a service that answers what the test wrote.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use bowerbird_config::Settings;
use bowerbird_gateway::{Parts, Running};
use bowerbird_lifecycle::{Clock, Health, IdSource, Metrics, Shutdown, Tasks};
use bowerbird_nats::{
    Call, Limit, Operation, Problem, Verifier,
    account::{GetAccount, GetUsage, Register, RequestEmailVerification, UpdateAccount, VerifyEmail},
    archive::{BeginArchive, LinkArchived, ListArchive},
    bus::{Bus, Options},
    dead_letter::{DeleteDeadLetter, GetDeadLetter, ListDeadLetters, ReplayDeadLetter},
    download::{CancelDownload, CreateDownload, DeleteDownload, GetDownload, ListDownloads, RetryDownload, UpdateDownload},
    file::{BulkFiles, CopyFile, DeleteFile, GetFile, ListFiles, ListVersions, PresignFile, RestoreVersion, UpdateFile},
    folder::{CreateFolder, DeleteFolder, GetFolder, ListFolder, UpdateFolder},
    key::{KeySet, PublicKey},
    notification::{ChangeSettings, GetSettings, ListNotifications, ReadAllNotifications, ReadNotification, Unsubscribe},
    reconciliation::Reconcile,
    reminder::{
        CancelReminder, CompleteReminder, CreateReminder, GetReminder, ListReminders, SkipReminder, SnoozeReminder,
        UpdateReminder,
    },
    session::{Login, Logout, Refresh},
    share::{CreateShare, FetchShare, ListShares, OpenShare, RevokeShare, UnlockShare},
    statistics::{GetStatistics, GetSystemStatistics},
    sweep::{ListSweeps, RunSweep},
    trash::{ListTrash, PurgeTrashed, RestoreTrashed},
    upload::{AbortUpload, CompleteUpload, CreateUpload, GetUpload, LinkUpload, ListUploads},
    webhook::{
        CreateWebhook, DeleteWebhook, GetWebhook, GetWebhookDelivery, ListWebhookDeliveries, ListWebhooks, RetryWebhookDelivery,
        RotateWebhookSecret, TestWebhook, UpdateWebhook,
    },
};
use bowerbird_outbound::{Client, Timeouts};
use bowerbird_testkit::{NatsServer, http::Http};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

pub(crate) const ACCOUNT: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789ab";
pub(crate) const SESSION: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789ac";
pub(crate) const REMINDER: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789af";
pub(crate) const DOWNLOAD: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789ad";
pub(crate) const FILE: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789ae";
pub(crate) const FOLDER: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789b2";
pub(crate) const SHARE: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789b3";
pub(crate) const LETTER: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789a9";
pub(crate) const UPLOAD: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789b2";
pub(crate) const WEBHOOK: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789b0";
pub(crate) const DELIVERY: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789b1";
pub(crate) const NOTIFICATION: &str = "0198c0de-7a2b-7c3d-8e4f-0123456789af";
const ISSUER: &str = "https://door.test";

/// What the actors were asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// `download.create`
    pub(crate) operation: String,
    pub(crate) request: Value,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) request_id: String,
    pub(crate) account: Option<String>,
}

#[derive(Default)]
struct Script {
    replies: Mutex<HashMap<String, Result<Value, Problem>>>,
    asked: Mutex<Vec<Asked>>,
    /// Operations that never answer.
    silent: Mutex<Vec<String>>,
}

impl Script {
    async fn answer<O: Operation>(self: Arc<Self>, call: Call<O>) -> Result<O::Reply, Problem> {
        let operation = format!("{}.{}", O::AREA, O::NAME);
        self.asked.lock().unwrap().push(Asked {
            operation: operation.clone(),
            request: serde_json::to_value(&call.request).unwrap(),
            idempotency_key: call.idempotency_key.clone(),
            request_id: call.request_id.clone(),
            account: call.caller.map(|caller| caller.account_id.to_string()),
        });
        if self.silent.lock().unwrap().contains(&operation) {
            std::future::pending::<()>().await;
        }
        let reply = self.replies.lock().unwrap().get(&operation).cloned();
        let reply = reply.unwrap_or_else(|| panic!("the test has no reply for {operation}"))?;
        Ok(serde_json::from_value(reply).unwrap())
    }
}

pub(crate) struct Stage {
    pub(crate) nats: NatsServer,
    pub(crate) running: Running,
    pub(crate) http: Http,
    pub(crate) health: Health,
    pub(crate) clock: Clock,
    pub(crate) shutdown: Shutdown,
    pub(crate) tasks: Tasks,
    script: Arc<Script>,
    key: Arc<RsaKeyPair>,
    stop_service: CancellationToken,
}

impl Stage {
    pub(crate) async fn set() -> Stage {
        Stage::with("").await
    }

    /// With settings (TOML) over the defaults.
    pub(crate) async fn with(overrides: &str) -> Stage {
        Stage::with_store(overrides, &Url::parse("http://127.0.0.1:9").unwrap()).await
    }

    /// With an object store that internal links lead to.
    pub(crate) async fn with_store(overrides: &str, store: &Url) -> Stage {
        let nats = NatsServer::start().await;
        let clock = Clock::system();
        let key = Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        let verifier = verifier(&clock, &key);
        let script = Arc::new(Script::default());
        let stop_service = CancellationToken::new();
        serve_script(&bus(&nats, "actors").await, verifier.clone(), &script, stop_service.clone()).await;

        let (shutdown, tasks, health) = (Shutdown::default(), Tasks::default(), Health::default());
        let timeouts = Timeouts { stall: Duration::from_secs(5), ..Timeouts::default() };
        let parts = Parts {
            settings: Arc::new(Settings::with_overrides(overrides).unwrap()),
            bus: bus(&nats, "gateway").await,
            verifier,
            health: health.clone(),
            metrics: Metrics::default(),
            shutdown: shutdown.clone(),
            tasks: tasks.clone(),
            ids: IdSource,
            object_client: Client::internal(store, timeouts).unwrap(),
        };
        let listener = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
        let running = bowerbird_gateway::serve(parts, listener().await, listener().await).await.unwrap();
        let http = Http::new(running.api.to_string());
        Stage { nats, running, http, health, clock, shutdown, tasks, script, key, stop_service }
    }

    /// What the actors answer to an operation from now on.
    pub(crate) fn reply(&self, operation: &str, reply: Value) {
        self.script.replies.lock().unwrap().insert(operation.to_owned(), Ok(reply));
    }

    /// What they refuse it with.
    pub(crate) fn refuse(&self, operation: &str, problem: Problem) {
        self.script.replies.lock().unwrap().insert(operation.to_owned(), Err(problem));
    }

    /// They never answer it.
    pub(crate) fn keep_silent(&self, operation: &str) {
        self.script.silent.lock().unwrap().push(operation.to_owned());
    }

    /// What was asked since the last time this was called.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.script.asked.lock().unwrap())
    }

    /// A connection of its own to the bus, with everything in place that is published to.
    pub(crate) async fn publisher(&self) -> Bus {
        let bus = bus(&self.nats, "publisher").await;
        bus.ensure_topology().await.unwrap();
        bus
    }

    /// Nobody answers any more.
    pub(crate) fn stop_actors(&self) {
        self.stop_service.cancel();
    }

    /// A client with a good token.
    pub(crate) fn caller(&self) -> Http {
        self.http.with_token(&self.token(300))
    }

    /// A client with the token of an administrator.
    pub(crate) fn administrator(&self) -> Http {
        self.http.with_token(&self.token_of("admin", 300))
    }

    /// A token that expires in so many seconds; issued ten minutes before.
    pub(crate) fn token(&self, expires_in: i64) -> String {
        self.token_of("user", expires_in)
    }

    fn token_of(&self, role: &str, expires_in: i64) -> String {
        let now = self.clock.now().unix_timestamp();
        let claims = json!({
            "iss": ISSUER, "aud": "bowerbird", "sub": ACCOUNT, "client_id": "bowerbird", "iat": now - 600, "exp": now + expires_in,
            "jti": SESSION, "sid": SESSION, "role": role,
        });
        let part = |value: &Value| BASE64.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "typ": "at+jwt", "alg": "RS256", "kid": "k1" })), part(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

fn verifier(clock: &Clock, key: &RsaKeyPair) -> Verifier {
    let clock = clock.clone();
    let verifier = Verifier::new(ISSUER.into(), "bowerbird".into(), Arc::new(move || clock.now()));
    let public = key.public_key();
    let part = |bytes: &[u8]| BASE64.encode(bytes);
    verifier.set_keys(&KeySet {
        keys: vec![PublicKey {
            kid: "k1".into(),
            kty: "RSA".into(),
            usage: "sig".into(),
            alg: "RS256".into(),
            n: part(public.modulus().big_endian_without_leading_zero()),
            e: part(public.exponent().big_endian_without_leading_zero()),
        }],
    });
    verifier
}

async fn bus(nats: &NatsServer, name: &str) -> Bus {
    let options = Options { url: nats.url(), prefix: "bowerbird".into(), replicas: 1, name: name.into(), ..Options::default() };
    Bus::connect(options, Duration::from_secs(20)).await.unwrap()
}

async fn serve_script(bus: &Bus, verifier: Verifier, script: &Arc<Script>, stop: CancellationToken) {
    macro_rules! service {
        ($($operation:ty),* $(,)?) => {
            bus.service("in place of the actors", "1.0.0", verifier)
                $(.endpoint(Limit { concurrency: 64, queue: 64 }, {
                    let script = Arc::clone(script);
                    move |call: Call<$operation>| Arc::clone(&script).answer(call)
                }))*
                .start(stop)
                .await
                .unwrap()
        };
    }
    let running = service![
        Register,
        GetAccount,
        UpdateAccount,
        GetUsage,
        Login,
        Refresh,
        Logout,
        CreateUpload,
        GetUpload,
        ListUploads,
        LinkUpload,
        CompleteUpload,
        AbortUpload,
        Reconcile,
        CreateDownload,
        GetDownload,
        ListDownloads,
        UpdateDownload,
        CancelDownload,
        RetryDownload,
        DeleteDownload,
        GetFile,
        ListFiles,
        UpdateFile,
        DeleteFile,
        CopyFile,
        BulkFiles,
        ListVersions,
        RestoreVersion,
        PresignFile,
        CreateFolder,
        GetFolder,
        ListFolder,
        UpdateFolder,
        DeleteFolder,
        BeginArchive,
        ListArchive,
        LinkArchived,
        CreateShare,
        ListShares,
        RevokeShare,
        OpenShare,
        UnlockShare,
        FetchShare,
        ListSweeps,
        RunSweep,
        ListTrash,
        RestoreTrashed,
        PurgeTrashed,
        GetStatistics,
        GetSystemStatistics,
        ListDeadLetters,
        GetDeadLetter,
        ReplayDeadLetter,
        DeleteDeadLetter,
        CreateReminder,
        GetReminder,
        ListReminders,
        UpdateReminder,
        SnoozeReminder,
        SkipReminder,
        CompleteReminder,
        CancelReminder,
        CreateWebhook,
        GetWebhook,
        ListWebhooks,
        UpdateWebhook,
        DeleteWebhook,
        TestWebhook,
        RotateWebhookSecret,
        ListWebhookDeliveries,
        GetWebhookDelivery,
        RetryWebhookDelivery,
        ListNotifications,
        ReadNotification,
        ReadAllNotifications,
        GetSettings,
        ChangeSettings,
        Unsubscribe,
        RequestEmailVerification,
        VerifyEmail,
    ];
    // It runs as long as the test.
    std::mem::forget(running);
}

pub(crate) fn download() -> Value {
    json!({
        "id": DOWNLOAD, "url": "https://example.org/a.iso", "folder": "/", "status": "queued", "received_bytes": 0,
        "bytes_per_second": 0, "connections": 0, "priority": 5, "attempt": 0, "max_attempts": 8, "verified": "none",
        "created_at": "2026-11-20T12:00:00Z",
    })
}

pub(crate) fn upload() -> Value {
    json!({
        "id": UPLOAD, "file_name": "a.iso", "size_bytes": 5, "status": "pending", "kind": "single",
        "transfer": {
            "kind": "single", "method": "PUT", "url": "http://bucket/x?sig=1", "headers": { "if-none-match": "*" },
            "expires_at": "2026-11-20T12:15:00Z",
        },
        "expires_at": "2026-11-21T12:00:00Z", "created_at": "2026-11-20T12:00:00Z",
    })
}

pub(crate) fn transfer() -> Value {
    json!({
        "kind": "multipart", "method": "PUT", "part_size_bytes": 9, "missing_parts": 2, "next_after_part": 1,
        "parts": [{ "part_number": 1, "size_bytes": 9, "url": "http://bucket/x?sig=1", "headers": { "content-length": "9" } }],
        "expires_at": "2026-11-20T12:15:00Z",
    })
}

pub(crate) fn report() -> Value {
    json!({
        "dry_run": true, "started_at": "2026-11-20T12:00:00Z", "finished_at": "2026-11-20T12:00:01Z", "uploads": 1, "landed": 2,
        "objects": 3, "orphans": 4, "young": 5, "foreign": 6, "missing": 7, "found": 8, "abandoned_parts": 9, "orphan_bytes": 10,
    })
}

pub(crate) fn file(size_bytes: u64) -> Value {
    json!({
        "id": FILE, "name": "Über \"uns\".html", "folder": "/", "size_bytes": size_bytes, "content_type": "text/html",
        "etag": "abc", "status": "available", "source": "download", "download_id": DOWNLOAD,
        "version": 1, "created_at": "2026-11-20T12:00:00Z", "updated_at": "2026-11-20T12:00:00Z",
    })
}

pub(crate) fn folder() -> Value {
    json!({
        "id": FOLDER, "name": "films", "path": "/films", "parent_id": FILE, "version": 1, "created_at": "2026-11-20T12:00:00Z",
        "updated_at": "2026-11-20T12:00:00Z",
    })
}

pub(crate) fn file_version() -> Value {
    json!({
        "id": SHARE, "size_bytes": 3, "content_type": "text/plain", "replaced_at": "2026-11-20T12:00:00Z",
        "expires_at": "2026-12-20T12:00:00Z",
    })
}

pub(crate) fn share() -> Value {
    json!({
        "id": SHARE, "file_id": FILE, "name": "a", "has_password": false, "downloads": 0, "created_at": "2026-11-20T12:00:00Z",
    })
}

pub(crate) fn trashed() -> Value {
    json!({
        "kind": "file", "id": FILE, "name": "a", "folder": "/", "size_bytes": 3, "files": 1, "deleted_at": "2026-11-20T12:00:00Z",
        "purge_after": "2026-12-20T12:00:00Z",
    })
}

pub(crate) fn dead_letter() -> Value {
    json!({
        "id": LETTER, "stream": "EVENTS", "consumer": "statistics", "subject": "a.b", "reason": "because", "deliveries": 1,
        "size_bytes": 2, "refused_at": "2026-11-20T12:00:00Z",
    })
}

pub(crate) fn statistics() -> Value {
    let counts = json!({
        "downloads_queued": 1, "downloads_completed": 1, "downloads_failed": 1, "downloads_canceled": 1, "downloaded_bytes": 1,
        "files_made": 1, "files_made_bytes": 1, "files_purged": 1, "files_purged_bytes": 1, "reminders_fired": 1,
        "notifications_delivered": 1, "notifications_failed": 1, "sessions_opened": 1, "accounts_registered": 1, "events": 11,
    });
    json!({
        "from": "2026-11-20", "to": "2026-11-20", "days": [{ "day": "2026-11-20", "counts": counts }], "total": counts,
    })
}

pub(crate) fn reminder() -> Value {
    json!({
        "id": REMINDER, "title": "Film", "status": "scheduled", "due_at": "2026-12-24T07:00:00Z", "channels": ["inbox"],
        "next_fire_at": "2026-12-24T07:00:00Z", "fired": 0, "version": 1, "created_at": "2026-11-20T12:00:00Z",
        "updated_at": "2026-11-20T12:00:00Z",
    })
}

pub(crate) fn webhook() -> Value {
    json!({
        "id": WEBHOOK, "url": "https://example.org/hook", "event_types": ["download.*"], "status": "enabled",
        "created_at": "2026-11-20T12:00:00Z", "updated_at": "2026-11-20T12:00:00Z",
    })
}

pub(crate) fn delivery() -> Value {
    json!({
        "id": DELIVERY, "webhook_id": WEBHOOK, "event_type": "download.completed", "status": "pending", "attempts_made": 0,
        "created_at": "2026-11-20T12:00:00Z",
    })
}

pub(crate) fn account() -> Value {
    json!({
        "id": ACCOUNT, "account_name": "ada", "email_verified": false, "role": "user", "quota_bytes": 1024, "created_at": "2026-11-20T12:00:00Z",
    })
}

pub(crate) fn token_pair() -> Value {
    json!({
        "access_token": "a.b.c", "token_type": "Bearer", "expires_in": 300, "refresh_token": "r", "refresh_expires_in": 604_800,
        "session_id": SESSION, "account_id": ACCOUNT,
    })
}

pub(crate) fn usage() -> Value {
    json!({ "stored_bytes": 1, "reserved_bytes": 2, "quota_bytes": 3, "files": 4, "unfinished_downloads": 5 })
}

pub(crate) fn notification() -> Value {
    json!({
        "id": NOTIFICATION, "event_id": DOWNLOAD, "event_type": "download.completed", "entity_id": DOWNLOAD,
        "title": "Downloaded: a.iso", "occurred_at": "2026-11-20T12:00:00Z", "created_at": "2026-11-20T12:00:00Z",
    })
}

pub(crate) fn notification_settings() -> Value {
    json!({ "events": { "download.completed": ["inbox", "email"] }, "email": true, "email_status": "unverified" })
}
