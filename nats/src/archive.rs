//! Archives: a folder with everything in it, to be streamed as one file.
//!
//! Streaming may take longer than an access token lives, so whoever may begin is given a grant, which says what may be read
//! and for how long. It is a secret like a presigned link, and good for reading only.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    file::Link,
    id::{FileId, FolderId},
    operation::operation,
};

/// Begin to stream a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginArchive {
    /// The folder.
    pub folder_id: FolderId,
}

/// What is to be streamed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Name of the folder; empty for the root.
    pub name: String,
    /// For reading it.
    pub grant: String,
}

/// What is in an archive, page by page.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListArchive {
    /// What [`Archive`] gave.
    pub grant: String,
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// One file of an archive, or an empty folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The file; none for a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<FileId>,
    /// Its path below the folder, with `/` between; that of a folder ends with one.
    pub path: String,
    /// Its length.
    pub size_bytes: i64,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A page of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Hand this back as `after`; none at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A link to one file of an archive, for this server's own network.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkArchived {
    /// What [`Archive`] gave.
    pub grant: String,
    /// The file.
    pub file_id: FileId,
}

macro_rules! hidden {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}

hidden!(Archive, ListArchive, LinkArchived);

operation!(reads BeginArchive => Archive, "archive", "begin", Account, "Begin to stream a folder with everything in it.");
operation!(reads ListArchive => Entries, "archive", "list", Public, "What is in an archive, for whoever has its grant.");
operation!(reads LinkArchived => Link, "archive", "link", Public, "A link to one file of an archive, for whoever has its grant.");
