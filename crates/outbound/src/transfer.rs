//! What goes into a transfer and what comes out of it.

use std::time::Duration;

use http::HeaderMap;
use url::Url;

use crate::{
    error::ErrorCode,
    ledger::{PartRecord, PlanRecord},
};

/// What the content must digest to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

/// A transfer to be run.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Where to fetch from, as [`crate::Client::check_url`] gave it.
    pub url: Url,
    /// Headers of whoever gave the URL, as [`crate::header::check`] gave them.
    pub headers: HeaderMap,
    /// What the content must digest to, if somebody knows.
    pub checksum: Option<Checksum>,
    /// Connections at most, at least 1.
    pub max_connections: u32,
    /// Smallest part; what is smaller is stored with one call.
    pub part_size_min_bytes: u64,
    /// Largest content that is taken.
    pub max_size_bytes: u64,
    /// Whether the SHA-256 of the whole is wanted.
    pub digest: bool,
    /// What an earlier run left behind.
    pub resume: Option<Resume>,
    /// How often the source has changed under earlier runs.
    pub restarts: u32,
}

/// What an earlier run left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Its plan.
    pub plan: PlanRecord,
    /// The parts that the store has, in any order.
    pub parts: Vec<PartRecord>,
}

/// What the content was checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// A digest that somebody gave: the user, or the server.
    Digest,
    /// The length that the server gave, or a mark of the protocol at its end.
    Length,
    /// Nothing: the end of the connection was the end of the content.
    Nothing,
}

/// A transfer that is done: the object is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Its length.
    pub size_bytes: u64,
    /// Its SHA-256, when it was wanted.
    pub sha256: Option<[u8; 32]>,
    /// Its CRC-64/NVME.
    pub crc64: u64,
    /// The entity tag that the store gave it.
    pub etag: String,
    /// Media type as the source declared it.
    pub content_type: Option<String>,
    /// A safe name for the file, from the source.
    pub file_name: Option<String>,
    /// What it was checked against.
    pub verified: Verified,
}

/// Why a transfer did not complete. `detail` is fit for whoever gave the URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct TransferError {
    /// What it was, for programs.
    pub code: ErrorCode,
    /// What it was, for people.
    pub detail: String,
    /// Whether another run could go better. What the ledger holds is kept for it.
    pub retryable: bool,
    /// When the source wants to be asked again, at the earliest.
    pub retry_after: Option<Duration>,
    /// Whether this run stored anything, so that the count of tries may start anew.
    pub progressed: bool,
}

/// How a run ended short of completion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It failed.
    #[error(transparent)]
    Failed(#[from] TransferError),
    /// The caller canceled it. The ledger holds what is stored; nothing was aborted.
    #[error("canceled")]
    Canceled,
    /// Somebody else has the transfer. Nothing was touched after that was known.
    #[error("the transfer belongs to somebody else now")]
    Fenced,
}
