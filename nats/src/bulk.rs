//! Publishing many facts at once: as atomic batches (ADR-50), which are stored with one sync instead of one for each
//! message, and one by one where a batch is not taken.
//!
//! A batch is all or nothing, and whether it was stored may stay unknown. Both are settled by the message ids: a batch
//! that has an id that is stored already is refused as a whole, and its messages are then sent one by one, where a
//! repeat counts as stored.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use async_nats::{
    RequestErrorKind,
    header::{NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE},
    jetstream::{self, message::PublishMessage, response::Response},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::de::IgnoredAny;
use tokio::time::{Instant, timeout};
use tracing::debug;
use uuid::Uuid;

use crate::{
    bus::{Bus, JETSTREAM_TIMEOUT},
    event::Event,
    publish::{Error, Outgoing, Verdict, judge, renewed},
};

/// The most that the server takes in one batch.
const BATCH_MAX: usize = 1000;
/// Fewer are sent one by one: a batch takes two round trips.
const BATCH_MIN: usize = 8;
/// Things of which messages are sent one by one at once; the rest waits for its turn.
const ENTITIES_AT_ONCE: usize = 256;
/// What one try of a batch may take; the server gives a batch up when it hears nothing for ten seconds.
const TRY_WITHIN: Duration = JETSTREAM_TIMEOUT.saturating_mul(2);

/// Why a batch is not stored, as far as is known.
enum NotTogether {
    /// It may go better as a batch later.
    Again {
        /// Nobody took it: there may be no stream.
        missing: bool,
    },
    /// Not as a batch: a message in it is stored already, too large, or the stream takes no batches.
    Singly(String),
}

impl Bus {
    /// Stores facts, many at once. The result has one entry for each, in the same order. Facts of one thing are stored
    /// in the order given: when one does not get through, those after it are kept back.
    ///
    /// A thousand cost about as much as one, as they are stored as atomic batches. Facts that are stored already are
    /// not stored again.
    pub async fn publish_events(&self, events: &[Event]) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(events.len());
        let mut stuck: HashSet<Uuid> = HashSet::new();
        let mut unreachable = false;
        for chunk in events.chunks(BATCH_MAX) {
            if unreachable {
                results.extend(chunk.iter().map(|_| Err(Error::KeptBack)));
                continue;
            }
            let stored = if chunk.len() >= BATCH_MIN && stuck.is_empty() {
                self.publish_together(chunk).await
            } else {
                self.publish_singly(chunk, &stuck).await
            };
            for (event, result) in chunk.iter().zip(stored) {
                if let Err(error) = &result {
                    stuck.insert(event.entity_id);
                    unreachable |= matches!(error, Error::NotAcknowledged { .. } | Error::Disconnected);
                }
                results.push(result);
            }
        }
        results
    }

    /// As one batch; one by one if it is not taken as one.
    async fn publish_together(&self, events: &[Event]) -> Vec<Result<(), Error>> {
        let Ok(batch) = events.iter().map(|event| self.outgoing_event(event)).collect::<Result<Vec<_>, _>>() else {
            return self.publish_singly(events, &HashSet::new()).await;
        };
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let mut connection = self.connection();
            let result = tokio::select! {
                result = timeout(TRY_WITHIN, self.send_batch(&batch)) => result,
                // What was sent before is forgotten by the server, unless it had all of it.
                () = renewed(&mut connection) => continue,
            };
            let missing = match result {
                Ok(Ok(())) => return events.iter().map(|_| Ok(())).collect(),
                Ok(Err(NotTogether::Singly(reason))) => {
                    debug!(reason, messages = events.len(), "a batch was not taken; sending its messages one by one");
                    return self.publish_singly(events, &HashSet::new()).await;
                }
                Ok(Err(NotTogether::Again { missing })) => missing,
                Err(_elapsed) => false,
            };
            debug!(attempt, messages = events.len(), "a batch was not acknowledged; sending it again");
            if self.try_again(started, &mut attempt, missing, None).await.is_err() {
                let waited = started.elapsed();
                return events.iter().map(|_| Err(Error::NotAcknowledged { waited, source: None })).collect();
            }
        }
    }

    /// One try. The first message is asked about, so that a stream that takes no batches is known before the rest is
    /// sent; the last commits.
    async fn send_batch(&self, batch: &[Outgoing]) -> Result<(), NotTogether> {
        let Some((last, rest)) = batch.split_last() else { return Ok(()) };
        let id = format!("{:032x}", rand::random::<u128>());
        let head = |message: &Outgoing, sequence: usize| {
            let mut headers = message.headers();
            headers.insert(NATS_BATCH_ID, id.as_str());
            headers.insert(NATS_BATCH_SEQUENCE, (sequence + 1).to_string());
            headers
        };
        for (sequence, message) in rest.iter().enumerate() {
            let (subject, headers) = (message.subject.nats(), head(message, sequence));
            if sequence > 0 {
                let sent = self.0.client.publish_with_headers(subject, headers, message.body.clone()).await;
                sent.map_err(|error| NotTogether::Singly(error.to_string()))?;
                continue;
            }
            let request = async_nats::Request::new().headers(headers).payload(message.body.clone()).timeout(None);
            match timeout(JETSTREAM_TIMEOUT, self.0.client.send_request(subject, request)).await {
                Ok(Ok(answer)) => opened(&answer.payload)?,
                Ok(Err(error)) => return Err(not_opened(&error)),
                Err(_elapsed) => return Err(NotTogether::Again { missing: false }),
            }
        }
        let mut headers = head(last, rest.len());
        headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        let commit = PublishMessage::build().headers(headers).payload(last.body.clone());
        let acknowledged = async { self.0.jetstream.send_publish(last.subject.nats(), commit).await?.await };
        match acknowledged.await {
            Ok(ack) if ack.batch_id.as_deref() == Some(id.as_str()) && ack.batch_size == Some(batch.len() as u64) => Ok(()),
            Ok(_) => Err(NotTogether::Singly("the server did not take it for a batch".to_owned())),
            Err(error) => Err(match judge(&error) {
                Verdict::Again { missing } => NotTogether::Again { missing },
                Verdict::Stored | Verdict::TooLarge | Verdict::Refused => NotTogether::Singly(error.to_string()),
            }),
        }
    }

    /// Each on its own, those of one thing one after the other. What concerns a thing in `stuck` is kept back.
    async fn publish_singly(&self, events: &[Event], stuck: &HashSet<Uuid>) -> Vec<Result<(), Error>> {
        let mut results: Vec<Result<(), Error>> = Vec::with_capacity(events.len());
        let mut of_entity: HashMap<Uuid, Vec<usize>> = HashMap::new();
        for (index, event) in events.iter().enumerate() {
            results.push(Err(Error::KeptBack));
            if !stuck.contains(&event.entity_id) {
                of_entity.entry(event.entity_id).or_default().push(index);
            }
        }
        let mut waiting: Vec<Vec<usize>> = of_entity.into_values().collect();
        waiting.sort_unstable_by_key(|indexes| std::cmp::Reverse(indexes.first().copied()));
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < ENTITIES_AT_ONCE
                && let Some(indexes) = waiting.pop()
            {
                running.push(async move {
                    let mut stored = Vec::with_capacity(indexes.len());
                    for index in indexes {
                        let result = self.publish_event(&events[index]).await;
                        let failed = result.is_err();
                        stored.push((index, result));
                        if failed {
                            break;
                        }
                    }
                    stored
                });
            }
            let Some(stored) = running.next().await else { return results };
            for (index, result) in stored {
                results[index] = result;
            }
        }
    }
}

/// The server answers the first message of a batch with nothing, or says why it takes none.
fn opened(answer: &[u8]) -> Result<(), NotTogether> {
    if answer.is_empty() {
        return Ok(());
    }
    match serde_json::from_slice::<Response<IgnoredAny>>(answer) {
        // No leader, no resources, on its way down.
        Ok(Response::Err { error }) if error.code() == 503 => Err(NotTogether::Again { missing: false }),
        Ok(Response::Err { error }) => Err(NotTogether::Singly(jetstream::Error::to_string(&error))),
        Ok(Response::Ok(_)) | Err(_) => Err(NotTogether::Singly("the server did not take it for a batch".to_owned())),
    }
}

fn not_opened(error: &async_nats::RequestError) -> NotTogether {
    match error.kind() {
        RequestErrorKind::NoResponders => NotTogether::Again { missing: true },
        RequestErrorKind::TimedOut => NotTogether::Again { missing: false },
        _ => NotTogether::Singly(error.to_string()),
    }
}
