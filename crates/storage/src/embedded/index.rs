//! The index: an embedded database with everything but the content of files.
//!
//! | table | key | value |
//! |---|---|---|
//! | `buckets` | name | [`BucketRecord`] |
//! | `objects` | bucket, NUL, key | [`ObjectRecord`] |
//! | `contents` | version | the bytes themselves, or the list of segments |
//! | `uploads` | bucket, NUL, key, NUL, upload id | [`UploadRecord`] |
//! | `parts` | upload id, part number | [`PartRecord`] |
//! | `files` | number of a data file | nothing: it is listed |
//! | `events` | version | [`EventRecord`](super::record::EventRecord) |
//! | `numbers` | name | the last version given |

use std::{
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::{
    error::StoreError,
    record::{BucketRecord, ObjectRecord, PartRecord, Segment, UploadRecord, decode, decode_segments},
};

pub(super) const BUCKETS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("buckets");
pub(super) const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
pub(super) const CONTENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("contents");
pub(super) const UPLOADS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("uploads");
pub(super) const PARTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("parts");
pub(super) const FILES: TableDefinition<'_, u64, ()> = TableDefinition::new("files");
pub(super) const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
pub(super) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// Memory for pages of the index.
const CACHE_BYTES: usize = 64 << 20;

/// The database. Outlives every request; reopened after a write that failed, as it then refuses further ones.
pub(super) struct Index {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

/// The content of an object as the index has it.
#[derive(Debug)]
pub(super) enum Content {
    Inline(Vec<u8>),
    Files(Vec<Segment>),
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self, redb::Error> {
        let database = Self::open_database(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(BUCKETS)?;
        transaction.open_table(OBJECTS)?;
        transaction.open_table(CONTENTS)?;
        transaction.open_table(UPLOADS)?;
        transaction.open_table(PARTS)?;
        transaction.open_table(FILES)?;
        transaction.open_table(EVENTS)?;
        transaction.open_table(NUMBERS)?;
        transaction.commit()?;
        Ok(Index { path: path.to_owned(), database: RwLock::new(Some(database)) })
    }

    fn open_database(path: &Path) -> Result<Database, redb::DatabaseError> {
        redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_repair_callback(|progress| tracing::info!(progress = progress.progress(), "repairing the index"))
            .create(path)
    }

    /// Read at one point in time.
    pub(super) fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(StoreError::Stopping)?;
        read(&database.begin_read()?)
    }

    /// Begin to write. Only the committer does.
    pub(super) fn write<T>(&self, write: impl FnOnce(WriteTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(StoreError::Stopping)?;
        write(database.begin_write()?)
    }

    /// Size of the database's file.
    pub(super) fn size_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Close the database, once nobody reads it any more. What comes later is refused.
    pub(super) fn close(&self) {
        drop(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Close the database and open it again, which repairs what a failed write left.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        drop(database.take());
        *database = Some(Self::open_database(&self.path)?);
        Ok(())
    }
}

pub(super) fn object_key(bucket: &str, key: &str) -> Vec<u8> {
    [bucket.as_bytes(), b"\0", key.as_bytes()].concat()
}

pub(super) fn upload_key(bucket: &str, key: &str, upload_id: &str) -> Vec<u8> {
    [bucket.as_bytes(), b"\0", key.as_bytes(), b"\0", upload_id.as_bytes()].concat()
}

pub(super) fn part_key(upload_id: &str, part_number: u32) -> Vec<u8> {
    [upload_id.as_bytes(), &part_number.to_be_bytes()].concat()
}

pub(super) fn bucket(buckets: &impl ReadableTable<&'static str, &'static [u8]>, name: &str) -> Result<BucketRecord, StoreError> {
    buckets.get(name)?.ok_or(StoreError::NoSuchBucket).and_then(|record| decode(record.value()))
}

pub(super) fn object(
    objects: &impl ReadableTable<&'static [u8], &'static [u8]>,
    bucket: &str,
    key: &str,
) -> Result<Option<ObjectRecord>, StoreError> {
    objects.get(object_key(bucket, key).as_slice())?.map(|record| decode(record.value())).transpose()
}

pub(super) fn upload(
    uploads: &impl ReadableTable<&'static [u8], &'static [u8]>,
    bucket: &str,
    key: &str,
    upload_id: &str,
) -> Result<UploadRecord, StoreError> {
    uploads
        .get(upload_key(bucket, key, upload_id).as_slice())?
        .ok_or(StoreError::NoSuchUpload)
        .and_then(|record| decode(record.value()))
}

/// The parts of an upload from a part number on, in order, at most `limit`.
pub(super) fn parts(
    parts: &impl ReadableTable<&'static [u8], &'static [u8]>,
    upload_id: &str,
    from: u32,
    limit: usize,
) -> Result<Vec<(u32, PartRecord)>, StoreError> {
    let (first, last) = (part_key(upload_id, from), part_key(upload_id, u32::MAX));
    let mut found = Vec::new();
    for entry in parts.range::<&[u8]>(first.as_slice()..=last.as_slice())? {
        if found.len() == limit {
            break;
        }
        let (key, record) = entry?;
        let number = key.value()[upload_id.len()..].iter().fold(0_u32, |number, byte| (number << 8) | u32::from(*byte));
        found.push((number, decode(record.value())?));
    }
    Ok(found)
}

pub(super) fn content(contents: &impl ReadableTable<u64, &'static [u8]>, record: &ObjectRecord) -> Result<Content, StoreError> {
    let bytes = contents.get(record.version)?;
    let bytes = bytes.as_ref().map(redb::AccessGuard::value).unwrap_or_default();
    Ok(if record.inline { Content::Inline(bytes.to_vec()) } else { Content::Files(decode_segments(bytes)) })
}
