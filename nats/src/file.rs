//! Files: objects that an account owns.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    id::{DownloadId, FileId, UploadId},
    operation::{Done, operation},
    page::Page,
};

/// Where a file came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "FileSource", rename_all = "snake_case"))]
pub enum Source {
    /// A download.
    Download,
    /// An upload.
    Upload,
}

/// Whether the content can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename_all = "snake_case"))]
pub enum FileStatus {
    /// Not yet.
    Pending,
    /// Yes.
    Available,
    /// No, something is wrong with it.
    Quarantined,
    /// No: somebody else removed the object from the bucket.
    Missing,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none, skip_serializing_if_is_empty))]
pub struct File {
    /// Its identifier.
    pub id: FileId,
    /// Its name, without a path.
    pub name: String,
    /// The folder it is in: `/`, `/films/2026`.
    pub folder: String,
    /// Its length.
    pub size_bytes: i64,
    /// Its media type, as the source declared it.
    pub content_type: String,
    /// SHA-256 of the content, hexadecimal, unless hashing was off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Entity tag of the object.
    pub etag: String,
    /// Whether the content can be had.
    pub status: FileStatus,
    /// Where it came from.
    pub source: Source,
    /// The download that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_id: Option<DownloadId>,
    /// The upload that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<UploadId>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetFile {
    /// The file.
    pub id: FileId,
}

/// The caller's files, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListFiles {
    /// Only this folder, not those below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Only names that contain this, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Items of the page, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Delete a file and its object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteFile {
    /// The file.
    pub id: FileId,
}

/// A link to the content, for whoever has it, for a short time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresignFile {
    /// The file.
    pub id: FileId,
    /// True for a link that this server's own network can follow (to stream through), false for one for clients.
    #[serde(default)]
    pub internal: bool,
}

/// A link to the content of a file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "FileLink"))]
pub struct Link {
    /// The link. Whoever has it can read the file.
    pub url: String,
    /// When it stops working.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

operation!(reads GetFile => File, "file", "get", Account, "One file.");
operation!(reads ListFiles => Page<File>, "file", "list", Account, "The caller's files, newest first.");
operation!(DeleteFile => Done, "file", "delete", Account, "Delete a file and its object.");
operation!(reads PresignFile => Link, "file", "presign", Account, "A short-lived link to the content of a file.");

/// `file.available`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Available {
    /// The file as it is now.
    pub file: File,
}

/// `file.quarantined`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The file as it is now.
    pub file: File,
    /// Why.
    pub reason: String,
}

/// `file.missing`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The file as it is now.
    pub file: File,
}

/// `file.found`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The file as it is now.
    pub file: File,
}

/// `file.purged`: the file is gone, its object too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// The file.
    pub file_id: FileId,
    /// What it stored.
    pub size_bytes: i64,
}
