//! What can go wrong with a bucket, sorted by what to do about it.

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such object.
    NoSuchKey,
    /// There is no such bucket.
    NoSuchBucket,
    /// The multipart upload was completed, aborted, or never begun.
    NoSuchUpload,
    /// A part is missing or has another entity tag than was named.
    InvalidPart,
    /// `If-Match` or `If-None-Match` did not hold.
    PreconditionFailed,
    /// The bytes that arrived are not those that were sent.
    BadDigest,
    /// The asked range lies outside the object.
    InvalidRange,
    /// The keys are wrong, or may not do this.
    Denied,
    /// No answer, or one that says to come back later.
    Unavailable,
    /// The server's disk is full.
    Full,
    /// The server does not do what is needed of it.
    Unfit,
    /// Anything else.
    Other,
}

/// A call to the bucket failed.
#[derive(Debug, thiserror::Error)]
#[error("the bucket could not {operation}: {message}")]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Full)
    }

    pub(super) fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Error { kind, operation, message: message.into(), source: None }
    }

    pub(super) fn of<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        let code = error.code().unwrap_or_default().to_owned();
        let kind = kind_of(&error, status, &code);
        let message = match (&error, error.message()) {
            (SdkError::ServiceError(_), Some(message)) => {
                let request = error.request_id().map(|id| format!(", request {id}")).unwrap_or_default();
                format!("{message} ({code}, status {status}{request})")
            }
            (SdkError::ServiceError(_), None) if (200..300).contains(&status) => "its answer is not understood".to_owned(),
            (SdkError::ServiceError(_), None) if code.is_empty() => format!("it answered with status {status}"),
            (SdkError::ServiceError(_), None) => format!("{code} (status {status})"),
            (SdkError::TimeoutError(_), _) => "it did not answer in time".to_owned(),
            (SdkError::DispatchFailure(_), _) => "it cannot be reached".to_owned(),
            (SdkError::ResponseError(_), _) => "its answer broke off or is not understood".to_owned(),
            _ => "the request could not be made".to_owned(),
        };
        Error { kind, operation, message, source: Some(Box::new(error)) }
    }

    pub(super) fn broken_body(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Error {
            kind: ErrorKind::Unavailable,
            operation: "read an object",
            message: "its answer broke off".to_owned(),
            source: Some(Box::new(source)),
        }
    }
}

fn kind_of<E>(error: &SdkError<E, HttpResponse>, status: u16, code: &str) -> ErrorKind {
    match code {
        "NoSuchKey" => return ErrorKind::NoSuchKey,
        "NoSuchBucket" => return ErrorKind::NoSuchBucket,
        "NoSuchUpload" => return ErrorKind::NoSuchUpload,
        "InvalidPart" | "InvalidPartOrder" => return ErrorKind::InvalidPart,
        "PreconditionFailed" | "ConditionalRequestConflict" => return ErrorKind::PreconditionFailed,
        "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            return ErrorKind::BadDigest;
        }
        "InvalidRange" => return ErrorKind::InvalidRange,
        "InsufficientStorage" | "XMinioStorageFull" | "QuotaExceeded" => return ErrorKind::Full,
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "NotSignedUp"
        | "ExpiredToken"
        | "RequestTimeTooSkewed" => return ErrorKind::Denied,
        "SlowDown" | "ServiceUnavailable" | "InternalError" | "RequestTimeout" => return ErrorKind::Unavailable,
        _ => {}
    }
    match (error, status) {
        (SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_), _) => ErrorKind::Unavailable,
        // HEAD has no body that could name a code.
        (_, 404) => ErrorKind::NoSuchKey,
        (_, 401 | 403) => ErrorKind::Denied,
        (_, 412) => ErrorKind::PreconditionFailed,
        (_, 416) => ErrorKind::InvalidRange,
        (_, 507) => ErrorKind::Full,
        (_, 408 | 429 | 500..) => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    }
}
