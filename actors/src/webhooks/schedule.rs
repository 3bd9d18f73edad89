//! When a message that was not received is tried again.

use std::time::Duration;

/// Longest that a receiver may ask to be left alone for (`Retry-After`).
const RETRY_AFTER_MOST: Duration = Duration::from_hours(1);
/// How much later than the schedule says a try is made at most, as a part of the wait, so that what failed together does
/// not come again together.
const JITTER: f64 = 0.1;

/// The waits between tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule(pub(crate) Vec<Duration>);

impl Schedule {
    /// How long after the `attempt`-th try (from 1) the next one is made; `None` when it was the last. `chance` is from 0 to
    /// 1; a receiver that asked for more time gets it, within bounds.
    pub(crate) fn wait(&self, attempt: i32, retry_after: Option<Duration>, chance: f64) -> Option<Duration> {
        let index = usize::try_from(attempt).ok()?.checked_sub(1)?;
        let wait = self.0.get(index)?;
        let wait = wait.mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0));
        Some(wait.max(pause(retry_after).unwrap_or(Duration::ZERO)))
    }
}

/// How long a receiver is left alone that asked for it.
pub(crate) fn pause(retry_after: Option<Duration>) -> Option<Duration> {
    retry_after.map(|asked| asked.min(RETRY_AFTER_MOST)).filter(|pause| !pause.is_zero())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule() -> Schedule {
        Schedule([5, 300, 1800, 7200, 18_000, 36_000, 36_000].map(Duration::from_secs).to_vec())
    }

    #[test]
    fn each_try_but_the_last_has_a_next_one() {
        let waits: Vec<_> = (1..=8).map(|attempt| schedule().wait(attempt, None, 0.0)).collect();
        let expected = [5, 300, 1800, 7200, 18_000, 36_000, 36_000].map(|seconds| Some(Duration::from_secs(seconds)));
        assert_eq!(waits[..7], expected);
        assert_eq!(waits[7], None);
        assert_eq!(schedule().wait(0, None, 0.0), None);
        assert_eq!(schedule().wait(i32::MAX, None, 0.0), None);
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_up_to_an_hour() {
        let asked = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(schedule().wait(1, asked(60), 0.0), asked(60));
        assert_eq!(schedule().wait(2, asked(60), 0.0), asked(300));
        assert_eq!(schedule().wait(1, asked(86_400), 0.0), asked(3600));
        assert_eq!((pause(asked(0)), pause(None), pause(asked(7))), (None, None, asked(7)));
    }

    proptest! {
        #[test]
        fn a_wait_is_never_shorter_than_the_schedule_and_at_most_a_tenth_longer(attempt in 1..=7, chance in 0.0..=1.0_f64) {
            let index = usize::try_from(attempt - 1).unwrap();
            let (wait, base) = (schedule().wait(attempt, None, chance).unwrap(), schedule().0[index]);
            prop_assert!(wait >= base && wait <= base.mul_f64(1.1));
        }
    }
}
