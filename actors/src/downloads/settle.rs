//! What becomes of a try: a file, another try, or the end. Decided here, written by the store in one transaction.

use std::{sync::Arc, time::Duration};

use bowerbird_nats::download::{ErrorCode, Failure, Verified};
use bowerbird_outbound as outbound;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{
    download::Worker,
    row::Row,
    store::{self, Finished},
    transfer,
};
use crate::{
    database,
    metrics::{Meters, TryResult},
};

/// First wait before the database is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Longest.
const ASK_AGAIN_MOST: Duration = Duration::from_secs(2);

/// While the object store is away, a download waits as if it had failed this often in a row.
const TRIES_WITHOUT_STORE: i32 = 4;

/// What is to be written.
#[derive(Clone, Debug)]
enum Ending {
    /// The file is there.
    Complete(Finished),
    /// Another try makes sense; not before this, if the server said so.
    Again(Failure, Option<Duration>),
    /// It does not. What is stored stays for a later `retry`, or not.
    Never(Failure, bool),
    /// Nothing is wrong with it; somebody else runs it.
    GiveBack,
    /// The row is somebody else's to write.
    Nothing,
}

/// Write what became of a try. Asks for as long as the database is away: whoever renews the lease ends this when the row is
/// lost.
#[expect(clippy::disallowed_methods, reason = "a pause before PostgreSQL is asked again")]
pub(super) async fn settle(worker: Arc<Worker>, row: Row, outcome: Result<transfer::Done, transfer::Error>) {
    let mut ending = decide(&row, outcome);
    let mut wait = ASK_AGAIN_AFTER;
    loop {
        match write(&worker, &row, &ending).await {
            Ok(()) => {
                count(&worker.meters, &ending);
                if matches!(ending, Ending::Again(..)) {
                    worker.alarms.look();
                }
                break;
            }
            Err(store::Error::Fenced) => break,
            Err(store::Error::QuotaExceeded) => ending = Ending::Never(quota_exceeded(), false),
            Err(store::Error::Database(error)) if database::is_passing(&error) => {
                warn!(download = %row.id, %error, "the end of a try could not be written; it is tried again");
                sleep(wait).await;
                wait = (wait * 2).min(ASK_AGAIN_MOST);
            }
            Err(error) => {
                error!(download = %row.id, %error, "the end of a try cannot be written");
                match ending {
                    // It is taken back when its lease lapses.
                    Ending::Never(..) => break,
                    Ending::Complete(_) | Ending::Again(..) | Ending::GiveBack | Ending::Nothing => {
                        ending = Ending::Never(not_on_record(), false);
                    }
                }
            }
        }
    }
    worker.bell.ring();
}

fn decide(row: &Row, outcome: Result<transfer::Done, transfer::Error>) -> Ending {
    match outcome {
        Ok(done) => Ending::Complete(finished(row, done)),
        Err(transfer::Error::Fenced) => Ending::Nothing,
        Err(transfer::Error::Canceled) => Ending::GiveBack,
        Err(transfer::Error::QuotaExceeded) => Ending::Never(quota_exceeded(), false),
        Err(transfer::Error::Source(error)) => {
            error!(download = %row.id, %error, "the source of a download cannot be read");
            let detail =
                "its source cannot be decrypted: the server's master key has changed; create the download anew".to_owned();
            Ending::Never(Failure { code: ErrorCode::SourceExpired, detail, retryable: false }, false)
        }
        Err(transfer::Error::Refused(detail)) => {
            Ending::Never(Failure { code: ErrorCode::BlockedTarget, detail, retryable: false }, true)
        }
        Err(transfer::Error::Database(store::Error::Database(error))) if database::is_passing(&error) => {
            warn!(download = %row.id, %error, "a try ended as the database failed");
            Ending::GiveBack
        }
        Err(transfer::Error::Database(error)) => {
            error!(download = %row.id, %error, "a try ended as the database refused");
            Ending::Never(not_on_record(), true)
        }
        Err(transfer::Error::Bucket(error)) => {
            warn!(download = %row.id, %error, "a try ended as the object store failed");
            let detail = "the object store is not available".to_owned();
            Ending::Again(Failure { code: ErrorCode::StorageUnavailable, detail, retryable: true }, None)
        }
        Err(transfer::Error::Transfer(error)) => {
            let code = error_code(error.code);
            let failure = Failure { code, detail: error.detail, retryable: error.retryable };
            if error.retryable {
                Ending::Again(failure, error.retry_after)
            } else {
                Ending::Never(failure, is_worth_keeping(code))
            }
        }
    }
}

async fn write(worker: &Worker, row: &Row, ending: &Ending) -> Result<(), store::Error> {
    let mut transaction = worker.pool.begin().await?;
    match ending {
        Ending::Nothing => return Ok(()),
        Ending::GiveBack => {
            store::give_back(&mut transaction, row.id, row.fence).await?;
        }
        Ending::Complete(finished) => {
            store::complete(&mut transaction, row.id, row.fence, finished).await?;
            info!(download = %row.id, file = %row.file_id, bytes = finished.size_bytes, "completed");
        }
        Ending::Again(failure, asked) => {
            let now = store::locked(&mut transaction, row.id, row.fence).await?;
            // Whatever was stored counts as a fresh start.
            let tries = if now.received_bytes > now.mark_bytes { 0 } else { now.attempt };
            // That our own store is away is not the download's fault, however long it lasts.
            let counts = failure.code != ErrorCode::StorageUnavailable;
            if !counts {
                let after = worker.backoff.wait(TRIES_WITHOUT_STORE, *asked, rand::random());
                warn!(download = %row.id, detail = failure.detail, again_in = ?after, "a try failed as the object store is not available");
                store::retry(&mut transaction, row.id, row.fence, failure, after, false).await?;
            } else if tries >= now.max_attempts {
                info!(download = %row.id, code = failure.code.as_str(), detail = failure.detail, tries, "given up");
                store::fail(&mut transaction, row.id, row.fence, failure, is_worth_keeping(failure.code)).await?;
            } else {
                let after = worker.backoff.wait(tries, *asked, rand::random());
                info!(download = %row.id, code = failure.code.as_str(), detail = failure.detail, again_in = ?after, "a try failed");
                store::retry(&mut transaction, row.id, row.fence, failure, after, true).await?;
            }
        }
        Ending::Never(failure, keep) => {
            info!(download = %row.id, code = failure.code.as_str(), detail = failure.detail, "failed");
            store::fail(&mut transaction, row.id, row.fence, failure, *keep).await?;
        }
    }
    transaction.commit().await?;
    Ok(())
}

fn count(meters: &Meters, ending: &Ending) {
    let result = match ending {
        Ending::Complete(finished) => {
            meters.0.download_bytes.inc_by(u64::try_from(finished.size_bytes).unwrap_or_default());
            "completed"
        }
        Ending::Again(failure, _) | Ending::Never(failure, _) => failure.code.as_str(),
        Ending::GiveBack => "given_back",
        Ending::Nothing => return,
    };
    meters.0.download_tries.get_or_create(&TryResult { result }).inc();
}

fn finished(row: &Row, done: transfer::Done) -> Finished {
    let transfer::Done { completed, object_key } = done;
    Finished {
        object_key,
        name: completed.file_name.or_else(|| row.source_name.clone()).unwrap_or_else(|| "download".to_owned()),
        size_bytes: i64::try_from(completed.size_bytes).unwrap_or(i64::MAX),
        content_type: completed
            .content_type
            .or_else(|| row.source_content_type.clone())
            .unwrap_or_else(|| "application/octet-stream".to_owned()),
        sha256: completed.sha256.map(Vec::from),
        crc64: completed.crc64.cast_signed(),
        etag: completed.etag,
        verified: match completed.verified {
            outbound::Verified::Digest => Verified::Digest,
            outbound::Verified::Length => Verified::Length,
            outbound::Verified::Nothing => Verified::None,
        },
    }
}

fn not_on_record() -> Failure {
    let detail = "what was fetched could not be put on record; the log has the reason".to_owned();
    Failure { code: ErrorCode::StorageUnavailable, detail, retryable: true }
}

fn quota_exceeded() -> Failure {
    Failure {
        code: ErrorCode::QuotaExceeded,
        detail: "the account's storage does not hold it; delete files or ask for more quota, then `retry`".to_owned(),
        retryable: true,
    }
}

/// Whether what is stored could be gone on from after this, with a new link perhaps.
fn is_worth_keeping(code: ErrorCode) -> bool {
    match code {
        ErrorCode::BlockedTarget
        | ErrorCode::DnsFailure
        | ErrorCode::ConnectFailed
        | ErrorCode::TlsFailed
        | ErrorCode::Timeout
        | ErrorCode::Stalled
        | ErrorCode::HttpStatus
        | ErrorCode::SourceExpired
        | ErrorCode::TooManyRedirects
        | ErrorCode::StorageUnavailable => true,
        ErrorCode::SourceChanged
        | ErrorCode::LengthMismatch
        | ErrorCode::ChecksumMismatch
        | ErrorCode::TooLarge
        | ErrorCode::QuotaExceeded
        | ErrorCode::ProtocolError => false,
    }
}

fn error_code(code: outbound::ErrorCode) -> ErrorCode {
    match code {
        outbound::ErrorCode::BlockedTarget => ErrorCode::BlockedTarget,
        outbound::ErrorCode::DnsFailure => ErrorCode::DnsFailure,
        outbound::ErrorCode::ConnectFailed => ErrorCode::ConnectFailed,
        outbound::ErrorCode::TlsFailed => ErrorCode::TlsFailed,
        outbound::ErrorCode::Timeout => ErrorCode::Timeout,
        outbound::ErrorCode::Stalled => ErrorCode::Stalled,
        outbound::ErrorCode::HttpStatus => ErrorCode::HttpStatus,
        outbound::ErrorCode::SourceChanged => ErrorCode::SourceChanged,
        outbound::ErrorCode::SourceExpired => ErrorCode::SourceExpired,
        outbound::ErrorCode::LengthMismatch => ErrorCode::LengthMismatch,
        outbound::ErrorCode::ChecksumMismatch => ErrorCode::ChecksumMismatch,
        outbound::ErrorCode::TooLarge => ErrorCode::TooLarge,
        outbound::ErrorCode::TooManyRedirects => ErrorCode::TooManyRedirects,
        outbound::ErrorCode::StorageUnavailable => ErrorCode::StorageUnavailable,
        outbound::ErrorCode::ProtocolError => ErrorCode::ProtocolError,
    }
}
