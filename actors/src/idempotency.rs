//! Requests that may be sent again: the same key, the same request, the same answer; the work is done once.
//!
//! Everything happens in the transaction of the work, so there is no state between "not done" and "done": a process that
//! dies leaves nothing behind, and the next try does the work.

mod store;

use bowerbird_nats::{AccountId, Code, Problem};
use uuid::Uuid;

pub use self::store::{begin, finish};

/// Longest key, as the table has it.
const KEY_MAX_BYTES: usize = 255;

/// A request that carries an idempotency key.
#[derive(Clone, Debug)]
pub struct Request {
    scope: Uuid,
    operation: &'static str,
    key: String,
    fingerprint: String,
}

impl Request {
    /// The request `operation` (`download.create`) of `account` with this body; `None` without a key. A stranger's account
    /// is `None`. `fingerprint` is a digest of operation and body; of a body with a secret it must be a keyed one.
    pub fn new(
        account: Option<AccountId>,
        operation: &'static str,
        key: Option<String>,
        fingerprint: &str,
    ) -> Result<Option<Self>, Error> {
        let Some(key) = key else { return Ok(None) };
        if key.is_empty() || key.len() > KEY_MAX_BYTES || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::MalformedKey);
        }
        let scope = account.map_or(Uuid::nil(), |account| account.0);
        Ok(Some(Request { scope, operation, key, fingerprint: fingerprint.to_owned() }))
    }
}

/// What became of a request that carries a key.
#[derive(Debug)]
pub enum Begun<T> {
    /// It was done before, with this answer.
    Done(T),
    /// Do it; then hand in the ticket with the answer, and commit.
    New(Ticket),
}

/// That the work is ours to do. Empty for a request without a key.
#[must_use = "hand it to `finish`, or the answer is not kept"]
#[derive(Debug)]
pub struct Ticket(Option<Request>);

/// A request with a key cannot be begun or finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is not one.
    #[error("an idempotency key is 1 to {KEY_MAX_BYTES} visible ASCII characters")]
    MalformedKey,
    /// The key belongs to another request.
    #[error("this idempotency key was used with another body")]
    Reused,
    /// The first try is not over.
    #[error("a request with this idempotency key is still running")]
    InProgress,
    /// The answer cannot be written, or what was kept is not an answer of this operation.
    #[error("the answer cannot be kept or read back")]
    Reply(#[from] serde_json::Error),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::MalformedKey => Problem::invalid("Idempotency-Key", error.to_string()),
            Error::Reused => Problem::new(
                Code::IdempotencyKeyReused,
                "this Idempotency-Key was used with another body; take a new key for a new request",
            ),
            Error::InProgress => {
                let mut problem = Problem::new(
                    Code::RequestInProgress,
                    "the request with this Idempotency-Key is still running; ask again in a moment",
                );
                problem.retry_after = Some(1);
                problem
            }
            Error::Reply(error) => {
                tracing::error!(%error, "the answer of an idempotent request cannot be kept or read back");
                Problem::internal()
            }
            Error::Database(error) => crate::database::problem(&error),
        }
    }
}
