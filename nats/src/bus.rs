//! The connection: made with patience, checked before it is used, watched while it lives, drained when it ends.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event as ClientEvent, ServerAddr, jetstream};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{debug, error, info, warn};

use crate::{
    subject::{BadPrefix, Subjects},
    topology,
};

/// Oldest server that is worked with: schedules with all their fixes, and fsync that costs little on clusters.
const SERVER_MIN: (i64, i64, i64) = (2, 15, 0);
/// How often the server is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Longest wait for one answer of JetStream.
pub(crate) const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// Publishes that may wait for their acknowledgement at once.
const PUBLISHES_IN_FLIGHT: usize = 2048;
/// Longest pause between two tries to connect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// A missing stream is asked to be put back at most this often.
const ENSURE_SPACING: Duration = Duration::from_secs(1);

/// How to reach the server.
#[derive(Clone, Default)]
pub struct Options {
    /// `nats://host:4222` or `tls://…`; several with commas between.
    pub url: String,
    /// User name and password.
    pub user: Option<(String, String)>,
    /// A `.creds` file instead.
    pub credentials_file: Option<PathBuf>,
    /// First token of every subject.
    pub prefix: String,
    /// Copies of each stream: 1, or 3 on a cluster.
    pub replicas: usize,
    /// Name of the connection, as `nats server list` shows it.
    pub name: String,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("prefix", &self.prefix).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why the bus cannot be used. Each is a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not one.
    #[error("nats.url is not an address of a NATS server: give nats://host:4222")]
    Url(#[source] std::io::Error),
    /// The prefix is not one.
    #[error(transparent)]
    Prefix(#[from] BadPrefix),
    /// The credentials file cannot be read.
    #[error("nats.credentials_file cannot be read: check its path and its permissions")]
    CredentialsFile(#[source] std::io::Error),
    /// The server does not know us.
    #[error("the NATS server refused the credentials: check nats.user and nats.password, or nats.credentials_file")]
    Refused(#[source] async_nats::ConnectError),
    /// Nobody answered within the time that was given.
    #[error("no NATS server answered within {waited:?}: start one, or correct nats.url")]
    Unreachable {
        /// How long it was tried.
        waited: Duration,
        /// The last failure.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server is too old.
    #[error(
        "the NATS server is version {version}, and {}.{}.{} or newer is needed: upgrade nats-server",
        SERVER_MIN.0, SERVER_MIN.1, SERVER_MIN.2
    )]
    TooOld {
        /// What it said it is.
        version: String,
    },
    /// The server has no JetStream.
    #[error(
        "the NATS server has no JetStream for this account: start it with -js, or add a jetstream block to its configuration"
    )]
    NoJetStream(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// State of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The server answers.
    Connected,
    /// Lost; it is being tried again all the time.
    Disconnected {
        /// Since when.
        since: Instant,
    },
    /// Drained for good.
    Closed,
}

/// The bus. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Bus(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) subjects: Subjects,
    pub(crate) replicas: usize,
    connection: watch::Receiver<Connection>,
    /// When the topology was last put back after something had been found missing.
    ensured: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("connection", &*self.0.connection.borrow()).finish_non_exhaustive()
    }
}

impl Bus {
    /// Connects, trying again until `wait` is over, and checks that the server is new enough and has JetStream. What
    /// more patience cannot cure is refused at once.
    #[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
    pub async fn connect(options: Options, wait: Duration) -> Result<Bus, ConnectError> {
        let started = Instant::now();
        let deadline = started + wait;
        let subjects = Subjects::new(&options.prefix)?;
        let servers = options
            .url
            .split(',')
            .map(|url| url.trim().parse::<ServerAddr>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(ConnectError::Url)?;
        let (sender, connection) = watch::channel(Connection::Disconnected { since: started });
        let sender = Arc::new(sender);

        let mut attempt = 0;
        let client = loop {
            match client_options(&options, &subjects, Arc::clone(&sender)).await?.connect(servers.as_slice()).await {
                Ok(client) => break client,
                Err(source) if source.kind() == ConnectErrorKind::AuthorizationViolation => {
                    return Err(ConnectError::Refused(source));
                }
                Err(source) => {
                    let pause = backoff(attempt);
                    if Instant::now() + pause >= deadline {
                        return Err(ConnectError::Unreachable { waited: started.elapsed(), source });
                    }
                    if attempt == 0 {
                        info!(reason = %source, "waiting for the NATS server");
                    }
                    sleep(pause).await;
                    attempt += 1;
                }
            }
        };
        // The event comes through a queue of its own; what was just seen is not waited for.
        sender.send_replace(Connection::Connected);

        let (major, minor, patch) = SERVER_MIN;
        if !client.is_server_compatible(major, minor, patch) {
            return Err(ConnectError::TooOld { version: client.server_info().version });
        }
        let jetstream = jetstream::ContextBuilder::new()
            .timeout(JETSTREAM_TIMEOUT)
            .max_ack_inflight(PUBLISHES_IN_FLIGHT)
            .backpressure_on_inflight(true)
            .build(client.clone());
        await_jetstream(&jetstream, deadline).await?;

        Ok(Bus(Arc::new(Inner {
            client,
            jetstream,
            subjects,
            replicas: options.replicas.max(1),
            connection,
            ensured: Mutex::new(None),
        })))
    }

    /// The maker of subjects.
    pub fn subjects(&self) -> &Subjects {
        &self.0.subjects
    }

    /// The state of the connection, for readiness. `changed` tells of what changes from now on.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        let mut connection = self.0.connection.clone();
        connection.mark_unchanged();
        connection
    }

    /// Whether the server answers right now.
    pub fn is_connected(&self) -> bool {
        *self.0.connection.borrow() == Connection::Connected
    }

    /// Makes sure that streams, consumers and buckets are there and as this version wants them. Repeating it changes
    /// nothing; what is there is upgraded in place and never deleted.
    pub async fn ensure_topology(&self) -> Result<(), topology::Error> {
        topology::ensure(&self.0.jetstream, &self.0.subjects, self.0.replicas).await
    }

    /// Puts back what was found missing. Many may find it at once; it is done once.
    pub(crate) async fn restore_topology(&self) -> Result<(), topology::Error> {
        let mut ensured = self.0.ensured.lock().await;
        if ensured.is_some_and(|at| at.elapsed() < ENSURE_SPACING) {
            return Ok(());
        }
        *ensured = Some(Instant::now());
        warn!("a stream or consumer is missing; putting the topology back");
        self.ensure_topology().await
    }

    /// Waits until the server answers, at most this long. True if it does.
    pub(crate) async fn connected(&self, within: Duration) -> bool {
        let mut connection = self.connection();
        matches!(timeout(within, connection.wait_for(|state| *state == Connection::Connected)).await, Ok(Ok(_)))
    }

    /// Waits until everything that was said has left this process, at most this long. True if it has.
    pub async fn flush(&self, within: Duration) -> bool {
        matches!(timeout(within, self.0.client.flush()).await, Ok(Ok(())))
    }

    /// Ends the connection for good, for all clones. To be called last: services and consumers must have ended, as
    /// whatever they would still say is lost. True if everything had left within the time.
    pub async fn close(self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let flushed = self.is_connected() && self.flush(within / 2).await;
        if self.0.client.drain().await.is_err() {
            return flushed;
        }
        let mut connection = self.connection();
        let closed = timeout_at(deadline, connection.wait_for(|state| *state == Connection::Closed)).await;
        flushed && matches!(closed, Ok(Ok(_)))
    }
}

/// The pause before try number `attempt` (from 0): doubled each time, capped, and spread by half, so that those who lost
/// the same server do not come back in step.
pub(crate) fn backoff(attempt: u32) -> Duration {
    let full = Duration::from_millis(100 << attempt.min(6)).min(RECONNECT_PAUSE_MAX);
    full.mul_f64(rand::random_range(0.5..=1.0))
}

async fn client_options(
    options: &Options,
    subjects: &Subjects,
    sender: Arc<watch::Sender<Connection>>,
) -> Result<ConnectOptions, ConnectError> {
    let mut client = ConnectOptions::new();
    if let Some((user, password)) = &options.user {
        client = client.user_and_password(user.clone(), password.clone());
    }
    if let Some(path) = &options.credentials_file {
        client = client.credentials_file(path).await.map_err(ConnectError::CredentialsFile)?;
    }
    Ok(client
        .name(&options.name)
        .custom_inbox_prefix(subjects.inbox_prefix())
        .ping_interval(PING_INTERVAL)
        .reconnect_delay_callback(|attempts| {
            if attempts == 0 { Duration::ZERO } else { backoff(u32::try_from(attempts - 1).unwrap_or(u32::MAX)) }
        })
        .event_callback(move |event| {
            let sender = Arc::clone(&sender);
            async move { observe(&event, &sender) }
        }))
}

fn observe(event: &ClientEvent, sender: &watch::Sender<Connection>) {
    match event {
        ClientEvent::Connected => {
            // Those who watch are told of changes only; the first connection was seen before this event came.
            sender.send_if_modified(|state| std::mem::replace(state, Connection::Connected) != Connection::Connected);
            info!("connected to the NATS server");
        }
        ClientEvent::Disconnected => {
            sender.send_replace(Connection::Disconnected { since: Instant::now() });
            warn!("lost the NATS server; trying again");
        }
        ClientEvent::Closed => {
            sender.send_replace(Connection::Closed);
            debug!("the NATS connection is closed");
        }
        ClientEvent::LameDuckMode => info!("the NATS server is about to stop; moving to another"),
        ClientEvent::Draining => debug!("draining the NATS connection"),
        ClientEvent::SlowConsumer(subscription) => {
            warn!(subscription, "messages came faster than they were taken; some were dropped");
        }
        // A denied permission shows nowhere else: whoever asked just waits in vain.
        ClientEvent::ServerError(reason) => error!(%reason, "the NATS server refused something"),
        ClientEvent::ClientError(reason) => warn!(%reason, "the NATS client complained"),
    }
}

/// A cluster that has just started has no leader yet; a server without JetStream will never have one. Both look alike
/// at first, so it is asked until the time is over.
#[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
async fn await_jetstream(jetstream: &jetstream::Context, deadline: Instant) -> Result<(), ConnectError> {
    let mut attempt = 0;
    loop {
        match jetstream.query_account().await {
            Ok(_) => return Ok(()),
            Err(source) => {
                let pause = backoff(attempt);
                if Instant::now() + pause >= deadline {
                    return Err(ConnectError::NoJetStream(Box::new(source)));
                }
                sleep(pause).await;
                attempt += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_cap_and_are_spread() {
        for attempt in 0..200 {
            let pause = backoff(attempt);
            assert!(pause >= Duration::from_millis(50) && pause <= RECONNECT_PAUSE_MAX, "{attempt}: {pause:?}");
        }
        assert!(backoff(0) <= Duration::from_millis(100));
        assert!(backoff(100) >= RECONNECT_PAUSE_MAX / 2);
    }
}
