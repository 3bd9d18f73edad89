//! Why an exchange failed: a closed list of codes for programs and users, with the source kept for the log.

use std::{error::Error as StdError, io};

use crate::address::Refusal;

/// What went wrong, for programs. Closed; the words are part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The address may not be dialled.
    BlockedTarget,
    /// The name does not resolve.
    DnsFailure,
    /// Nobody listens there, or the connection broke.
    ConnectFailed,
    /// The TLS handshake failed or the certificate is not valid.
    TlsFailed,
    /// No answer in time.
    Timeout,
    /// No bytes, or too few of them, for too long.
    Stalled,
    /// The server answered with a status that is not a success.
    HttpStatus,
    /// The content kept changing while it was fetched.
    SourceChanged,
    /// The link does not work any more.
    SourceExpired,
    /// The content is shorter or longer than the server had said.
    LengthMismatch,
    /// The content is not what the digest says.
    ChecksumMismatch,
    /// Larger than allowed.
    TooLarge,
    /// Redirected too often.
    TooManyRedirects,
    /// The object store did not do what it should.
    StorageUnavailable,
    /// The server does not speak HTTP as it should.
    ProtocolError,
}

impl ErrorCode {
    /// As it is written: `blocked_target`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BlockedTarget => "blocked_target",
            ErrorCode::DnsFailure => "dns_failure",
            ErrorCode::ConnectFailed => "connect_failed",
            ErrorCode::TlsFailed => "tls_failed",
            ErrorCode::Timeout => "timeout",
            ErrorCode::Stalled => "stalled",
            ErrorCode::HttpStatus => "http_status",
            ErrorCode::SourceChanged => "source_changed",
            ErrorCode::SourceExpired => "source_expired",
            ErrorCode::LengthMismatch => "length_mismatch",
            ErrorCode::ChecksumMismatch => "checksum_mismatch",
            ErrorCode::TooLarge => "too_large",
            ErrorCode::TooManyRedirects => "too_many_redirects",
            ErrorCode::StorageUnavailable => "storage_unavailable",
            ErrorCode::ProtocolError => "protocol_error",
        }
    }
}

/// Why an exchange failed. The text is fit for whoever gave the URL: it names no address and nothing that was read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is refused by its text.
    #[error("{0}")]
    Target(#[from] crate::target::Error),
    /// The name resolves to an address that may not be dialled.
    #[error("this address may not be used here")]
    Blocked(#[source] Refusal),
    /// A redirect leads from `https` to `http`.
    #[error("the server redirects from https to http")]
    Downgrade,
    /// There is no such name.
    #[error("there is no such host name")]
    NoSuchName,
    /// The name servers did not answer.
    #[error("the host name could not be resolved")]
    Resolve(#[source] Box<dyn StdError + Send + Sync>),
    /// No connection came about.
    #[error("the server cannot be reached")]
    Connect(#[source] io::Error),
    /// The certificate or the handshake is not in order.
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    /// Something took too long.
    #[error("{0} took too long")]
    Timeout(&'static str),
    /// No byte for too long.
    #[error("the server stopped sending")]
    Stalled,
    /// More redirects than allowed, or a circle.
    #[error("the server redirects too often or in a circle")]
    TooManyRedirects,
    /// What came is no HTTP.
    #[error("the server does not speak HTTP as it should: {0}")]
    Protocol(String),
    /// The connection ended before the message did.
    #[error("the connection broke")]
    Broken(#[source] Box<dyn StdError + Send + Sync>),
    /// The caller did not want it any more.
    #[error("canceled")]
    Canceled,
}

impl Error {
    /// What went wrong, for programs.
    pub fn code(&self) -> ErrorCode {
        match self {
            Error::Target(_) | Error::Blocked(_) | Error::Downgrade => ErrorCode::BlockedTarget,
            Error::NoSuchName | Error::Resolve(_) => ErrorCode::DnsFailure,
            Error::Connect(_) | Error::Broken(_) | Error::Canceled => ErrorCode::ConnectFailed,
            Error::Tls(_) => ErrorCode::TlsFailed,
            Error::Timeout(_) => ErrorCode::Timeout,
            Error::Stalled => ErrorCode::Stalled,
            Error::TooManyRedirects => ErrorCode::TooManyRedirects,
            Error::Protocol(_) => ErrorCode::ProtocolError,
        }
    }

    /// Whether the same request could go better a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Resolve(_) | Error::Connect(_) | Error::Broken(_) | Error::Timeout(_) | Error::Stalled)
    }

    /// Sort an error of the HTTP library: not HTTP, or not whole.
    pub(crate) fn from_hyper(error: hyper::Error) -> Error {
        let mut source: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(inner) = source {
            if let Some(io) = inner.downcast_ref::<io::Error>()
                && matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
                && !crate::dial::is_from_tls(io)
            {
                return Error::Protocol("the body is not framed as it should".to_owned());
            }
            source = inner.source();
        }
        if error.is_parse_too_large() {
            Error::Protocol("the head of the answer is too large".to_owned())
        } else if error.is_parse() {
            Error::Protocol("the head of the answer is malformed".to_owned())
        } else {
            Error::Broken(Box::new(error))
        }
    }
}
