//! The signing keys: made, published, rotated, forgotten. The table `signing_keys` outlives this actor; it keeps nothing
//! but the parsed active key, which it shares with whoever signs through [`Signer`].
//!
//! Every replica runs one. An alarm says when there is something to do, and wakes one of them; it is done under a lock, so
//! replicas that start at once make one key. All look at the table every few seconds, to sign with what is active now, and
//! to put the public parts into the bucket `KEYS`, so a JetStream that was wiped has them again a moment later. A crash
//! costs nothing: signing goes on with the key that was loaded.

mod generate;
mod schedule;
mod seal;
mod signer;
mod store;

use std::{sync::Arc, time::Duration};

use bowerbird_config::Auth;
use bowerbird_lifecycle::{Clock, Component, IdSource};
use bowerbird_nats::{Bus, bus::Connection, key::KeySet, publish};
use futures_util::future::BoxFuture;
use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr};
use sqlx::{PgConnection, PgPool};
use tracing::{info, warn};

pub use self::signer::{Error as SignError, Signer};
use self::{
    generate::{KeyPair, generate},
    schedule::Rhythm,
    seal::Seal,
};
use crate::{
    alarms::{Due, Kind, WakeError, Wakes},
    metrics::Meters,
    supervision::{Address, OwnedTasks, Panicked},
};

/// Longest time between two looks at the table.
const LOOK_MOST: Duration = Duration::from_secs(10);
/// Time to the next look after one that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Something went wrong with the keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table or what lies in it.
    #[error("the signing keys cannot be read: {0}")]
    Store(String),
    /// A key could not be made.
    #[error("a signing key could not be made: {0}")]
    Generate(String),
    /// The active key is not in the table or no RSA key.
    #[error("there is no usable signing key")]
    NoKey,
    /// The public parts did not reach the bucket.
    #[error("the public keys are not published: {0}")]
    Publish(#[from] publish::Error),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Error::Store(error.to_string())
    }
}

impl From<seal::Error> for Error {
    fn from(error: seal::Error) -> Self {
        Error::Store(error.to_string())
    }
}

/// Keeps the signing keys. Cheap to clone: the actor, its tasks and its next life share it.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    pool: PgPool,
    bus: Bus,
    clock: Clock,
    ids: IdSource,
    seal: Seal,
    rhythm: Rhythm,
    signer: Signer,
    meters: Meters,
    health: Component,
}

/// What the actor keeps between messages.
pub struct State {
    tasks: OwnedTasks,
    looking: bool,
    /// The next look does what is due.
    rotates: bool,
    /// Brings the next look. There is one at a time.
    timer: Option<tokio::task::JoinHandle<Result<(), MessagingErr<Message>>>>,
}

/// What the actor is told.
pub enum Message {
    /// Look at the table, publish.
    Look,
    /// Do what is due, then look.
    Rotate,
    /// The bus is connected again.
    Reconnected,
    /// A look has ended.
    Looked(Result<Result<(), Error>, Panicked>),
}

impl Keyring {
    /// A keyring over these keys. The master key is not kept, only what is made of it.
    #[expect(clippy::too_many_arguments, reason = "collaborators, each handed in once by the composition root")]
    pub fn new(
        pool: PgPool,
        bus: Bus,
        clock: Clock,
        ids: IdSource,
        settings: &Auth,
        master_key: &[u8; 32],
        meters: Meters,
        health: Component,
    ) -> Result<Self, Error> {
        let span = |span: bowerbird_config::Span| time::Duration::try_from(span.get()).unwrap_or(time::Duration::MAX);
        let rhythm = Rhythm { interval: span(settings.key_rotation_interval), overlap: span(settings.key_overlap) };
        let seal = Seal::new(master_key)?;
        Ok(Keyring(Arc::new(Inner { pool, bus, clock, ids, seal, rhythm, signer: Signer::default(), meters, health })))
    }

    /// What is woken when there is something to do. `address` is where this process's keyring lives.
    pub fn wakes(address: &Address<Message>) -> Arc<dyn Wakes> {
        Arc::new(Waiting(address.clone()))
    }

    /// Signs with the key that is active.
    pub fn signer(&self) -> Signer {
        self.0.signer.clone()
    }

    /// Do what is due, load the active key, and give the public parts. Makes the first key of an installation, which takes
    /// a few seconds.
    pub async fn refresh(&self) -> Result<KeySet, Error> {
        self.rotate().await?;
        self.load().await
    }

    /// Do what is due, and arm the alarm for what is next.
    async fn rotate(&self) -> Result<(), Error> {
        let this = &self.0;
        let mut advanced = self.advance(None).await?;
        if advanced.wants_key {
            let pair = tokio::task::spawn_blocking(generate)
                .await
                .map_err(|error| Error::Generate(error.to_string()))?
                .map_err(|error| Error::Generate(error.to_string()))?;
            advanced = self.advance(Some(&pair)).await?;
        }
        if let Some(kid) = &advanced.activated {
            info!(key.id = kid, "a new signing key is active");
            this.meters.0.key_rotations.inc();
        }
        Ok(())
    }

    async fn load(&self) -> Result<KeySet, Error> {
        let this = &self.0;
        let mut connection = this.pool.acquire().await.map_err(store::Error::from)?;
        let keys = store::load(&mut connection).await?;
        let (kid, sealed) = keys.active.ok_or(Error::NoKey)?;
        if this.signer.kid().as_ref() != Some(&kid) && !this.signer.set(&kid, &this.seal.open(&kid, &sealed)?) {
            return Err(Error::NoKey);
        }
        Ok(keys.set)
    }

    async fn advance(&self, fresh: Option<&KeyPair>) -> Result<store::Advanced, store::Error> {
        let this = &self.0;
        store::advance(&this.pool, this.rhythm, &this.seal, this.ids, this.clock.now(), fresh).await
    }

    async fn look(self, rotates: bool) -> Result<(), Error> {
        if rotates {
            self.rotate().await?;
        }
        let set = self.load().await?;
        self.0.bus.put_key_set(&set).await?;
        Ok(())
    }

    fn start_look(&self, myself: &ActorRef<Message>, state: &mut State) {
        if !state.looking {
            state.looking = true;
            state.tasks.spawn(myself, self.clone().look(std::mem::take(&mut state.rotates)), Message::Looked);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a poll behind the alarm and the word of other nodes")]
    fn looked(&self, myself: &ActorRef<Message>, state: &mut State, outcome: Result<Result<(), Error>, Panicked>) {
        state.looking = false;
        if state.rotates {
            self.start_look(myself, state);
        }
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panicked) => Some(panicked.to_string()),
        };
        let next = match &failure {
            None => {
                self.0.health.ready();
                let overlap = self.0.rhythm.overlap.unsigned_abs();
                (overlap / 10).clamp(LOOK_AGAIN, LOOK_MOST)
            }
            Some(failure) => {
                warn!(failure, "the signing keys could not be looked after; trying again");
                self.0.health.not_ready(failure.clone());
                LOOK_AGAIN
            }
        };
        if let Some(earlier) = state.timer.replace(myself.send_after(next, || Message::Look)) {
            earlier.abort();
        }
    }
}

/// Wakes the keyring of this process.
struct Waiting(Address<Message>);

impl Wakes for Waiting {
    fn kind(&self) -> Kind {
        Kind::KeyRotation
    }

    /// Making a key takes seconds, so it comes after this; what is lost in between is tried again.
    fn wake<'a>(&'a self, connection: &'a mut PgConnection, _: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async move { Ok(store::arm_again(connection).await?) })
    }

    fn committed(&self, _: &[Due]) {
        // One that is not there is asked again in a minute.
        let _ = self.0.cast(Message::Rotate);
    }
}

/// Tells the keyring whenever the bus is back.
async fn watch_connection(bus: Bus, keyring: ActorRef<Message>) {
    let mut connection = bus.connection();
    while connection.changed().await.is_ok() {
        if *connection.borrow_and_update() == Connection::Connected && keyring.cast(Message::Reconnected).is_err() {
            return;
        }
    }
}

impl Actor for Keyring {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        // Nothing below may start before something can be signed.
        self.refresh().await?;
        let mut tasks = OwnedTasks::default();
        tasks.spawn(&myself, watch_connection(self.0.bus.clone(), myself.clone()), |_| Message::Look);
        myself.cast(Message::Look)?;
        Ok(State { tasks, looking: false, rotates: false, timer: None })
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look | Message::Reconnected => self.start_look(&myself, state),
            Message::Rotate => {
                state.rotates = true;
                self.start_look(&myself, state);
            }
            Message::Looked(outcome) => self.looked(&myself, state, outcome),
        }
        Ok(())
    }
}
