//! Alarms: the one durable timer under everything that waits.
//!
//! The row of the table `alarms` is the truth. An area arms, moves or cancels it in the transaction that decides so
//! ([`arm`], [`cancel`]); when it is due, one process of all claims it and calls the area's [`Wakes::wake`] in the
//! transaction that removes it. So an alarm may wake more than once, and takes effect once. "Now" is the database's.
//!
//! The rest is only about when to look. JetStream holds a schedule for each second of the horizon in which something is due
//! (`guard`), and wakes one process of all; each process also sets a timer to the earliest alarm that it knows of, and looks
//! by itself about once a second (`clock`). Whoever armed something that is due at once says so ([`AlarmsAddress::look`]).
//!
//! **Order of locks.** Who wakes holds the alarm and then locks what it is about. Whoever holds the thing and then moves or
//! cancels its alarm would meet it halfway; the database finds that deadlock after a second and breaks one of the two.
//! So a transaction that will arm or cancel an alarm that exists calls [`hold`] first, before it locks the thing: if the
//! alarm is being woken, that waits until it has been, and the thing is then seen as the waking left it.

mod clock;
mod guard;
mod kind;
mod lane;
mod rush;
mod store;

use futures_util::future::BoxFuture;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::{
    clock::{Alarms, AlarmsAddress, Message, Pace, State},
    kind::Kind,
    store::{arm, arm_after, arm_first, arm_many, cancel, cancel_many, hold, hold_many},
};

/// An alarm that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// What about.
    pub subject_id: Uuid,
    /// When it was to wake. Past: by milliseconds, or by days after an outage.
    pub due_at: OffsetDateTime,
    /// How often it was armed since it last woke: 1 for one that was never moved.
    pub version: i64,
    /// The database's time, of the transaction that wakes.
    pub now: OffsetDateTime,
}

/// Waking did not work.
#[derive(Debug, thiserror::Error)]
pub enum WakeError {
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// Anything else, said in a sentence.
    #[error("{0}")]
    Failed(String),
}

/// An area that is woken by alarms of its kind.
pub trait Wakes: Send + Sync + 'static {
    /// Which alarms are its own.
    fn kind(&self) -> Kind;

    /// Do what is due, in the transaction that takes these alarms away: what is written commits together with their
    /// removal, so the effect is once. Up to [`BATCH`] at a time, oldest first; use statements over the whole set. An
    /// alarm that is armed again here stays. Look at the thing's own row before acting: it decides, the alarm only says
    /// when to look.
    ///
    /// An error: nothing of the batch is kept. Its alarms are tried again one by one, and what fails alone is moved back,
    /// further each time, and in the end refused with a dead letter.
    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>>;

    /// After the commit: hints only, such as to look at a queue. May be lost.
    fn committed(&self, _due: &[Due]) {}
}

/// Alarms of one transaction, at most.
pub const BATCH: usize = 1000;
