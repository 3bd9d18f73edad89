//! Where to send to: the address of an actor, which stays good when the actor is restarted.

use std::sync::{Arc, PoisonError, RwLock};

use ractor::ActorRef;

/// The actor is not there right now: not started yet, between two lives, or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the actor is not there right now")]
pub struct Gone;

/// The address of an actor of the tree. Cheap to clone.
#[derive(Debug)]
pub struct Address<M>(Arc<RwLock<Option<ActorRef<M>>>>);

impl<M> Default for Address<M> {
    fn default() -> Self {
        Address(Arc::default())
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Address(Arc::clone(&self.0))
    }
}

impl<M: ractor::Message> Address<M> {
    /// Whoever lives there now.
    pub fn get(&self) -> Result<ActorRef<M>, Gone> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Gone)
    }

    /// Send, and do not wait. What is sent to an actor that dies before it reads is lost, as with any mailbox.
    pub fn cast(&self, message: M) -> Result<(), Gone> {
        self.get()?.cast(message).map_err(|_| Gone)
    }

    pub(super) fn moved_in(&self, actor: ActorRef<M>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(actor);
    }
}
