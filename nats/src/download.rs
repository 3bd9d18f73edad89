//! Downloads: jobs that turn a URL into a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    id::{DownloadId, FileId, NodeId},
    operation::{Done, operation},
    page::Page,
};

/// Where a download is. `scheduled → queued → running → completed`, or `failed`, `canceled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "DownloadStatus", rename_all = "snake_case"))]
pub enum Status {
    /// Waits for `start_at`.
    Scheduled,
    /// Waits for a slot, or for `next_attempt_at`.
    Queued,
    /// A worker has it.
    Running,
    /// The file is there.
    Completed,
    /// Given up; `error` says why.
    Failed,
    /// Ended by its owner.
    Canceled,
}

impl Status {
    /// As it is written: `queued`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Scheduled => "scheduled",
            Status::Queued => "queued",
            Status::Running => "running",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Canceled => "canceled",
        }
    }
}

/// Why a download failed, or had to be tried again. Closed; documented in `docs/api.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "DownloadErrorCode", rename_all = "snake_case"))]
pub enum ErrorCode {
    /// The address may not be dialled.
    BlockedTarget,
    /// The name does not resolve.
    DnsFailure,
    /// Nobody listens there, or the connection broke.
    ConnectFailed,
    /// The TLS handshake failed or the certificate is not valid.
    TlsFailed,
    /// No answer in time.
    Timeout,
    /// No bytes, or too few of them, for too long.
    Stalled,
    /// The server answered with a status that is not a success.
    HttpStatus,
    /// The content kept changing while it was fetched.
    SourceChanged,
    /// The link does not work any more; give a new one by PATCH.
    SourceExpired,
    /// The content is shorter or longer than the server had said.
    LengthMismatch,
    /// The content is not what the digest says.
    ChecksumMismatch,
    /// Larger than allowed.
    TooLarge,
    /// The account's storage is full.
    QuotaExceeded,
    /// Redirected too often.
    TooManyRedirects,
    /// The object store did not do what it should.
    StorageUnavailable,
    /// The server does not speak HTTP as it should.
    ProtocolError,
}

impl ErrorCode {
    /// As it is written: `blocked_target`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BlockedTarget => "blocked_target",
            ErrorCode::DnsFailure => "dns_failure",
            ErrorCode::ConnectFailed => "connect_failed",
            ErrorCode::TlsFailed => "tls_failed",
            ErrorCode::Timeout => "timeout",
            ErrorCode::Stalled => "stalled",
            ErrorCode::HttpStatus => "http_status",
            ErrorCode::SourceChanged => "source_changed",
            ErrorCode::SourceExpired => "source_expired",
            ErrorCode::LengthMismatch => "length_mismatch",
            ErrorCode::ChecksumMismatch => "checksum_mismatch",
            ErrorCode::TooLarge => "too_large",
            ErrorCode::QuotaExceeded => "quota_exceeded",
            ErrorCode::TooManyRedirects => "too_many_redirects",
            ErrorCode::StorageUnavailable => "storage_unavailable",
            ErrorCode::ProtocolError => "protocol_error",
        }
    }
}

/// The last failure of a download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "DownloadFailure"))]
pub struct Failure {
    /// What it was, for programs.
    pub code: ErrorCode,
    /// What it was, for people.
    pub detail: String,
    /// Whether another try could go better.
    pub retryable: bool,
}

/// A digest algorithm that content can be checked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "ChecksumAlgorithm", rename_all = "snake_case"))]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// What the content must digest to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object such as {\"algorithm\": \"sha256\", \"value\": \"64 hexadecimal digits\"}")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(deny_unknown_fields))]
pub struct Checksum {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The digest in hexadecimal.
    #[cfg_attr(feature = "openapi", oai(validator(pattern = "^([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})$")))]
    pub value: String,
}

/// What the content was checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "DownloadVerified", rename_all = "snake_case"))]
pub enum Verified {
    /// A digest that its owner or its server gave.
    Digest,
    /// The length that its server gave.
    Length,
    /// Nothing: the server gave neither, and the end of the connection was the end of the content.
    None,
}

/// A download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none, skip_serializing_if_is_empty))]
pub struct Download {
    /// Its identifier.
    pub id: DownloadId,
    /// The source, without what could be a secret in it (user, password, query).
    pub url: String,
    /// Name of the file to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Folder of the file to be.
    pub folder: String,
    /// Where it is.
    pub status: Status,
    /// Length of the content, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Bytes that are safely stored.
    pub received_bytes: i64,
    /// Bytes per second over the last seconds; 0 when it does not run.
    pub bytes_per_second: i64,
    /// Connections that fetch right now.
    pub connections: i32,
    /// Media type that the source declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// SHA-256 of the content, hexadecimal, when it is completed and hashing is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the content must digest to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// 0 (low) to 9 (high).
    pub priority: i16,
    /// Tries so far.
    pub attempt: i32,
    /// Tries at most.
    pub max_attempts: i32,
    /// Not before this.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub start_at: Option<OffsetDateTime>,
    /// When the next try is due.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub next_attempt_at: Option<OffsetDateTime>,
    /// The file that came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<FileId>,
    /// What the content was checked against, when it is completed.
    pub verified: Verified,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When a worker first took it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// Ask for a download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(deny_unknown_fields, skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct CreateDownload {
    /// Where to fetch from: `http` or `https`, at most 4096 characters, no user and password in it.
    #[cfg_attr(feature = "openapi", oai(validator(min_length = 1, max_length = 4096)))]
    pub url: String,
    /// Name of the file to be; else from `Content-Disposition`, else from the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 255)))]
    pub file_name: Option<String>,
    /// Folder of the file to be; `/` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 1024)))]
    pub folder: Option<String>,
    /// Request headers for the source, at most 20. Not sent on to another origin after a redirect.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default, validator(max_properties = 20)))]
    pub headers: BTreeMap<String, String>,
    /// What the content must digest to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub checksum: Option<Checksum>,
    /// Connections at most, 1 to 64; never more than the node allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(minimum(value = "1"), maximum(value = "64"))))]
    pub max_connections: Option<u32>,
    /// 0 (low) to 9 (high), 5 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(minimum(value = "0"), maximum(value = "9"))))]
    pub priority: Option<u8>,
    /// Not before this.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub start_at: Option<OffsetDateTime>,
    /// Tries at most, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(minimum(value = "1"), maximum(value = "100"))))]
    pub max_attempts: Option<u32>,
}

/// One download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetDownload {
    /// The download.
    pub id: DownloadId,
}

/// The caller's downloads, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListDownloads {
    /// Only those in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Only those whose URL or file name contains this, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Items of the page, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Change a download that is not running and not completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateDownload {
    /// The download.
    pub id: DownloadId,
    /// A new link to the same content. What is stored is kept if the validator or the digest still fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// 0 (low) to 9 (high).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
}

/// End a download that is not finished. Answers with it as it is then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelDownload {
    /// The download.
    pub id: DownloadId,
}

/// Try a failed or canceled download again, from what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryDownload {
    /// The download.
    pub id: DownloadId,
}

/// Take a download off the list; one that is not finished is canceled first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteDownload {
    /// The download.
    pub id: DownloadId,
    /// Delete the file that came of it as well.
    #[serde(default)]
    pub with_file: bool,
}

operation!(CreateDownload => Download, "download", "create", Account, "Ask for a download.");
operation!(reads GetDownload => Download, "download", "get", Account, "One download.");
operation!(reads ListDownloads => Page<Download>, "download", "list", Account, "The caller's downloads, newest first.");
operation!(UpdateDownload => Download, "download", "update", Account, "Change the link or the priority of a download that does not run.");
operation!(CancelDownload => Download, "download", "cancel", Account, "End a download that is not finished.");
operation!(RetryDownload => Download, "download", "retry", Account, "Try a failed or canceled download again.");
operation!(DeleteDownload => Done, "download", "delete", Account, "Take a download off the list.");

/// The body of every `download.*` event: the download as it was when it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The download.
    pub download: Download,
}

/// A work message of the stream `DOWNLOADS`: which row, and which hand-out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// The row.
    pub download_id: DownloadId,
    /// Its `dispatch_no` when it was handed out; an older one than the row's is void.
    pub dispatch_no: i64,
}

/// Told to the node that runs a download: its owner ended it, stop now. The row says so already; this is only faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// The node that the row named.
    pub node_id: NodeId,
    /// The download.
    pub download_id: DownloadId,
}

/// How far a running download is; told on `live`, not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The download.
    pub download_id: DownloadId,
    /// Bytes that arrived, stored or not.
    pub received_bytes: i64,
    /// Length of the content, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Bytes per second over the last seconds.
    pub bytes_per_second: i64,
    /// Connections that fetch right now.
    pub connections: i32,
}
