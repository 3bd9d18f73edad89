//! Publishing: what must not be lost waits for the acknowledgement that it is stored, and is sent again under the same
//! id until it has one or the time is over. What is only for eyes is sent and forgotten.

mod alarm;

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{self, ErrorCode, context::PublishErrorKind, message::PublishMessage},
};
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    bus::{Bus, Connection, backoff},
    download, envelope,
    event::Event,
    id::{AccountId, DownloadId, NodeId},
    key::KeySet,
    subject::{Meaning, Subject, WorkKind},
    topology,
};

/// How long a message without acknowledgement is sent again. A stream without leader is back in about 7 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a message is not stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No acknowledgement in time. It may be stored all the same: send it again under the same id.
    #[error("the message was not acknowledged within {waited:?}")]
    NotAcknowledged {
        /// How long it was tried.
        waited: Duration,
        /// The last failure.
        #[source]
        source: Option<jetstream::context::PublishError>,
    },
    /// JetStream refuses it, and will refuse it again.
    #[error("the message was refused")]
    Refused(#[source] jetstream::context::PublishError),
    /// It is larger than the server takes.
    #[error("the message is larger than the NATS server takes")]
    TooLarge,
    /// It has no JSON.
    #[error("the message has no JSON")]
    Json(#[source] serde_json::Error),
    /// An earlier message about the same thing did not get through; this one was kept back so that the order holds.
    #[error("an earlier message about the same thing did not get through")]
    KeptBack,
    /// The client is closed, or its queue is full as the server is away.
    #[error("the NATS server is not reachable")]
    Disconnected,
}

/// Something told for eyes only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// `download`
    pub area: String,
    /// `progress`
    pub name: String,
    /// The thing that it is about.
    pub entity_id: Uuid,
    /// JSON.
    pub body: Bytes,
}

/// A message on its way into a stream.
pub(crate) struct Outgoing {
    pub(crate) stream: &'static str,
    pub(crate) subject: Subject,
    /// `None` where the stream itself sees to uniqueness.
    pub(crate) message_id: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Outgoing {
    /// All its headers, those for JetStream among them.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        if let Some(message_id) = &self.message_id {
            envelope::put(&mut headers, MESSAGE_ID, message_id);
        }
        // A subject that lands in another stream than meant is a fault of the set-up and not to be stored there.
        envelope::put(&mut headers, EXPECTED_STREAM, self.stream);
        headers
    }
}

impl Bus {
    /// Stores a fact in `EVENTS`.
    pub async fn publish_event(&self, event: &Event) -> Result<(), Error> {
        self.publish(self.outgoing_event(event)?).await
    }

    /// Hands out a row. That this hand-out waits or is being worked on already is a success.
    pub async fn publish_work(&self, kind: WorkKind, id: &Uuid, dispatch_no: i64) -> Result<(), Error> {
        let body = match kind {
            WorkKind::Downloads => serde_json::to_vec(&download::Work { download_id: DownloadId(*id), dispatch_no }),
        };
        let mut headers = HeaderMap::new();
        envelope::put(&mut headers, envelope::CONTENT_TYPE, "application/json");
        self.publish(Outgoing {
            stream: kind.stream(),
            subject: self.subjects().work(kind, *id, dispatch_no),
            // Not by id: the memory of ids would refuse a hand-out that a worker gave back, and is lost with a restart.
            message_id: None,
            headers,
            body: body.map_err(Error::Json)?.into(),
        })
        .await
    }

    /// Stores a notification of the object store, as it is, in `OBJECTS`.
    pub async fn publish_object(&self, payload: Bytes, message_id: &str) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        envelope::put(&mut headers, envelope::CONTENT_TYPE, "application/json");
        self.publish(Outgoing {
            stream: topology::OBJECTS,
            subject: self.subjects().object(),
            message_id: Some(message_id.to_owned()),
            headers,
            body: payload,
        })
        .await
    }

    /// Publishes the signing keys in the bucket `KEYS`.
    pub async fn put_key_set(&self, keys: &KeySet) -> Result<(), Error> {
        let body = Bytes::from(serde_json::to_vec(keys).map_err(Error::Json)?);
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let put = async {
                let store = self.0.jetstream.get_key_value(topology::KEYS).await.map_err(|error| error.to_string())?;
                store.put(topology::KEYS_ENTRY, body.clone()).await.map_err(|error| error.to_string())
            };
            let reason = match timeout_at(started + PATIENCE, put).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(reason)) => reason,
                Err(_elapsed) => return Err(Error::NotAcknowledged { waited: started.elapsed(), source: None }),
            };
            debug!(reason, attempt, "the signing keys were not stored; trying again");
            self.try_again(started, &mut attempt, true, None).await?;
        }
    }

    /// Tells whoever looks how something goes. Not stored; left out when the server is away or behind.
    pub fn tell_live<T: Serialize>(&self, area: &'static str, name: &'static str, account: AccountId, id: Uuid, body: &T) {
        if !self.is_connected() {
            return;
        }
        let Ok(body) = serde_json::to_vec(body) else { return };
        let subject = self.subjects().live(area, name, account, id).nats();
        // Ready at once while the client's queue has room; when it has none, what is only for eyes is left out.
        if self.0.client.publish(subject, body.into()).now_or_never().is_none() {
            debug!(area, name, "a live message was left out");
        }
    }

    /// Gives an order to one process. `Ok` says that it left, not that it arrived.
    pub async fn tell_node<T: Serialize>(
        &self,
        node: NodeId,
        area: &'static str,
        name: &'static str,
        body: &T,
    ) -> Result<(), Error> {
        let body = serde_json::to_vec(body).map_err(Error::Json)?;
        let subject = self.subjects().node(node, area, name).nats();
        let publish = self.0.client.publish(subject, body.into());
        match tokio::time::timeout(crate::bus::JETSTREAM_TIMEOUT, publish).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Disconnected),
        }
    }

    /// The orders that this process is given. What is not of the type is logged and left out.
    pub async fn listen_node<T: DeserializeOwned + Send + 'static>(
        &self,
        node: NodeId,
        area: &'static str,
        name: &'static str,
    ) -> Result<impl Stream<Item = T> + Send + Unpin + use<T>, Error> {
        let subject = self.subjects().node(node, area, name).nats();
        let messages = self.0.client.subscribe(subject).await.map_err(|_| Error::Disconnected)?;
        Ok(messages
            .filter_map(move |message| async move {
                match serde_json::from_slice(&message.payload) {
                    Ok(order) => Some(order),
                    Err(error) => {
                        warn!(area, name, %error, "an order to this process is not of its type");
                        None
                    }
                }
            })
            .boxed())
    }

    /// What is told of an account's things while they go on.
    pub async fn listen_live(&self, account: AccountId) -> Result<impl Stream<Item = Live> + Send + Unpin + use<>, Error> {
        let subject = self.subjects().live_of_account(account).nats();
        let messages = self.0.client.subscribe(subject).await.map_err(|_| Error::Disconnected)?;
        let subjects = self.subjects().clone();
        Ok(messages
            .filter_map(move |message| {
                let live = match subjects.read(&message.subject) {
                    Some(Meaning::Live { area, name, entity_id, .. }) => {
                        Some(Live { area, name, entity_id, body: message.payload })
                    }
                    _ => None,
                };
                std::future::ready(live)
            })
            .boxed())
    }

    pub(crate) fn outgoing_event(&self, event: &Event) -> Result<Outgoing, Error> {
        Ok(Outgoing {
            stream: topology::EVENTS,
            subject: self.subjects().event(&event.event_type, event.account_id, event.entity_id),
            message_id: Some(event.id.to_string()),
            headers: envelope::write_event(self.subjects(), event),
            body: serde_json::to_vec(&event.data).map_err(Error::Json)?.into(),
        })
    }

    /// Sends until it is stored, refused, or the time is over.
    pub(crate) async fn publish(&self, outgoing: Outgoing) -> Result<(), Error> {
        let message = PublishMessage::build().headers(outgoing.headers()).payload(outgoing.body.clone());

        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let mut connection = self.connection();
            let send = async { self.0.jetstream.send_publish(outgoing.subject.nats(), message.clone()).await?.await };
            let result = tokio::select! {
                result = timeout_at(started + PATIENCE, send) => result,
                // What was on its way when the connection broke is lost, or its acknowledgement is.
                () = renewed(&mut connection) => {
                    debug!(subject = %outgoing.subject, "the connection is new; sending it again");
                    continue;
                }
            };
            let error = match result {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_elapsed) => return Err(Error::NotAcknowledged { waited: started.elapsed(), source: None }),
            };
            match judge(&error) {
                Verdict::Stored => return Ok(()),
                Verdict::TooLarge => return Err(Error::TooLarge),
                Verdict::Refused => return Err(Error::Refused(error)),
                Verdict::Again { missing } => {
                    debug!(subject = %outgoing.subject, reason = %error, attempt, "not acknowledged; sending it again");
                    self.try_again(started, &mut attempt, missing, Some(error)).await?;
                }
            }
        }
    }

    /// Waits before the next try, or says that the time is over. A stream that stays missing is put back.
    #[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
    pub(crate) async fn try_again(
        &self,
        started: Instant,
        attempt: &mut u32,
        missing: bool,
        source: Option<jetstream::context::PublishError>,
    ) -> Result<(), Error> {
        let pause = backoff(*attempt);
        if Instant::now() + pause >= started + PATIENCE {
            return Err(Error::NotAcknowledged { waited: started.elapsed(), source });
        }
        sleep(pause).await;
        // A stream without leader looks the same as none, so the first miss means nothing.
        if missing
            && *attempt >= 1
            && self.is_connected()
            && let Err(error) = self.restore_topology().await
        {
            debug!(%error, "the topology could not be put back yet");
        }
        *attempt += 1;
        Ok(())
    }
}

/// Header by which a stream knows a repeat.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// Header that names the stream a message is meant for.
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";

/// Resolves when the connection was lost and is there again; never while it holds.
pub(crate) async fn renewed(connection: &mut watch::Receiver<Connection>) {
    loop {
        if connection.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if *connection.borrow_and_update() == Connection::Connected {
            return;
        }
    }
}

/// What becomes of a message that JetStream did not acknowledge.
pub(crate) enum Verdict {
    /// This very hand-out is in the queue already.
    Stored,
    TooLarge,
    Refused,
    /// Worth another try.
    Again {
        /// Nobody took the message: there may be no stream.
        missing: bool,
    },
}

pub(crate) fn judge(error: &jetstream::context::PublishError) -> Verdict {
    use std::error::Error as _;
    match error.kind() {
        PublishErrorKind::StreamNotFound => Verdict::Again { missing: true },
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe | PublishErrorKind::MaxAckPending => {
            Verdict::Again { missing: false }
        }
        PublishErrorKind::MaxPayloadExceeded => Verdict::TooLarge,
        PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => Verdict::Refused,
        PublishErrorKind::Other => {
            let told = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
            match told {
                // The same code says that the subject has its message and that the stream is full.
                Some(told) if told.error_code() == ErrorCode::STREAM_STORE_FAILED => {
                    if told.to_string().contains("per subject") {
                        Verdict::Stored
                    } else {
                        Verdict::Again { missing: false }
                    }
                }
                // 503: no leader, no resources, on its way down.
                Some(told) if told.code() == 503 => Verdict::Again { missing: false },
                Some(_) => Verdict::Refused,
                None => Verdict::Again { missing: false },
            }
        }
    }
}
