//! Errors as they cross a process border: problem documents (RFC 9457) with a closed list of codes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Media type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($(#[doc = $doc:literal] $name:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// What went wrong, for programs. The list is closed and documented in `docs/api.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(poem_openapi::Enum), oai(rename = "ProblemCode"))]
        pub enum Code {
            $(#[doc = $doc] #[serde(rename = $text)] #[cfg_attr(feature = "openapi", oai(rename = $text))] $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The code as it is written: `not_found`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text),* }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(Code::$name => $status),* }
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Code::$name => $doc.trim_ascii()),* }
            }

            /// The same for every problem of this code (RFC 9457 §3.1.3).
            pub const fn title(self) -> &'static str {
                match self { $(Code::$name => $title),* }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or not of the documented shape.
    InvalidBody = "invalid_body", 400, "The body is not what this operation takes";
    /// A parameter or a field has a value that is not allowed.
    InvalidValue = "invalid_value", 400, "A value is not allowed";
    /// The cursor is not one that this list gave out.
    InvalidCursor = "invalid_cursor", 400, "The cursor is not of this list";
    /// The request is not HTTP as it should be (no Host header, say).
    BadRequest = "bad_request", 400, "The request is malformed";
    /// No credential, or one that is not valid.
    Unauthorized = "unauthorized", 401, "A valid access token is needed";
    /// The access token has expired; refresh it.
    TokenExpired = "token_expired", 401, "The access token has expired";
    /// Login and password do not belong together.
    InvalidCredentials = "invalid_credentials", 401, "Login or password is wrong";
    /// The refresh token is unknown, used or expired.
    InvalidRefreshToken = "invalid_refresh_token", 401, "The refresh token is not valid";
    /// The credential is valid and not enough.
    Forbidden = "forbidden", 403, "Not allowed";
    /// Strangers may not register here.
    RegistrationClosed = "registration_closed", 403, "Registration is closed";
    /// No such thing, or not yours.
    NotFound = "not_found", 404, "Not found";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, "Method not allowed";
    /// Took longer than allowed to send the request.
    RequestTimeout = "request_timeout", 408, "The request took too long to arrive";
    /// The thing is not in a state that allows it.
    InvalidState = "invalid_state", 409, "Not possible in this state";
    /// The name is taken.
    NameTaken = "name_taken", 409, "The name is taken";
    /// A request with this idempotency key is still running.
    RequestInProgress = "request_in_progress", 409, "The same request is still running";
    /// The account's storage is full.
    QuotaExceeded = "quota_exceeded", 409, "The quota is used up";
    /// It has another version by now than `If-Match` says.
    VersionMismatch = "version_mismatch", 412, "It was changed meanwhile";
    /// The body is larger than allowed.
    BodyTooLarge = "body_too_large", 413, "The body is too large";
    /// The media type is not supported.
    UnsupportedMediaType = "unsupported_media_type", 415, "The media type is not supported";
    /// The range is outside of the content.
    RangeNotSatisfiable = "range_not_satisfiable", 416, "The range is outside of the content";
    /// The idempotency key was used for another request.
    IdempotencyKeyReused = "idempotency_key_reused", 422, "The idempotency key was used for another request";
    /// The target may not be dialled.
    BlockedTarget = "blocked_target", 422, "The target is not allowed";
    /// Too many of this kind, or too fast.
    TooMany = "too_many", 429, "Too many";
    /// The request head is too large.
    HeadTooLarge = "head_too_large", 431, "The request head is too large";
    /// Our fault.
    Internal = "internal", 500, "Something went wrong here";
    /// The object store did not do what it should.
    StorageUnavailable = "storage_unavailable", 502, "The object store is not available";
    /// Busy or not there yet; try again.
    Unavailable = "unavailable", 503, "Not available right now";
    /// No answer in time; it may or may not have happened.
    Timeout = "timeout", 504, "No answer in time";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A field at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct FieldError {
    /// Path of the field in the body or name of the parameter: `headers.Range`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(skip_serializing_if_is_none, skip_serializing_if_is_empty))]
pub struct Problem {
    /// A URI reference that names the code: `/docs/problems#not_found`.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "openapi", oai(rename = "type"))]
    pub kind: String,
    /// The same for every problem of this code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// This occurrence, for people: what is wrong and what to do.
    pub detail: String,
    /// What went wrong, for programs.
    pub code: Code,
    /// The request, as the logs name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Seconds after which another try makes sense; also the `Retry-After` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Fields at fault, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", oai(default))]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem of this code, with a sentence about this occurrence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem {
            kind: format!("/docs/problems#{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            request_id: None,
            retry_after: None,
            errors: Vec::new(),
        }
    }

    /// `not_found` for a thing of this kind. Says the same for what does not exist and for what is somebody else's.
    pub fn not_found(what: &str) -> Self {
        Problem::new(Code::NotFound, format!("there is no such {what}"))
    }

    /// `invalid_value` for one field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Problem::at_field(Code::InvalidValue, field, message)
    }

    /// A problem of this code that one field is at fault for.
    pub fn at_field(code: Code, field: impl Into<String>, message: impl Into<String>) -> Self {
        let (field, message) = (field.into(), message.into());
        let mut problem = Problem::new(code, format!("{field}: {message}"));
        problem.errors.push(FieldError { field, message });
        problem
    }

    /// Our fault. What exactly is in the log, not here.
    pub fn internal() -> Self {
        Problem::new(
            Code::Internal,
            "the request failed because of a fault on our side; the log has the reason under the request id",
        )
    }

    /// Busy; another try makes sense after so many seconds.
    pub fn unavailable(detail: impl Into<String>, retry_after: u64) -> Self {
        let mut problem = Problem::new(Code::Unavailable, detail);
        problem.retry_after = Some(retry_after);
        problem
    }

    /// The same problem with the id of the request that it belongs to.
    #[must_use]
    pub fn with_request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }
}
