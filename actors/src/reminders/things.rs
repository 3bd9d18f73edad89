//! The things that reminders are about and wait for: whose they are, how far they are.

use bowerbird_nats::{
    AccountId, DownloadId, FileId, Problem, download,
    file::FileStatus,
    reminder::{About, AboutKind, Trigger},
};
use sqlx::PgConnection;
use tracing::error;
use uuid::Uuid;

use super::{row::Watch, store};
use crate::{database, downloads, files};

/// What was found of an event that is to be waited for.
pub(super) enum Found {
    /// It is waited for.
    Ahead(Watch),
    /// It has happened, and the thing is as it left it.
    Happened(Watch),
}

/// Refuse what is not this account's, as if it were not there.
pub(super) async fn about(connection: &mut PgConnection, account: AccountId, about: &About) -> Result<(), Problem> {
    let kind = about.kind.as_str();
    match state(connection, account, kind, about.id).await? {
        Some(_) => Ok(()),
        None => Err(Problem::invalid("about.id", format!("there is no such {kind}"))),
    }
}

/// An event of a thing of this account, whose row is held until the transaction ends: nothing happens to it meanwhile, so
/// whatever comes later is told to whoever waits then.
pub(super) async fn watch(
    connection: &mut PgConnection,
    account: AccountId,
    field: &str,
    trigger: Trigger,
) -> Result<Found, Problem> {
    let (area, name) = trigger.event_type.split_once('.').unwrap_or((&trigger.event_type, ""));
    let Some(state) = state(connection, account, area, trigger.id).await? else {
        return Err(Problem::invalid(format!("{field}.id"), format!("there is no such {area}")));
    };
    let after = store::last_event_of(connection, trigger.id).await.map_err(|error| problem(&error))?;
    let happened = state == name;
    let watch = Watch { trigger, after: Some(after) };
    Ok(if happened { Found::Happened(watch) } else { Found::Ahead(watch) })
}

/// The name of the event that put the thing where it is: `completed`. `None` when there is no such thing.
async fn state(connection: &mut PgConnection, account: AccountId, area: &str, id: Uuid) -> Result<Option<&'static str>, Problem> {
    if area == AboutKind::Download.as_str() {
        let status = downloads::store::hold_status(connection, account, DownloadId(id)).await.map_err(|error| match error {
            downloads::store::Error::Database(error) => database::problem(&error),
            error => unreadable(&error),
        })?;
        return Ok(status.map(|status| match status {
            download::Status::Running => "started",
            other => other.as_str(),
        }));
    }
    let status = files::store::hold_status(connection, account, FileId(id)).await.map_err(|error| match error {
        files::store::Error::Database(error) => database::problem(&error),
        error => unreadable(&error),
    })?;
    Ok(status.map(|status| match status {
        FileStatus::Pending => "pending",
        FileStatus::Available => "available",
        FileStatus::Quarantined => "quarantined",
        FileStatus::Missing => "missing",
    }))
}

fn unreadable(error: &dyn std::error::Error) -> Problem {
    error!(%error, "the thing that a reminder names cannot be read");
    Problem::internal()
}

/// What the store said, as the caller is told.
pub(super) fn problem(error: &store::Error) -> Problem {
    match error {
        store::Error::Database(error) => database::problem(error),
        store::Error::Corrupt(error) => {
            error!(%error, "a request about a reminder failed");
            Problem::internal()
        }
    }
}
