//! Uploads: the right to put one object into the bucket, by links, until it is there, aborted or over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    id::{AccountId, FileId, UploadId},
    operation::{Done, operation},
    page::Page,
};

/// Where an upload is. `pending → processing → completed`, or `failed`, `aborted`, `expired`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "UploadStatus", rename_all = "snake_case"))]
pub enum Status {
    /// Nothing has arrived yet.
    Pending,
    /// The object is there and is being looked at.
    Processing,
    /// The file is there.
    Completed,
    /// What arrived was refused; `error` says why.
    Failed,
    /// Ended by its owner.
    Aborted,
    /// Nothing arrived in time.
    Expired,
}

impl Status {
    /// As it is written: `pending`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Processing => "processing",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Aborted => "aborted",
            Status::Expired => "expired",
        }
    }

    /// Whether something may still come of it.
    pub const fn is_unfinished(self) -> bool {
        matches!(self, Status::Pending | Status::Processing)
    }
}

/// Why an upload failed. Closed; documented in `docs/api.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "UploadErrorCode", rename_all = "snake_case"))]
pub enum ErrorCode {
    /// The object has another length than was announced.
    LengthMismatch,
    /// The content is not what the digest says.
    ChecksumMismatch,
    /// The object was stored under another media type than was announced.
    TypeMismatch,
    /// The external check had the object deleted.
    Rejected,
    /// The object was removed or replaced while it was looked at.
    Vanished,
}

impl ErrorCode {
    /// As it is written: `length_mismatch`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorCode::LengthMismatch => "length_mismatch",
            ErrorCode::ChecksumMismatch => "checksum_mismatch",
            ErrorCode::TypeMismatch => "type_mismatch",
            ErrorCode::Rejected => "rejected",
            ErrorCode::Vanished => "vanished",
        }
    }
}

/// Why an upload failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "UploadFailure"))]
pub struct Failure {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub detail: String,
}

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "UploadKind", rename_all = "snake_case"))]
pub enum Kind {
    /// In one request.
    Single,
    /// In parts; `complete` says when all are there.
    Multipart,
}

/// A link to write one part.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "UploadPartLink"))]
pub struct PartLink {
    /// From 1.
    pub part_number: u32,
    /// Exact length of the part.
    pub size_bytes: i64,
    /// Where to. Whoever has it can write the part.
    pub url: String,
    /// Headers to send exactly so.
    pub headers: BTreeMap<String, String>,
}

/// What to send where.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(rename = "UploadTransfer", skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct Transfer {
    /// In one request or in parts.
    pub kind: Kind,
    /// `PUT`
    pub method: String,
    /// `single`: where to. Whoever has it can write the object, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `single`: headers to send exactly so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default))]
    pub headers: BTreeMap<String, String>,
    /// `multipart`: length of every part but the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_size_bytes: Option<i64>,
    /// `multipart`: links to parts that are missing, a page of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default))]
    pub parts: Vec<PartLink>,
    /// `multipart`: how many parts the object store does not have, of this page and after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_parts: Option<u32>,
    /// `multipart`: ask for the next page of links with this `after_part`; nothing when this page is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after_part: Option<u32>,
    /// When the links stop working; ask for fresh ones then.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

impl std::fmt::Debug for PartLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartLink").field("part_number", &self.part_number).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").field("kind", &self.kind).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// An upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none))]
pub struct Upload {
    /// Its identifier.
    pub id: UploadId,
    /// Name of the file to be.
    pub file_name: String,
    /// Length that was announced.
    pub size_bytes: i64,
    /// Media type that was announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// SHA-256 that was announced, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Where it is.
    pub status: Status,
    /// In one request or in parts.
    pub kind: Kind,
    /// Media type that the first bytes look like; a guess.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected_content_type: Option<String>,
    /// The file that came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<FileId>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// What to send where; only in the answer to its creation. Without it, ask for links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// When it is over if nothing has arrived.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ended, however.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// Announce an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(deny_unknown_fields, skip_serializing_if_is_none))]
pub struct CreateUpload {
    /// Name of the file to be, without a path.
    #[cfg_attr(feature = "openapi", oai(validator(min_length = 1, max_length = 255)))]
    pub file_name: String,
    /// Exact length of the content.
    #[cfg_attr(feature = "openapi", oai(validator(minimum(value = "0"))))]
    pub size_bytes: i64,
    /// Media type; guessed from the content when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 3, max_length = 255)))]
    pub content_type: Option<String>,
    /// SHA-256 of the content, hexadecimal. What arrives must have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 64, max_length = 64)))]
    pub sha256: Option<String>,
}

/// One upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetUpload {
    /// The upload.
    pub id: UploadId,
}

/// The caller's uploads, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListUploads {
    /// Only those in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Items of the page, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Fresh links for what is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkUpload {
    /// The upload.
    pub id: UploadId,
    /// Only parts after this one; from the first when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_part: Option<u32>,
    /// Links of the page, 1 to 500; 100 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Everything is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompleteUpload {
    /// The upload.
    pub id: UploadId,
}

/// End an upload that is not finished; what was sent goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbortUpload {
    /// The upload.
    pub id: UploadId,
}

operation!(CreateUpload => Upload, "upload", "create", Account, "Announce an object and get links to put it.");
operation!(reads GetUpload => Upload, "upload", "get", Account, "One upload.");
operation!(reads ListUploads => Page<Upload>, "upload", "list", Account, "The caller's uploads, newest first.");
operation!(LinkUpload => Transfer, "upload", "link", Account, "Fresh links for what is missing of an upload.");
operation!(CompleteUpload => Upload, "upload", "complete", Account, "Everything of an upload is sent.");
operation!(AbortUpload => Done, "upload", "abort", Account, "End an upload that is not finished.");

/// `upload.created`, `upload.completed`, `upload.failed`, `upload.aborted`, `upload.expired`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The upload as it is now.
    pub upload: Upload,
}

/// What the external check is asked, on the subject `uploads.check_subject`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The upload.
    pub upload_id: UploadId,
    /// The file to be.
    pub file_id: FileId,
    /// Whose.
    pub account_id: AccountId,
    /// Name of the file to be.
    pub file_name: String,
    /// Its length.
    pub size_bytes: i64,
    /// Media type that was announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Media type that the first bytes look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected_content_type: Option<String>,
    /// SHA-256 of the content, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// A link to the content for this server's own network, some minutes good.
    pub url: String,
    /// How often this was asked, this time included.
    pub attempt: i32,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check").field("upload_id", &self.upload_id).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

/// What the external check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is wrong with it.
    Continue,
    /// Ask again.
    Retry,
    /// Keep it, and let nobody have its content.
    Quarantine,
    /// Delete it.
    Delete,
}

/// What the external check answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// What is to become of it.
    pub outcome: Verdict,
    /// `retry`: seconds after which to ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
    /// Why, for the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
