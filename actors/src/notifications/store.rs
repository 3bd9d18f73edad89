//! The tables `notifications` and `notification_settings`.
//!
//! Functions that take a connection run in the caller's transaction, so that an event, what is told of it and the mark
//! that it was told are one step.

pub(crate) mod emails;
pub(crate) mod verifications;

use std::{collections::HashMap, time::Duration};

use bowerbird_nats::{AccountId, EventId, NotificationId, notification::Notification};
use sqlx::{PgConnection, PgPool, Row as _, postgres::PgRow, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::choices::Choices;

/// An account that may be told something.
#[derive(Clone, Debug)]
pub(crate) struct Addressee {
    /// Its e-mail address.
    pub(crate) email: Option<String>,
    /// Whether its owner proved to read it.
    pub(crate) email_verified: bool,
    /// What it chose, or the defaults.
    pub(crate) choices: Choices,
    /// Whether it has a webhook that is sent anything.
    pub(crate) has_webhook: bool,
    /// The database's time.
    pub(crate) now: OffsetDateTime,
}

/// What is about to be told.
#[derive(Clone, Debug)]
pub(crate) struct New {
    pub(crate) account_id: AccountId,
    pub(crate) notification: Notification,
    /// Whether its owner sees it in the list.
    pub(crate) in_inbox: bool,
    /// The e-mail that it is in.
    pub(crate) email_id: Option<Uuid>,
}

/// Those of these accounts that may be told something: disabled ones are left out.
pub(crate) async fn addressees(
    connection: &mut PgConnection,
    accounts: &[Uuid],
) -> Result<HashMap<AccountId, Addressee>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT a.id, a.email, a.email_verified_at IS NOT NULL AS email_verified, s.account_id IS NOT NULL AS chose, s.events,
                coalesce(s.email, true) AS wants_email, s.quiet_hours, s.digest, now() AS now,
                EXISTS (SELECT FROM webhooks AS w WHERE w.account_id = a.id AND w.deleted_at IS NULL AND w.status = 'enabled')
                    AS has_webhook
         FROM accounts AS a LEFT JOIN notification_settings AS s ON s.account_id = a.id
         WHERE a.id = ANY ($1) AND a.disabled_at IS NULL",
    )
    .bind(accounts)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let choices = if row.try_get("chose")? {
                let json =
                    |column| Ok::<_, sqlx::Error>(row.try_get::<Option<Json<serde_json::Value>>, _>(column)?.map(|json| json.0));
                Choices::stored(
                    &json("events")?.unwrap_or_default(),
                    row.try_get("wants_email")?,
                    json("quiet_hours")?,
                    json("digest")?,
                )
            } else {
                Choices::default()
            };
            let addressee = Addressee {
                email: row.try_get("email")?,
                email_verified: row.try_get("email_verified")?,
                choices,
                has_webhook: row.try_get("has_webhook")?,
                now: row.try_get("now")?,
            };
            Ok((AccountId(row.try_get("id")?), addressee))
        })
        .collect()
}

/// Write what is told.
pub(crate) async fn insert(connection: &mut PgConnection, new: &[New]) -> Result<(), sqlx::Error> {
    let column = |of: fn(&New) -> Uuid| new.iter().map(of).collect::<Vec<Uuid>>();
    sqlx::query(
        "INSERT INTO notifications (id, account_id, event_id, event_type, entity_id, title, body, in_inbox, email_id, occurred_at, created_at)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::boolean[],
                              $9::uuid[], $10::timestamptz[], $11::timestamptz[])",
    )
    .bind(column(|new| new.notification.id.0))
    .bind(column(|new| new.account_id.0))
    .bind(column(|new| new.notification.event_id.0))
    .bind(new.iter().map(|new| new.notification.event_type.clone()).collect::<Vec<_>>())
    .bind(column(|new| new.notification.entity_id))
    .bind(new.iter().map(|new| new.notification.title.clone()).collect::<Vec<_>>())
    .bind(new.iter().map(|new| new.notification.body.clone()).collect::<Vec<_>>())
    .bind(new.iter().map(|new| new.in_inbox).collect::<Vec<_>>())
    .bind(new.iter().map(|new| new.email_id).collect::<Vec<_>>())
    .bind(new.iter().map(|new| new.notification.occurred_at).collect::<Vec<_>>())
    .bind(new.iter().map(|new| new.notification.created_at).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Keep only the newest `most` of each of these accounts; with the others goes the count of their events. Rows that somebody else is about to take are left to them.
pub(crate) async fn keep_newest(connection: &mut PgConnection, accounts: &[Uuid], most: i64) -> Result<u64, sqlx::Error> {
    let taken = sqlx::query(
        "WITH gone AS MATERIALIZED (
             SELECT n.id FROM unnest($1::uuid[]) AS a (id)
             CROSS JOIN LATERAL (SELECT id FROM notifications WHERE account_id = a.id ORDER BY id DESC OFFSET $2 LIMIT 1000) AS old
             JOIN notifications AS n ON n.id = old.id
             FOR UPDATE OF n SKIP LOCKED
         ), counts AS (DELETE FROM event_sequences WHERE entity_id IN (SELECT id FROM gone))
         DELETE FROM notifications WHERE id IN (SELECT id FROM gone)",
    )
    .bind(accounts)
    .bind(most)
    .execute(connection)
    .await?;
    Ok(taken.rows_affected())
}

/// Take up to `limit` that were told longer ago than `keep`; how many were.
pub(crate) async fn sweep(pool: &PgPool, keep: Duration, limit: i64) -> Result<u64, sqlx::Error> {
    let taken = sqlx::query(
        "WITH gone AS MATERIALIZED (
             SELECT id FROM notifications WHERE created_at < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED
         ), counts AS (DELETE FROM event_sequences WHERE entity_id IN (SELECT id FROM gone))
         DELETE FROM notifications WHERE id IN (SELECT id FROM gone)",
    )
    .bind(keep.as_secs_f64())
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(taken.rows_affected())
}

/// Notifications in the inbox of this account, newest first: those older than `before`, unread, read or both.
pub(crate) async fn list(
    pool: &PgPool,
    account: AccountId,
    unread: Option<bool>,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Notification>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT * FROM notifications WHERE account_id = $1 AND in_inbox AND ($2::uuid IS NULL OR id < $2)
         AND ($3::boolean IS NULL OR (read_at IS NULL) = $3) ORDER BY id DESC LIMIT $4",
    )
    .bind(account.0)
    .bind(before)
    .bind(unread)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(notification).collect()
}

/// This notification was read, now or before; `None` if there is no such one in the account's inbox.
pub(crate) async fn read(pool: &PgPool, account: AccountId, id: NotificationId) -> Result<Option<Notification>, sqlx::Error> {
    let row = sqlx::query(
        "UPDATE notifications SET read_at = coalesce(read_at, now()) WHERE id = $1 AND account_id = $2 AND in_inbox RETURNING *",
    )
    .bind(id.0)
    .bind(account.0)
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(notification).transpose()
}

/// Everything in this account's inbox was read; how many were not before.
pub(crate) async fn read_all(pool: &PgPool, account: AccountId) -> Result<u64, sqlx::Error> {
    let read = sqlx::query("UPDATE notifications SET read_at = now() WHERE account_id = $1 AND in_inbox AND read_at IS NULL")
        .bind(account.0)
        .execute(pool)
        .await?;
    Ok(read.rows_affected())
}

/// Replace what the account chose. False if there is no such account, or it is disabled.
pub(crate) async fn choose(connection: &mut PgConnection, account: AccountId, choices: &Choices) -> Result<bool, sqlx::Error> {
    let written = sqlx::query(
        "INSERT INTO notification_settings (account_id, events, email, quiet_hours, digest)
         SELECT id, $2, $3, $4, $5 FROM accounts WHERE id = $1 AND disabled_at IS NULL
         ON CONFLICT (account_id) DO UPDATE SET events = excluded.events, email = excluded.email,
             quiet_hours = excluded.quiet_hours, digest = excluded.digest, updated_at = now()",
    )
    .bind(account.0)
    .bind(Json(&choices.events))
    .bind(choices.email)
    .bind(choices.quiet_hours.as_ref().map(Json))
    .bind(choices.digest.as_ref().map(Json))
    .execute(connection)
    .await?;
    Ok(written.rows_affected() == 1)
}

pub(crate) fn notification(row: &PgRow) -> Result<Notification, sqlx::Error> {
    Ok(Notification {
        id: NotificationId(row.try_get("id")?),
        event_id: EventId(row.try_get("event_id")?),
        event_type: row.try_get("event_type")?,
        entity_id: row.try_get("entity_id")?,
        title: row.try_get("title")?,
        body: row.try_get("body")?,
        occurred_at: row.try_get("occurred_at")?,
        created_at: row.try_get("created_at")?,
        read_at: row.try_get("read_at")?,
    })
}
