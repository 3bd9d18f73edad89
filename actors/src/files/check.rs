//! What may be said of files and folders, every fault of a request named at once.

use bowerbird_nats::{
    Problem,
    file::{Clearable, FileChanges, ListFiles, OnCollision},
    folder::FolderChanges,
};
use time::OffsetDateTime;

use crate::downloads::check::{self as texts, Faults, is_deceiving};

/// Tags of one file.
const MAX_TAGS: usize = 50;
/// Longest tag, in characters.
const MAX_TAG_CHARACTERS: usize = 64;
/// Longest description, in characters.
const MAX_DESCRIPTION_CHARACTERS: usize = 2000;
/// Longest media type that can be asked for.
const MAX_TYPE_BYTES: usize = 255;

/// What is to change of a file. Tags come back sorted, each once.
pub(super) fn changes(changes: &mut FileChanges, now: OffsetDateTime) -> Result<(), Problem> {
    let mut faults = Faults::default();
    if let Some(name) = &changes.name {
        texts::file_name(&mut faults, "name", name);
    }
    if let Some(path) = &changes.folder {
        texts::folder(&mut faults, "folder", path);
    }
    if let Some(given) = &mut changes.tags {
        tags(&mut faults, given);
    }
    if let Some(description) = &changes.description {
        faults.unless(
            description.chars().count() <= MAX_DESCRIPTION_CHARACTERS,
            "description",
            "must be at most 2000 characters",
        );
        let fine = |character: char| !is_deceiving(character) || matches!(character, '\n' | '\t' | '\u{200e}' | '\u{200f}');
        faults.unless(description.chars().all(fine), "description", "must not hold control characters");
        faults.unless(!changes.clear.contains(&Clearable::Description), "description", "is given and cleared; do one of the two");
    }
    if let Some(expires_at) = changes.expires_at {
        faults.unless(expires_at > now, "expires_at", "is past");
        faults.unless(expires_at < now + time::Duration::days(36_525), "expires_at", "must not be more than 100 years ahead");
        faults.unless(!changes.clear.contains(&Clearable::ExpiresAt), "expires_at", "is given and cleared; do one of the two");
    }
    faults.into_result()
}

/// Tags, sorted and each once from now on.
pub(super) fn tags(faults: &mut Faults, tags: &mut Vec<String>) {
    tags.sort();
    tags.dedup();
    faults.unless(tags.len() <= MAX_TAGS, "tags", "must be at most 50");
    for tag in tags.iter() {
        let fine = (1..=MAX_TAG_CHARACTERS).contains(&tag.chars().count())
            && tag.trim() == tag
            && !tag.chars().any(|character| character == ',' || is_deceiving(character));
        faults.unless(
            fine,
            "tags",
            "each must be from 1 to 64 characters, without commas, control characters, or white space around it",
        );
    }
}

/// What is to change of a folder.
pub(super) fn folder_changes(changes: &FolderChanges) -> Result<(), Problem> {
    let mut faults = Faults::default();
    if let Some(name) = &changes.name {
        texts::file_name(&mut faults, "name", name);
    }
    if let Some(path) = &changes.parent {
        texts::folder(&mut faults, "parent", path);
    }
    not_replace(&mut faults, changes.on_collision);
    faults.into_result()
}

/// Folders are not put in each other's place.
pub(super) fn not_replace(faults: &mut Faults, on_collision: Option<OnCollision>) {
    faults.unless(on_collision != Some(OnCollision::Replace), "on_collision", "must be fail or rename here");
}

/// What a list is narrowed by.
pub(super) fn list(list: &mut ListFiles) -> Result<(), Problem> {
    texts::search(list.q.as_deref())?;
    let mut faults = Faults::default();
    if let Some(path) = &list.folder {
        texts::folder(&mut faults, "folder", path);
    }
    if let Some(prefix) = &list.content_type {
        let fine = (1..=MAX_TYPE_BYTES).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_graphic());
        faults.unless(fine, "content_type", "must be the beginning of a media type: image/ or application/pdf");
    }
    tags(&mut faults, &mut list.tags);
    for (name, size) in [("min_size_bytes", list.min_size_bytes), ("max_size_bytes", list.max_size_bytes)] {
        faults.unless(size.is_none_or(|size| size >= 0), name, "must not be negative");
    }
    faults.into_result()
}
