//! Fetches one part: asks for what is missing of it, checks that the answer is that and of the same version, reads it into
//! the part's buffer.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bowerbird_lifecycle::Clock;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::{Instant, timeout};
use url::Url;

use crate::{
    answer_head::{ContentRange, content_range, is_of_version, retry_after},
    client::Session,
    digest::{Crc, Offer, Sums},
    engine::Patience,
    error::{Error, ErrorCode},
    memory::Loan,
    response::{Body, Framing, Response},
};

/// Time for the mark at the end of a body to arrive, so that its connection can be used again.
const END_MARK_WITHIN: Duration = Duration::from_millis(100);

/// Why a part did not come.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// May go better in a moment.
    Transient { code: ErrorCode, detail: String, retry_after: Option<Duration>, throttled: bool },
    /// The source has another version now.
    Changed,
    /// The server answers ranges with something else; the content is to be had in one piece only.
    RangesBroken,
    /// The link works no more: 401, 403, 404 or 410.
    Expired(StatusCode),
    /// Will not go better.
    Fatal { code: ErrorCode, detail: String },
}

impl From<Error> for FetchError {
    fn from(error: Error) -> Self {
        if let Error::Broken(source) | Error::Resolve(source) = &error {
            tracing::debug!(%source, "an exchange failed");
        }
        let (code, detail) = (error.code(), error.to_string());
        if error.is_transient() {
            FetchError::Transient { code, detail, retry_after: None, throttled: false }
        } else {
            FetchError::Fatal { code, detail }
        }
    }
}

impl FetchError {
    /// Sort a status that is not a success.
    pub(crate) fn of_status(status: StatusCode, headers: &HeaderMap, clock: &Clock) -> FetchError {
        let detail = format!("the server answered {}", status.as_u16());
        match status.as_u16() {
            401 | 403 | 404 | 410 => FetchError::Expired(status),
            408 | 425 | 429 | 500 | 502 | 503 | 504 => FetchError::Transient {
                code: ErrorCode::HttpStatus,
                detail,
                retry_after: retry_after(headers, clock.now()),
                throttled: matches!(status.as_u16(), 429 | 503),
            },
            _ => FetchError::Fatal { code: ErrorCode::HttpStatus, detail },
        }
    }
}

/// What all parts of a transfer are fetched from.
pub(crate) struct Source {
    pub(crate) session: Session,
    pub(crate) clock: Clock,
    pub(crate) patience: Patience,
    /// As it was given, with the headers that were given for it.
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Where redirects led to; asked first, so that every part does not pay for them again.
    pub(crate) route: Mutex<Option<Route>>,
    /// For `If-Range`, and what every answer must carry.
    pub(crate) validator: Option<String>,
    pub(crate) total_bytes: Option<u64>,
    /// Whether a second answer may be put behind a first one: something tells their versions apart, or a digest will.
    pub(crate) resumable: bool,
    /// Bytes received so far, of all parts.
    pub(crate) received: AtomicU64,
}

/// Where redirects led to.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) url: Url,
    /// Whether the given headers may go there.
    pub(crate) same_origin: bool,
}

impl Route {
    pub(crate) fn of(response: &Response) -> Option<Route> {
        response.redirected.then(|| Route { url: response.url.clone(), same_origin: response.same_origin })
    }
}

/// An answer whose body is being read.
pub(crate) struct Open {
    body: Body,
    /// Read and not used yet.
    leftover: Bytes,
    /// Position of the next byte.
    pub(crate) next: u64,
    /// Position behind its last byte, if known.
    pub(crate) end: Option<u64>,
    /// Whether its end is the end of the content even if no length was given.
    pub(crate) is_whole: bool,
}

impl Open {
    pub(crate) fn new(body: Body, next: u64, end: Option<u64>, is_whole: bool) -> Open {
        Open { body, leftover: Bytes::new(), next, end, is_whole }
    }

    fn is_used_up(&self) -> bool {
        self.end == Some(self.next)
    }

    /// The next bytes, at most `most`; `None` at the end of the body.
    async fn read(&mut self, most: u64) -> Result<Option<Bytes>, Error> {
        let most = self.end.map_or(most, |end| most.min(end - self.next));
        if self.leftover.is_empty() {
            match self.body.chunk().await? {
                None => return Ok(None),
                Some(bytes) => self.leftover = bytes,
            }
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.leftover.len());
        let bytes = self.leftover.split_to(most);
        self.next += bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// Read the mark at the end, which gives the connection back.
    async fn finish(mut self) {
        if self.leftover.is_empty() {
            drop(timeout(END_MARK_WITHIN, self.body.chunk()).await);
        }
    }
}

/// Sums are taken over in the middle of a part if there is no more of it than this, which takes less than a millisecond.
const CATCH_UP_BYTES: usize = 1 << 20;

/// A part that is being fetched, with what is there of it.
pub(crate) struct Job {
    pub(crate) number: u32,
    /// Position of its first byte.
    pub(crate) first: u64,
    /// Bytes that it may have; has exactly, if the length of the content is known.
    pub(crate) capacity: usize,
    pub(crate) buffer: BytesMut,
    pub(crate) loan: Loan,
    pub(crate) crc: Crc,
    /// The sums of everything before it and of what is there of it, once they were offered and taken.
    sums: Option<Sums>,
    offer: Offer,
    /// Tries that brought no byte.
    pub(crate) tries: u32,
}

impl Job {
    pub(crate) fn new(number: u32, first: u64, capacity: usize, loan: Loan) -> Job {
        let buffer = loan.buffer(capacity);
        Job { number, first, capacity, buffer, loan, crc: Crc::new(), sums: None, offer: Offer::default(), tries: 0 }
    }

    fn position(&self) -> u64 {
        self.first + self.buffer.len() as u64
    }

    fn left(&self) -> u64 {
        (self.capacity - self.buffer.len()) as u64
    }

    fn take_in(&mut self, bytes: &Bytes) {
        // While they are in the cache of this core.
        self.crc.update(bytes);
        if self.sums.is_none() && self.buffer.len() <= CATCH_UP_BYTES {
            self.sums = self.take_offer();
            if let Some(sums) = &mut self.sums {
                sums.update(&self.buffer);
            }
        }
        if let Some(sums) = &mut self.sums {
            sums.update(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        self.tries = 0;
    }

    /// Where the sums of everything before this part can be put while it is fetched.
    pub(crate) fn offer(&self) -> Offer {
        Arc::clone(&self.offer)
    }

    /// The sums that it was offered, and whether all of it is in them.
    pub(crate) fn take_sums(&mut self) -> Option<(Sums, bool)> {
        self.sums.take().map(|sums| (sums, true)).or_else(|| self.take_offer().map(|sums| (sums, false)))
    }

    fn take_offer(&self) -> Option<Sums> {
        self.offer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What came of a job.
pub(crate) struct Fetched {
    pub(crate) job: Job,
    /// The answer, if there is more in it.
    pub(crate) open: Option<Open>,
    /// Whether the content ended with this part; known only where its length was not.
    pub(crate) result: Result<bool, FetchError>,
}

/// Fetch what is missing of a part: from `open` first, then by asking for the bytes up to `ask_until` (or to the end).
#[expect(clippy::disallowed_methods, reason = "a pause before a source is asked again")]
pub(crate) async fn fetch_part(
    source: Arc<Source>,
    mut job: Job,
    mut open: Option<Open>,
    ask_until: Option<u64>,
    delay: Duration,
) -> Fetched {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let result = fill(&source, &mut job, &mut open, ask_until).await;
    if result.is_err() {
        open = None;
    }
    if let Some(used_up) = open.take_if(|open| open.is_used_up()) {
        used_up.finish().await;
    }
    Fetched { job, open, result }
}

async fn fill(source: &Source, job: &mut Job, open: &mut Option<Open>, ask_until: Option<u64>) -> Result<bool, FetchError> {
    let mut pace = Pace::new(source.patience);
    while job.left() > 0 {
        if let Some(used_up) = open.take_if(|open| open.is_used_up()) {
            if used_up.is_whole {
                used_up.finish().await;
                return Ok(true);
            }
            used_up.finish().await;
        }
        let answer = match open {
            Some(answer) => answer,
            None if !source.resumable => return Err(FetchError::RangesBroken),
            None => match source.ask(job.position(), ask_until).await? {
                Some(answer) => open.insert(answer),
                None => return Ok(true),
            },
        };
        match answer.read(job.left()).await? {
            Some(bytes) => {
                source.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                job.take_in(&bytes);
                pace.check(bytes.len() as u64)?;
            }
            None if answer.is_whole && answer.end.is_none() => return Ok(true),
            // Fewer bytes than its range said, in a body that ended in an orderly way.
            None => {
                *open = None;
                return Err(Error::Broken("the body ended before its range".into()).into());
            }
        }
    }
    Ok(false)
}

impl Source {
    /// Ask for the bytes from `first` on. `None`: the content ends exactly there.
    pub(crate) async fn ask(&self, first: u64, until: Option<u64>) -> Result<Option<Open>, FetchError> {
        let mut ours = HeaderMap::with_capacity(2);
        let last = until.map_or_else(String::new, |until| until.saturating_sub(1).to_string());
        ours.insert(header::RANGE, header_value(&format!("bytes={first}-{last}"))?);
        if let Some(validator) = &self.validator {
            ours.insert(header::IF_RANGE, header_value(validator)?);
        }
        let response = self.get(&ours).await?;
        self.judge(response, first)
    }

    /// Ask where redirects led to, and again from the start if that does not work any more: such links are often signed
    /// for a short time.
    async fn get(&self, ours: &HeaderMap) -> Result<Response, FetchError> {
        let route = self.route.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(route) = route {
            let nothing = HeaderMap::new();
            let given = if route.same_origin { &self.headers } else { &nothing };
            let response = self.session.get(&route.url, given, ours).await?;
            if !matches!(response.status.as_u16(), 401 | 403 | 404 | 410) {
                return Ok(response);
            }
        }
        let response = self.session.get(&self.url, &self.headers, ours).await?;
        *self.route.lock().unwrap_or_else(PoisonError::into_inner) = Route::of(&response);
        Ok(response)
    }

    fn judge(&self, response: Response, asked: u64) -> Result<Option<Open>, FetchError> {
        let headers = &response.headers;
        let same_version = self.validator.as_deref().is_none_or(|validator| is_of_version(headers, validator));
        match response.status {
            StatusCode::PARTIAL_CONTENT => {
                let Some(ContentRange::Part { first, end, total }) = content_range(headers) else {
                    return Err(FetchError::RangesBroken);
                };
                let length_fits = match response.body.framing() {
                    Framing::Length(length) => length == end - first,
                    Framing::Marked => true,
                    Framing::Close => false,
                };
                if !same_version || self.total_bytes.is_some() && total.is_some() && total != self.total_bytes {
                    Err(FetchError::Changed)
                } else if first != asked || !length_fits || self.total_bytes.is_some_and(|total| end > total) {
                    Err(FetchError::RangesBroken)
                } else {
                    Ok(Some(Open::new(response.body, first, Some(end), false)))
                }
            }
            StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => {
                Err(if same_version { FetchError::RangesBroken } else { FetchError::Changed })
            }
            StatusCode::RANGE_NOT_SATISFIABLE => match content_range(headers) {
                Some(ContentRange::Unsatisfied { total }) if total == asked && self.total_bytes.is_none() => Ok(None),
                _ => Err(FetchError::Changed),
            },
            status => Err(FetchError::of_status(status, headers, &self.clock)),
        }
    }
}

fn header_value(text: &str) -> Result<HeaderValue, FetchError> {
    HeaderValue::from_str(text).map_err(|_| FetchError::Fatal {
        code: ErrorCode::ProtocolError,
        detail: "the server gave a validator that cannot be sent back".to_owned(),
    })
}

/// Whether bytes come fast enough. What brings nothing at all is noticed by the body itself.
struct Pace {
    patience: Patience,
    since: Instant,
    bytes: u64,
}

impl Pace {
    fn new(patience: Patience) -> Pace {
        Pace { patience, since: Instant::now(), bytes: 0 }
    }

    fn check(&mut self, bytes: u64) -> Result<(), Error> {
        self.bytes += bytes;
        if self.since.elapsed() < self.patience.rate_over {
            return Ok(());
        }
        let wanted = u128::from(self.patience.min_rate) * self.patience.rate_over.as_millis() / 1000;
        if u128::from(self.bytes) < wanted {
            return Err(Error::Stalled);
        }
        *self = Pace::new(self.patience);
        Ok(())
    }
}
