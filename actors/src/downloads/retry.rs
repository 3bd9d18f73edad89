//! When a failed try is tried again: full-jitter exponential backoff, or what the server asked for, whichever is longer.

use std::time::Duration;

/// A server that asks for more than a day is not believed.
const LONGEST_ASKED: Duration = Duration::from_hours(24);

/// The limits of waiting between tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// First wait.
    pub(crate) base: Duration,
    /// Longest wait.
    pub(crate) max: Duration,
}

impl Backoff {
    /// The wait after this many tries without progress. `random` is from 0 to 1; at least half of the wait is kept, so
    /// that a crowd is spread and nobody comes back at once.
    pub(crate) fn wait(self, tries: i32, asked: Option<Duration>, random: f64) -> Duration {
        let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(0).min(30);
        let longest = self.base.saturating_mul(1 << doublings).min(self.max);
        let own = longest.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        asked.map_or(own, |asked| asked.min(LONGEST_ASKED).max(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(2), max: Duration::from_mins(15) };

    #[test]
    fn the_wait_doubles_up_to_its_limit() {
        let longest = |tries| BACKOFF.wait(tries, None, 1.0).as_secs();
        assert_eq!([1, 2, 3, 4, 10, 100, i32::MAX].map(longest), [2, 4, 8, 16, 900, 900, 900]);
        assert_eq!(BACKOFF.wait(3, None, 0.0), Duration::from_secs(4));
        assert_eq!(BACKOFF.wait(0, None, 1.0), Duration::from_secs(2));
    }

    #[test]
    fn what_the_server_asks_for_is_kept_up_to_a_day() {
        assert_eq!(BACKOFF.wait(1, Some(Duration::from_mins(1)), 0.5), Duration::from_mins(1));
        assert_eq!(BACKOFF.wait(1, Some(Duration::ZERO), 1.0), Duration::from_secs(2));
        assert_eq!(BACKOFF.wait(1, Some(Duration::MAX), 1.0), LONGEST_ASKED);
    }
}
