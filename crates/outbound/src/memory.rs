//! The memory for parts in flight, shared by every transfer of the process.
//!
//! Waiting is first come, first served. Nothing is lent beyond need while somebody waits, so a newcomer always gets its
//! first buffer, however many buffers running transfers would like.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit that is counted in.
const GRAIN_BYTES: u64 = 4096;
/// Buffers from this size on are kept for the next part instead of being given back to the allocator.
const KEPT_FROM_BYTES: usize = 1024 * 1024;

/// The budget. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total_bytes: u64,
    grains: Arc<Semaphore>,
    waiting: AtomicUsize,
    kept: Mutex<Vec<BytesMut>>,
}

impl MemoryBudget {
    /// A budget of so many bytes, at least one grain of 4 KiB.
    pub fn new(total_bytes: u64) -> Self {
        let grains = usize::try_from(total_bytes / GRAIN_BYTES).unwrap_or(usize::MAX).clamp(1, u32::MAX as usize);
        MemoryBudget(Arc::new(Shared {
            total_bytes: grains as u64 * GRAIN_BYTES,
            grains: Arc::new(Semaphore::new(grains)),
            waiting: AtomicUsize::new(0),
            kept: Mutex::default(),
        }))
    }

    /// The largest part that may be planned: a quarter, so that four parts always fit.
    pub fn largest_part_bytes(&self) -> u64 {
        (self.0.total_bytes / 4).max(GRAIN_BYTES)
    }

    /// Bytes that nobody has.
    pub fn free_bytes(&self) -> u64 {
        self.0.grains.available_permits() as u64 * GRAIN_BYTES
    }

    /// Wait for so many bytes, behind everybody who waits already. More than there are in all is as much as all.
    pub(crate) async fn acquire(&self, bytes: u64) -> Loan {
        let grains = self.grains(bytes);
        if let Ok(permit) = Arc::clone(&self.0.grains).try_acquire_many_owned(grains) {
            return Loan { budget: self.clone(), permit: Some(permit) };
        }
        let _waiting = Waiting::new(&self.0.waiting);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.0.grains).acquire_many_owned(grains).await.ok();
        Loan { budget: self.clone(), permit }
    }

    /// So many bytes, if they are free and nobody waits.
    pub(crate) fn try_lend(&self, bytes: u64) -> Option<Loan> {
        if self.somebody_waits() {
            return None;
        }
        let permit = Arc::clone(&self.0.grains).try_acquire_many_owned(self.grains(bytes)).ok()?;
        Some(Loan { budget: self.clone(), permit: Some(permit) })
    }

    /// Whether a transfer waits for its first buffer.
    pub(crate) fn somebody_waits(&self) -> bool {
        self.0.waiting.load(Ordering::SeqCst) > 0
    }

    fn grains(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.min(self.0.total_bytes).div_ceil(GRAIN_BYTES).max(1)).unwrap_or(u32::MAX)
    }

    fn take(&self, capacity: usize) -> BytesMut {
        if capacity < KEPT_FROM_BYTES {
            return BytesMut::with_capacity(capacity);
        }
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = kept.iter().position(|buffer| buffer.capacity() == capacity) {
            return kept.swap_remove(position);
        }
        self.trim(&mut kept);
        BytesMut::with_capacity(capacity)
    }

    fn keep(&self, mut buffer: BytesMut) {
        buffer.clear();
        if buffer.capacity() >= KEPT_FROM_BYTES {
            let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(buffer);
            self.trim(&mut kept);
        }
    }

    /// What is kept and what is lent must stay within the budget together.
    fn trim(&self, kept: &mut Vec<BytesMut>) {
        let mut kept_bytes: u64 = kept.iter().map(|buffer| buffer.capacity() as u64).sum();
        while kept_bytes > self.free_bytes() && !kept.is_empty() {
            kept_bytes -= kept.swap_remove(0).capacity() as u64;
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Loan {
    budget: MemoryBudget,
    permit: Option<OwnedSemaphorePermit>,
}

impl Loan {
    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        self.permit.as_ref().map_or(0, |permit| permit.num_permits() as u64 * GRAIN_BYTES)
    }

    /// Give back what is beyond so many bytes.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let wanted = self.budget.grains(bytes) as usize;
        if let Some(permit) = &mut self.permit
            && let Some(excess) = permit.num_permits().checked_sub(wanted)
        {
            drop(permit.split(excess));
        }
    }

    /// An empty buffer of this capacity, which must not be beyond the loan.
    pub(crate) fn buffer(&self, capacity: usize) -> BytesMut {
        self.budget.take(capacity)
    }

    /// Give the loan back and keep its buffer for the next part of anybody.
    pub(crate) fn give_back(mut self, buffer: BytesMut) {
        self.permit = None;
        self.budget.keep(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[tokio::test]
    async fn nothing_is_lent_while_somebody_waits() {
        let budget = MemoryBudget::new(4 * MIB);
        let first = budget.acquire(3 * MIB).await;
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(10), budget.acquire(2 * MIB));
        let (waited, lent) = tokio::join!(waiting, async { budget.try_lend(MIB) });
        assert!(waited.is_err() && lent.is_none());
        assert!(budget.try_lend(MIB).is_some(), "nobody waits any more");
        drop(first);
        assert_eq!(budget.free_bytes(), 4 * MIB);
    }

    #[tokio::test]
    async fn a_loan_shrinks_and_comes_back() {
        let budget = MemoryBudget::new(4 * MIB);
        let mut loan = budget.acquire(2 * MIB).await;
        loan.shrink(1000);
        assert_eq!((loan.bytes(), budget.free_bytes()), (4096, 4 * MIB - 4096));
        drop(loan);
        assert_eq!(budget.free_bytes(), 4 * MIB);
    }

    #[tokio::test]
    async fn buffers_are_used_again_and_never_kept_beyond_the_budget() {
        let budget = MemoryBudget::new(4 * MIB);
        let loan = budget.acquire(2 * MIB).await;
        let mut buffer = loan.buffer(2 * 1024 * 1024);
        buffer.extend_from_slice(b"x");
        let at = buffer.as_ptr();
        loan.give_back(buffer);
        let loan = budget.acquire(2 * MIB).await;
        let buffer = loan.buffer(2 * 1024 * 1024);
        assert_eq!((buffer.as_ptr(), buffer.len()), (at, 0));
        loan.give_back(buffer);
        let all = budget.acquire(4 * MIB).await;
        drop(all.buffer(4 * 1024 * 1024));
        assert!(budget.0.kept.lock().expect("no poison").is_empty());
    }

    #[tokio::test]
    async fn asking_for_more_than_there_is_gets_all_of_it() {
        let budget = MemoryBudget::new(MIB);
        assert_eq!(budget.acquire(100 * MIB).await.bytes(), MIB);
        assert_eq!(budget.largest_part_bytes(), MIB / 4);
    }
}
