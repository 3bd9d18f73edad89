//! The engine's ledger over the tables `downloads` and `download_parts`: every note is a transaction, fenced.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use bowerbird_nats::{DownloadId, download};
use bowerbird_outbound::{Ledger, LedgerError, PartRecord, PlanRecord, Progress, RestartReason, ledger::LedgerAnswer};
use futures_util::FutureExt as _;
use sqlx::PgPool;
use tokio::sync::watch;
use tracing::info;

use super::{
    row::{Part, Row},
    store::{self, Adoption},
};

/// The ledger of one running download.
pub(super) struct PostgresLedger {
    pool: PgPool,
    id: DownloadId,
    fence: i64,
    /// Where a new upload of this try goes.
    key: String,
    /// The adopted upload.
    upload_id: Mutex<Option<String>>,
    /// An upload that was begun and is not adopted yet, if ever.
    begun: Mutex<Option<String>>,
    over_quota: AtomicBool,
    told: watch::Sender<download::Progress>,
}

impl PostgresLedger {
    /// The ledger of a download that was just claimed; `told` hears how far it is.
    pub(super) fn new(pool: PgPool, row: &Row, told: watch::Sender<download::Progress>) -> Self {
        PostgresLedger {
            pool,
            id: row.id,
            fence: row.fence,
            key: row.key_of_this_try(),
            upload_id: Mutex::new(row.upload_id.clone()),
            begun: Mutex::default(),
            over_quota: AtomicBool::new(false),
            told,
        }
    }

    /// Whether the transfer was stopped because the quota does not hold it.
    pub(super) fn is_over_quota(&self) -> bool {
        self.over_quota.load(Ordering::Acquire)
    }

    /// An upload was begun.
    pub(super) fn begun(&self, upload_id: &str) {
        *lock(&self.begun) = Some(upload_id.to_owned());
    }

    /// An upload that was begun and never adopted: nobody else knows of it.
    pub(super) fn take_stray(&self) -> Option<String> {
        lock(&self.begun).take()
    }

    /// Note parts that are stored.
    pub(super) async fn record(&self, parts: &[Part]) -> Result<(), store::Error> {
        let Some(upload_id) = lock(&self.upload_id).clone() else { return Err(store::Error::Fenced) };
        let mut transaction = self.pool.begin().await?;
        store::record(&mut transaction, self.id, self.fence, &upload_id, parts)
            .await
            .inspect_err(|error| self.watch_quota(error))?;
        transaction.commit().await?;
        Ok(())
    }

    /// Strike out parts that the bucket does not have.
    pub(super) async fn strike(&self, numbers: &[i32]) -> Result<(), store::Error> {
        let mut transaction = self.pool.begin().await?;
        store::strike(&mut transaction, self.id, self.fence, numbers).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Everything so far is void.
    pub(super) async fn begin_anew(&self, because_it_changed: bool) -> Result<(), store::Error> {
        let mut transaction = self.pool.begin().await?;
        store::restart(&mut transaction, self.id, self.fence, because_it_changed).await?;
        transaction.commit().await?;
        *lock(&self.upload_id) = None;
        Ok(())
    }

    async fn adopt(&self, plan: &PlanRecord) -> Result<(), store::Error> {
        let before = lock(&self.upload_id).clone();
        let adoption = Adoption {
            object_key: self.key.clone(),
            upload_id: plan.upload_id.clone(),
            part_size_bytes: signed(plan.part_size_bytes),
            size_bytes: plan.total_bytes.map(signed),
            validator: plan.validator.clone(),
            content_type: plan.content_type.clone(),
            file_name: plan.file_name.clone(),
        };
        let mut transaction = self.pool.begin().await?;
        store::adopt(&mut transaction, self.id, self.fence, before.as_deref(), &adoption)
            .await
            .inspect_err(|error| self.watch_quota(error))?;
        transaction.commit().await?;
        *lock(&self.upload_id) = Some(plan.upload_id.clone());
        *lock(&self.begun) = None;
        Ok(())
    }

    fn watch_quota(&self, error: &store::Error) {
        if matches!(error, store::Error::QuotaExceeded) {
            self.over_quota.store(true, Ordering::Release);
        }
    }
}

impl Ledger for PostgresLedger {
    fn adopt_upload<'a>(&'a self, plan: &'a PlanRecord) -> LedgerAnswer<'a> {
        async move { self.adopt(plan).await.map_err(sorted) }.boxed()
    }

    fn record_parts<'a>(&'a self, parts: &'a [PartRecord]) -> LedgerAnswer<'a> {
        async move {
            let parts: Vec<Part> = parts.iter().map(from_record).collect();
            self.record(&parts).await.map_err(sorted)
        }
        .boxed()
    }

    fn restart(&self, reason: RestartReason) -> LedgerAnswer<'_> {
        info!(download = %self.id, "what is stored is of no use, the download begins anew: {reason}");
        async move { self.begin_anew(reason == RestartReason::SourceChanged).await.map_err(sorted) }.boxed()
    }

    fn progress(&self, progress: Progress) {
        self.told.send_modify(|told| {
            *told = download::Progress {
                download_id: self.id,
                received_bytes: signed(progress.stored_bytes),
                size_bytes: progress.total_bytes.map(signed),
                bytes_per_second: signed(progress.bytes_per_second),
                connections: i32::try_from(progress.connections).unwrap_or(i32::MAX),
            };
        });
    }
}

fn sorted(error: store::Error) -> LedgerError {
    match error {
        // The engine knows one way to stop at once.
        store::Error::Fenced | store::Error::QuotaExceeded => LedgerError::Fenced,
        error => LedgerError::Unavailable(Box::new(error)),
    }
}

/// A part as the engine has it, as the table has it.
pub(super) fn from_record(part: &PartRecord) -> Part {
    Part {
        number: i32::try_from(part.number).unwrap_or(i32::MAX),
        size_bytes: signed(part.size_bytes),
        etag: part.etag.clone(),
        crc64: part.crc64.cast_signed(),
    }
}

/// A part as the table has it, as the engine has it.
pub(super) fn to_record(part: &Part) -> PartRecord {
    PartRecord {
        number: u32::try_from(part.number).unwrap_or_default(),
        size_bytes: u64::try_from(part.size_bytes).unwrap_or_default(),
        etag: part.etag.clone(),
        crc64: part.crc64.cast_unsigned(),
    }
}

/// Sizes in the tables are signed; none comes near the difference.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while it was held cannot have left it half written: every write is one assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shared by the ledger and the sink of one download.
pub(super) type SharedLedger = Arc<PostgresLedger>;
