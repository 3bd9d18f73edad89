//! Why the store says no, and how S3 spells it.

use std::{io, path::PathBuf, sync::Arc};

use http::StatusCode;
use s3s::{S3Error, S3ErrorCode};

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the directory.
    #[error("the object store in {} is in use by another process; stop it, or choose another data directory", root.display())]
    InUse {
        /// The directory.
        root: PathBuf,
    },
    /// The directory cannot be used.
    #[error("the directory {} of the object store cannot be used; it must be writable and on a disk that works", root.display())]
    Directory {
        /// The directory.
        root: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The index cannot be opened.
    #[error("the index {} of the object store cannot be opened", path.display())]
    Index {
        /// Its file.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Box<redb::Error>,
    },
    /// There is content, and nothing that tells what it is.
    #[error(
        "the object store has content in {} but no index {}; put the index back from the same backup, or move the content \
         away to start anew",
        data.display(),
        path.display()
    )]
    LostIndex {
        /// Where the index should be.
        path: PathBuf,
        /// Where the content is.
        data: PathBuf,
    },
    /// The first bucket could not be made.
    #[error("the bucket `{bucket}` could not be made: {reason}")]
    Bucket {
        /// Its name.
        bucket: String,
        /// Why.
        reason: String,
    },
    /// The listener is of no use.
    #[error("the object store cannot listen")]
    Listen(#[source] io::Error),
}

/// Why a request was refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("the bucket does not exist")]
    NoSuchBucket,
    #[error("the bucket is not empty")]
    BucketNotEmpty,
    #[error("the bucket exists already")]
    BucketExists,
    #[error("the key does not exist")]
    NoSuchKey,
    #[error("the upload does not exist; it was completed, aborted, or never begun")]
    NoSuchUpload,
    #[error("the condition `{0}` does not hold")]
    PreconditionFailed(&'static str),
    #[error("part {0} was not uploaded, or has another entity tag")]
    InvalidPart(i32),
    #[error("the parts are not listed in ascending order")]
    InvalidPartOrder,
    #[error("part {0} is smaller than the 5 MiB that every part but the last must have")]
    EntityTooSmall(i32),
    #[error("{0}")]
    TooLarge(String),
    #[error("the {algorithm} that was sent, {expected}, is not that of the content, {computed}")]
    BadDigest { algorithm: &'static str, expected: String, computed: String },
    #[error("{0}")]
    InvalidDigest(String),
    #[error("the body ended before its declared length")]
    IncompleteBody,
    #[error("nothing was sent for {0} seconds")]
    Stalled(u64),
    #[error("the payload does not have the hash in x-amz-content-sha256")]
    PayloadHash,
    #[error("the signature of a chunk does not match")]
    ChunkSignature,
    #[error("{0}")]
    Invalid(String),
    #[error("the disk of the object store is full; free some space, or move its data directory to a larger disk")]
    Full,
    #[error("a file of the object store failed")]
    Io(#[source] Arc<io::Error>),
    #[error("the index of the object store failed")]
    Index(#[source] Arc<redb::Error>),
    #[error("a record of the object store is damaged")]
    Record {
        #[source]
        source: Arc<serde_json::Error>,
    },
    #[error("the change could not be made durable: {0}")]
    Commit(#[source] Box<StoreError>),
    #[error("the object store is stopping")]
    Stopping,
}

impl StoreError {
    /// Whether it is not known if the change was made.
    pub(super) fn is_uncertain(&self) -> bool {
        matches!(self, StoreError::Index(_) | StoreError::Commit(_) | StoreError::Stopping)
    }
}

impl From<io::Error> for StoreError {
    fn from(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
            _ => StoreError::Io(Arc::new(source)),
        }
    }
}

impl<E: Into<redb::Error>> From<E> for StoreError
where
    E: RedbError,
{
    fn from(source: E) -> Self {
        match source.into() {
            redb::Error::Io(source) if source.kind() == io::ErrorKind::StorageFull => StoreError::Full,
            other => StoreError::Index(Arc::new(other)),
        }
    }
}

/// The errors of the database, told apart from all others.
pub(super) trait RedbError {}
impl RedbError for redb::Error {}
impl RedbError for redb::StorageError {}
impl RedbError for redb::TableError {}
impl RedbError for redb::TransactionError {}
impl RedbError for redb::CommitError {}
impl RedbError for redb::DatabaseError {}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        let error = match error {
            StoreError::Commit(cause) if matches!(*cause, StoreError::Full) => *cause,
            other => other,
        };
        let custom = |name: &'static str, status: StatusCode| {
            let mut answer = S3Error::new(S3ErrorCode::Custom(name.into()));
            answer.set_status_code(status);
            answer
        };
        let mut answer = match &error {
            StoreError::NoSuchBucket => S3Error::new(S3ErrorCode::NoSuchBucket),
            StoreError::BucketNotEmpty => S3Error::new(S3ErrorCode::BucketNotEmpty),
            StoreError::BucketExists => S3Error::new(S3ErrorCode::BucketAlreadyOwnedByYou),
            StoreError::NoSuchKey => S3Error::new(S3ErrorCode::NoSuchKey),
            StoreError::NoSuchUpload => S3Error::new(S3ErrorCode::NoSuchUpload),
            StoreError::PreconditionFailed(_) => S3Error::new(S3ErrorCode::PreconditionFailed),
            StoreError::InvalidPart(_) => S3Error::new(S3ErrorCode::InvalidPart),
            StoreError::InvalidPartOrder => S3Error::new(S3ErrorCode::InvalidPartOrder),
            StoreError::EntityTooSmall(_) => S3Error::new(S3ErrorCode::EntityTooSmall),
            StoreError::TooLarge(_) => S3Error::new(S3ErrorCode::EntityTooLarge),
            StoreError::BadDigest { .. } => S3Error::new(S3ErrorCode::BadDigest),
            StoreError::InvalidDigest(_) => S3Error::new(S3ErrorCode::InvalidDigest),
            StoreError::IncompleteBody => S3Error::new(S3ErrorCode::IncompleteBody),
            StoreError::Stalled(_) => S3Error::new(S3ErrorCode::RequestTimeout),
            StoreError::PayloadHash => custom("XAmzContentSHA256Mismatch", StatusCode::BAD_REQUEST),
            StoreError::ChunkSignature => S3Error::new(S3ErrorCode::SignatureDoesNotMatch),
            StoreError::Invalid(_) => S3Error::new(S3ErrorCode::InvalidRequest),
            StoreError::Full => {
                tracing::warn!("a write was refused: the disk of the object store is full");
                custom("InsufficientStorage", StatusCode::INSUFFICIENT_STORAGE)
            }
            StoreError::Stopping => S3Error::new(S3ErrorCode::ServiceUnavailable),
            StoreError::Io(_) | StoreError::Index(_) | StoreError::Record { .. } | StoreError::Commit(_) => {
                // Logged here, where it is handled: the client is told no more than that it failed.
                tracing::error!(error = &error as &dyn std::error::Error, "a request to the object store failed");
                S3Error::new(S3ErrorCode::InternalError)
            }
        };
        answer.set_message(error.to_string());
        answer
    }
}
