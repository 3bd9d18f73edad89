//! The feed: server-sent events of one account, each client's pushed by a task of its own through a buffer with an end.
//!
//! Events are read from the stream by sequence ([`bowerbird_nats::feed`]), so a client that comes back with
//! `Last-Event-ID` misses none and none is skipped for a slow one: it is waited for, and in the end dropped, to come back
//! where it was. Progress is for eyes only and left out when the buffer fills.

mod frame;
mod pump;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bowerbird_lifecycle::{Shutdown, Tasks, prometheus_client::metrics::gauge::Gauge};
use bowerbird_nats::{
    AccountId, Code, Problem, StreamState,
    bus::Bus,
    credential::{Caller as Verified, Verifier},
    feed::Position,
    topology,
};
use bytes::Bytes;
use futures_util::Stream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};
use tracing::debug;

use self::pump::Pump;
use crate::{caller::Credential, refused::Refused};

/// Frames that wait for one client.
const BUFFER: usize = 64;
/// What the stream looks like is asked at most this often.
const STATE_FRESH: Duration = Duration::from_secs(5);
/// How long that may take.
const STATE_PATIENCE: Duration = Duration::from_secs(5);

/// Feeds clients. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Feed(Arc<Inner>);

struct Inner {
    bus: Bus,
    verifier: Verifier,
    shutdown: Shutdown,
    tasks: Tasks,
    heartbeat: Duration,
    places: Arc<Semaphore>,
    most_per_account: usize,
    by_account: Mutex<HashMap<AccountId, usize>>,
    following: Gauge,
    /// What the stream of events looked like, and when.
    state: tokio::sync::Mutex<Option<(Instant, StreamState)>>,
}

/// What a feed is made of.
pub(crate) struct Parts {
    pub(crate) bus: Bus,
    pub(crate) verifier: Verifier,
    pub(crate) shutdown: Shutdown,
    pub(crate) tasks: Tasks,
    pub(crate) heartbeat: Duration,
    /// Clients at once.
    pub(crate) most: usize,
    /// Of one account.
    pub(crate) most_per_account: usize,
    pub(crate) following: Gauge,
}

impl Feed {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { bus, verifier, shutdown, tasks, heartbeat, most, most_per_account, following } = parts;
        Feed(Arc::new(Inner {
            bus,
            verifier,
            shutdown,
            tasks,
            heartbeat,
            places: Arc::new(Semaphore::new(most)),
            most_per_account,
            by_account: Mutex::default(),
            following,
            state: tokio::sync::Mutex::default(),
        }))
    }

    /// Follow the caller's events from now on, or from after `last`. What is answered ends with a word about why, when it
    /// is not the client that ends it.
    pub(crate) async fn follow(
        &self,
        caller: Verified,
        credential: Credential,
        last: Option<&str>,
    ) -> Result<impl Stream<Item = Bytes> + Send + use<>, Refused> {
        let last =
            last.map(str::parse::<Position>).transpose().map_err(|error| Problem::invalid("Last-Event-ID", error.to_string()))?;
        let place = self.place(caller.account_id)?;
        let away =
            || Refused(Problem::unavailable("events cannot be read right now, as the message bus is away; try again soon", 2));
        let mut state = self.state().await.ok_or_else(away)?;
        if last.is_some_and(|last| !last.is_in(&state)) {
            // What is known may be older than where the client was.
            state = self.fresh_state().await.ok_or_else(away)?;
        }
        let (frames, taken) = mpsc::channel(BUFFER);
        let (last_word, ending) = oneshot::channel();
        let pump = Pump::new(self.clone(), caller, credential, frames, &state, last);
        self.0.tasks.spawn(async move {
            let end = pump.run().await;
            debug!(account = %caller.account_id, ?end, "a client follows its events no more");
            drop(place);
            // A client that is gone hears no last word.
            let _ = last_word.send(frame::end(end));
        });
        Ok(futures_util::stream::unfold((taken, Some(ending)), |(mut taken, mut ending)| async move {
            if let Some(frame) = taken.recv().await {
                return Some((frame, (taken, ending)));
            }
            let last_word = ending.take()?.await.ok()?;
            Some((last_word, (taken, None)))
        }))
    }

    /// What the stream of events looks like, not long ago; `None` when it cannot be told.
    async fn state(&self) -> Option<StreamState> {
        let mut known = self.0.state.lock().await;
        if let Some((at, state)) = *known
            && at.elapsed() < STATE_FRESH
        {
            return Some(state);
        }
        let state = timeout(STATE_PATIENCE, self.0.bus.stream_state(topology::EVENTS)).await.ok()?.ok()??;
        *known = Some((Instant::now(), state));
        Some(state)
    }

    /// What it looks like right now, for a client that begins at its end.
    async fn fresh_state(&self) -> Option<StreamState> {
        *self.0.state.lock().await = None;
        self.state().await
    }

    fn place(&self, account: AccountId) -> Result<Place, Refused> {
        let permit = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| {
            Refused(Problem::unavailable("too many clients follow their events right now; try again in a moment", 5))
        })?;
        let mut by_account = self.0.by_account.lock().unwrap_or_else(PoisonError::into_inner);
        let following = by_account.entry(account).or_default();
        if *following >= self.0.most_per_account {
            let mut problem = Problem::new(
                Code::TooMany,
                format!("this account follows its events {} times already; end one of them", self.0.most_per_account),
            );
            problem.retry_after = Some(5);
            return Err(Refused(problem));
        }
        *following += 1;
        self.0.following.inc();
        Ok(Place { feed: self.clone(), account, _permit: permit })
    }
}

/// A place among those who follow, given back when dropped.
struct Place {
    feed: Feed,
    account: AccountId,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.feed.0.following.dec();
        let mut by_account = self.feed.0.by_account.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut following) = by_account.entry(self.account) {
            *following.get_mut() -= 1;
            if *following.get() == 0 {
                following.remove();
            }
        }
    }
}
