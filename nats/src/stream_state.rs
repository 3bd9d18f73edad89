//! What a stream looks like now, for whoever has to notice that it was lost and made again.

use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
use time::OffsetDateTime;

use crate::{bus::Bus, topology::Error};

/// What tells a stream from one that was made anew under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// When JetStream made it.
    pub created_at: OffsetDateTime,
    /// Sequence of the oldest message that it holds.
    pub first_sequence: u64,
    /// Sequence of its last message; it only ever goes up.
    pub last_sequence: u64,
}

impl Bus {
    /// What `stream` looks like; `None` when there is none of this name.
    pub async fn stream_state(&self, stream: &'static str) -> Result<Option<StreamState>, Error> {
        match self.0.jetstream.get_stream(stream).await {
            Ok(found) => {
                let info = found.cached_info();
                Ok(Some(StreamState {
                    created_at: info.created,
                    first_sequence: info.state.first_sequence,
                    last_sequence: info.state.last_sequence,
                }))
            }
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(refusal) if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(Error::NotTold { name: stream.to_owned(), source: Box::new(error) }),
            },
        }
    }
}
