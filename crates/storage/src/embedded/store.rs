//! The store itself: finding objects, and the changes that every way of writing one shares.

use std::{path::Path, sync::Arc};

use bowerbird_lifecycle::Clock;
use rand::Rng;
use s3s::dto::{ETag, ETagCondition, Timestamp};
use time::OffsetDateTime;

use super::{
    checksum::Checksums,
    commit::{Committer, Tables},
    data::{Data, Pin, sync_directory},
    error::{Error, StoreError},
    index::{self, BUCKETS, CONTENTS, Content, FILES, Index, OBJECTS},
    receive::blocking,
    record::{EventObject, EventRecord, Headers, ObjectRecord, Segment, encode, encode_segments},
};

/// Everything that requests share. One per directory.
pub(super) struct Store {
    pub(super) index: Arc<Index>,
    pub(super) data: Arc<Data>,
    pub(super) committer: Committer,
    pub(super) clock: Clock,
    pub(super) region: String,
}

/// Content that is durable and waits for its record.
pub(super) enum NewContent {
    Inline(Vec<u8>),
    Files(Vec<Segment>),
}

/// An object about to be written.
pub(super) struct NewObject {
    pub(super) content: NewContent,
    pub(super) size_bytes: u64,
    pub(super) headers: Headers,
    pub(super) checksums: Checksums,
    pub(super) parts: Option<u32>,
    /// What the event is called: `s3:ObjectCreated:Put`.
    pub(super) event: &'static str,
}

/// What a writer demands of the object that is there.
#[derive(Clone, Default)]
pub(super) struct WriteCondition {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
}

/// An object that was found, with its content. Its files stay while the pin lives.
pub(super) struct Found {
    pub(super) record: ObjectRecord,
    pub(super) content: Content,
    pub(super) pin: Pin,
}

impl Store {
    /// Open the index and the files of a directory.
    pub(super) fn open_directory(root: &Path, reserve_bytes: u64) -> Result<(Arc<Index>, Arc<Data>), Error> {
        let (path, content) = (root.join("index.redb"), root.join("data"));
        // An index that is made anew knows of no file, and what no index knows of is removed below.
        let lost =
            !path.exists() && Data::is_there(&content).map_err(|source| Error::Directory { root: root.to_owned(), source })?;
        if lost {
            return Err(Error::LostIndex { path, data: content });
        }
        let index =
            Index::open(&path).map_err(|source| Error::Index { path: path.clone(), source: Box::new(source) }).map(Arc::new)?;
        let data = index
            .read(|transaction| {
                let files = transaction.open_table(FILES)?;
                Data::open(&content, reserve_bytes, |number| Ok(files.get(number)?.is_some()))
            })
            .map_err(|error| match error {
                StoreError::Index(source) => {
                    Error::Index { path, source: Box::new(Arc::try_unwrap(source).unwrap_or(redb::Error::PreviousIo)) }
                }
                StoreError::Io(source) => {
                    Error::Directory { root: root.to_owned(), source: std::io::Error::new(source.kind(), source.to_string()) }
                }
                other => Error::Directory { root: root.to_owned(), source: std::io::Error::other(other) },
            })?;
        // What was just made must have a durable name before anything in it is acknowledged.
        let directories = [Some(root.join("data")), Some(root.to_owned()), root.parent().map(Path::to_owned)];
        for directory in directories.iter().flatten().filter(|directory| !directory.as_os_str().is_empty()) {
            sync_directory(directory).map_err(|source| Error::Directory { root: root.to_owned(), source })?;
        }
        Ok((index, Arc::new(data)))
    }

    /// An object with its content, at one point in time.
    pub(super) async fn find(&self, bucket: &str, key: &str) -> Result<Found, StoreError> {
        let (index, data) = (Arc::clone(&self.index), Arc::clone(&self.data));
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        blocking(move || {
            loop {
                let (record, content) = index.read(|transaction| {
                    index::bucket(&transaction.open_table(BUCKETS)?, &bucket)?;
                    let record = index::object(&transaction.open_table(OBJECTS)?, &bucket, &key)?;
                    let record = record.ok_or(StoreError::NoSuchKey)?;
                    let content = index::content(&transaction.open_table(CONTENTS)?, &record)?;
                    Ok((record, content))
                })?;
                let pin = data.pin(record.version);
                if let Content::Inline(_) = content {
                    return Ok(Found { record, content, pin });
                }
                // Its files may have been removed before they were pinned; not if it is still the one after.
                let current = index.read(|transaction| index::object(&transaction.open_table(OBJECTS)?, &bucket, &key))?;
                if current.is_some_and(|current| current.version == record.version) {
                    return Ok(Found { record, content, pin });
                }
            }
        })
        .await
    }

    /// The record of an object, if both bucket and object are there.
    pub(super) async fn record(&self, bucket: &str, key: &str) -> Result<Option<ObjectRecord>, StoreError> {
        let index = Arc::clone(&self.index);
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        blocking(move || {
            index.read(|transaction| {
                index::bucket(&transaction.open_table(BUCKETS)?, &bucket)?;
                index::object(&transaction.open_table(OBJECTS)?, &bucket, &key)
            })
        })
        .await
    }
}

impl WriteCondition {
    /// Hold it against what is there.
    pub(super) fn check(&self, current: Option<&ObjectRecord>) -> Result<(), StoreError> {
        match &self.if_none_match {
            Some(ETagCondition::Any) if current.is_some() => {
                return Err(StoreError::PreconditionFailed("If-None-Match"));
            }
            Some(ETagCondition::ETag(_)) => {
                return Err(StoreError::Invalid("If-None-Match of a write accepts only `*`".to_owned()));
            }
            _ => {}
        }
        match (&self.if_match, current) {
            (None, _) | (Some(ETagCondition::Any), Some(_)) => Ok(()),
            (Some(_), None) => Err(StoreError::NoSuchKey),
            (Some(ETagCondition::ETag(wanted)), Some(current)) if wanted.as_strong() == Some(&current.etag) => Ok(()),
            (Some(ETagCondition::ETag(_)), Some(_)) => Err(StoreError::PreconditionFailed("If-Match")),
        }
    }
}

/// Put an object in the place of the one that is there, all in one transaction.
pub(super) fn replace_object(
    tables: &mut Tables<'_>,
    bucket: &str,
    key: &str,
    new: NewObject,
) -> Result<ObjectRecord, StoreError> {
    let old = index::object(&tables.objects, bucket, key)?;
    if let Some(old) = &old {
        remove_content(tables, old)?;
    }
    let (version, now_ms) = tables.next_version()?;
    let inline = match &new.content {
        NewContent::Inline(bytes) => {
            tables.contents.insert(version, bytes.as_slice())?;
            true
        }
        NewContent::Files(segments) => {
            tables.contents.insert(version, encode_segments(segments).as_slice())?;
            for segment in segments {
                tables.files.insert(segment.file, ())?;
            }
            false
        }
    };
    let record = ObjectRecord {
        version,
        etag: new_etag(version),
        size_bytes: new.size_bytes,
        modified_ms: now_ms,
        headers: new.headers,
        checksums: new.checksums,
        inline,
        parts: new.parts,
    };
    tables.objects.insert(index::object_key(bucket, key).as_slice(), encode(&record)?.as_slice())?;
    tables.record_event(&EventRecord {
        name: new.event.to_owned(),
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        version,
        time_ms: now_ms,
        object: Some(EventObject {
            size_bytes: record.size_bytes,
            etag: record.etag.clone(),
            content_type: record.headers.content_type.clone(),
            metadata: record.headers.metadata.clone(),
        }),
    })?;
    Ok(record)
}

/// Remove an object. False: there was none.
pub(super) fn remove_object(tables: &mut Tables<'_>, bucket: &str, key: &str) -> Result<bool, StoreError> {
    let Some(old) = index::object(&tables.objects, bucket, key)? else { return Ok(false) };
    remove_content(tables, &old)?;
    tables.objects.remove(index::object_key(bucket, key).as_slice())?;
    let (version, now_ms) = tables.next_version()?;
    tables.record_event(&EventRecord {
        name: "s3:ObjectRemoved:Delete".to_owned(),
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        version,
        time_ms: now_ms,
        object: None,
    })?;
    Ok(true)
}

fn remove_content(tables: &mut Tables<'_>, old: &ObjectRecord) -> Result<(), StoreError> {
    if let Content::Files(segments) = index::content(&tables.contents, old)? {
        let files: Vec<u64> = segments.iter().map(|segment| segment.file).collect();
        for file in &files {
            tables.files.remove(file)?;
        }
        tables.obsolete.push((old.version, files));
    }
    tables.contents.remove(old.version)?;
    Ok(())
}

/// An entity tag that no other write has, and that nobody can take for the MD5 of anything.
pub(super) fn new_etag(version: u64) -> String {
    format!("{version:x}-{:08x}", rand::rng().random::<u32>())
}

pub(super) fn etag(value: &str) -> ETag {
    ETag::Strong(value.to_owned())
}

pub(super) fn timestamp(milliseconds: i64) -> Timestamp {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH).into()
}
