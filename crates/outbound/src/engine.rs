//! Runs transfers.

use std::{sync::Arc, time::Duration};

use bowerbird_lifecycle::Clock;
use tokio_util::sync::CancellationToken;

use crate::{
    client::Client,
    ledger::Ledger,
    memory::MemoryBudget,
    sink::Sink,
    transfer::{Completed, Stopped, Transfer},
};

/// What a run does about failures that may pass, before it gives up and leaves the rest to whoever plans the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Tries of one part without a byte of progress.
    pub tries: u32,
    /// First wait; doubled each time, and a random share of it is waited.
    pub wait_first: Duration,
    /// Longest wait. If the source wants longer (`Retry-After`), the run ends and says so.
    pub wait_most: Duration,
    /// Slowest rate that is put up with, in bytes per second over `rate_over`.
    pub min_rate: u64,
    /// What the slowest rate is measured over.
    pub rate_over: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            tries: 5,
            wait_first: Duration::from_millis(250),
            wait_most: Duration::from_secs(15),
            min_rate: 1024,
            rate_over: Duration::from_secs(60),
        }
    }
}

/// Runs transfers. Cheap to clone; clones share the memory budget.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) client: Client,
    pub(crate) memory: MemoryBudget,
    pub(crate) patience: Patience,
    pub(crate) clock: Clock,
}

impl Engine {
    /// An engine whose transfers dial through `client` and share `memory`.
    pub fn new(client: Client, memory: MemoryBudget, patience: Patience, clock: Clock) -> Engine {
        Engine { client, memory, patience, clock }
    }

    /// Run one transfer to its end, or until it is canceled (which takes effect within a second).
    pub async fn run(
        &self,
        transfer: Transfer,
        sink: Arc<dyn Sink>,
        ledger: Arc<dyn Ledger>,
        cancel: CancellationToken,
    ) -> Result<Completed, Stopped> {
        let _ = (transfer, sink, ledger, cancel);
        Err(Stopped::Canceled)
    }
}
