//! What operators ask about dead letters.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bowerbird_nats::{
    Bus, Code, Page, Problem,
    answer::Call,
    dead::Replay,
    dead_letter::{DeadLetter, DeleteDeadLetter, GetDeadLetter, Header, ListDeadLetters, OpenedDeadLetter, ReplayDeadLetter},
    operation::Done,
};
use sqlx::PgPool;
use tracing::{info, warn};

use super::store;
use crate::{
    cursor::{self, Cursors, List},
    database,
};

/// Body of a letter that is shown: as base64, well below half of what one message of the bus may hold.
const SHOWN_BYTES: usize = 128 * 1024;
/// Longest name of a stream or consumer that is looked for.
const NAME_MAX_CHARACTERS: usize = 64;
/// Seconds after which another try makes sense when the bus did not take it.
const RETRY_AFTER_SECONDS: u64 = 2;

/// What the operations work with. Cheap to clone.
#[derive(Clone)]
pub(super) struct Requests(Arc<Collaborators>);

/// See [`Requests`].
pub(super) struct Collaborators {
    pub(super) pool: PgPool,
    pub(super) bus: Bus,
    pub(super) cursors: Cursors,
}

impl Requests {
    /// Operations over these.
    pub(super) fn new(collaborators: Collaborators) -> Self {
        Requests(Arc::new(collaborators))
    }

    /// Every letter, the youngest first.
    pub(super) async fn list(self, call: Call<ListDeadLetters>) -> Result<Page<DeadLetter>, Problem> {
        let caller = call.account()?;
        let ListDeadLetters { stream, consumer, limit, cursor } = call.request;
        let limit = cursor::limit(limit)?;
        for (field, value) in [("stream", &stream), ("consumer", &consumer)] {
            if value.as_ref().is_some_and(|value| value.is_empty() || value.chars().count() > NAME_MAX_CHARACTERS) {
                return Err(Problem::invalid(field, format!("1 to {NAME_MAX_CHARACTERS} characters are expected")));
            }
        }
        let filters = [stream.as_deref(), consumer.as_deref()];
        let list = List { name: "dead_letters", account: caller.account_id, filters: &filters };
        let before = cursor.map(|cursor| self.0.cursors.read(&list, &cursor)).transpose()?;
        // One more than asked for says whether there is a next page.
        let mut letters = store::list(&self.0.pool, stream.as_deref(), consumer.as_deref(), before, limit + 1)
            .await
            .map_err(|error| database::problem(&error))?;
        let more = letters.len() > limit as usize;
        letters.truncate(limit as usize);
        let next_cursor = letters.last().filter(|_| more).map(|last| self.0.cursors.after(&list, last.id.0));
        Ok(Page { items: letters, next_cursor })
    }

    /// One letter with what it says.
    pub(super) async fn get(self, call: Call<GetDeadLetter>) -> Result<OpenedDeadLetter, Problem> {
        let found = store::find(&self.0.pool, call.request.id).await.map_err(|error| database::problem(&error))?;
        let store::Kept { letter, headers, payload, .. } = found.ok_or_else(unknown)?;
        Ok(OpenedDeadLetter {
            letter,
            headers: headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
            body_base64: STANDARD.encode(&payload[..payload.len().min(SHOWN_BYTES)]),
        })
    }

    /// Send it back to its consumer.
    pub(super) async fn replay(self, call: Call<ReplayDeadLetter>) -> Result<DeadLetter, Problem> {
        let caller = call.account()?;
        // Nothing is held while it is sent, which may take a while.
        let kept = store::find(&self.0.pool, call.request.id).await.map_err(|error| database::problem(&error))?;
        let kept = kept.ok_or_else(unknown)?;
        self.send_back(&kept).await?;
        let letter = store::replayed(&self.0.pool, kept.letter.id).await.map_err(|error| database::problem(&error))?;
        let letter = letter.ok_or_else(unknown)?;
        info!(letter = %letter.id, consumer = letter.consumer, by = %caller.account_id, "a dead letter was sent back");
        Ok(letter)
    }

    /// Sent before it is marked: a letter that is marked and was not sent would be forgotten; one that was sent and not
    /// marked may be sent again, and its consumer recognises repeats.
    async fn send_back(&self, kept: &store::Kept) -> Result<(), Problem> {
        let store::Kept { letter, headers, payload, .. } = kept;
        let replay = Replay {
            stream: &letter.stream,
            consumer: &letter.consumer,
            subject: &letter.subject,
            headers,
            body: &payload.clone().into(),
        };
        self.0.bus.replay(replay).await.map_err(|error| {
            warn!(%error, letter = %letter.id, "a dead letter could not be sent back");
            Problem::unavailable("the message could not be sent back; try again in a moment", RETRY_AFTER_SECONDS)
        })
    }

    /// Delete it, in the table and in its stream.
    pub(super) async fn delete(self, call: Call<DeleteDeadLetter>) -> Result<Done, Problem> {
        let caller = call.account()?;
        let kept = store::find(&self.0.pool, call.request.id).await.map_err(|error| database::problem(&error))?;
        let store::Kept { letter, lies, .. } = kept.ok_or_else(unknown)?;
        let (sequence, stored_at) = lies;
        // There first: a consumer that is made anew would bring it back from there.
        self.0.bus.exhume(sequence, stored_at).await.map_err(|error| {
            warn!(%error, letter = %letter.id, "a dead letter could not be deleted in its stream");
            Problem::unavailable("the message could not be deleted in its stream; try again in a moment", RETRY_AFTER_SECONDS)
        })?;
        store::delete(&self.0.pool, letter.id).await.map_err(|error| database::problem(&error))?;
        info!(letter = %letter.id, consumer = letter.consumer, by = %caller.account_id, "a dead letter was deleted");
        Ok(Done {})
    }
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "there is no dead letter of this id")
}
