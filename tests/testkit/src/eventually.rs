//! Patience with an end: wait for a fact, never for a time.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Ask `probe` until it answers `Some`, and return that.
///
/// # Panics
/// With `what` when `within` has passed.
pub async fn eventually<T>(within: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_millis(5);
    loop {
        // A probe that hangs must not outlive the deadline either.
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Some(found)) => return found,
            Ok(None) if Instant::now() < deadline => {}
            Ok(None) | Err(_) => panic!("not within {within:?}: {what}"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fact_that_comes_late_is_still_seen() {
        let mut asked = 0;
        let found = eventually(Duration::from_secs(5), "the third question is answered", async || {
            asked += 1;
            (asked == 3).then_some(asked)
        })
        .await;
        assert_eq!(found, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "a pig flies")]
    async fn waiting_ends_with_the_name_of_what_did_not_come() {
        eventually(Duration::from_millis(30), "a pig flies", async || None::<()>).await;
    }

    #[tokio::test]
    #[should_panic(expected = "a silent probe")]
    async fn a_probe_that_hangs_ends_too() {
        eventually(Duration::from_millis(30), "a silent probe", async || std::future::pending::<Option<()>>().await).await;
    }
}
