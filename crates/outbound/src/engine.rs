//! Runs transfers: attempt after attempt, until one completes or none can.

use std::{sync::Arc, time::Duration};

use bowerbird_lifecycle::Clock;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    attempt::{Attempt, Ended, Then},
    client::Client,
    error::ErrorCode,
    ledger::{Ledger, LedgerError, RestartReason},
    memory::MemoryBudget,
    sink::Sink,
    transfer::{Completed, Stopped, Transfer, TransferError},
};

/// Times that a transfer starts anew because the source has changed. The last time it is fetched in one piece.
pub const MAX_RESTARTS: u32 = 3;
/// Times that a run starts anew because the store lost the upload.
const MAX_LOST_UPLOADS: u32 = 2;

/// What a run does about failures that may pass, before it gives up and leaves the rest to whoever plans the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Tries of one part without a byte of progress.
    pub tries: u32,
    /// First wait; doubled each time, and a random share of it is waited.
    pub wait_first: Duration,
    /// Longest wait. If the source wants longer (`Retry-After`), the run ends and says so.
    pub wait_most: Duration,
    /// Slowest rate that is put up with, in bytes per second over `rate_over`.
    pub min_rate: u64,
    /// What the slowest rate is measured over.
    pub rate_over: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            tries: 5,
            wait_first: Duration::from_millis(250),
            wait_most: Duration::from_secs(15),
            min_rate: 1024,
            rate_over: Duration::from_mins(1),
        }
    }
}

impl Patience {
    /// How long to wait after so many tries in vain: a random share of a doubling time, so that clients do not march in step.
    pub(crate) fn wait(&self, tries: u32) -> Duration {
        let longest = self.wait_first.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(self.wait_most);
        longest.mul_f64(rand::random::<f64>())
    }
}

/// Runs transfers. Cheap to clone; clones share the memory budget.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) client: Client,
    pub(crate) memory: MemoryBudget,
    pub(crate) patience: Patience,
    pub(crate) clock: Clock,
}

impl Engine {
    /// An engine whose transfers dial through `client` and share `memory`.
    pub fn new(client: Client, memory: MemoryBudget, patience: Patience, clock: Clock) -> Engine {
        Engine { client, memory, patience, clock }
    }

    /// Run one transfer to its end, or until it is canceled (which takes effect within a second).
    pub async fn run(
        &self,
        mut transfer: Transfer,
        sink: Arc<dyn Sink>,
        ledger: Arc<dyn Ledger>,
        cancel: CancellationToken,
    ) -> Result<Completed, Stopped> {
        let mut whole = transfer.restarts >= MAX_RESTARTS;
        let (mut lost_uploads, mut mismatches, mut progressed) = (0, 0, false);
        loop {
            let attempt = Attempt::new(self, &transfer, Arc::clone(&sink), Arc::clone(&ledger), cancel.clone(), whole);
            let (reason, upload_id, then) = match Box::pin(attempt.run(&mut progressed)).await {
                Ok(completed) => return Ok(completed),
                Err(Ended::Canceled) => return Err(Stopped::Canceled),
                Err(Ended::Fenced) => return Err(Stopped::Fenced),
                Err(Ended::Failed(mut error)) => {
                    error.progressed |= progressed;
                    return Err(Stopped::Failed(error));
                }
                Err(Ended::Restart { reason, upload_id, then }) => (reason, upload_id, then),
            };
            debug!(%reason, "a transfer starts from zero");
            // The ledger first: it knows whether the upload is still ours to abort.
            let noted = cancel.run_until_cancelled(ledger.restart(reason)).await.ok_or(Stopped::Canceled)?;
            match noted {
                Ok(()) => {}
                Err(LedgerError::Fenced) => return Err(Stopped::Fenced),
                Err(LedgerError::Unavailable(error)) => {
                    warn!(%error, "the ledger could not be told that a transfer starts from zero");
                    return Err(Stopped::Failed(storage_unavailable("the state of the download could not be saved")));
                }
            }
            if let Some(upload_id) = upload_id {
                match cancel.run_until_cancelled(sink.abort(&upload_id)).await {
                    None => return Err(Stopped::Canceled),
                    Some(Ok(())) => {}
                    // Sweeps find what is left.
                    Some(Err(error)) => warn!(%error, upload_id, "an upload could not be aborted"),
                }
            }
            transfer.resume = None;
            let mut again_or = None;
            let mut failure = match then {
                Then::Again => None,
                Then::AgainOr(error) => {
                    again_or = Some(error);
                    None
                }
                Then::AgainWhole => {
                    whole = true;
                    None
                }
                Then::Fail(error) => Some(error),
            };
            match reason {
                RestartReason::SourceChanged => {
                    transfer.restarts += 1;
                    if transfer.restarts > MAX_RESTARTS {
                        failure = Some(failed(ErrorCode::SourceChanged, "the content kept changing while it was fetched", false));
                    }
                    whole |= transfer.restarts >= MAX_RESTARTS;
                }
                RestartReason::ChecksumMismatch => {
                    mismatches += 1;
                    whole = true;
                    if mismatches > 1 {
                        failure = again_or;
                    }
                }
                RestartReason::UploadLost => {
                    lost_uploads += 1;
                    if lost_uploads > MAX_LOST_UPLOADS {
                        failure = Some(storage_unavailable("the object store lost the upload"));
                    }
                }
                RestartReason::NotResumable => {}
            }
            if let Some(mut error) = failure {
                error.progressed |= progressed;
                return Err(Stopped::Failed(error));
            }
        }
    }
}

pub(crate) fn failed(code: ErrorCode, detail: impl Into<String>, retryable: bool) -> TransferError {
    TransferError { code, detail: detail.into(), retryable, retry_after: None, progressed: false }
}

pub(crate) fn storage_unavailable(detail: &str) -> TransferError {
    failed(ErrorCode::StorageUnavailable, detail, true)
}
