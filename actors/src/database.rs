//! What a failure of PostgreSQL means for whoever asked.

use std::time::Duration;

use bowerbird_nats::{Outcome, Problem};
use tracing::{error, warn};

/// Seconds after which another try makes sense when the database is away.
const RETRY_AFTER_SECONDS: u64 = 2;

/// The answer to a request that the database failed: `unavailable` when trying again may help, else `internal`. Logs the
/// failure, so whoever calls this does not.
pub fn problem(error: &sqlx::Error) -> Problem {
    if is_passing(error) {
        warn!(%error, "the database did not answer");
        return Problem::unavailable("the database is not available right now; try again in a moment", RETRY_AFTER_SECONDS);
    }
    error!(%error, "the database refused a statement");
    Problem::internal()
}

/// Whether the same again may go well: the server or the pool is away or busy, or the transaction lost a race.
pub fn is_passing(error: &sqlx::Error) -> bool {
    // A statement timeout; serialization failure, deadlock, lock not available; ended because this process stood still in a
    // transaction.
    let lost = |code: &str| code.starts_with("57") || matches!(code, "40001" | "40P01" | "55P03" | "25P03" | "25P04");
    is_away(error) || error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| lost(&code))
}

/// Whether the database as a whole is the trouble, and not what was asked of it. That passes, however long it takes.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            // Connections, resources, an operator's stop, the system.
            error.code().is_some_and(|code| ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class)))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// What becomes of a message that the database did not take but may: while the database is away that says nothing of the
/// message; a race that was lost or a statement that took too long may be the message's own doing, and has an end.
pub fn again(error: &sqlx::Error, after: Duration) -> Outcome {
    if is_away(error) { Outcome::Later { after } } else { Outcome::Retry { after } }
}

/// Whether this unique constraint refused a row.
pub fn is_conflict_on(error: &sqlx::Error, constraint: &str) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation() && error.constraint() == Some(constraint))
}
