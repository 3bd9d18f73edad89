//! A sink and a ledger in memory, with the semantics of the real ones, and engines that lose patience quickly.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bowerbird_lifecycle::Clock;
use bowerbird_outbound::{
    AddressPolicy, Client, ClientOptions, Completed, Engine, Ledger, LedgerError, MemoryBudget, PartRecord, Patience, PlanRecord,
    Progress, RestartReason, Resume, Sink, SinkAnswer, SinkError, Stopped, Stored, Timeouts, Transfer, TransferError,
    ledger::LedgerAnswer,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

pub(crate) const PART: u64 = 64 * 1024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

#[derive(Default)]
pub(crate) struct Upload {
    parts: BTreeMap<u32, (String, Bytes, u64)>,
}

/// One key of an object store.
#[derive(Default)]
pub(crate) struct MemorySink {
    pub(crate) object: Mutex<Option<Bytes>>,
    pub(crate) uploads: Mutex<BTreeMap<String, Upload>>,
    pub(crate) counter: AtomicU64,
    pub(crate) parts_stored: AtomicUsize,
    pub(crate) bytes_stored: AtomicU64,
    pub(crate) wholes: AtomicUsize,
    pub(crate) read_backs: AtomicUsize,
    /// Every part takes so long.
    pub(crate) delay: Duration,
    /// So many calls for parts fail first.
    pub(crate) failures: AtomicUsize,
    /// The upload is lost before this part is stored, once.
    pub(crate) lose_upload_at: AtomicUsize,
    /// Canceled when so many parts are stored.
    pub(crate) cancel_at: Option<(usize, CancellationToken)>,
}

impl MemorySink {
    pub(crate) fn object(&self) -> Option<Bytes> {
        lock(&self.object).clone()
    }

    pub(crate) fn open_uploads(&self) -> usize {
        lock(&self.uploads).len()
    }

    fn etag(&self) -> String {
        format!("\"e{}\"", self.counter.fetch_add(1, Ordering::SeqCst))
    }
}

impl Sink for MemorySink {
    fn begin<'a>(&'a self, _: Option<&'a str>) -> SinkAnswer<'a, String> {
        async {
            let id = format!("upload-{}", self.counter.fetch_add(1, Ordering::SeqCst));
            lock(&self.uploads).insert(id.clone(), Upload::default());
            Ok(id)
        }
        .boxed()
    }

    fn part<'a>(&'a self, upload_id: &'a str, number: u32, body: Bytes, crc: u64) -> SinkAnswer<'a, String> {
        async move {
            tokio::time::sleep(self.delay).await;
            if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(SinkError::Unavailable("told to fail".into()));
            }
            if self.lose_upload_at.load(Ordering::SeqCst) == number as usize && number > 0 {
                self.lose_upload_at.store(0, Ordering::SeqCst);
                lock(&self.uploads).remove(upload_id);
            }
            if crc64(&body) != crc {
                return Err(SinkError::Refused("BadDigest".to_owned()));
            }
            let etag = self.etag();
            {
                let mut uploads = lock(&self.uploads);
                let upload = uploads.get_mut(upload_id).ok_or(SinkError::NoSuchUpload)?;
                self.bytes_stored.fetch_add(body.len() as u64, Ordering::SeqCst);
                // A copy, as a store makes it: the buffer belongs to the engine.
                upload.parts.insert(number, (etag.clone(), Bytes::copy_from_slice(&body), crc));
            }
            let stored = self.parts_stored.fetch_add(1, Ordering::SeqCst) + 1;
            if let Some((at, cancel)) = &self.cancel_at
                && stored >= *at
            {
                cancel.cancel();
            }
            Ok(etag)
        }
        .boxed()
    }

    fn put_whole<'a>(&'a self, _: Option<&'a str>, body: Bytes, crc: u64) -> SinkAnswer<'a, Stored> {
        async move {
            if crc64(&body) != crc {
                return Err(SinkError::Refused("BadDigest".to_owned()));
            }
            self.wholes.fetch_add(1, Ordering::SeqCst);
            *lock(&self.object) = Some(Bytes::copy_from_slice(&body));
            Ok(Stored { etag: self.etag() })
        }
        .boxed()
    }

    fn finish<'a>(&'a self, upload_id: &'a str, parts: &'a [PartRecord], size_bytes: u64, crc: u64) -> SinkAnswer<'a, Stored> {
        async move {
            let upload = lock(&self.uploads).remove(upload_id).ok_or(SinkError::NoSuchUpload)?;
            let mut whole = Vec::new();
            for (part, number) in parts.iter().zip(1..) {
                let (etag, bytes, part_crc) = upload.parts.get(&number).ok_or(SinkError::Refused("InvalidPart".to_owned()))?;
                if (part.number, &part.etag, part.size_bytes, part.crc64) != (number, etag, bytes.len() as u64, *part_crc) {
                    return Err(SinkError::Refused(format!("InvalidPart {number}")));
                }
                whole.extend_from_slice(bytes);
            }
            if whole.len() as u64 != size_bytes || crc64(&whole) != crc {
                return Err(SinkError::Refused("BadDigest of the whole".to_owned()));
            }
            *lock(&self.object) = Some(whole.into());
            Ok(Stored { etag: self.etag() })
        }
        .boxed()
    }

    fn abort<'a>(&'a self, upload_id: &'a str) -> SinkAnswer<'a, ()> {
        lock(&self.uploads).remove(upload_id);
        async { Ok(()) }.boxed()
    }

    fn read_back(&self) -> SinkAnswer<'_, BoxStream<'static, Result<Bytes, SinkError>>> {
        self.read_backs.fetch_add(1, Ordering::SeqCst);
        let object = self.object();
        async move {
            let object = object.ok_or(SinkError::Refused("NoSuchKey".to_owned()))?;
            let chunks: Vec<_> = object.chunks(100_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
            Ok(futures_util::stream::iter(chunks).boxed())
        }
        .boxed()
    }

    fn discard(&self) -> SinkAnswer<'_, ()> {
        *lock(&self.object) = None;
        async { Ok(()) }.boxed()
    }
}

/// A row of a database.
#[derive(Default)]
pub(crate) struct MemoryLedger {
    pub(crate) plan: Mutex<Option<PlanRecord>>,
    pub(crate) parts: Mutex<BTreeMap<u32, PartRecord>>,
    pub(crate) restarts: Mutex<Vec<RestartReason>>,
    pub(crate) progress: Mutex<Vec<Progress>>,
    /// Fenced from the so-manieth note of parts on; 0: never.
    pub(crate) fenced_at: AtomicUsize,
    /// So many notes fail first.
    pub(crate) failures: AtomicUsize,
    pub(crate) notes: AtomicUsize,
}

impl MemoryLedger {
    pub(crate) fn resume(&self) -> Option<Resume> {
        let plan = lock(&self.plan).clone()?;
        Some(Resume { plan, parts: lock(&self.parts).values().cloned().collect() })
    }

    pub(crate) fn restarts(&self) -> Vec<RestartReason> {
        lock(&self.restarts).clone()
    }
}

impl Ledger for MemoryLedger {
    fn adopt_upload<'a>(&'a self, plan: &'a PlanRecord) -> LedgerAnswer<'a> {
        async {
            *lock(&self.plan) = Some(plan.clone());
            lock(&self.parts).clear();
            Ok(())
        }
        .boxed()
    }

    fn record_parts<'a>(&'a self, parts: &'a [PartRecord]) -> LedgerAnswer<'a> {
        async {
            if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(LedgerError::Unavailable("told to fail".into()));
            }
            let note = self.notes.fetch_add(1, Ordering::SeqCst) + 1;
            let fenced_at = self.fenced_at.load(Ordering::SeqCst);
            if fenced_at > 0 && note >= fenced_at {
                return Err(LedgerError::Fenced);
            }
            lock(&self.parts).extend(parts.iter().map(|part| (part.number, part.clone())));
            Ok(())
        }
        .boxed()
    }

    fn restart(&self, reason: RestartReason) -> LedgerAnswer<'_> {
        lock(&self.restarts).push(reason);
        *lock(&self.plan) = None;
        lock(&self.parts).clear();
        async { Ok(()) }.boxed()
    }

    fn progress(&self, progress: Progress) {
        lock(&self.progress).push(progress);
    }
}

pub(crate) fn client() -> Client {
    let loopback = vec!["127.0.0.0/8".parse().expect("a network")];
    Client::new(ClientOptions {
        policy: AddressPolicy::new(loopback, Vec::new(), Vec::new(), Vec::new()),
        timeouts: Timeouts { first_byte: Duration::from_secs(2), stall: Duration::from_millis(300), ..Timeouts::default() },
        ..ClientOptions::default()
    })
    .expect("a client")
}

pub(crate) fn patience() -> Patience {
    Patience { tries: 4, wait_first: Duration::from_millis(5), wait_most: Duration::from_secs(2), ..Patience::default() }
}

pub(crate) fn engine_with(memory_bytes: u64, patience: Patience) -> Engine {
    Engine::new(client(), MemoryBudget::new(memory_bytes), patience, Clock::system())
}

pub(crate) fn engine() -> Engine {
    engine_with(64 * PART, patience())
}

pub(crate) fn transfer(url: &str) -> Transfer {
    Transfer {
        url: url.parse().expect("a URL"),
        headers: HeaderMap::new(),
        checksum: None,
        max_connections: 4,
        part_size_min_bytes: PART,
        max_size_bytes: 1 << 40,
        digest: true,
        resume: None,
        restarts: 0,
    }
}

/// One transfer with its sink and ledger, which survive a run.
pub(crate) struct Bench {
    pub(crate) sink: Arc<MemorySink>,
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) engine: Engine,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench { sink: Arc::default(), ledger: Arc::default(), engine: engine() }
    }

    pub(crate) async fn run(&self, transfer: Transfer) -> Result<Completed, Stopped> {
        self.run_until(transfer, CancellationToken::new()).await
    }

    pub(crate) async fn run_until(&self, mut transfer: Transfer, cancel: CancellationToken) -> Result<Completed, Stopped> {
        transfer.resume = self.ledger.resume();
        self.engine.run(transfer, self.sink.clone(), self.ledger.clone(), cancel).await
    }

    /// Run as often as the error says that it could go better, at most so often.
    pub(crate) async fn run_again_and_again(&self, transfer: Transfer, most: usize) -> Result<Completed, Stopped> {
        let mut result = self.run(transfer.clone()).await;
        for _ in 1..most {
            match result {
                Err(Stopped::Failed(TransferError { retryable: true, .. })) => result = self.run(transfer.clone()).await,
                _ => break,
            }
        }
        result
    }
}

pub(crate) fn failure(result: Result<Completed, Stopped>) -> TransferError {
    match result {
        Err(Stopped::Failed(error)) => error,
        other => panic!("expected a failure, got {other:?}"),
    }
}
