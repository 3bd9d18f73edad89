//! Keeping a verifier's keys in step with the bucket `KEYS`.

use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation, Watch};
use futures_util::StreamExt;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    bus::{Bus, Connection, backoff},
    credential::Verifier,
    key::KeySet,
    topology,
};

/// How often the bucket is read anew although nothing was told.
const RESYNC: Duration = Duration::from_secs(15);
/// A set that could not be confirmed for so long is forgotten: a key may have been withdrawn meanwhile.
const STALE_MAX: Duration = Duration::from_mins(10);
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl Verifier {
    /// Follows the bucket `KEYS` until `shutdown`. Tells `ready` whether the keys are in step: they are when the bucket was
    /// read and has keys, and they are not while the server is away or the bucket is empty. Keys that cannot be confirmed
    /// go on verifying for ten minutes.
    pub async fn follow(&self, bus: &Bus, shutdown: CancellationToken, ready: impl Fn(bool)) {
        let mut following = Following { verifier: self, bus, ready, in_step: false, confirmed: Instant::now(), revision: 0 };
        (following.ready)(false);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = following.run() => {}
        }
    }
}

struct Following<'a, R> {
    verifier: &'a Verifier,
    bus: &'a Bus,
    ready: R,
    in_step: bool,
    /// When the keys were last read from the bucket.
    confirmed: Instant,
    /// The newest revision of the entry since the watch began; a bucket that was wiped begins anew.
    revision: u64,
}

impl<R: Fn(bool)> Following<'_, R> {
    #[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
    async fn run(&mut self) {
        let mut attempt = 0_u32;
        loop {
            match self.watch().await {
                Ok(watch) => {
                    attempt = 0;
                    let reason = self.take(watch).await;
                    debug!(reason, "watching the signing keys anew");
                }
                Err(reason) => {
                    debug!(reason, attempt, "the signing keys cannot be watched yet");
                    if attempt >= 1
                        && self.bus.is_connected()
                        && let Err(error) = self.bus.restore_topology().await
                    {
                        debug!(%error, "the topology could not be put back yet");
                    }
                }
            }
            self.lose_step();
            sleep(backoff(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// Reads what is there and watches what comes.
    async fn watch(&mut self) -> Result<Watch, String> {
        self.revision = 0;
        let watch = async {
            let store = self.bus.0.jetstream.get_key_value(topology::KEYS).await.map_err(|error| error.to_string())?;
            store.watch_with_history(topology::KEYS_ENTRY).await.map_err(|error| error.to_string())
        };
        let watch = timeout(PATIENCE, watch).await.map_err(|_elapsed| "no answer in time".to_owned())??;
        self.read().await?;
        Ok(watch)
    }

    /// Reads the entry. An empty bucket is no error; nothing is in step then.
    async fn read(&mut self) -> Result<(), String> {
        let read = async {
            let store = self.bus.0.jetstream.get_key_value(topology::KEYS).await.map_err(|error| error.to_string())?;
            store.entry(topology::KEYS_ENTRY).await.map_err(|error| error.to_string())
        };
        match timeout(PATIENCE, read).await.map_err(|_elapsed| "no answer in time".to_owned())?? {
            Some(entry) => self.adopt(&entry),
            None => self.lose_step(),
        }
        Ok(())
    }

    /// Takes changes until something is off; says what.
    #[expect(clippy::disallowed_methods, reason = "a poll behind the watch")]
    async fn take(&mut self, mut watch: Watch) -> &'static str {
        let mut connection = self.bus.connection();
        let mut resync = interval(RESYNC);
        resync.reset();
        loop {
            tokio::select! {
                entry = watch.next() => match entry {
                    Some(Ok(entry)) => self.adopt(&entry),
                    Some(Err(_)) => return "the watch failed",
                    None => return "the watch ended",
                },
                changed = connection.changed() => {
                    self.lose_step();
                    if changed.is_err() || *connection.borrow() == Connection::Closed {
                        std::future::pending::<()>().await;
                    }
                    if *connection.borrow() == Connection::Connected {
                        return "the connection is new";
                    }
                }
                _ = resync.tick() => {
                    if self.read().await.is_err() {
                        return "the bucket could not be read";
                    }
                }
            }
        }
    }

    fn adopt(&mut self, entry: &Entry) {
        // A replica that is behind answers a read with an older entry.
        if entry.revision < self.revision {
            return;
        }
        self.revision = entry.revision;
        if entry.operation != Operation::Put {
            self.lose_step();
            return;
        }
        match serde_json::from_slice::<KeySet>(&entry.value) {
            Ok(keys) if !keys.keys.is_empty() => {
                self.verifier.set_keys(&keys);
                self.confirmed = Instant::now();
                if !self.in_step {
                    info!(keys = keys.keys.len(), "the signing keys are in step");
                    self.in_step = true;
                    (self.ready)(true);
                }
            }
            Ok(_) => self.lose_step(),
            Err(error) => {
                warn!(%error, "what the bucket of signing keys holds is no key set");
                self.lose_step();
            }
        }
    }

    fn lose_step(&mut self) {
        if self.in_step {
            self.in_step = false;
            (self.ready)(false);
        }
        if self.confirmed.elapsed() > STALE_MAX {
            self.verifier.set_keys(&KeySet::default());
        }
    }
}
