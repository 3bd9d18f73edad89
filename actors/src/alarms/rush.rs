//! Whether more is due at once than one batch: what can wait a moment lets that go first, as it takes the same processor and
//! the same database.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

/// How long anything waits for a rush to be over. One that lasts longer has to share.
const LONGEST: Duration = Duration::from_secs(2);

/// How many lanes of this process are in a rush. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Rush(Arc<watch::Sender<usize>>);

/// A rush lasts for as long as this is held.
#[derive(Debug)]
pub(super) struct Rushing(Rush);

impl Default for Rush {
    fn default() -> Self {
        Rush(Arc::new(watch::Sender::new(0)))
    }
}

impl Rush {
    pub(super) fn begin(&self) -> Rushing {
        self.0.send_modify(|lanes| *lanes += 1);
        Rushing(self.clone())
    }

    /// Resolves when there is none, after two seconds at the latest.
    pub(super) async fn over(&self) {
        let mut lanes = self.0.subscribe();
        let _ = timeout(LONGEST, lanes.wait_for(|lanes| *lanes == 0)).await;
    }
}

impl Drop for Rushing {
    fn drop(&mut self) {
        self.0.0.send_modify(|lanes| *lanes -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rush_is_over_with_the_last_lane_and_nobody_waits_longer_than_two_seconds() {
        let rush = Rush::default();
        assert!(rush.over().now_or_never().is_some());
        let (first, second) = (rush.begin(), rush.begin());
        let began = tokio::time::Instant::now();
        rush.over().await;
        assert_eq!(began.elapsed(), LONGEST);
        drop(first);
        assert!(rush.over().now_or_never().is_none());
        drop(second);
        assert!(rush.over().now_or_never().is_some());
    }
}
