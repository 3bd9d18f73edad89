//! One attempt at a transfer: from the first request to the finished object, or to the reason why not.
//!
//! Small content is fetched into one buffer and stored with one call. Everything else is cut into parts, which
//! [`crate::flight`] fetches and stores beside each other.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    digest::{Summed, Sums, combined_crc},
    engine::{Engine, failed, storage_unavailable},
    error::ErrorCode,
    fetch::{FetchError, Job, Open, Source, fetch_part},
    flight::{Flight, Landed},
    ledger::{Ledger, LedgerError, PartRecord, PlanRecord, RestartReason},
    memory::Loan,
    plan::{Cut, Missing},
    probe::{Facts, probe},
    sink::{Sink, SinkError, Stored},
    transfer::{Checksum, Completed, Resume, Transfer, TransferError, Verified},
};

/// Tries of one call to the store.
const STORE_TRIES: u32 = 4;
/// First wait between tries of one call to the store.
const STORE_WAIT: Duration = Duration::from_millis(200);

/// How an attempt ended short of completion.
#[derive(Debug)]
pub(crate) enum Ended {
    Canceled,
    Fenced,
    Failed(TransferError),
    /// What is stored so far is of no use.
    Restart {
        reason: RestartReason,
        upload_id: Option<String>,
        then: Then,
    },
}

/// What follows when a transfer was put back to zero.
#[derive(Debug)]
pub(crate) enum Then {
    Again,
    /// Again, without asking for ranges.
    AgainWhole,
    /// Again, and if that makes no difference, this is why it failed.
    AgainOr(TransferError),
    Fail(TransferError),
}

impl Ended {
    pub(crate) fn failed(code: ErrorCode, detail: impl Into<String>, retryable: bool) -> Ended {
        Ended::Failed(failed(code, detail, retryable))
    }
}

/// One attempt.
pub(crate) struct Attempt<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) transfer: &'a Transfer,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) cancel: CancellationToken,
    whole: bool,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        transfer: &'a Transfer,
        sink: Arc<dyn Sink>,
        ledger: Arc<dyn Ledger>,
        cancel: CancellationToken,
        whole: bool,
    ) -> Self {
        Attempt { engine, transfer, sink, ledger, cancel, whole }
    }

    pub(crate) async fn run(self, progressed: &mut bool) -> Result<Completed, Ended> {
        match &self.transfer.resume {
            Some(resume) => Box::pin(self.go_on(resume, progressed)).await,
            None => Box::pin(self.begin(progressed)).await,
        }
    }

    /// The value, unless the transfer is canceled first.
    async fn unless_canceled<T>(&self, future: impl Future<Output = T>) -> Result<T, Ended> {
        self.cancel.run_until_cancelled(future).await.ok_or(Ended::Canceled)
    }

    async fn begin(&self, progressed: &mut bool) -> Result<Completed, Ended> {
        let memory = &self.engine.memory;
        let smallest = self.transfer.part_size_min_bytes.clamp(1, memory.largest_part_bytes());
        let mut loan = self.unless_canceled(memory.acquire(smallest)).await?;
        let session = self.engine.client.session();
        let probing = Box::pin(probe(&session, self.transfer, self.whole, &self.engine.clock));
        let (open, facts) = self.unless_canceled(probing).await?.map_err(|error| sort(error, None, false))?;
        self.check_size(facts.total_bytes)?;
        let expected = self.expected(facts.digest.as_ref());
        let resumable = facts.ranged && !self.whole && (facts.validator.is_some() || expected.is_some());
        let source = Arc::new(Source {
            session,
            clock: self.engine.clock.clone(),
            patience: self.engine.patience,
            url: self.transfer.url.clone(),
            headers: self.transfer.headers.clone(),
            route: facts.route.clone().into(),
            validator: facts.validator.clone(),
            total_bytes: facts.total_bytes,
            resumable,
            received: 0.into(),
        });
        if let Some(total) = facts.total_bytes
            && total <= smallest
        {
            loan.shrink(total);
            return self.small(&source, open, &facts, total, loan).await;
        }
        let cut = match facts.total_bytes {
            Some(total) => Cut::new(total, smallest, memory.largest_part_bytes())
                .map_err(|error| Ended::failed(ErrorCode::TooLarge, format!("the content is too large: {error}"), false))?,
            None => Cut::unknown(smallest, memory.largest_part_bytes()),
        };
        let mut missing = Missing::new(cut, Vec::new());
        let mut open = Some(open);
        let mut first = None;
        let spare;
        if facts.total_bytes.is_none() {
            // It may end within the first part; then there is nothing to cut.
            missing.take();
            let job = Job::new(1, 0, capacity(smallest), loan);
            let (job, rest, ended) = self.fetch_alone(&source, job, open.take()).await?;
            if ended {
                return self.put_whole(job, &facts).await;
            }
            open = rest;
            first = Some(job);
            spare = None;
        } else if cut.part_size_bytes() > smallest {
            // Whoever waits holds nothing that another waits for.
            drop(loan);
            spare = Some(self.unless_canceled(memory.acquire(cut.part_size_bytes())).await?);
        } else {
            spare = Some(loan);
        }
        let upload_id = self.unless_canceled(self.try_store(|| self.sink.begin(facts.content_type.as_deref()))).await??;
        let plan = PlanRecord {
            upload_id,
            part_size_bytes: cut.part_size_bytes(),
            total_bytes: facts.total_bytes,
            validator: if resumable { facts.validator.clone() } else { None },
            content_type: facts.content_type.clone(),
            file_name: facts.file_name.clone(),
        };
        noted(self.unless_canceled(self.ledger.adopt_upload(&plan)).await?)?;
        let flight = Flight::new(self, source, cut, plan.clone(), missing, Vec::new(), self.sums(expected));
        let landed = flight.run(open, first, spare, progressed).await?;
        self.finish(&plan, landed, expected, facts.end_is_marked).await
    }

    async fn go_on(&self, resume: &Resume, progressed: &mut bool) -> Result<Completed, Ended> {
        let plan = &resume.plan;
        let memory = &self.engine.memory;
        let cut = Cut::resumed(plan.total_bytes, plan.part_size_bytes, memory.largest_part_bytes());
        self.check_size(plan.total_bytes)?;
        let parts = cut.usable(&resume.parts);
        let missing = Missing::new(cut, parts.iter().map(|part| part.number).collect());
        let expected = self.expected(None);
        let Some((number, range)) = missing.peek() else {
            return self.finish(plan, Landed { parts, summed: None }, expected, true).await;
        };
        if plan.validator.is_none() && expected.is_none() || part_is_too_large(plan, memory.largest_part_bytes()) {
            return Err(restart(RestartReason::NotResumable, plan, Then::Again));
        }
        let loan = self.unless_canceled(memory.acquire(range.end - range.start)).await?;
        let source = Arc::new(Source {
            session: self.engine.client.session(),
            clock: self.engine.clock.clone(),
            patience: self.engine.patience,
            url: self.transfer.url.clone(),
            headers: self.transfer.headers.clone(),
            route: None.into(),
            validator: plan.validator.clone(),
            total_bytes: plan.total_bytes,
            resumable: true,
            received: 0.into(),
        });
        let asking = Box::pin(source.ask(range.start, missing.run_end(number)));
        let open = match self.unless_canceled(asking).await? {
            Ok(Some(open)) => open,
            Ok(None) => return self.finish(plan, Landed { parts, summed: None }, expected, true).await,
            Err(error) => return Err(sort(error, Some(plan), true)),
        };
        // From the start the sums are in order only if nothing is there yet.
        let sums = if parts.is_empty() { self.sums(expected) } else { None };
        let flight = Flight::new(self, source, cut, plan.clone(), missing, parts, sums);
        let landed = flight.run(Some(open), None, Some(loan), progressed).await?;
        self.finish(plan, landed, expected, true).await
    }

    fn expected<'b>(&'b self, from_server: Option<&'b Checksum>) -> Option<&'b Checksum> {
        self.transfer.checksum.as_ref().or(from_server)
    }

    fn sums(&self, expected: Option<&Checksum>) -> Option<Sums> {
        Sums::wanted(self.transfer.digest, expected)
    }

    pub(crate) fn check_size(&self, bytes: Option<u64>) -> Result<(), Ended> {
        if bytes.is_some_and(|bytes| bytes > self.transfer.max_size_bytes) {
            return Err(Ended::failed(ErrorCode::TooLarge, "the content is larger than allowed", false));
        }
        Ok(())
    }

    /// Content of a known length that fits into one part.
    async fn small(&self, source: &Arc<Source>, open: Open, facts: &Facts, total: u64, loan: Loan) -> Result<Completed, Ended> {
        let job = Job::new(1, 0, capacity(total), loan);
        let (job, _, _) = self.fetch_alone(source, job, Some(open)).await?;
        self.put_whole(job, facts).await
    }

    /// Fetch one part with nothing beside it. Returns it, what is left of the answer, and whether the content ended.
    async fn fetch_alone(
        &self,
        source: &Arc<Source>,
        mut job: Job,
        mut open: Option<Open>,
    ) -> Result<(Job, Option<Open>, bool), Ended> {
        let mut delay = Duration::ZERO;
        loop {
            let fetching = Box::pin(fetch_part(Arc::clone(source), job, open.take(), source.total_bytes, delay));
            let fetched = self.unless_canceled(fetching).await?;
            job = fetched.job;
            match fetched.result {
                Ok(ended) => return Ok((job, fetched.open, ended)),
                Err(error) => delay = self.wait_after(error, &mut job, None, source.resumable)?,
            }
        }
    }

    /// How long to wait before the next try of a part, or why there is none.
    pub(crate) fn wait_after(
        &self,
        error: FetchError,
        job: &mut Job,
        plan: Option<&PlanRecord>,
        resumable: bool,
    ) -> Result<Duration, Ended> {
        let patience = self.engine.patience;
        let FetchError::Transient { retry_after, .. } = &error else { return Err(sort(error, plan, true)) };
        job.tries += 1;
        if !resumable {
            let Ended::Failed(error) = sort(error, plan, true) else { return Err(Ended::Canceled) };
            return Err(match plan {
                Some(plan) => restart(RestartReason::NotResumable, plan, Then::Fail(error)),
                None => Ended::Failed(error),
            });
        }
        if job.tries >= patience.tries || retry_after.is_some_and(|wait| wait > patience.wait_most) {
            return Err(sort(error, plan, true));
        }
        Ok(retry_after.unwrap_or_else(|| patience.wait(job.tries)))
    }

    async fn put_whole(&self, job: Job, facts: &Facts) -> Result<Completed, Ended> {
        let crc64 = job.crc.value();
        let body = job.buffer.freeze();
        self.check_size(Some(body.len() as u64))?;
        let expected = self.expected(facts.digest.as_ref());
        let summed = match self.sums(expected) {
            Some(sums) => self.unless_canceled(sums.of(body.clone())).await?.ok_or(Ended::Canceled)?,
            None => Summed::default(),
        };
        if let Some(expected) = expected
            && !summed.fits(expected)
        {
            return Err(mismatch(&summed, expected, None));
        }
        let put = || self.sink.put_whole(facts.content_type.as_deref(), body.clone(), crc64);
        let stored = self.unless_canceled(self.try_store(put)).await??;
        let completed = Completed {
            size_bytes: body.len() as u64,
            sha256: summed.sha256.filter(|_| self.transfer.digest),
            crc64,
            etag: stored.etag,
            content_type: facts.content_type.clone(),
            file_name: facts.file_name.clone(),
            verified: verified(expected, facts.end_is_marked),
        };
        if let Ok(buffer) = body.try_into_mut() {
            job.loan.give_back(buffer);
        }
        Ok(completed)
    }

    /// Everything is stored: check it, make one object of it, check that.
    async fn finish(
        &self,
        plan: &PlanRecord,
        landed: Landed,
        expected: Option<&Checksum>,
        end_is_marked: bool,
    ) -> Result<Completed, Ended> {
        let Landed { parts, summed } = landed;
        let size_bytes: u64 = parts.iter().map(|part| part.size_bytes).sum();
        let crc64 = combined_crc(&parts);
        self.check_size(Some(size_bytes))?;
        if let (Some(summed), Some(expected)) = (&summed, expected)
            && !summed.fits(expected)
        {
            return Err(mismatch(summed, expected, Some(plan.upload_id.clone())));
        }
        let stored = self.complete(plan, &parts, size_bytes, crc64).await?;
        let summed = match (summed, self.sums(expected)) {
            (Some(summed), _) => summed,
            (None, None) => Summed::default(),
            (None, Some(sums)) => {
                let (summed, read_bytes, read_crc64) = self.unless_canceled(self.read_back(sums)).await??;
                if expected.is_some_and(|expected| !summed.fits(expected)) || (read_bytes, read_crc64) != (size_bytes, crc64) {
                    self.unless_canceled(self.try_store(|| self.sink.discard())).await??;
                    return Err(match expected {
                        Some(expected) if !summed.fits(expected) => mismatch(&summed, expected, None),
                        _ => not_what_was_sent(),
                    });
                }
                summed
            }
        };
        Ok(Completed {
            size_bytes,
            sha256: summed.sha256.filter(|_| self.transfer.digest),
            crc64,
            etag: stored.etag,
            content_type: plan.content_type.clone(),
            file_name: plan.file_name.clone(),
            verified: verified(expected, end_is_marked),
        })
    }

    async fn complete(&self, plan: &PlanRecord, parts: &[PartRecord], size_bytes: u64, crc64: u64) -> Result<Stored, Ended> {
        let completing = self.try_store(|| self.sink.finish(&plan.upload_id, parts, size_bytes, crc64));
        match self.unless_canceled(completing).await? {
            Err(Ended::Restart { reason, then, .. }) => Err(Ended::Restart { reason, upload_id: None, then }),
            other => other,
        }
    }

    async fn read_back(&self, sums: Sums) -> Result<(Summed, u64, u64), Ended> {
        let stream = self.try_store(|| self.sink.read_back()).await?;
        sums.of_stream(stream).await.map_err(|error| {
            warn!(%error, "a finished object could not be read back");
            Ended::Failed(storage_unavailable("the object store did not give back what was stored"))
        })
    }

    /// Call the store, again if it is not available.
    async fn try_store<'b, T, C>(&self, call: C) -> Result<T, Ended>
    where
        C: Fn() -> crate::sink::SinkAnswer<'b, T>,
    {
        try_store(call).await.map_err(sort_sink_error)
    }
}

/// Call the store, again if it is not available.
#[expect(clippy::disallowed_methods, reason = "a pause before the store is asked again")]
pub(crate) async fn try_store<'b, T, C>(call: C) -> Result<T, SinkError>
where
    C: Fn() -> crate::sink::SinkAnswer<'b, T>,
{
    let mut tries = 0;
    loop {
        match call().await {
            Err(SinkError::Unavailable(error)) if tries + 1 < STORE_TRIES => {
                tracing::debug!(%error, tries, "the object store is not available");
                tokio::time::sleep(STORE_WAIT * (1 << tries)).await;
                tries += 1;
            }
            answer => return answer,
        }
    }
}

pub(crate) fn sort_sink_error(error: SinkError) -> Ended {
    match error {
        SinkError::NoSuchUpload => Ended::Restart { reason: RestartReason::UploadLost, upload_id: None, then: Then::Again },
        SinkError::Unavailable(source) => {
            warn!(error = %source, "the object store is not available");
            Ended::Failed(storage_unavailable("the object store is not available"))
        }
        SinkError::Refused(reason) => {
            warn!(reason, "the object store refuses");
            Ended::Failed(storage_unavailable("the object store refuses to take the content"))
        }
    }
}

fn verified(expected: Option<&Checksum>, end_is_marked: bool) -> Verified {
    match (expected, end_is_marked) {
        (Some(_), _) => Verified::Digest,
        (None, true) => Verified::Length,
        (None, false) => Verified::Nothing,
    }
}

/// The content is not what its digest says. The one that it has is told, for whoever has to find out which of the two is wrong.
fn mismatch(summed: &Summed, expected: &Checksum, upload_id: Option<String>) -> Ended {
    let detail = match summed.instead_of(expected) {
        Some(found) => format!("the content is not what its digest says: it has {found}"),
        None => "the content is not what its digest says".to_owned(),
    };
    let error = failed(ErrorCode::ChecksumMismatch, detail, false);
    Ended::Restart { reason: RestartReason::ChecksumMismatch, upload_id, then: Then::AgainOr(error) }
}

/// What the store gave back is not what it took.
fn not_what_was_sent() -> Ended {
    let error = failed(ErrorCode::ChecksumMismatch, "the object store gave back other bytes than it was given", false);
    Ended::Restart { reason: RestartReason::ChecksumMismatch, upload_id: None, then: Then::AgainOr(error) }
}

pub(crate) fn capacity(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn part_is_too_large(plan: &PlanRecord, largest: u64) -> bool {
    plan.part_size_bytes > largest
}

/// What a failed request means for the transfer. `begun`: whether the source had answered before.
fn sort(error: FetchError, plan: Option<&PlanRecord>, begun: bool) -> Ended {
    let restart = |reason, then| Ended::Restart { reason, upload_id: plan.map(|plan| plan.upload_id.clone()), then };
    match error {
        FetchError::Transient { code, detail, retry_after, .. } => {
            Ended::Failed(TransferError { retry_after, ..failed(code, detail, true) })
        }
        FetchError::Changed => restart(RestartReason::SourceChanged, Then::Again),
        FetchError::RangesBroken => restart(RestartReason::NotResumable, Then::AgainWhole),
        FetchError::Expired(status) if begun => Ended::failed(
            ErrorCode::SourceExpired,
            format!("the link does not work any more, the server answered {}; give a new link to go on", status.as_u16()),
            false,
        ),
        FetchError::Expired(status) => {
            Ended::failed(ErrorCode::HttpStatus, format!("the server answered {}", status.as_u16()), false)
        }
        FetchError::Fatal { code, detail } => Ended::failed(code, detail, false),
    }
}

pub(crate) fn restart(reason: RestartReason, plan: &PlanRecord, then: Then) -> Ended {
    Ended::Restart { reason, upload_id: Some(plan.upload_id.clone()), then }
}

fn noted(answer: Result<(), LedgerError>) -> Result<(), Ended> {
    answer.map_err(|error| match error {
        LedgerError::Fenced => Ended::Fenced,
        LedgerError::Unavailable(error) => {
            warn!(%error, "the ledger could not be written");
            Ended::Failed(storage_unavailable("the state of the download could not be saved"))
        }
    })
}
