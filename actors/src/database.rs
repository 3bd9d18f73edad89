//! What a failure of PostgreSQL means for whoever asked.

use bowerbird_nats::Problem;
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
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Connection exceptions, insufficient resources, operator intervention (shutdown, statement timeout);
            // serialization failure, deadlock, lock not available; ended because this process stood still in a transaction.
            code.starts_with("08")
                || code.starts_with("53")
                || code.starts_with("57")
                || matches!(&*code, "40001" | "40P01" | "55P03" | "25P03" | "25P04")
        }),
        _ => false,
    }
}

/// Whether this unique constraint refused a row.
pub fn is_conflict_on(error: &sqlx::Error, constraint: &str) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation() && error.constraint() == Some(constraint))
}
