//! Folders: where files lie.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    file::{File, OnCollision},
    id::FolderId,
    operation::{Done, operation},
};

/// A folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none))]
pub struct Folder {
    /// Its identifier.
    pub id: FolderId,
    /// Its name; empty for the root.
    pub name: String,
    /// Its whole path: `/`, `/films/2026`.
    pub path: String,
    /// The folder that it is in, unless it is the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<FolderId>,
    /// Grows with every change that its owner makes; `If-Match` takes it.
    pub version: i64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// Something that is in a folder: one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "FolderItem", skip_serializing_if_is_none))]
pub struct Item {
    /// A folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<Folder>,
    /// A file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<File>,
}

/// A folder, and a page of what is in it: folders first, then files, each by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "FolderListing"))]
pub struct Listing {
    /// The folder.
    pub folder: Folder,
    /// What is in it.
    pub items: Vec<Item>,
    /// Hand this back as `cursor` for the next page; `null` at the end.
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub next_cursor: Option<String>,
}

/// Make a folder, and those above it that are not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(deny_unknown_fields, skip_serializing_if_is_none))]
pub struct CreateFolder {
    /// Its whole path: `/films/2026`. At most 32 deep.
    #[cfg_attr(feature = "openapi", oai(validator(min_length = 2, max_length = 1024)))]
    pub path: String,
    /// What is done when it is there already: `fail` or `rename`; `fail` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub on_collision: Option<OnCollision>,
}

/// One folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetFolder {
    /// The folder.
    pub id: FolderId,
}

/// What is in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListFolder {
    /// The folder. Not together with `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<FolderId>,
    /// Its path; the root when neither is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Items of the page at most, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What is to change of a folder; what is not given stays. Everything in it goes along.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(deny_unknown_fields, skip_serializing_if_is_none))]
pub struct FolderChanges {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 255)))]
    pub name: Option<String>,
    /// Path of the folder that it is to be in. That is made if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 1, max_length = 1024)))]
    pub parent: Option<String>,
    /// What is done when the name is taken there: `fail` or `rename`; `fail` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub on_collision: Option<OnCollision>,
}

/// Rename or move a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateFolder {
    /// The folder.
    pub id: FolderId,
    /// Only if it still has this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<i64>,
    /// What is to change.
    pub changes: FolderChanges,
}

/// Move a folder and everything in it to the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteFolder {
    /// The folder.
    pub id: FolderId,
}

operation!(CreateFolder => Folder, "folder", "create", Account, "Make a folder.");
operation!(reads GetFolder => Folder, "folder", "get", Account, "One folder.");
operation!(reads ListFolder => Listing, "folder", "list", Account, "What is in a folder: folders, then files.");
operation!(UpdateFolder => Folder, "folder", "update", Account, "Rename or move a folder with everything in it.");
operation!(DeleteFolder => Done, "folder", "delete", Account, "Move a folder and everything in it to the trash.");

/// The body of `folder.created` and `folder.restored`: the folder as it is then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The folder.
    pub folder: Folder,
}

/// `folder.renamed`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The folder as it is now.
    pub folder: Folder,
    /// The path that it had.
    pub old_path: String,
}

/// `folder.trashed`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trashed {
    /// The folder.
    pub folder: Folder,
    /// Folders below it that went along.
    pub folders: i64,
    /// Files that went along. Of them no events of their own are told.
    pub files: i64,
}
