//! What owners do with their webhooks.

use std::time::Duration;

use bowerbird_nats::{AccountId, WebhookId, webhook::Status};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Error, end_pending, read_webhook, webhook_columns};
use crate::webhooks::row::WebhookRow;

/// A webhook to be.
pub(crate) struct New {
    pub(crate) id: WebhookId,
    pub(crate) account_id: AccountId,
    pub(crate) url_sealed: Vec<u8>,
    pub(crate) event_types: Vec<String>,
    pub(crate) description: Option<String>,
    pub(crate) secret_sealed: Vec<u8>,
}

/// Add a webhook, enabled, unless the account has `most` already.
pub(crate) async fn add(connection: &mut PgConnection, new: &New, most: i64) -> Result<WebhookRow, Error> {
    // Held until the transaction ends, so that two who add at once do not both take the last place.
    let may_act: Option<bool> = sqlx::query_scalar("SELECT disabled_at IS NULL FROM accounts WHERE id = $1 FOR NO KEY UPDATE")
        .bind(new.account_id.0)
        .fetch_optional(&mut *connection)
        .await?;
    if may_act != Some(true) {
        return Err(Error::Disabled);
    }
    let has: i64 = sqlx::query_scalar("SELECT count(*) FROM webhooks WHERE account_id = $1 AND deleted_at IS NULL")
        .bind(new.account_id.0)
        .fetch_one(&mut *connection)
        .await?;
    if has >= most {
        return Err(Error::TooMany);
    }
    let row = sqlx::query(concat!(
        "INSERT INTO webhooks (id, account_id, url_sealed, event_types, description, secret_sealed, status) \
         VALUES ($1, $2, $3, $4, $5, $6, 'enabled') RETURNING ",
        webhook_columns!()
    ))
    .bind(new.id.0)
    .bind(new.account_id.0)
    .bind(&new.url_sealed)
    .bind(&new.event_types)
    .bind(&new.description)
    .bind(&new.secret_sealed)
    .fetch_one(connection)
    .await?;
    read_webhook(&row)
}

/// One webhook of this account.
pub(crate) async fn find(pool: &PgPool, account: AccountId, id: WebhookId) -> Result<Option<WebhookRow>, Error> {
    let row = sqlx::query(concat!(
        "SELECT ",
        webhook_columns!(),
        " FROM webhooks WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL"
    ))
    .bind(id.0)
    .bind(account.0)
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(read_webhook).transpose()
}

/// One webhook of this account, held until the transaction ends.
pub(crate) async fn find_locked(
    connection: &mut PgConnection,
    account: AccountId,
    id: WebhookId,
) -> Result<Option<WebhookRow>, Error> {
    let row = sqlx::query(concat!(
        "SELECT ",
        webhook_columns!(),
        " FROM webhooks WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL FOR NO KEY UPDATE"
    ))
    .bind(id.0)
    .bind(account.0)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(read_webhook).transpose()
}

/// Webhooks of this account, newest first: those older than `before`.
pub(crate) async fn list(pool: &PgPool, account: AccountId, before: Option<Uuid>, limit: u32) -> Result<Vec<WebhookRow>, Error> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        webhook_columns!(),
        " FROM webhooks WHERE account_id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
    ))
    .bind(account.0)
    .bind(before)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(read_webhook).collect()
}

/// What its owner changes of a webhook; what is `None` stays.
#[derive(Default)]
pub(crate) struct Change {
    /// Another receiver: what is known of how the one before behaved is forgotten.
    pub(crate) url_sealed: Option<Vec<u8>>,
    pub(crate) event_types: Option<Vec<String>>,
    /// Empty: none.
    pub(crate) description: Option<String>,
    pub(crate) status: Option<Status>,
}

/// Change a webhook that the caller has locked.
pub(crate) async fn change(connection: &mut PgConnection, old: &WebhookRow, change: &Change) -> Result<WebhookRow, Error> {
    let turned = change.status.filter(|status| *status != old.status);
    let afresh = change.url_sealed.is_some() || turned == Some(Status::Enabled);
    let row = sqlx::query(concat!(
        "UPDATE webhooks SET updated_at = now(), url_sealed = coalesce($2, url_sealed), event_types = coalesce($3, event_types), \
         description = CASE WHEN $4::text IS NULL THEN description ELSE nullif($4, '') END, status = coalesce($5, status), \
         disabled_reason = CASE $5 WHEN 'enabled' THEN NULL WHEN 'disabled' THEN 'owner' ELSE disabled_reason END, \
         disabled_at = CASE $5 WHEN 'enabled' THEN NULL WHEN 'disabled' THEN now() ELSE disabled_at END, \
         enabled_at = CASE $5 WHEN 'enabled' THEN now() ELSE enabled_at END, \
         failing_since = CASE WHEN $6 THEN NULL ELSE failing_since END, \
         paused_until = CASE WHEN $6 THEN NULL ELSE paused_until END \
         WHERE id = $1 RETURNING ",
        webhook_columns!()
    ))
    .bind(old.id.0)
    .bind(&change.url_sealed)
    .bind(&change.event_types)
    .bind(&change.description)
    .bind(turned.map(Status::as_str))
    .bind(afresh)
    .fetch_one(&mut *connection)
    .await?;
    if turned == Some(Status::Disabled) {
        end_pending(connection, old.id).await?;
    }
    read_webhook(&row)
}

/// Sign with this secret from now on, and for a while with the one before as well. The caller has locked the webhook.
pub(crate) async fn rotate(
    connection: &mut PgConnection,
    id: WebhookId,
    secret_sealed: &[u8],
    old_secret_for: Duration,
) -> Result<WebhookRow, Error> {
    let row = sqlx::query(concat!(
        "UPDATE webhooks SET updated_at = now(), old_secret_sealed = secret_sealed, \
         old_secret_until = now() + make_interval(secs => $3), secret_sealed = $2 WHERE id = $1 RETURNING ",
        webhook_columns!()
    ))
    .bind(id.0)
    .bind(secret_sealed)
    .bind(old_secret_for.as_secs_f64())
    .fetch_one(connection)
    .await?;
    read_webhook(&row)
}

/// Take a webhook away that the caller has locked: nobody sees it any more, its secrets are gone, nothing more is sent.
/// Its deliveries go by sweep, as they may be many.
pub(crate) async fn delete(connection: &mut PgConnection, id: WebhookId) -> Result<(), Error> {
    sqlx::query(
        "UPDATE webhooks SET deleted_at = now(), status = 'disabled', disabled_reason = coalesce(disabled_reason, 'owner'), \
         disabled_at = coalesce(disabled_at, now()), url_sealed = '', secret_sealed = '', old_secret_sealed = NULL, \
         old_secret_until = NULL WHERE id = $1",
    )
    .bind(id.0)
    .execute(&mut *connection)
    .await?;
    end_pending(connection, id).await?;
    Ok(())
}
