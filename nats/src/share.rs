//! Shares: links to a file or a folder, for whoever has them.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    file::Link,
    id::{FileId, FolderId, ShareId},
    operation::{Done, operation},
    page::Page,
};

/// How a share ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "ShareEnd", rename_all = "snake_case"))]
pub enum EndedBy {
    /// Its owner revoked it.
    Revoked,
    /// Its time is over.
    Expired,
    /// What it leads to was moved to the trash.
    Trashed,
}

/// A link to a file or a folder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none))]
pub struct Share {
    /// Its identifier.
    pub id: ShareId,
    /// The file, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<FileId>,
    /// The folder, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder_id: Option<FolderId>,
    /// Name of the file or folder.
    pub name: String,
    /// The link. Told once, when the share is made: nobody can look it up later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The secret part of the link. Told once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Whether a password is asked for.
    pub has_password: bool,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// How often the content may be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downloads: Option<i64>,
    /// How often it was.
    pub downloads: i64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<EndedBy>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("id", &self.id).field("downloads", &self.downloads).finish_non_exhaustive()
    }
}

/// Share a file or a folder: one of the two.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(deny_unknown_fields, skip_serializing_if_is_none))]
pub struct CreateShare {
    /// The file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub file_id: Option<FileId>,
    /// The folder. Its content is a zip of everything in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub folder_id: Option<FolderId>,
    /// A password that is asked for, 8 to 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(min_length = 8, max_length = 200)))]
    pub password: Option<String>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "openapi", oai(nullable))]
    pub expires_at: Option<OffsetDateTime>,
    /// How often the content may be fetched. Every fetch that begins counts, also one that breaks off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", oai(nullable, validator(minimum(value = "1"))))]
    pub max_downloads: Option<i64>,
}

impl fmt::Debug for CreateShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateShare").field("file_id", &self.file_id).field("folder_id", &self.folder_id).finish_non_exhaustive()
    }
}

/// The caller's shares, newest first; those that ended too, for a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListShares {
    /// Only those of this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<FileId>,
    /// Only those of this folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder_id: Option<FolderId>,
    /// Items of the page, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// End a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeShare {
    /// The share.
    pub id: ShareId,
}

/// What does this link lead to?
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenShare {
    /// The secret part of the link.
    pub token: String,
}

/// What a link leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Whether a password is asked for. If so, nothing else is told before it is given.
    pub has_password: bool,
    /// Name of the file or folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is a folder, whose content is a zip.
    pub is_folder: bool,
    /// Length of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// How often the content may still be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloads_left: Option<i64>,
}

/// Give the password of a link.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnlockShare {
    /// The secret part of the link.
    pub token: String,
    /// The password.
    pub password: String,
}

/// The password was right.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlocked {
    /// Instead of the password, for a short time.
    pub ticket: String,
    /// For how long.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// What the link leads to.
    pub shared: Shared,
}

/// Fetch the content behind a link. Counts, if there is a maximum.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchShare {
    /// The secret part of the link.
    pub token: String,
    /// What the right password gave, if one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

/// How the content is to be had: one of the three.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// By this link, which is for the caller and lives a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Link>,
    /// To be streamed from this link, which only this server's network can follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streamed: Option<Streamed>,
    /// As a zip of this folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<crate::archive::Archive>,
}

/// A content that is streamed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streamed {
    /// Where from.
    pub link: Link,
    /// Name of the file.
    pub name: String,
    /// Its length.
    pub size_bytes: i64,
    /// Its media type, one that runs nothing.
    pub content_type: String,
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

hidden!(OpenShare, UnlockShare, Unlocked, FetchShare, Fetched, Streamed);

operation!(CreateShare => Share, "share", "create", Account, "Share a file or a folder by a link.");
operation!(reads ListShares => Page<Share>, "share", "list", Account, "The caller's shares, newest first.");
operation!(RevokeShare => Done, "share", "revoke", Account, "End a share.");
operation!(reads OpenShare => Shared, "share", "open", Public, "What a link leads to.");
operation!(UnlockShare => Unlocked, "share", "unlock", Public, "Give the password of a link.");
operation!(FetchShare => Fetched, "share", "fetch", Public, "Fetch the content behind a link, which counts.");

/// The body of `share.created` and `share.revoked`: the share as it is then, without its link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The share.
    pub share: Share,
}

/// `share.opened`: somebody fetched the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The share.
    pub share_id: ShareId,
    /// Which fetch it was.
    pub downloads: i64,
}
