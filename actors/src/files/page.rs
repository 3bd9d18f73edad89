//! Pages of the drive: cursors that carry what a list is ordered by, and no page larger than a message.

use bowerbird_nats::{
    Code, Problem,
    file::{File, Sort},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::store::list::{By, Mark};
use crate::cursor::{Cursors, List};

/// Bytes of a page of files, about: a reply must not be larger than half of what the bus carries.
const PAGE_BYTES: usize = 300_000;
/// What a file takes beside its texts.
const FILE_BYTES: usize = 600;

/// How many of these files fit into one page; at least one.
pub(super) fn fitting<'a>(files: impl Iterator<Item = &'a File>) -> usize {
    let mut room = PAGE_BYTES;
    let fits = files.take_while(|file| {
        // Every character may be written as an escape.
        let tags: usize = file.tags.iter().map(|tag| 2 * tag.len() + 4).sum();
        let texts = 2 * (file.name.len() + file.folder.len() + file.description.as_ref().map_or(0, String::len));
        let size = FILE_BYTES + tags + texts + file.content_type.len() + file.etag.len();
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    });
    fits.count().max(1)
}

/// The cursor of what comes after this.
pub(super) fn after(cursors: &Cursors, list: &List<'_>, mark: &Mark) -> String {
    let value = match &mark.by {
        By::Time(time) => time.unix_timestamp_nanos().to_string(),
        By::Number(number) => number.to_string(),
        By::Text(text) => text.clone(),
    };
    cursors.after_value(list, mark.id, &value)
}

/// Where the page before ended.
pub(super) fn read(cursors: &Cursors, list: &List<'_>, cursor: &str, sort: Sort) -> Result<Mark, Problem> {
    let (id, value) = cursors.read_value(list, cursor)?;
    let by = match sort {
        Sort::Created | Sort::Updated => time(&value).map(By::Time),
        Sort::Size => value.parse().ok().map(By::Number),
        Sort::Name => Some(By::Text(value)),
    };
    Ok(Mark { by: by.ok_or_else(not_ours)?, id })
}

/// The cursor of what comes after something that was at this time.
pub(super) fn after_time(cursors: &Cursors, list: &List<'_>, at: OffsetDateTime, id: Uuid) -> String {
    cursors.after_value(list, id, &at.unix_timestamp_nanos().to_string())
}

/// See [`after_time`].
pub(super) fn read_time(cursors: &Cursors, list: &List<'_>, cursor: &str) -> Result<(OffsetDateTime, Uuid), Problem> {
    let (id, value) = cursors.read_value(list, cursor)?;
    Ok((time(&value).ok_or_else(not_ours)?, id))
}

fn time(value: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(value.parse().ok()?).ok()
}

fn not_ours() -> Problem {
    Problem::new(Code::InvalidCursor, "use next_cursor of a page as it is, or leave it away to begin anew")
}
