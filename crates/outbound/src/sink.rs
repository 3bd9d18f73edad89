//! Where the bytes of a transfer go: an object store with multipart uploads, or something that behaves like one.

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};

use crate::ledger::PartRecord;

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// It could not be reached, was busy or failed; the same call may go better.
    #[error("the object store is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The upload is not there any more: aborted, expired or completed.
    #[error("the object store does not know this upload")]
    NoSuchUpload,
    /// It refuses, and would again: no right, no space, bytes that do not fit their checksum.
    #[error("the object store refuses: {0}")]
    Refused(String),
}

/// What a sink answers with, in time.
pub type SinkAnswer<'a, T> = BoxFuture<'a, Result<T, SinkError>>;

/// A finished object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The entity tag that the store gave it, with its quotes.
    pub etag: String,
}

/// One object to be. Every call is for the same key. CRCs are CRC-64/NVME of the bytes they come with.
pub trait Sink: Send + Sync {
    /// Begin a multipart upload. Returns its id.
    fn begin<'a>(&'a self, content_type: Option<&'a str>) -> SinkAnswer<'a, String>;

    /// Store a part, in place of an earlier one of the same number. Returns its entity tag.
    fn part<'a>(&'a self, upload_id: &'a str, number: u32, body: Bytes, crc64: u64) -> SinkAnswer<'a, String>;

    /// Store a small object with one call.
    fn put_whole<'a>(&'a self, content_type: Option<&'a str>, body: Bytes, crc64: u64) -> SinkAnswer<'a, Stored>;

    /// Make an object of exactly these parts, which are in order and without gaps.
    fn finish<'a>(&'a self, upload_id: &'a str, parts: &'a [PartRecord], size_bytes: u64, crc64: u64) -> SinkAnswer<'a, Stored>;

    /// Forget an upload and its parts. One that is gone already is no error.
    fn abort<'a>(&'a self, upload_id: &'a str) -> SinkAnswer<'a, ()>;

    /// The bytes of the finished object, to digest them.
    fn read_back(&self) -> SinkAnswer<'_, BoxStream<'static, Result<Bytes, SinkError>>>;

    /// Remove the finished object, because its bytes turned out to be wrong.
    fn discard(&self) -> SinkAnswer<'_, ()>;
}
