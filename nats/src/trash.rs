//! The trash: files and folders that can be had back for a time.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    file::OnCollision,
    operation::{Done, operation},
    page::Page,
};

/// What was moved to the trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "TrashedKind", rename_all = "snake_case"))]
pub enum Kind {
    /// A file.
    File,
    /// A folder with everything in it.
    Folder,
}

/// Something in the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct Trashed {
    /// What it is.
    pub kind: Kind,
    /// Identifier of the file or folder.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Path of the folder that it was in.
    pub folder: String,
    /// Bytes that it takes, which count for the quota until it is purged.
    pub size_bytes: i64,
    /// Files that it is: 1, or those of the folder.
    pub files: i64,
    /// When it was moved to the trash.
    #[serde(with = "time::serde::rfc3339")]
    pub deleted_at: OffsetDateTime,
    /// When it is purged.
    #[serde(with = "time::serde::rfc3339")]
    pub purge_after: OffsetDateTime,
}

/// Something that was taken out of the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct Restored {
    /// What it is.
    pub kind: Kind,
    /// Identifier of the file or folder: the same as before.
    pub id: Uuid,
    /// Its name, which is another one if its own was taken.
    pub name: String,
    /// Path of the folder that it is in.
    pub folder: String,
}

/// What is in the caller's trash, what was moved there last first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListTrash {
    /// Items of the page at most, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Take something out of the trash, to where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreTrashed {
    /// The file or folder.
    pub id: Uuid,
    /// What is done when its name is taken: `fail` or `rename`; `rename` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_collision: Option<OnCollision>,
}

/// Purge something in the trash now, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeTrashed {
    /// The file or folder.
    pub id: Uuid,
}

operation!(reads ListTrash => Page<Trashed>, "trash", "list", Account, "What is in the trash.");
operation!(RestoreTrashed => Restored, "trash", "restore", Account, "Take a file or a folder out of the trash.");
operation!(PurgeTrashed => Done, "trash", "purge", Account, "Purge a file or a folder in the trash now.");
