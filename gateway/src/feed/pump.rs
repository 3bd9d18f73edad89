//! One client: reads its account's events on as they are hinted at, hands on progress, says that it is still there, and
//! knows when to end.

use std::{pin::pin, time::Duration};

use bowerbird_nats::{
    EventId, StreamState,
    credential::Caller as Verified,
    event::{self, Event},
    feed::Position,
    publish::Live,
    session::Closed,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use tokio::{
    sync::mpsc::{Sender, error::SendTimeoutError},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};
use tracing::debug;

use super::{BUFFER, Feed, frame};
use crate::caller::Credential;

/// A client whose buffer stays full for so many heartbeats is dropped.
const SLOW_AFTER_BEATS: u32 = 2;
/// An event is hinted at when it is published, and can be read some moments later. When it is looked for again.
const LOOK_AGAIN: [Duration; 5] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];
/// Hinted events that are waited for by name; beyond it the heartbeat finds them.
const AWAITED_MOST: usize = 256;
/// How long subscribing may take.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(5);
/// How long events that cannot be read are waited for before the client is asked to come back.
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// Why a client is not fed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is not there any more.
    Gone,
    /// The process stops.
    Stopping,
    /// Its token is not good any more.
    Expired,
    /// Its session was closed.
    SessionClosed,
    /// It does not take what comes.
    Slow,
    /// Events cannot be read.
    Unavailable,
}

/// What is heard of the account.
struct Ears {
    /// Its new events.
    hints: BoxStream<'static, EventId>,
    /// Progress of what runs.
    live: BoxStream<'static, Live>,
}

/// Feeds one client.
pub(super) struct Pump {
    feed: Feed,
    caller: Verified,
    credential: Credential,
    frames: Sender<Bytes>,
    /// Up to where the client was fed.
    position: Position,
    /// Whether the client came back to a place that is there no more.
    lost: bool,
    /// Whether the client begins at the end, which is asked for once hints are heard.
    from_now: bool,
    expires: Instant,
    /// Events that were hinted at and not read yet.
    awaited: Vec<EventId>,
    /// Times that they were looked for in vain.
    tries: usize,
    /// When they are looked for again.
    again: Option<Instant>,
    /// Since when events cannot be read.
    unread_since: Option<Instant>,
}

impl Pump {
    pub(super) fn new(
        feed: Feed,
        caller: Verified,
        credential: Credential,
        frames: Sender<Bytes>,
        state: &StreamState,
        last: Option<Position>,
    ) -> Self {
        let expires = Instant::now() + feed.0.verifier.time_left(&caller);
        let kept = last.filter(|last| last.is_in(state));
        Pump {
            feed,
            caller,
            credential,
            frames,
            position: kept.unwrap_or_else(|| Position::end_of(state)),
            lost: last.is_some() && kept.is_none(),
            from_now: last.is_none(),
            expires,
            awaited: Vec::new(),
            tries: 0,
            again: None,
            unread_since: None,
        }
    }

    /// Feed the client until there is a reason to end.
    pub(super) async fn run(mut self) -> End {
        match self.feed_it().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a heartbeat of the stream; the end of a token, and a pause before the next try"
    )]
    async fn feed_it(&mut self) -> Result<std::convert::Infallible, End> {
        let (bus, account) = (self.feed.0.bus.clone(), self.caller.account_id);
        let subscribed =
            timeout(SUBSCRIBE_PATIENCE, async { tokio::join!(bus.listen_events(account), bus.listen_live(account)) }).await;
        let Ok((Ok(hints), Ok(live))) = subscribed else { return Err(End::Unavailable) };
        let ears = &mut Ears { hints: hints.boxed(), live: live.boxed() };
        if self.from_now || self.lost {
            // Asked anew, so that what happened before the client came is not taken for news.
            let state = self.feed.fresh_state().await.ok_or(End::Unavailable)?;
            self.position = Position::end_of(&state);
        }
        self.send(ears, frame::greeting(self.position)).await?;
        if self.lost {
            self.send(ears, frame::reset(self.position)).await?;
        }
        let heartbeat = self.feed.0.heartbeat;
        let mut beats = interval_at(Instant::now() + heartbeat, heartbeat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.feed.0.shutdown.clone();
        let mut look = true;
        loop {
            if look {
                self.look(ears).await?;
            }
            look = true;
            let (frames, again) = (self.frames.clone(), self.again);
            tokio::select! {
                biased;
                () = frames.closed() => return Err(End::Gone),
                () = shutdown.stopping() => return Err(End::Stopping),
                () = sleep_until(self.expires) => return Err(End::Expired),
                hint = ears.hints.next() => {
                    self.hinted(hint.ok_or(End::Unavailable)?);
                    self.hinted_too(ears);
                }
                told = ears.live.next() => {
                    self.tell(&told.ok_or(End::Unavailable)?);
                    while let Some(Some(told)) = ears.live.next().now_or_never() {
                        self.tell(&told);
                    }
                    look = false;
                }
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
                _ = beats.tick() => self.beat(ears).await?,
            }
        }
    }

    fn hinted(&mut self, id: EventId) {
        if self.awaited.len() < AWAITED_MOST {
            self.awaited.push(id);
        }
        self.tries = 0;
    }

    fn hinted_too(&mut self, ears: &mut Ears) {
        while let Some(Some(id)) = ears.hints.next().now_or_never() {
            self.hinted(id);
        }
    }

    /// What was said while nobody listened must not pile up: of hints their ids are kept, of progress nothing.
    fn catch_up_hearing(&mut self, ears: &mut Ears) {
        self.hinted_too(ears);
        while let Some(Some(_left_out)) = ears.live.next().now_or_never() {}
    }

    /// Read on until there is nothing more.
    async fn look(&mut self, ears: &mut Ears) -> Result<(), End> {
        self.again = None;
        loop {
            self.catch_up_hearing(ears);
            if self.feed.0.shutdown.is_stopping() {
                return Err(End::Stopping);
            }
            if Instant::now() >= self.expires {
                return Err(End::Expired);
            }
            match self.feed.0.bus.next_event(self.caller.account_id, self.position.sequence).await {
                Ok(Some((sequence, event))) => {
                    self.unread_since = None;
                    self.position = self.position.at(sequence);
                    self.awaited.retain(|awaited| *awaited != event.id);
                    self.send(ears, frame::event(self.position, &event)).await?;
                    if self.closes_session(&event) {
                        return Err(End::SessionClosed);
                    }
                }
                Ok(None) => {
                    self.unread_since = None;
                    break;
                }
                Err(error) => {
                    debug!(%error, "events cannot be read right now");
                    let since = *self.unread_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > READ_PATIENCE {
                        return Err(End::Unavailable);
                    }
                    self.again = Some(Instant::now() + LOOK_AGAIN[LOOK_AGAIN.len() - 1]);
                    return Ok(());
                }
            }
        }
        if !self.awaited.is_empty() {
            match LOOK_AGAIN.get(self.tries) {
                Some(pause) => {
                    self.tries += 1;
                    self.again = Some(Instant::now() + *pause);
                }
                // It was published twice and is stored once, say.
                None => self.awaited.clear(),
            }
        }
        Ok(())
    }

    /// Say that the stream is still there, and see whether its client and the stream of events still are what they were.
    async fn beat(&mut self, ears: &mut Ears) -> Result<(), End> {
        if self.feed.0.verifier.verify(self.credential.token()).is_err() {
            return Err(End::Expired);
        }
        if let Some(state) = self.feed.state().await
            && !self.position.is_in(&state)
        {
            // What is known may be older than where the client is.
            let state = self.feed.fresh_state().await.ok_or(End::Unavailable)?;
            if !self.position.is_in(&state) {
                self.position = Position::end_of(&state);
                self.send(ears, frame::reset(self.position)).await?;
            }
        }
        // A full buffer says as much.
        let _ = self.frames.try_send(frame::heartbeat());
        Ok(())
    }

    /// Progress is left out when the client is behind.
    fn tell(&self, live: &Live) {
        if self.frames.capacity() > BUFFER / 2
            && let Some(frame) = frame::live(live)
        {
            let _ = self.frames.try_send(frame);
        }
    }

    /// Waits for a client that does not read, and hears on meanwhile: what is heard would pile up as whole messages.
    async fn send(&mut self, ears: &mut Ears, frame: Bytes) -> Result<(), End> {
        let (shutdown, patience) = (self.feed.0.shutdown.clone(), self.feed.0.heartbeat * SLOW_AFTER_BEATS);
        let frames = self.frames.clone();
        let mut sending = pin!(frames.send_timeout(frame, patience));
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => return sent.map_err(|error| match error {
                    SendTimeoutError::Timeout(_) => End::Slow,
                    SendTimeoutError::Closed(_) => End::Gone,
                }),
                () = shutdown.stopping() => return Err(End::Stopping),
                hint = ears.hints.next() => self.hinted(hint.ok_or(End::Unavailable)?),
                told = ears.live.next() => drop(told.ok_or(End::Unavailable)?),
            }
        }
    }

    fn closes_session(&self, event: &Event) -> bool {
        let closes = event.event_type == event::SESSION_CLOSED;
        closes && event.data_as::<Closed>().is_ok_and(|closed| closed.session_id == self.caller.session_id)
    }
}
