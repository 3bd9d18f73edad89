//! The bell of the outbox: rung after a commit that may have written events, so that the relay of this process looks at
//! once instead of at its next poll.
//!
//! Why not PostgreSQL's NOTIFY: a transaction that notifies takes one lock for the whole database while it commits, which
//! makes all such commits wait for each other's fsync. The bell costs nothing, and a commit that forgets to ring, or whose
//! process dies before it does, is found by the poll.

use std::sync::Arc;

use tokio::sync::Notify;

/// Rings for the relay of this process. Cheap to clone; clones are the same bell.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// There may be events in the outbox. Never waits; rings that nobody heard yet count once.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Until it rings; at once when it rang since the last time.
    pub(crate) async fn rung(&self) {
        self.0.notified().await;
    }
}
