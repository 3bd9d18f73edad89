//! The table `emails`: what is to be sent, and what became of it. The rows are the queue.

use std::{collections::HashMap, time::Duration};

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{AccountId, notification::Notification};
use sqlx::{PgConnection, PgPool, Row as _, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::notification;
use crate::alarms::{self, Kind};

/// What an e-mail is for.
#[derive(Clone, Debug)]
pub(crate) enum Carries {
    /// Notifications, to the address that the account has verified when it is sent.
    Notifications,
    /// The proof that this address is read.
    Verification(String),
    /// To this address, that it is no longer the account's.
    AddressChanged(String),
}

/// An e-mail that this process is to send, until its lease is over.
#[derive(Clone, Debug)]
pub(crate) struct Leased {
    pub(crate) id: Uuid,
    pub(crate) account_id: AccountId,
    pub(crate) carries: Carries,
    /// This try, the first is 1. Also the fence: what an older try has to say counts for nothing.
    pub(crate) attempt: i32,
}

/// Who an e-mail goes to, as the row of the account is now.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) account_name: String,
    pub(crate) email: Option<String>,
    pub(crate) email_verified: bool,
    pub(crate) wants_email: bool,
    pub(crate) now: OffsetDateTime,
}

/// How many e-mails of notifications each of these accounts was promised within the last hour.
pub(crate) async fn within_an_hour(
    connection: &mut PgConnection,
    accounts: &[Uuid],
) -> Result<HashMap<AccountId, i64>, sqlx::Error> {
    let counts: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT account_id, count(*) FROM emails WHERE account_id = ANY ($1) AND kind = 'notifications'
         AND created_at > now() - interval '1 hour' GROUP BY account_id",
    )
    .bind(accounts)
    .fetch_all(connection)
    .await?;
    Ok(counts.into_iter().map(|(account, count)| (AccountId(account), count)).collect())
}

/// New e-mails, due now.
pub(crate) async fn insert(connection: &mut PgConnection, emails: &[(Uuid, AccountId)]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO emails (id, account_id, kind, status)
         SELECT t.id, t.account_id, 'notifications', 'due' FROM unnest($1::uuid[], $2::uuid[]) AS t (id, account_id)",
    )
    .bind(emails.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(emails.iter().map(|(_, account)| account.0).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// The e-mails in which these accounts' notifications are gathered. One that is not begun yet is, to be sent at its time;
/// one that there is keeps its own.
pub(crate) async fn gather(
    connection: &mut PgConnection,
    ids: IdSource,
    accounts: &HashMap<AccountId, OffsetDateTime>,
) -> Result<HashMap<AccountId, Uuid>, sqlx::Error> {
    // In the order of accounts, so that two who gather do not wait for each other in a circle.
    let mut wanted: Vec<(AccountId, OffsetDateTime)> = accounts.iter().map(|(account, due)| (*account, *due)).collect();
    wanted.sort_unstable_by_key(|(account, _)| *account);
    let rows: Vec<(Uuid, Uuid, OffsetDateTime, bool)> = sqlx::query_as(
        "INSERT INTO emails AS e (id, account_id, kind, status, due_at)
         SELECT t.id, t.account_id, 'notifications', 'gathering', t.due_at
         FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS t (id, account_id, due_at)
         ON CONFLICT (account_id) WHERE status = 'gathering' DO UPDATE SET due_at = e.due_at
         RETURNING account_id, id, due_at, xmax = 0",
    )
    .bind(wanted.iter().map(|_| ids.next()).collect::<Vec<_>>())
    .bind(wanted.iter().map(|(account, _)| account.0).collect::<Vec<_>>())
    .bind(wanted.iter().map(|(_, due)| *due).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    let begun: Vec<(Uuid, OffsetDateTime)> =
        rows.iter().filter(|(.., is_new)| *is_new).map(|(_, id, due, _)| (*id, *due)).collect();
    alarms::arm_many(connection, Kind::Email, &begun).await?;
    Ok(rows.into_iter().map(|(account, id, ..)| (AccountId(account), id)).collect())
}

/// The e-mail that gathers for this account, if there is one, with its alarm held. To be called before anything of it is
/// locked.
pub(crate) async fn hold_gathering(connection: &mut PgConnection, account: AccountId) -> Result<Option<Uuid>, sqlx::Error> {
    let id: Option<Uuid> = sqlx::query_scalar("SELECT id FROM emails WHERE account_id = $1 AND status = 'gathering'")
        .bind(account.0)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(id) = id {
        alarms::hold(connection, Kind::Email, id).await?;
    }
    Ok(id)
}

/// A gathering e-mail is to be sent at another time. Nothing happens to one that gathers no more.
pub(crate) async fn move_gathering(connection: &mut PgConnection, id: Uuid, due: OffsetDateTime) -> Result<(), sqlx::Error> {
    let moved = sqlx::query("UPDATE emails SET due_at = $2 WHERE id = $1 AND status = 'gathering'")
        .bind(id)
        .bind(due)
        .execute(&mut *connection)
        .await?;
    if moved.rows_affected() == 1 {
        alarms::arm(connection, Kind::Email, id, due).await?;
    }
    Ok(())
}

/// The time of these has come: they gather and wait no more.
pub(crate) async fn due(connection: &mut PgConnection, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE emails SET status = 'due', due_at = now() WHERE id = ANY ($1) AND status IN ('gathering', 'waiting')")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// Take e-mails that are due, or whose process was lost with them.
pub(crate) async fn lease(pool: &PgPool, lease: Duration, limit: i64) -> Result<Vec<Leased>, sqlx::Error> {
    let rows = sqlx::query(
        "UPDATE emails SET status = 'sending', attempt = attempt + 1, lease_until = now() + make_interval(secs => $1)
         WHERE id = ANY (
             ARRAY(SELECT id FROM emails WHERE status = 'sending' AND lease_until < now() ORDER BY lease_until LIMIT $2 FOR UPDATE SKIP LOCKED)
             || ARRAY(SELECT id FROM emails WHERE status = 'due' ORDER BY due_at, id LIMIT $2 FOR UPDATE SKIP LOCKED))
         RETURNING id, account_id, kind, address, attempt",
    )
    .bind(lease.as_secs_f64())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Leased {
                id: row.try_get("id")?,
                account_id: AccountId(row.try_get("account_id")?),
                carries: carries(row)?,
                attempt: row.try_get("attempt")?,
            })
        })
        .collect()
}

fn carries(row: &PgRow) -> Result<Carries, sqlx::Error> {
    Ok(match row.try_get::<&str, _>("kind")? {
        "verification" => Carries::Verification(row.try_get("address")?),
        "address_changed" => Carries::AddressChanged(row.try_get("address")?),
        _ => Carries::Notifications,
    })
}

/// Who reads an account's e-mail; `None` when it is disabled.
pub(crate) async fn reader(pool: &PgPool, account: AccountId) -> Result<Option<Reader>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT a.account_name, a.email, a.email_verified_at IS NOT NULL AS email_verified, coalesce(s.email, true) AS wants_email, now() AS now
         FROM accounts AS a LEFT JOIN notification_settings AS s ON s.account_id = a.id WHERE a.id = $1 AND a.disabled_at IS NULL",
    )
    .bind(account.0)
    .fetch_optional(pool)
    .await?;
    row.map(|row| {
        Ok(Reader {
            account_name: row.try_get("account_name")?,
            email: row.try_get("email")?,
            email_verified: row.try_get("email_verified")?,
            wants_email: row.try_get("wants_email")?,
            now: row.try_get("now")?,
        })
    })
    .transpose()
}

/// The first `most` notifications of an e-mail in their order, and how many there are.
pub(crate) async fn told(pool: &PgPool, email: Uuid, most: i64) -> Result<(Vec<Notification>, usize), sqlx::Error> {
    let rows =
        sqlx::query("SELECT *, count(*) OVER () AS all_of_them FROM notifications WHERE email_id = $1 ORDER BY id LIMIT $2")
            .bind(email)
            .bind(most)
            .fetch_all(pool)
            .await?;
    let all: i64 = rows.first().map_or(Ok(0), |row| row.try_get("all_of_them"))?;
    let told = rows.iter().map(notification).collect::<Result<_, _>>()?;
    Ok((told, usize::try_from(all).unwrap_or(0)))
}

/// All notifications of an e-mail, for what is told of its end.
pub(crate) async fn all_of(connection: &mut PgConnection, email: Uuid) -> Result<Vec<Notification>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT * FROM notifications WHERE email_id = $1 ORDER BY id").bind(email).fetch_all(connection).await?;
    rows.iter().map(notification).collect()
}

/// It was sent, or given up for this reason. False if a later try has taken over.
pub(crate) async fn finish(connection: &mut PgConnection, email: &Leased, why_not: Option<&str>) -> Result<bool, sqlx::Error> {
    let finished = sqlx::query(
        "UPDATE emails SET status = CASE WHEN $3::text IS NULL THEN 'sent' ELSE 'failed' END, last_error = $3, finished_at = now(),
                lease_until = NULL
         WHERE id = $1 AND status = 'sending' AND attempt = $2",
    )
    .bind(email.id)
    .bind(email.attempt)
    .bind(why_not)
    .execute(connection)
    .await?;
    Ok(finished.rows_affected() == 1)
}

/// What an e-mail was to tell waits in the inbox from now on; what was not there before.
pub(crate) async fn into_inbox(connection: &mut PgConnection, email: Uuid) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("UPDATE notifications SET in_inbox = true WHERE email_id = $1 AND NOT in_inbox RETURNING id")
        .bind(email)
        .fetch_all(connection)
        .await
}

/// Give up, for this reason, up to `limit` e-mails that should have been taken an hour ago: whoever could send them would
/// have, in whatever process.
pub(crate) async fn give_up_unsent(
    connection: &mut PgConnection,
    reason: &str,
    limit: i64,
) -> Result<Vec<(Uuid, AccountId)>, sqlx::Error> {
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "UPDATE emails SET status = 'failed', last_error = $1, finished_at = now(), lease_until = NULL
         WHERE id = ANY (
             ARRAY(SELECT id FROM emails WHERE status = 'due' AND due_at < now() - interval '1 hour'
                   ORDER BY due_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)
             || ARRAY(SELECT id FROM emails WHERE status = 'sending' AND lease_until < now() - interval '1 hour'
                      ORDER BY lease_until LIMIT $2 FOR UPDATE SKIP LOCKED))
         RETURNING id, account_id",
    )
    .bind(reason)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(id, account)| (id, AccountId(account))).collect())
}

/// It was not taken and is tried again after this long, by alarm.
pub(crate) async fn try_again(
    connection: &mut PgConnection,
    email: &Leased,
    why: &str,
    after: Duration,
) -> Result<(), sqlx::Error> {
    let due: Option<OffsetDateTime> = sqlx::query_scalar(
        "UPDATE emails SET status = 'waiting', last_error = $3, lease_until = NULL, due_at = now() + make_interval(secs => $4)
         WHERE id = $1 AND status = 'sending' AND attempt = $2 RETURNING due_at",
    )
    .bind(email.id)
    .bind(email.attempt)
    .bind(why)
    .bind(after.as_secs_f64())
    .fetch_optional(&mut *connection)
    .await?;
    match due {
        Some(due) => alarms::arm(connection, Kind::Email, email.id, due).await,
        None => Ok(()),
    }
}

/// Take up to `limit` that ended long ago; how many were.
pub(crate) async fn sweep(pool: &PgPool, limit: i64) -> Result<u64, sqlx::Error> {
    let taken = sqlx::query(
        "DELETE FROM emails WHERE id = ANY (ARRAY(
             SELECT id FROM emails WHERE finished_at < now() - interval '30 days' LIMIT $1 FOR UPDATE SKIP LOCKED))",
    )
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(taken.rows_affected())
}
