//! Dead letters on the bus: into `DEAD` with the reason, out of it again, and back to the consumer that refused them.
//!
//! A letter goes back through a stream of its own, `REPLAYS`, on a subject that only the consumer reads that refused it.
//! Published once more where it came from, it would reach every other consumer too, and within the duplicate window
//! nobody at all.

use async_nats::{HeaderMap, HeaderName, HeaderValue, jetstream::stream::RawMessageErrorKind};
use bytes::Bytes;
use time::OffsetDateTime;

use crate::{
    bus::Bus,
    consume::{ConsumerSpec, FromMessage, Raw},
    envelope,
    publish::{Error, Outgoing},
    subject::Meaning,
    topology::{self, ACK_WAIT},
};

/// Headers that carry credentials. They are for the one who was asked, and are kept nowhere.
const CREDENTIALS: &[&str] =
    &["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-amz-security-token"];
/// What every header of JetStream begins with.
const OF_JETSTREAM: &str = "nats-";
/// What the headers of a dead letter begin with.
const OF_LETTERS: &str = "bowerbird-dead-";
/// Stands for what a letter does not tell.
const UNKNOWN: &str = "unknown";
/// Appended to the reason of a letter whose body did not fit into the stream with it.
const WITHOUT_BODY: &str = " (its body was too large to be kept with the reason)";

/// A message that a consumer refused, on its way into `DEAD`.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The stream that it was taken from.
    pub stream: String,
    /// The consumer that refused it.
    pub consumer: String,
    /// Why.
    pub reason: String,
    /// The subject that it came on.
    pub subject: String,
    /// Its sequence in the stream.
    pub stream_sequence: u64,
    /// How often it had been delivered.
    pub deliveries: i64,
    /// When it was stored in the stream.
    pub stored_at: OffsetDateTime,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

/// A letter as `DEAD` holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buried {
    /// The same however often the same refusal is told; `None` for what others put there.
    pub message_id: Option<String>,
    /// The stream that it was taken from.
    pub stream: String,
    /// The consumer that refused it.
    pub consumer: String,
    /// Why.
    pub reason: String,
    /// The subject that it came on.
    pub subject: String,
    /// How often it had been delivered.
    pub deliveries: i64,
    /// Its own headers, without credentials.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

/// A message for one consumer to be handled once more.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    /// The stream that it was taken from.
    pub stream: &'a str,
    /// The consumer that is to have it.
    pub consumer: &'a str,
    /// The subject that it came on.
    pub subject: &'a str,
    /// Its headers.
    pub headers: &'a [(String, String)],
    /// Its body.
    pub body: &'a Bytes,
}

impl FromMessage for Buried {
    /// Takes whatever is there: a letter that is not understood would have nowhere to go.
    fn from_message(raw: &Raw<'_>) -> Result<Self, String> {
        let (of_stream, of_consumer) = match raw.meaning() {
            Some(Meaning::Dead { stream, consumer }) => (stream, consumer),
            _ => (UNKNOWN.to_owned(), UNKNOWN.to_owned()),
        };
        let told = |name| raw.header(name).map(ToOwned::to_owned);
        let reason = told(envelope::DEAD_REASON).map(|reason| envelope::percent_decode(&reason).into_owned());
        let headers =
            raw.headers().filter(|(name, _)| is_of_message(name)).map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut headers: Vec<(String, String)> = headers.collect();
        // The library keeps them in no order; of one name they stay in theirs.
        headers.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(Buried {
            message_id: told("Nats-Msg-Id"),
            stream: told(envelope::DEAD_STREAM).unwrap_or(of_stream),
            consumer: told(envelope::DEAD_CONSUMER).unwrap_or(of_consumer),
            reason: reason.unwrap_or_else(|| UNKNOWN.to_owned()),
            subject: told(envelope::DEAD_SUBJECT).unwrap_or_else(|| UNKNOWN.to_owned()),
            deliveries: told(envelope::DEAD_DELIVERIES).and_then(|number| number.parse().ok()).unwrap_or(0),
            headers,
            body: raw.body().clone(),
        })
    }
}

/// Whether a header belongs to the message itself, and may be kept.
fn is_of_message(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.starts_with(OF_JETSTREAM) && !name.starts_with(OF_LETTERS) && !CREDENTIALS.contains(&name.as_str())
}

fn copied(headers: &[(String, String)]) -> HeaderMap {
    let mut copied = HeaderMap::new();
    for (name, value) in headers {
        if is_of_message(name)
            && let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
        {
            copied.append(name, value);
        }
    }
    copied
}

impl Bus {
    /// Stores a refused message in `DEAD`, once however often it is told. One that is too large to be stored with its
    /// reason is stored without its body.
    pub async fn publish_dead(&self, letter: &DeadLetter) -> Result<(), Error> {
        match self.publish(self.outgoing_letter(letter, &letter.reason, letter.body.clone())).await {
            Err(Error::TooLarge) => {
                let reason = format!("{}{WITHOUT_BODY}", letter.reason);
                self.publish(self.outgoing_letter(letter, &reason, Bytes::new())).await
            }
            published => published,
        }
    }

    fn outgoing_letter(&self, letter: &DeadLetter, reason: &str, body: Bytes) -> Outgoing {
        let mut headers = copied(&letter.headers);
        envelope::put(&mut headers, envelope::DEAD_REASON, &envelope::percent_encode(reason));
        envelope::put(&mut headers, envelope::DEAD_SUBJECT, &letter.subject);
        envelope::put(&mut headers, envelope::DEAD_STREAM, &letter.stream);
        envelope::put(&mut headers, envelope::DEAD_SEQUENCE, &letter.stream_sequence.to_string());
        envelope::put(&mut headers, envelope::DEAD_CONSUMER, &letter.consumer);
        envelope::put(&mut headers, envelope::DEAD_DELIVERIES, &letter.deliveries.to_string());
        // Sequences begin again when a stream was wiped; with its time the message is named for good.
        let message_id = format!(
            "{}.{}.{}.{}",
            letter.stream,
            letter.consumer,
            letter.stream_sequence,
            letter.stored_at.unix_timestamp_nanos()
        );
        Outgoing {
            stream: topology::DEAD,
            subject: self.subjects().dead(&letter.stream, &letter.consumer),
            message_id: Some(message_id),
            headers,
            body,
        }
    }

    /// The consumer of dead letters. It refuses none: there is nowhere further down.
    pub fn dead_consumer(&self, durable: &'static str) -> ConsumerSpec {
        ConsumerSpec {
            stream: topology::DEAD,
            durable,
            filter: self.subjects().every_dead(),
            max_deliveries: i64::MAX,
            ack_wait: ACK_WAIT,
        }
    }

    /// Hands a message to the one consumer that refused it, and to no other. It is handled like any other message of that
    /// consumer; refused again it is another letter.
    pub async fn replay(&self, replay: Replay<'_>) -> Result<(), Error> {
        let mut headers = copied(replay.headers);
        envelope::put(&mut headers, envelope::DEAD_SUBJECT, replay.subject);
        self.publish(Outgoing {
            stream: topology::REPLAYS,
            subject: self.subjects().replay(replay.stream, replay.consumer),
            // An operator who asks twice means it twice.
            message_id: None,
            headers,
            body: replay.body.clone(),
        })
        .await
    }

    /// Takes a letter out of `DEAD`, where it is under `sequence`. Nothing is touched if another message is there by now.
    /// True if it was there.
    pub async fn exhume(&self, sequence: u64, stored_at: OffsetDateTime) -> Result<bool, topology::Error> {
        let not_told = |source| topology::Error::NotTold { name: topology::DEAD.to_owned(), source };
        let stream = self.0.jetstream.get_stream_no_info(topology::DEAD).await.map_err(|error| not_told(error.into()))?;
        match stream.get_raw_message(sequence).await {
            // PostgreSQL keeps microseconds, JetStream nanoseconds.
            Ok(found) if (found.time - stored_at).abs() < time::Duration::milliseconds(1) => {
                stream.delete_message(sequence).await.map_err(|error| not_told(error.into()))
            }
            Ok(_another) => Ok(false),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
            Err(error) => Err(not_told(error.into())),
        }
    }
}
