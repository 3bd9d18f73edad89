//! The parts of a transfer in flight: fetched over a few connections, stored beside each other, noted in batches, summed
//! up in order.
//!
//! One loop owns all state; fetches, stores and notes are tasks that end with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::warn;

use crate::{
    attempt::{Attempt, Ended, Then, capacity, restart, sort_sink_error, try_store},
    digest::{Hasher, Offer, Summed, Sums},
    engine::storage_unavailable,
    fetch::{FetchError, Fetched, Job, Open, Source, fetch_part},
    growth::{Growth, LOOK_EVERY},
    ledger::{LedgerError, PartRecord, PlanRecord, Progress, RestartReason},
    memory::Loan,
    plan::{Cut, Missing},
    sink::SinkError,
};

/// Notes are written when there are so many ...
const NOTES_PER_BATCH: usize = 16;
/// ... or when the oldest has waited for so long.
const NOTE_WITHIN: Duration = Duration::from_secs(1);
/// Tries to write the last notes.
const NOTE_TRIES: u32 = 5;
/// How long stores under way are waited for when the transfer fails, so that they are not in vain ...
const SETTLE_FAILED: Duration = Duration::from_secs(10);
/// ... and when it is canceled.
const SETTLE_CANCELED: Duration = Duration::from_millis(300);
/// How long the last notes of a canceled transfer may take.
const NOTE_CANCELED: Duration = Duration::from_millis(500);
/// How long parts are held for the sake of the order while others want their memory.
const HOLD_FOR_ORDER: Duration = Duration::from_secs(5);

/// All parts are in the store.
pub(crate) struct Landed {
    /// In order.
    pub(crate) parts: Vec<PartRecord>,
    /// None: they were not summed up, or not in order.
    pub(crate) summed: Option<Summed>,
}

/// A part that was fetched, until it is stored and summed up.
struct Held {
    bytes: Bytes,
    loan: Arc<Loan>,
    stored: bool,
    summed: bool,
}

struct StoredPart {
    number: u32,
    result: Result<PartRecord, SinkError>,
}

/// Which answer a task of the loop brought.
enum Event {
    Fetched(Box<Fetched>),
    Stored(StoredPart),
    Noted(Vec<PartRecord>, Result<(), LedgerError>),
    Summed(Option<u32>),
    Look,
    Canceled,
}

/// The flight of all missing parts.
pub(crate) struct Flight<'a> {
    attempt: &'a Attempt<'a>,
    source: Arc<Source>,
    cut: Cut,
    plan: PlanRecord,
    missing: Missing,
    growth: Growth,
    open: Option<Open>,
    spare: Vec<(Loan, bytes::BytesMut)>,
    fetching: JoinSet<Fetched>,
    waiting_to_retry: BTreeSet<u32>,
    storing: JoinSet<StoredPart>,
    noting: JoinSet<(Vec<PartRecord>, Result<(), LedgerError>)>,
    held: BTreeMap<u32, Held>,
    done: BTreeMap<u32, PartRecord>,
    unnoted: Vec<PartRecord>,
    noted_at: Instant,
    hasher: Option<Hasher>,
    next_to_sum: u32,
    /// Where to put the sums for the parts that are being fetched.
    offers: BTreeMap<u32, Offer>,
    /// When the last part was summed up.
    in_order_at: Instant,
    /// Whether a connection is idle for want of a buffer.
    short_of_memory: bool,
    received_before: u64,
    looked_at: Instant,
}

impl<'a> Flight<'a> {
    pub(crate) fn new(
        attempt: &'a Attempt<'a>,
        source: Arc<Source>,
        cut: Cut,
        plan: PlanRecord,
        missing: Missing,
        stored: Vec<PartRecord>,
        sums: Option<Sums>,
    ) -> Self {
        // One answer is of one version; two are so only if something tells, and can be cut only if the end is known.
        let parallel = source.resumable && cut.total_bytes().is_some();
        let most = if parallel { attempt.transfer.max_connections } else { 1 };
        Flight {
            attempt,
            source,
            cut,
            plan,
            missing,
            growth: Growth::new(most),
            open: None,
            spare: Vec::new(),
            fetching: JoinSet::new(),
            waiting_to_retry: BTreeSet::new(),
            storing: JoinSet::new(),
            noting: JoinSet::new(),
            held: BTreeMap::new(),
            done: stored.into_iter().map(|part| (part.number, part)).collect(),
            unnoted: Vec::new(),
            noted_at: Instant::now(),
            hasher: sums.map(Hasher::new),
            next_to_sum: 1,
            offers: BTreeMap::new(),
            in_order_at: Instant::now(),
            short_of_memory: false,
            received_before: 0,
            looked_at: Instant::now(),
        }
    }

    /// Fetch and store everything that is missing, beginning with what `open` brings, and `first`, which is there already.
    pub(crate) async fn run(
        mut self,
        open: Option<Open>,
        first: Option<Job>,
        loan: Option<Loan>,
        progressed: &mut bool,
    ) -> Result<Landed, Ended> {
        self.open = open;
        if let Some(first) = first {
            self.store(first);
        }
        if let Some(loan) = loan {
            let buffer = loan.buffer(capacity(self.cut.part_size_bytes()));
            self.spare.push((loan, buffer));
        }
        let result = Box::pin(self.fly(progressed)).await;
        self.give_back_spare(0);
        match result {
            Ok(()) => {}
            Err(Ended::Fenced) => return Err(Ended::Fenced),
            Err(ended) => {
                let fenced = self.settle(&ended, progressed).await;
                return Err(if fenced { Ended::Fenced } else { ended });
            }
        }
        let summed = match self.hasher.take() {
            None => None,
            Some(hasher) => self.attempt.cancel.run_until_cancelled(hasher.finish()).await.ok_or(Ended::Canceled)?,
        };
        Ok(Landed { parts: self.done.into_values().collect(), summed })
    }

    #[expect(clippy::disallowed_methods, reason = "a poll: the pace of the connections")]
    async fn fly(&mut self, progressed: &mut bool) -> Result<(), Ended> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        self.looked_at = Instant::now();
        loop {
            self.launch().await?;
            self.offer_sums();
            if self.fetching.is_empty() && self.storing.is_empty() && self.missing.peek().is_none() {
                if !self.missing.is_at_the_end() {
                    let detail = "the content does not end within as many parts as the object store takes";
                    return Err(Ended::failed(crate::ErrorCode::TooLarge, detail, false));
                }
                return self.note_the_rest().await;
            }
            match self.next_event(&mut look).await {
                Event::Canceled => return Err(Ended::Canceled),
                Event::Fetched(fetched) => self.fetched(*fetched)?,
                Event::Stored(stored) => {
                    self.stored(stored)?;
                    *progressed = true;
                }
                Event::Noted(batch, result) => self.noted(batch, result)?,
                Event::Summed(Some(number)) => {
                    if let Some(held) = self.held.get_mut(&number) {
                        held.summed = true;
                    }
                    self.release(number);
                }
                Event::Summed(None) => self.give_up_order(),
                Event::Look => self.look(),
            }
            self.note(NOTES_PER_BATCH);
        }
    }

    async fn next_event(&mut self, look: &mut tokio::time::Interval) -> Event {
        let summed = async {
            match &mut self.hasher {
                Some(hasher) => hasher.summed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.attempt.cancel.cancelled() => Event::Canceled,
            Some(Ok((batch, result))) = self.noting.join_next() => Event::Noted(batch, result),
            Some(Ok(stored)) = self.storing.join_next() => Event::Stored(stored),
            number = summed => Event::Summed(number),
            Some(Ok(fetched)) = self.fetching.join_next() => Event::Fetched(Box::new(fetched)),
            _ = look.tick() => Event::Look,
        }
    }

    /// Start as many fetches as there may be connections and are buffers.
    async fn launch(&mut self) -> Result<(), Ended> {
        let connections = self.growth.connections() as usize;
        while self.fetching.len() < connections
            && let Some((_, range)) = self.missing.peek()
        {
            let Some((loan, buffer)) = self.buffer(range.end - range.start).await? else {
                self.short_of_memory = true;
                return Ok(());
            };
            self.short_of_memory = false;
            let Some((number, range)) = self.missing.take() else { return Ok(()) };
            let open = self.open.take_if(|open| open.next <= range.start);
            let open = open.filter(|open| open.next == range.start);
            if open.is_none() && !self.source.resumable {
                // The one answer ended in good order before the content did, and no second one may be put behind it.
                return Err(restart(RestartReason::NotResumable, &self.plan, Then::AgainWhole));
            }
            // Alone on the road, ask for all that is missing in a row, so that not every part pays for a request.
            let until = if connections == 1 { self.missing.run_end(number) } else { Some(range.end) };
            let until = if self.cut.total_bytes().is_some() { until } else { None };
            let mut job = Job::new(number, range.start, capacity(range.end - range.start), loan);
            job.buffer = buffer;
            self.offers.insert(number, job.offer());
            self.fetching.spawn(fetch_part(Arc::clone(&self.source), job, open, until, Duration::ZERO));
        }
        Ok(())
    }

    /// A buffer for one more part: a spare one, or one that is lent, or, with nothing else in flight, one that is waited for.
    async fn buffer(&mut self, bytes: u64) -> Result<Option<(Loan, bytes::BytesMut)>, Ended> {
        while let Some((loan, buffer)) = self.spare.pop() {
            if loan.bytes() >= bytes && buffer.capacity() as u64 >= bytes {
                return Ok(Some((loan, buffer)));
            }
            loan.give_back(buffer);
        }
        let memory = &self.attempt.engine.memory;
        let most = 2 * self.growth.connections() as usize + 2;
        let in_flight = self.fetching.len() + self.held.len();
        let loan = if in_flight == 0 {
            let waited = self.attempt.cancel.run_until_cancelled(memory.acquire(bytes)).await;
            Some(waited.ok_or(Ended::Canceled)?)
        } else if in_flight < most {
            memory.try_lend(bytes)
        } else {
            None
        };
        // Of the size that all parts have, so that it can be used again.
        Ok(loan.map(|loan| {
            let size = if bytes == 0 { 0 } else { bytes.max(self.cut.part_size_bytes().min(loan.bytes())) };
            let buffer = loan.buffer(capacity(size));
            (loan, buffer)
        }))
    }

    fn fetched(&mut self, fetched: Fetched) -> Result<(), Ended> {
        let Fetched { mut job, open, result } = fetched;
        self.waiting_to_retry.remove(&job.number);
        match result {
            Ok(ended) => {
                if ended {
                    self.missing.end();
                }
                self.keep_open(open);
                if job.buffer.is_empty() {
                    self.take_back_sums(&mut job);
                    self.spare.push((job.loan, job.buffer));
                } else {
                    let end = job.first + job.buffer.len() as u64;
                    self.attempt.check_size(Some(end))?;
                    self.store(job);
                }
                Ok(())
            }
            Err(error) => {
                if matches!(error, FetchError::Transient { throttled: true, .. }) {
                    self.growth.throttled();
                }
                let delay = self.attempt.wait_after(error, &mut job, Some(&self.plan), self.source.resumable)?;
                self.waiting_to_retry.insert(job.number);
                let until = self.cut.total_bytes().and_then(|_| self.cut.range(job.number)).map(|range| range.end);
                self.fetching.spawn(fetch_part(Arc::clone(&self.source), job, None, until, delay));
                Ok(())
            }
        }
    }

    /// Keep the answer that is the nearest to what is missing.
    fn keep_open(&mut self, open: Option<Open>) {
        let wanted = self.missing.peek().map(|(_, range)| range.start);
        if let Some(open) = open
            && wanted == Some(open.next)
        {
            self.open = Some(open);
        }
    }

    fn store(&mut self, mut job: Job) {
        let summed = self.take_back_sums(&mut job) || self.hasher.is_none();
        let Job { number, buffer, loan, crc, .. } = job;
        let (bytes, crc64) = (buffer.freeze(), crc.value());
        let held = Held { bytes: bytes.clone(), loan: Arc::new(loan), stored: false, summed };
        self.held.insert(number, held);
        let (sink, upload_id) = (Arc::clone(&self.attempt.sink), self.plan.upload_id.clone());
        self.storing.spawn(async move {
            let size_bytes = bytes.len() as u64;
            let stored = try_store(|| sink.part(&upload_id, number, bytes.clone(), crc64)).await;
            StoredPart { number, result: stored.map(|etag| PartRecord { number, size_bytes, etag, crc64 }) }
        });
        self.sum_what_is_in_order();
    }

    /// Let the next part be summed up where it arrives, if everything before it is.
    fn offer_sums(&mut self) {
        if let Some(offer) = self.offers.get(&self.next_to_sum)
            && let Some(sums) = self.hasher.as_mut().and_then(Hasher::lend)
        {
            *offer.lock().unwrap_or_else(PoisonError::into_inner) = Some(sums);
        }
    }

    /// Take the sums back that this part was offered. True if all of it is in them.
    fn take_back_sums(&mut self, job: &mut Job) -> bool {
        self.offers.remove(&job.number);
        let (Some((sums, whole)), Some(hasher)) = (job.take_sums(), &mut self.hasher) else { return false };
        hasher.give_back(sums);
        if whole {
            self.next_to_sum = job.number + 1;
            self.in_order_at = Instant::now();
        }
        whole
    }

    fn sum_what_is_in_order(&mut self) {
        let Some(hasher) = &mut self.hasher else { return };
        while let Some(held) = self.held.get(&self.next_to_sum) {
            hasher.push(self.next_to_sum, held.bytes.clone(), Some(Arc::clone(&held.loan)));
            self.next_to_sum += 1;
            self.in_order_at = Instant::now();
        }
    }

    /// What waits for its turn to be summed up is let go; the whole is read again in the end.
    fn give_up_order(&mut self) {
        self.hasher = None;
        let held: Vec<u32> = self.held.keys().copied().collect();
        for number in held {
            if let Some(held) = self.held.get_mut(&number) {
                held.summed = true;
            }
            self.release(number);
        }
    }

    fn stored(&mut self, stored: StoredPart) -> Result<(), Ended> {
        let part = stored.result.map_err(sort_sink_error)?;
        if let Some(held) = self.held.get_mut(&stored.number) {
            held.stored = true;
        }
        self.release(stored.number);
        if self.unnoted.is_empty() {
            self.noted_at = Instant::now();
        }
        self.unnoted.push(part.clone());
        self.done.insert(part.number, part);
        Ok(())
    }

    /// Take the buffer of a part back, when nobody needs its bytes any more.
    fn release(&mut self, number: u32) {
        if !self.held.get(&number).is_some_and(|held| held.stored && held.summed) {
            return;
        }
        let Some(Held { bytes, loan, .. }) = self.held.remove(&number) else { return };
        // Whoever still has the bytes frees them, and the loan; then there is no buffer to use again.
        let (Some(loan), Ok(mut buffer)) = (Arc::into_inner(loan), bytes.try_into_mut()) else { return };
        buffer.clear();
        let last_one = self.fetching.is_empty() && self.held.is_empty() && self.spare.is_empty();
        let wanted = self.missing.peek().is_some();
        if wanted && (last_one || !self.attempt.engine.memory.somebody_waits()) {
            self.spare.push((loan, buffer));
        } else {
            loan.give_back(buffer);
        }
    }

    /// Buffers that lie idle, but for so many, go to whoever needs them.
    fn give_back_spare(&mut self, keep: usize) {
        while self.spare.len() > keep
            && let Some((loan, buffer)) = self.spare.pop()
        {
            loan.give_back(buffer);
        }
    }

    /// Write a batch of notes, if there are so many or they have waited long enough, one batch at a time.
    fn note(&mut self, at_least: usize) {
        let due = self.unnoted.len() >= at_least || !self.unnoted.is_empty() && self.noted_at.elapsed() >= NOTE_WITHIN;
        if due && self.noting.is_empty() {
            let batch = std::mem::take(&mut self.unnoted);
            let ledger = Arc::clone(&self.attempt.ledger);
            self.noting.spawn(async move {
                let result = ledger.record_parts(&batch).await;
                (batch, result)
            });
        }
    }

    fn noted(&mut self, batch: Vec<PartRecord>, result: Result<(), LedgerError>) -> Result<(), Ended> {
        match result {
            Ok(()) => Ok(()),
            Err(LedgerError::Fenced) => {
                self.fetching.abort_all();
                self.storing.abort_all();
                Err(Ended::Fenced)
            }
            Err(LedgerError::Unavailable(error)) => {
                warn!(%error, "the ledger could not be written, it is tried again");
                self.unnoted.extend(batch);
                self.noted_at = Instant::now();
                Ok(())
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a pause before the ledger is asked again")]
    async fn note_the_rest(&mut self) -> Result<(), Ended> {
        for attempt in 0..NOTE_TRIES {
            while let Some(Ok((batch, result))) = self.noting.join_next().await {
                self.noted(batch, result)?;
            }
            if self.unnoted.is_empty() {
                return Ok(());
            }
            if attempt > 0 {
                let pause = self.attempt.cancel.run_until_cancelled(tokio::time::sleep(NOTE_WITHIN)).await;
                pause.ok_or(Ended::Canceled)?;
            }
            self.note(1);
        }
        while let Some(Ok((batch, result))) = self.noting.join_next().await {
            self.noted(batch, result)?;
        }
        if self.unnoted.is_empty() {
            Ok(())
        } else {
            Err(Ended::Failed(storage_unavailable("the state of the download could not be saved")))
        }
    }

    /// The transfer ends early: let stores that are under way arrive, and note what is stored. True if fenced meanwhile.
    #[expect(clippy::disallowed_methods, reason = "a bound on settling")]
    async fn settle(&mut self, ended: &Ended, progressed: &mut bool) -> bool {
        self.fetching.abort_all();
        self.open = None;
        let (settle, note) = match ended {
            Ended::Restart { .. } => {
                self.storing.abort_all();
                return false;
            }
            Ended::Canceled => (SETTLE_CANCELED, NOTE_CANCELED),
            Ended::Failed(_) | Ended::Fenced => (SETTLE_FAILED, SETTLE_FAILED),
        };
        let mut deadline = Instant::now() + settle;
        while !self.storing.is_empty() {
            let joined = tokio::select! {
                Some(joined) = self.storing.join_next() => joined,
                () = tokio::time::sleep_until(deadline) => break,
                () = self.attempt.cancel.cancelled(), if !matches!(ended, Ended::Canceled) && deadline > Instant::now() + SETTLE_CANCELED => {
                    deadline = Instant::now() + SETTLE_CANCELED;
                    continue;
                }
            };
            if let Ok(stored) = joined
                && self.stored(stored).is_ok()
            {
                *progressed = true;
            }
        }
        self.storing.abort_all();
        let noting = async {
            while let Some(Ok((batch, result))) = self.noting.join_next().await {
                self.noted(batch, result)?;
            }
            self.note(1);
            while let Some(Ok((batch, result))) = self.noting.join_next().await {
                self.noted(batch, result)?;
            }
            Ok::<(), Ended>(())
        };
        matches!(timeout(note, noting).await, Ok(Err(Ended::Fenced)))
    }

    fn look(&mut self) {
        let received = self.source.received.load(Ordering::Relaxed);
        let bytes = received - self.received_before;
        let elapsed = self.looked_at.elapsed();
        (self.received_before, self.looked_at) = (received, Instant::now());
        if self.attempt.engine.memory.somebody_waits() {
            self.give_back_spare(usize::from(self.fetching.is_empty() && self.held.is_empty()));
        }
        let short = self.short_of_memory;
        self.growth.look(bytes, short);
        // A part that backs off, or crawls, must not keep the memory of those behind it.
        let late = self.waiting_to_retry.contains(&self.next_to_sum) || self.in_order_at.elapsed() >= HOLD_FOR_ORDER;
        if short
            && late
            && self.hasher.is_some()
            && self.held.iter().any(|(number, held)| *number > self.next_to_sum && held.stored)
        {
            self.give_up_order();
        }
        self.attempt.ledger.progress(Progress {
            total_bytes: self.cut.total_bytes(),
            stored_bytes: self.done.values().map(|part| part.size_bytes).sum(),
            bytes_per_second: bytes.saturating_mul(1000) / u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1),
            connections: u32::try_from(self.fetching.len()).unwrap_or(u32::MAX),
        });
    }
}
