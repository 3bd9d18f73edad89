//! Following an account's events: read from the stream one after the other by sequence, so that whoever was away goes on
//! exactly where it was.
//!
//! The sequence is the one order that has no gaps. Events in the database are in the order of their transactions' ends,
//! which no column knows, and a message that is heard without being read from the stream says nothing of those before it.
//! So what is heard is only a hint to read on. There is no consumer: nothing is kept on the server for a follower.

use std::{fmt, str::FromStr};

use async_nats::jetstream::stream::DirectGetErrorKind;
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;
use tracing::warn;

use crate::{
    bus::{Bus, JETSTREAM_TIMEOUT},
    envelope,
    event::Event,
    id::{AccountId, EventId},
    publish::Error,
    stream_state::StreamState,
    topology,
};

/// A place in the stream of events: everything up to it was read. Written `<stream>-<sequence>`, where the first part tells
/// a stream from one that was made anew under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    stream: u64,
    /// Sequence of the last event that was read; 0 before the first.
    pub sequence: u64,
}

/// A text is not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position in the stream of events: two numbers with a hyphen between are expected, as 19a2f3c4d5e-42")]
pub struct NotAPosition;

impl Position {
    /// At the end of the stream as it is now.
    pub fn end_of(state: &StreamState) -> Self {
        Position { stream: identity(state), sequence: state.last_sequence }
    }

    /// Whether it is one of this stream, and everything after it is still there.
    pub fn is_in(&self, state: &StreamState) -> bool {
        self.stream == identity(state) && self.sequence <= state.last_sequence && self.sequence + 1 >= state.first_sequence
    }

    /// The same, further on.
    #[must_use]
    pub fn at(self, sequence: u64) -> Self {
        Position { sequence, ..self }
    }
}

fn identity(state: &StreamState) -> u64 {
    u64::try_from(state.created_at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.stream, self.sequence)
    }
}

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let (stream, sequence) = text.split_once('-').ok_or(NotAPosition)?;
        let is_plain = stream.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
            && sequence.bytes().all(|byte| byte.is_ascii_digit());
        if !is_plain {
            return Err(NotAPosition);
        }
        Ok(Position {
            stream: u64::from_str_radix(stream, 16).map_err(|_| NotAPosition)?,
            // One less than the most, so that counting on cannot overflow.
            sequence: sequence.parse().ok().filter(|sequence| *sequence < u64::MAX).ok_or(NotAPosition)?,
        })
    }
}

impl Bus {
    /// The account's first event after this sequence, with its own; `None` when there is none yet. What is no event is
    /// passed over.
    pub async fn next_event(&self, account: AccountId, mut after: u64) -> Result<Option<(u64, Event)>, Error> {
        let subject = self.subjects().events_of_account(account);
        let stream = self.0.jetstream.get_stream_no_info(topology::EVENTS).await.map_err(|_| Error::Disconnected)?;
        loop {
            let next = stream.direct_get_next_for_subject(subject.as_str(), Some(after + 1));
            let message = match timeout(JETSTREAM_TIMEOUT, next).await {
                Ok(Ok(message)) => message,
                Ok(Err(error)) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
                Ok(Err(_)) | Err(_) => return Err(Error::Disconnected),
            };
            after = message.sequence;
            match envelope::read_event(self.subjects(), &message.subject, Some(&message.headers), &message.payload) {
                Ok(event) => return Ok(Some((after, event))),
                Err(error) => warn!(%error, sequence = after, "what the stream of events holds is no event"),
            }
        }
    }

    /// Hints that the account has a new event, and which: it is about to be in the stream. May be lost, may come twice.
    pub async fn listen_events(&self, account: AccountId) -> Result<impl Stream<Item = EventId> + Send + Unpin + use<>, Error> {
        let subject = self.subjects().events_of_account(account).nats();
        let messages = self.0.client.subscribe(subject).await.map_err(|_| Error::Disconnected)?;
        Ok(messages
            .filter_map(|message| {
                let id = envelope::get(message.headers.as_ref(), envelope::CE_ID).and_then(|id| id.parse().ok());
                std::future::ready(id)
            })
            .boxed())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{Duration, OffsetDateTime};

    use super::*;

    fn state(first_sequence: u64, last_sequence: u64) -> StreamState {
        StreamState { created_at: OffsetDateTime::UNIX_EPOCH + Duration::days(20_000), first_sequence, last_sequence }
    }

    #[test]
    fn a_position_is_good_as_long_as_nothing_after_it_is_lost() {
        let end = Position::end_of(&state(1, 7));
        assert!(end.is_in(&state(1, 7)) && end.is_in(&state(1, 9)) && end.is_in(&state(8, 9)));
        assert!(!end.is_in(&state(9, 9)), "the eighth is gone");
        assert!(!end.is_in(&state(1, 6)), "the stream is behind it");
        let anew = StreamState { created_at: OffsetDateTime::UNIX_EPOCH, ..state(1, 9) };
        assert!(!end.is_in(&anew));
        let empty = Position::end_of(&state(0, 0));
        assert!(empty.is_in(&state(0, 0)) && empty.is_in(&state(1, 3)));
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-2-3",
            "g-1",
            "1-+1",
            "1-a",
            "A-1",
            "1-99999999999999999999",
            " 1-1",
            "1-18446744073709551615",
        ] {
            assert_eq!(text.parse::<Position>(), Err(NotAPosition), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_position_reads_back_as_it_was_written(stream in any::<u64>(), sequence in 0..u64::MAX) {
            let position = Position { stream, sequence };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn reading_never_panics(text in any::<String>()) {
            let _ = text.parse::<Position>();
        }
    }
}
