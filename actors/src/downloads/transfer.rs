//! From a claim to a transfer: opens the source, finds out what is really stored, and runs the engine.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bowerbird_nats::download::Algorithm;
use bowerbird_outbound::{Checksum, Completed, PlanRecord, Resume, Stopped, Transfer, TransferError, header};
use bowerbird_storage::{self as bucket, ErrorKind};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;

use super::{
    download::Worker,
    ledger::{SharedLedger, to_record},
    row::{Part, Row},
    seal,
    sink::BucketSink,
    store::{self, Claimed},
};

/// How long the bucket may take to forget an upload that was never adopted; what stays is purged with the download.
const ABORT_LIMIT: Duration = Duration::from_millis(500);

/// What a node does for one download at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_connections: u32,
    pub(crate) part_size_min_bytes: u64,
    pub(crate) max_size_bytes: u64,
    /// Whether SHA-256 is taken of what is stored.
    pub(crate) digest: bool,
}

/// A transfer that is done.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) completed: Completed,
    pub(crate) object_key: String,
}

/// Why a try did not end in an object.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It was told to stop.
    #[error("it was stopped")]
    Canceled,
    /// The row is somebody else's by now.
    #[error("the download is not this worker's any more")]
    Fenced,
    /// The quota does not hold it.
    #[error("the quota of the account is used up")]
    QuotaExceeded,
    /// What is stored of its source cannot be read.
    #[error("its source cannot be read")]
    Source(#[source] seal::Error),
    /// What is stored of its source may not be fetched any more.
    #[error("its source is refused: {0}")]
    Refused(String),
    /// The database failed before anything was fetched.
    #[error("the database failed")]
    Database(#[source] store::Error),
    /// The bucket failed before anything was fetched.
    #[error("the object store failed")]
    Bucket(#[from] bucket::Error),
    /// The transfer failed.
    #[error(transparent)]
    Transfer(TransferError),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Fenced => Error::Fenced,
            store::Error::QuotaExceeded => Error::QuotaExceeded,
            error => Error::Database(error),
        }
    }
}

/// Run one try.
pub(super) async fn run(
    worker: &Worker,
    claimed: Claimed,
    ledger: SharedLedger,
    cancel: CancellationToken,
) -> Result<Done, Error> {
    let Claimed { row, parts } = claimed;
    let resume = tokio::select! {
        resume = find_stored(worker, &row, parts, &ledger) => resume?,
        () = cancel.cancelled() => return Err(Error::Canceled),
    };
    let transfer = plan(worker, &row, resume)?;
    let sink = Arc::new(BucketSink::new(worker.bucket.clone(), Arc::clone(&ledger), &row));
    let outcome = worker.engine.run(transfer, Arc::clone(&sink) as _, Arc::clone(&ledger) as _, cancel).await;
    match tokio::time::timeout(ABORT_LIMIT, sink.abort_stray()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => info!(download = %row.id, %error, "an upload that was never adopted could not be aborted"),
        Err(_) => info!(download = %row.id, "an upload that was never adopted could not be aborted in time"),
    }
    match outcome {
        Ok(completed) => Ok(Done { completed, object_key: sink.stored_key().unwrap_or_else(|| row.key_of_this_try()) }),
        Err(_) if ledger.is_over_quota() => Err(Error::QuotaExceeded),
        Err(Stopped::Canceled) => Err(Error::Canceled),
        Err(Stopped::Fenced) => Err(Error::Fenced),
        Err(Stopped::Failed(error)) => Err(Error::Transfer(error)),
    }
}

fn plan(worker: &Worker, row: &Row, resume: Option<Resume>) -> Result<Transfer, Error> {
    let source = worker.seal.open(row.id, &row.source_sealed).map_err(Error::Source)?;
    let refused = |why: String| Error::Refused(why);
    let url = Url::parse(&source.url).map_err(|error| refused(error.to_string()))?;
    let headers = header::check(source.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .map_err(|error| refused(error.to_string()))?;
    let checksum = row.checksum.as_ref().and_then(|(algorithm, value)| match algorithm {
        Algorithm::Sha256 => value.as_slice().try_into().ok().map(Checksum::Sha256),
        Algorithm::Sha512 => value.as_slice().try_into().ok().map(Checksum::Sha512),
    });
    let limits = worker.limits;
    let asked = row.max_connections.and_then(|connections| u32::try_from(connections).ok()).unwrap_or(limits.max_connections);
    Ok(Transfer {
        url,
        headers,
        checksum,
        max_connections: asked.min(limits.max_connections).max(1),
        part_size_min_bytes: limits.part_size_min_bytes,
        max_size_bytes: limits.max_size_bytes,
        digest: limits.digest,
        resume,
        restarts: u32::try_from(row.restarts).unwrap_or_default(),
    })
}

/// What an earlier try left behind: what the ledger and the bucket agree on.
async fn find_stored(worker: &Worker, row: &Row, parts: Vec<Part>, ledger: &SharedLedger) -> Result<Option<Resume>, Error> {
    let (Some(upload_id), Some(key), Some(part_size_bytes)) = (&row.upload_id, &row.object_key, row.part_size_bytes) else {
        return Ok(None);
    };
    let plan = PlanRecord {
        upload_id: upload_id.clone(),
        part_size_bytes: unsigned(part_size_bytes),
        total_bytes: row.size_bytes.map(unsigned),
        validator: row.validator.clone(),
        content_type: row.source_content_type.clone(),
        file_name: row.source_name.clone(),
    };
    let listed = match worker.bucket.list_parts(key, upload_id).await {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NoSuchUpload => {
            let stored: i64 = parts.iter().map(|part| part.size_bytes).sum();
            let found = worker.bucket.head(key).await?;
            if found.is_some_and(|found| found.size_bytes == unsigned(stored)) && row.size_bytes.is_none_or(|size| size == stored)
            {
                // Completed, and the worker died before it could say so: the sink finds it when it is to complete it.
                return Ok(Some(Resume { plan, parts: parts.iter().map(to_record).collect() }));
            }
            warn!(download = %row.id, "the bucket has lost the upload; beginning from zero");
            ledger.begin_anew(false).await?;
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let (kept, found, struck) = reconcile(&plan, parts, &listed);
    if !struck.is_empty() {
        warn!(download = %row.id, parts = struck.len(), "the bucket does not have parts that the ledger names");
        ledger.strike(&struck).await?;
    }
    if !found.is_empty() {
        ledger.record(&found).await?;
    }
    info!(download = %row.id, parts = kept.len() + found.len(), "an earlier try left parts; whether it goes on from them is for the source to say");
    Ok(Some(Resume { plan, parts: kept.iter().chain(&found).map(to_record).collect() }))
}

/// Parts that the ledger names and the bucket has; parts that the bucket has and the ledger is to learn of; numbers that the
/// ledger names in vain. A part that the ledger does not know counts only if the bucket tells its checksum and its length is
/// the one that the plan gives it.
fn reconcile(plan: &PlanRecord, ledger: Vec<Part>, listed: &[bucket::PartInfo]) -> (Vec<Part>, Vec<Part>, Vec<i32>) {
    let mut in_bucket: BTreeMap<i32, Part> = BTreeMap::new();
    let mut unchecked: BTreeMap<i32, &bucket::PartInfo> = BTreeMap::new();
    for part in listed {
        let number = i32::try_from(part.number).unwrap_or_default();
        match part.crc64 {
            Some(crc64) => {
                let size_bytes = i64::try_from(part.size_bytes).unwrap_or_default();
                in_bucket.insert(number, Part { number, size_bytes, etag: part.etag.clone(), crc64: crc64.cast_signed() });
            }
            None => {
                unchecked.insert(number, part);
            }
        }
    }
    let (mut kept, mut struck) = (Vec::new(), Vec::new());
    let mut found = Vec::new();
    for part in ledger {
        let same_unchecked = unchecked
            .get(&part.number)
            .is_some_and(|info| info.etag == part.etag && unsigned(part.size_bytes) == info.size_bytes);
        match in_bucket.remove(&part.number) {
            Some(there) if there == part => kept.push(part),
            // Stored again after the ledger was written, and the same bytes.
            Some(there) if there.crc64 == part.crc64 && there.size_bytes == part.size_bytes => found.push(there),
            None if same_unchecked => kept.push(part),
            Some(_) | None => struck.push(part.number),
        }
    }
    let expected = |number: i32| -> Option<u64> {
        let before = u64::try_from(number - 1).ok()?.checked_mul(plan.part_size_bytes)?;
        let left = plan.total_bytes?.checked_sub(before).filter(|left| *left > 0)?;
        Some(left.min(plan.part_size_bytes))
    };
    found.extend(
        in_bucket
            .into_values()
            .filter(|part| !struck.contains(&part.number) && expected(part.number) == Some(unsigned(part.size_bytes))),
    );
    found.sort_unstable_by_key(|part| part.number);
    (kept, found, struck)
}

fn unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(number: u32, size_bytes: u64, etag: &str, crc64: Option<u64>) -> bucket::PartInfo {
        bucket::PartInfo { number, size_bytes, etag: etag.to_owned(), crc64 }
    }

    fn part(number: i32, size_bytes: i64, etag: &str, crc64: i64) -> Part {
        Part { number, size_bytes, etag: etag.to_owned(), crc64 }
    }

    #[test]
    fn only_parts_that_are_what_they_should_be_are_gone_on_from() {
        let plan = PlanRecord {
            upload_id: "u".to_owned(),
            part_size_bytes: 100,
            total_bytes: Some(650),
            validator: None,
            content_type: None,
            file_name: None,
        };
        let ledger = vec![part(1, 100, "a", 1), part(2, 100, "b", 2), part(3, 100, "c", 3), part(4, 100, "d", 4)];
        let in_bucket = [
            listed(1, 100, "a", Some(1)),
            // Written over with other bytes.
            listed(2, 100, "x", Some(9)),
            // Written again, the same bytes.
            listed(3, 100, "y", Some(3)),
            // 4 is not there. The ledger lags behind 5 and 7; 6 has a length that is not its own; 8 is beyond the end.
            listed(5, 100, "e", Some(5)),
            listed(6, 99, "f", Some(6)),
            listed(7, 50, "g", Some(7)),
            listed(8, 100, "h", Some(8)),
        ];
        let (kept, found, struck) = reconcile(&plan, ledger, &in_bucket);
        assert_eq!(kept, [part(1, 100, "a", 1)]);
        assert_eq!(found, [part(3, 100, "y", 3), part(5, 100, "e", 5), part(7, 50, "g", 7)]);
        assert_eq!(struck, [2, 4]);
    }

    #[test]
    fn without_checksums_of_the_bucket_only_the_ledgers_parts_count() {
        let plan = PlanRecord {
            upload_id: "u".to_owned(),
            part_size_bytes: 100,
            total_bytes: Some(300),
            validator: None,
            content_type: None,
            file_name: None,
        };
        let in_bucket = [listed(1, 100, "a", None), listed(2, 100, "x", None), listed(3, 100, "c", None)];
        let (kept, found, struck) = reconcile(&plan, vec![part(1, 100, "a", 1), part(2, 100, "b", 2)], &in_bucket);
        assert_eq!((kept, found, struck), (vec![part(1, 100, "a", 1)], vec![], vec![2]));
    }
}
