//! The tables `sessions` and `refresh_tokens`.

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, SessionId,
    account::Role,
    event::{SESSION_CLOSED, SESSION_OPENED},
    session::{Closed, Opened},
};
use sqlx::{PgConnection, Row as _};
use time::{Duration, OffsetDateTime};

use super::token::RefreshHash;
use crate::{
    accounts::role,
    events::{self, NewEvent},
};

/// How long sessions and their refresh tokens live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    /// A refresh token that is not used.
    pub(super) refresh: Duration,
    /// A session, however often it is refreshed.
    pub(super) session: Duration,
}

/// A session with a refresh token that is good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) session_id: SessionId,
    pub(super) account_id: AccountId,
    pub(super) role: Role,
    pub(super) refresh_expires_at: OffsetDateTime,
}

/// Open a session with its first refresh token, in the caller's transaction. `None` when the account was disabled in the
/// meantime.
pub(super) async fn open(
    connection: &mut PgConnection,
    ids: IdSource,
    account: AccountId,
    device_name: Option<String>,
    token: &RefreshHash,
    lifetimes: Lifetimes,
    now: OffsetDateTime,
) -> Result<Option<Live>, sqlx::Error> {
    let session = SessionId(ids.next());
    let expires_at = now + lifetimes.session;
    let opened = sqlx::query(
        "INSERT INTO sessions (id, account_id, device_name, created_at, last_used_at, expires_at)
         SELECT $1, id, $3, $4, $4, $5 FROM accounts WHERE id = $2 AND disabled_at IS NULL
         RETURNING (SELECT role FROM accounts WHERE id = $2) AS role",
    )
    .bind(session.0)
    .bind(account.0)
    .bind(&device_name)
    .bind(now)
    .bind(expires_at)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = opened else { return Ok(None) };
    let refresh_expires_at = expires_at.min(now + lifetimes.refresh);
    add_token(connection, token, session, None, now, refresh_expires_at).await?;
    let told = Opened { session_id: session, account_id: account, device_name };
    events::record(connection, NewEvent::new(ids, SESSION_OPENED, Some(account), session.0, &told)).await?;
    Ok(Some(Live { session_id: session, account_id: account, role: role(&row)?, refresh_expires_at }))
}

/// Use a refresh token up and put its successor in its place, in the caller's transaction. Of all that bring the same
/// token one gets a successor: the others wait for its commit and find the token used. `None` when it is unknown, used or
/// expired, or its session or account is closed.
pub(super) async fn rotate(
    connection: &mut PgConnection,
    used: &RefreshHash,
    successor: &RefreshHash,
    lifetimes: Lifetimes,
    now: OffsetDateTime,
) -> Result<Option<Live>, sqlx::Error> {
    let consumed = sqlx::query(
        "UPDATE refresh_tokens AS t SET consumed_at = $2
         FROM sessions AS s JOIN accounts AS a ON a.id = s.account_id
         WHERE t.token_hash = $1 AND t.consumed_at IS NULL AND t.expires_at > $2
           AND s.id = t.family_id AND s.closed_at IS NULL AND s.expires_at > $2 AND a.disabled_at IS NULL
         RETURNING s.id, s.account_id, s.expires_at, a.role",
    )
    .bind(&used[..])
    .bind(now)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = consumed else { return Ok(None) };
    let session = SessionId(row.try_get("id")?);
    let session_expires_at: OffsetDateTime = row.try_get("expires_at")?;
    let refresh_expires_at = session_expires_at.min(now + lifetimes.refresh);
    add_token(connection, successor, session, Some(used), now, refresh_expires_at).await?;
    // A session that was closed since the statement above must not come back with a fresh token.
    let alive = sqlx::query("UPDATE sessions SET last_used_at = $2 WHERE id = $1 AND closed_at IS NULL")
        .bind(session.0)
        .bind(now)
        .execute(connection)
        .await?;
    if alive.rows_affected() == 0 {
        return Ok(None);
    }
    Ok(Some(Live {
        session_id: session,
        account_id: AccountId(row.try_get("account_id")?),
        role: role(&row)?,
        refresh_expires_at,
    }))
}

async fn add_token(
    connection: &mut PgConnection,
    token: &RefreshHash,
    session: SessionId,
    parent: Option<&RefreshHash>,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO refresh_tokens (token_hash, family_id, parent_hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&token[..])
    .bind(session.0)
    .bind(parent.map(|parent| &parent[..]))
    .bind(now)
    .bind(expires_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Close the session that this token belongs to, whether the token is used or not, in the caller's transaction. False if
/// there was nothing to close.
pub(super) async fn close(
    connection: &mut PgConnection,
    ids: IdSource,
    token: &RefreshHash,
    reason: &'static str,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let closed = sqlx::query(
        "UPDATE sessions SET closed_at = $2, close_reason = $3
         WHERE closed_at IS NULL AND id = (SELECT family_id FROM refresh_tokens WHERE token_hash = $1)
         RETURNING id, account_id",
    )
    .bind(&token[..])
    .bind(now)
    .bind(reason)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = closed else { return Ok(false) };
    let (session_id, account_id) = (SessionId(row.try_get("id")?), AccountId(row.try_get("account_id")?));
    let told = Closed { session_id, account_id, reason: reason.to_owned() };
    events::record(connection, NewEvent::new(ids, SESSION_CLOSED, Some(account_id), session_id.0, &told)).await?;
    Ok(true)
}
