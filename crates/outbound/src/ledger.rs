//! What must be remembered of a transfer, so that another process can go on with it.

use futures_util::future::BoxFuture;

/// Why a note was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Somebody else has the transfer now. Nothing of it may be touched any more.
    #[error("the transfer belongs to somebody else now")]
    Fenced,
    /// The database could not be reached; the same note may be taken a little later.
    #[error("the ledger is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a ledger answers with, in time.
pub type LedgerAnswer<'a> = BoxFuture<'a, Result<(), LedgerError>>;

/// How a transfer is cut, and which version of the source it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRecord {
    /// The multipart upload that the parts belong to.
    pub upload_id: String,
    /// Size of every part but the last; where `total_bytes` is unknown, of the first thousand.
    pub part_size_bytes: u64,
    /// Length of the content, if the source said it.
    pub total_bytes: Option<u64>,
    /// What goes into `If-Range`: a strong entity tag with its quotes, or a date. None: the source gave nothing that
    /// would tell one version from another.
    pub validator: Option<String>,
    /// Media type as the source declared it.
    pub content_type: Option<String>,
    /// A safe name for the file, from the source.
    pub file_name: Option<String>,
}

/// A part that the store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRecord {
    /// From 1.
    pub number: u32,
    /// Its size.
    pub size_bytes: u64,
    /// The entity tag that the store gave it, with its quotes.
    pub etag: String,
    /// CRC-64/NVME of its bytes.
    pub crc64: u64,
}

/// Why a transfer starts from zero again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartReason {
    /// The source has another version now. Only these count against the limit.
    SourceChanged,
    /// The connection broke and the source gave nothing to go on with safely.
    NotResumable,
    /// The whole was not what its digest says.
    ChecksumMismatch,
    /// The store has lost the upload.
    UploadLost,
}

impl std::fmt::Display for RestartReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RestartReason::SourceChanged => "the source has another version now",
            RestartReason::NotResumable => "the source gave nothing to go on with safely, or does not send ranges",
            RestartReason::ChecksumMismatch => "the content is not what its digest says",
            RestartReason::UploadLost => "the object store has lost the upload",
        })
    }
}

/// How far a transfer is. Not durable, told about twice a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Length of the content, if known.
    pub total_bytes: Option<u64>,
    /// Bytes that the store has.
    pub stored_bytes: u64,
    /// Bytes per second that came from the source lately.
    pub bytes_per_second: u64,
    /// Connections that fetch right now.
    pub connections: u32,
}

/// Durable notes of one transfer, fenced: whoever lost the transfer can write nothing.
pub trait Ledger: Send + Sync {
    /// An upload has begun, and this is how it is cut. Replaces an earlier plan, whose parts are void.
    fn adopt_upload<'a>(&'a self, plan: &'a PlanRecord) -> LedgerAnswer<'a>;

    /// The store has these parts. Called in batches; a part may come again and then replaces the earlier note.
    fn record_parts<'a>(&'a self, parts: &'a [PartRecord]) -> LedgerAnswer<'a>;

    /// Everything so far is void. The engine aborts the upload next.
    fn restart(&self, reason: RestartReason) -> LedgerAnswer<'_>;

    /// How far it is. Must not block.
    fn progress(&self, progress: Progress);
}
