//! What alarms wake here: a message whose next try is due, and a webhook whose receiver had asked to be left alone.

use futures_util::{FutureExt as _, future::BoxFuture};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{sender, store};
use crate::{
    alarms::{Due, Kind, WakeError, Wakes},
    supervision::Address,
};

/// Queues messages whose next try is due.
pub(crate) struct NextTries(pub(crate) Address<sender::Message>);

/// Ends the pauses of webhooks.
pub(crate) struct Pauses(pub(crate) Address<sender::Message>);

impl Wakes for NextTries {
    fn kind(&self) -> Kind {
        Kind::WebhookDelivery
    }

    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        async move {
            store::queue_due(connection, &subjects(due)).await?;
            Ok(())
        }
        .boxed()
    }

    fn committed(&self, _: &[Due]) {
        look(&self.0);
    }
}

impl Wakes for Pauses {
    fn kind(&self) -> Kind {
        Kind::WebhookPause
    }

    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        async move {
            store::resume(connection, &subjects(due)).await?;
            Ok(())
        }
        .boxed()
    }

    fn committed(&self, _: &[Due]) {
        look(&self.0);
    }
}

fn subjects(due: &[Due]) -> Vec<Uuid> {
    due.iter().map(|due| due.subject_id).collect()
}

fn look(sender: &Address<sender::Message>) {
    // A sender that is not there looks by itself when it starts.
    let _ = sender.cast(sender::Message::Look);
}
