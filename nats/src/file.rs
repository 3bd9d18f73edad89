//! Files: objects that an account owns.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    id::{DownloadId, FileId, FileVersionId, FolderId, UploadId},
    operation::{Done, operation},
    page::Page,
    problem::Code,
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
    /// The folder it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder_id: Option<FolderId>,
    /// Words of its owner's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default))]
    pub tags: Vec<String>,
    /// What its owner says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it moves to the trash by itself.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// Grows with every change that its owner makes; `If-Match` takes it.
    #[serde(default = "first_version")]
    pub version: i64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// Of files that were told of before they had one.
fn first_version() -> i64 {
    1
}

/// What is done when a name is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename_all = "snake_case"))]
pub enum OnCollision {
    /// Nothing: the answer is `name_taken`.
    #[default]
    Fail,
    /// The next free name: `report (2).pdf`.
    Rename,
    /// The file that has the name keeps its id and its links, and gets this content; what it held becomes a version of it.
    Replace,
}

/// What a list of files is ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "FileSort", rename_all = "snake_case"))]
pub enum Sort {
    /// When they were made.
    #[default]
    Created,
    /// When they were last changed.
    Updated,
    /// Their names, without regard to case.
    Name,
    /// Their lengths.
    Size,
}

/// In which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "SortOrder", rename_all = "snake_case"))]
pub enum Order {
    /// The smallest, oldest or first in the alphabet first.
    Asc,
    /// The other way around.
    Desc,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetFile {
    /// The file.
    pub id: FileId,
}

/// The caller's files, newest first unless another order is asked for. What is given narrows the list, all of it together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListFiles {
    /// Only this folder, not those below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Only names that contain this, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Only media types that begin with this: `image/`, `application/pdf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Only files that have all of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Only files of at least this length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size_bytes: Option<i64>,
    /// Only files of at most this length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size_bytes: Option<i64>,
    /// Only files made at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub created_after: Option<OffsetDateTime>,
    /// Only files made before this time.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub created_before: Option<OffsetDateTime>,
    /// Only files last changed at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub updated_after: Option<OffsetDateTime>,
    /// Only files last changed before this time.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub updated_before: Option<OffsetDateTime>,
    /// Only files in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<FileStatus>,
    /// What they are ordered by; `created` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<Sort>,
    /// In which direction; `asc` for names, `desc` for everything else when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Items of the page at most, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What can be taken away from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "FileClearable", rename_all = "snake_case"))]
pub enum Clearable {
    /// The description.
    Description,
    /// The time at which it moves to the trash.
    ExpiresAt,
}

/// What is to change of a file; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(deny_unknown_fields, skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct FileChanges {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 255)))]
    pub name: Option<String>,
    /// Another folder. It is made if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 1024)))]
    pub folder: Option<String>,
    /// What is done when the name is taken there; `fail` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub on_collision: Option<OnCollision>,
    /// These tags instead of those that it has. No commas in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(max_items = 50, max_length = 64)))]
    pub tags: Option<Vec<String>>,
    /// What its owner says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(max_length = 2000)))]
    pub description: Option<String>,
    /// When it is to move to the trash by itself.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub expires_at: Option<OffsetDateTime>,
    /// What to take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default, validator(max_items = 2)))]
    pub clear: Vec<Clearable>,
}

/// Change a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateFile {
    /// The file.
    pub id: FileId,
    /// Only if it still has this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<i64>,
    /// What is to change.
    pub changes: FileChanges,
}

/// Move a file to the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteFile {
    /// The file.
    pub id: FileId,
}

/// Copy a file. The bytes are copied by the object store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyFile {
    /// The file.
    pub id: FileId,
    /// Where to.
    pub target: CopyTarget,
}

/// Where a copy goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(deny_unknown_fields, skip_serializing_if_is_none))]
pub struct CopyTarget {
    /// Its name; that of the file when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 255)))]
    pub name: Option<String>,
    /// Its folder, which is made if it is not there; that of the file when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 1024)))]
    pub folder: Option<String>,
    /// What is done when the name is taken there; `rename` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub on_collision: Option<OnCollision>,
}

/// A content that a file had before it was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none))]
pub struct FileVersion {
    /// Its identifier.
    pub id: FileVersionId,
    /// Its length.
    pub size_bytes: i64,
    /// Its media type, as the source declared it.
    pub content_type: String,
    /// SHA-256 of the content, hexadecimal, unless hashing was off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// When another content took its place.
    #[serde(with = "time::serde::rfc3339")]
    pub replaced_at: OffsetDateTime,
    /// When it goes for good.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// Contents that a file had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct FileVersions {
    /// The last 200 of them, newest first.
    pub items: Vec<FileVersion>,
}

/// What a file held before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListVersions {
    /// The file.
    pub id: FileId,
}

/// Give a file a content back that it had. What it holds now becomes a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreVersion {
    /// The file.
    pub id: FileId,
    /// The version.
    pub version_id: FileVersionId,
}

/// What is done to many files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename_all = "snake_case"))]
pub enum BulkAction {
    /// They move to `folder`.
    Move,
    /// They get `tags` beside those that they have.
    Tag,
    /// They lose `tags`.
    Untag,
    /// They move to the trash.
    Trash,
    /// They come out of the trash.
    Restore,
}

/// Do something to many files. Each is done on its own: some may fail and others not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(poem_openapi::Object),
    oai(deny_unknown_fields, skip_serializing_if_is_none, skip_serializing_if_is_empty)
)]
pub struct BulkFiles {
    /// What is done.
    pub action: BulkAction,
    /// The files, 1 to 1000, each once.
    #[cfg_attr(feature = "openapi", oai(validator(min_items = 1, max_items = 1000)))]
    pub ids: Vec<FileId>,
    /// Where to, for `move`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 1024)))]
    pub folder: Option<String>,
    /// Which, for `tag` and `untag`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default, validator(max_items = 50, max_length = 64)))]
    pub tags: Vec<String>,
    /// What is done when a name is taken, for `move` and `restore`: `fail` or `rename`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub on_collision: Option<OnCollision>,
}

/// How it went with each file, in the order in which they were named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct BulkResult {
    /// One for each file.
    pub items: Vec<BulkItem>,
}

/// How it went with one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none))]
pub struct BulkItem {
    /// The file.
    pub id: FileId,
    /// What went wrong, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<BulkError>,
}

/// Why nothing was done to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct BulkError {
    /// For programs.
    pub code: Code,
    /// For people.
    pub detail: String,
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
operation!(reads ListFiles => Page<File>, "file", "list", Account, "The caller's files: searched, narrowed and ordered.");
operation!(UpdateFile => File, "file", "update", Account, "Rename, move, tag or describe a file, or say when it expires.");
operation!(DeleteFile => Done, "file", "delete", Account, "Move a file to the trash.");
operation!(CopyFile => File, "file", "copy", Account, "Copy a file within the object store.");
operation!(BulkFiles => BulkResult, "file", "bulk", Account, "Move, tag, trash or restore up to 1000 files.");
operation!(reads ListVersions => FileVersions, "file", "versions", Account, "Contents that a file had before they were replaced.");
operation!(RestoreVersion => File, "file", "restore_version", Account, "Give a file a content back that it had.");
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

/// `file.renamed`: it has another name, or lies in another folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The file as it is now.
    pub file: File,
    /// The name that it had.
    pub old_name: String,
    /// The folder that it was in.
    pub old_folder: String,
}

/// The body of `file.updated`, `file.trashed`, `file.expired` and `file.restored`: the file as it is then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The file.
    pub file: File,
}
