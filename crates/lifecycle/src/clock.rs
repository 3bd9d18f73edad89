//! The time of day, handed in so that a test can move it.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use time::{Duration, OffsetDateTime, UtcOffset};

/// Tells the time of day in UTC. Cheap to clone; clones of a test clock move together.
///
/// Deadlines and waits use tokio's monotonic time instead; this clock is for instants that are stored or compared with
/// instants that somebody else stored.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// Milliseconds since 1970.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The clock of the machine.
    pub const fn system() -> Self {
        Clock(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] is called. For tests.
    pub fn manual(start: OffsetDateTime) -> Self {
        let milliseconds = i64::try_from(start.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
        Clock(Source::Manual(Arc::new(AtomicI64::new(milliseconds))))
    }

    /// Now, in UTC.
    pub fn now(&self) -> OffsetDateTime {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
            Source::System => OffsetDateTime::now_utc(),
            Source::Manual(milliseconds) => {
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds.load(Ordering::SeqCst)) * 1_000_000)
                    .unwrap_or(OffsetDateTime::UNIX_EPOCH)
                    .to_offset(UtcOffset::UTC)
            }
        }
    }

    /// Move a manual clock; the machine's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(milliseconds) = &self.0 {
            milliseconds.fetch_add(i64::try_from(by.whole_milliseconds()).unwrap_or(0), Ordering::SeqCst);
        }
    }
}
