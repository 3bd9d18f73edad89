//! The engine's sink over the bucket.
//!
//! Each try has a key of its own; an upload that an earlier try began keeps its key. So a worker that was given up cannot
//! write over what a later one stored, and what it leaves is found below one prefix.

use std::sync::{Mutex, PoisonError};

use bowerbird_outbound::{PartRecord, Sink, SinkAnswer, SinkError, Stored};
use bowerbird_storage::{Bucket, Error, ErrorKind, ObjectInfo};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tracing::info;

use super::{
    ledger::{SharedLedger, from_record},
    row::{Part, Row},
    store,
};

/// Where the bytes of one download go.
pub(super) struct BucketSink {
    bucket: Bucket,
    ledger: SharedLedger,
    /// Where this try begins something new.
    own_key: String,
    /// The upload of an earlier try, and its key.
    inherited: Option<(String, String)>,
    /// The key of the finished object.
    stored_key: Mutex<Option<String>>,
}

impl BucketSink {
    /// The sink of a download that was just claimed.
    pub(super) fn new(bucket: Bucket, ledger: SharedLedger, row: &Row) -> Self {
        let inherited = row.upload_id.clone().zip(row.object_key.clone());
        BucketSink { bucket, ledger, own_key: row.key_of_this_try(), inherited, stored_key: Mutex::default() }
    }

    /// The key of the finished object, if there is one.
    pub(super) fn stored_key(&self) -> Option<String> {
        self.stored_key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An upload that was begun and never adopted is ours alone to end.
    pub(super) async fn abort_stray(&self) -> Result<(), Error> {
        match self.ledger.take_stray() {
            Some(upload_id) => self.bucket.abort_multipart(&self.own_key, &upload_id).await,
            None => Ok(()),
        }
    }

    fn key_of(&self, upload_id: &str) -> &str {
        match &self.inherited {
            Some((inherited, key)) if inherited == upload_id => key,
            _ => &self.own_key,
        }
    }

    fn stored_at(&self, key: &str) {
        *self.stored_key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.to_owned());
    }

    async fn complete(&self, upload_id: &str, parts: &[PartRecord], size_bytes: u64, crc64: u64) -> Result<Stored, SinkError> {
        // The ledger must name every part before the upload is no more, and the row must still be ours.
        let noted: Vec<Part> = parts.iter().map(from_record).collect();
        match self.ledger.record(&noted).await {
            Ok(()) => {}
            // The engine asks the ledger next and is told.
            Err(error @ (store::Error::Fenced | store::Error::QuotaExceeded)) => {
                return Err(SinkError::Refused(error.to_string()));
            }
            Err(error) => return Err(SinkError::Unavailable(Box::new(error))),
        }
        let key = self.key_of(upload_id);
        let named: Vec<(u32, String, u64)> = parts.iter().map(|part| (part.number, part.etag.clone(), part.crc64)).collect();
        let stored = match self.bucket.complete_multipart(key, upload_id, &named, size_bytes, crc64).await {
            Ok(stored) => stored.etag,
            Err(error) if error.kind() == ErrorKind::NoSuchUpload => {
                // Completed before, by a try that did not live to say so?
                let found = self.bucket.head(key).await.map_err(sorted)?;
                let fits = |found: &ObjectInfo| found.size_bytes == size_bytes && found.crc64.is_none_or(|found| found == crc64);
                let Some(found) = found.filter(fits) else { return Err(SinkError::NoSuchUpload) };
                info!(key, "the upload had been completed before");
                found.etag
            }
            Err(error) => return Err(sorted(error)),
        };
        self.stored_at(key);
        Ok(Stored { etag: stored })
    }
}

impl Sink for BucketSink {
    fn begin<'a>(&'a self, content_type: Option<&'a str>) -> SinkAnswer<'a, String> {
        async move {
            let upload_id = self.bucket.create_multipart(&self.own_key, content_type).await.map_err(sorted)?;
            self.ledger.begun(&upload_id);
            Ok(upload_id)
        }
        .boxed()
    }

    fn part<'a>(&'a self, upload_id: &'a str, number: u32, body: Bytes, crc64: u64) -> SinkAnswer<'a, String> {
        async move { self.bucket.upload_part(self.key_of(upload_id), upload_id, number, body, crc64).await.map_err(sorted) }
            .boxed()
    }

    fn put_whole<'a>(&'a self, content_type: Option<&'a str>, body: Bytes, crc64: u64) -> SinkAnswer<'a, Stored> {
        async move {
            let stored = self.bucket.put(&self.own_key, body, content_type, Some(crc64)).await.map_err(sorted)?;
            self.stored_at(&self.own_key);
            Ok(Stored { etag: stored.etag })
        }
        .boxed()
    }

    fn finish<'a>(&'a self, upload_id: &'a str, parts: &'a [PartRecord], size_bytes: u64, crc64: u64) -> SinkAnswer<'a, Stored> {
        self.complete(upload_id, parts, size_bytes, crc64).boxed()
    }

    fn abort<'a>(&'a self, upload_id: &'a str) -> SinkAnswer<'a, ()> {
        async move { self.bucket.abort_multipart(self.key_of(upload_id), upload_id).await.map_err(sorted) }.boxed()
    }

    fn read_back(&self) -> SinkAnswer<'_, stream::BoxStream<'static, Result<Bytes, SinkError>>> {
        async move {
            let key = self.stored_key().unwrap_or_else(|| self.own_key.clone());
            let object = self.bucket.get(&key, None).await.map_err(sorted)?;
            let blocks = stream::try_unfold(object, |mut object| async move {
                Ok(object.next().await.map_err(sorted)?.map(|block| (block, object)))
            });
            Ok(blocks.boxed())
        }
        .boxed()
    }

    fn discard(&self) -> SinkAnswer<'_, ()> {
        async move {
            let key = self.stored_key().unwrap_or_else(|| self.own_key.clone());
            self.bucket.delete(&key).await.map_err(sorted)
        }
        .boxed()
    }
}

/// What the engine can do about it.
fn sorted(error: Error) -> SinkError {
    match error.kind() {
        ErrorKind::NoSuchUpload => SinkError::NoSuchUpload,
        ErrorKind::Denied | ErrorKind::Unfit | ErrorKind::NoSuchBucket => SinkError::Refused(error.to_string()),
        // Bytes that were damaged on their way, a part that somebody wrote over: the next try finds out and repairs.
        _ => SinkError::Unavailable(Box::new(error)),
    }
}
