//! The table `email_verifications`, and whether e-mail is wanted.

use bowerbird_nats::AccountId;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::notifications::{choices::Choices, mail::tokens::TokenHash};

/// Verifications that an account, and an address, may ask for within a day.
const MOST_A_DAY: i64 = 5;
/// Seconds between two of them.
const SPACING_SECONDS: f64 = 60.0;

/// An account that asks for a verification; locked until the transaction ends, so that two at once count as two.
pub(crate) struct Asking {
    pub(crate) email: Option<String>,
    pub(crate) email_verified: bool,
    /// Seconds until it may ask; `None` when it may now.
    pub(crate) wait_seconds: Option<u64>,
}

/// What an account may ask for; `None` when it is disabled.
pub(crate) async fn asking(connection: &mut PgConnection, account: AccountId) -> Result<Option<Asking>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT email, email_verified_at IS NOT NULL AS email_verified FROM accounts WHERE id = $1 AND disabled_at IS NULL
         FOR NO KEY UPDATE",
    )
    .bind(account.0)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let email: Option<String> = row.try_get("email")?;
    // A day is over when its first is a day old.
    let wait: Option<f64> = sqlx::query_scalar(
        "WITH asked AS (
             SELECT account_id, address, created_at FROM emails
             WHERE kind = 'verification' AND created_at > now() - interval '1 day' AND (account_id = $1 OR address = $2)
         )
         SELECT greatest(
             (SELECT $3 - extract(epoch FROM now() - max(created_at))::float8 FROM asked WHERE account_id = $1),
             (SELECT 86400 - extract(epoch FROM now() - min(created_at))::float8 FROM asked WHERE account_id = $1 HAVING count(*) >= $4),
             (SELECT 86400 - extract(epoch FROM now() - min(created_at))::float8 FROM asked WHERE address = $2 HAVING count(*) >= $4))",
    )
    .bind(account.0)
    .bind(&email)
    .bind(SPACING_SECONDS)
    .bind(MOST_A_DAY)
    .fetch_one(connection)
    .await?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and a day")]
    let wait_seconds = wait.filter(|wait| *wait > 0.0).map(|wait| wait.clamp(1.0, 86_400.0).ceil() as u64);
    Ok(Some(Asking { email, email_verified: row.try_get("email_verified")?, wait_seconds }))
}

/// Ask for a proof that this address is read: an e-mail is due, and an older proof is void.
pub(crate) async fn ask(
    connection: &mut PgConnection,
    account: AccountId,
    email_id: Uuid,
    address: &str,
    token_hash: &TokenHash,
    valid_seconds: f64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO emails (id, account_id, kind, address, status) VALUES ($1, $2, 'verification', $3, 'due')")
        .bind(email_id)
        .bind(account.0)
        .bind(address)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO email_verifications (account_id, email_id, address, token_hash, expires_at)
         VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
         ON CONFLICT (account_id) DO UPDATE SET email_id = excluded.email_id, address = excluded.address,
             token_hash = excluded.token_hash, requested_at = now(), expires_at = excluded.expires_at, used_at = NULL",
    )
    .bind(account.0)
    .bind(email_id)
    .bind(address)
    .bind(&token_hash[..])
    .bind(valid_seconds)
    .execute(connection)
    .await?;
    Ok(())
}

/// The account has another address: what was asked of the former one is void, and if that was verified, it is told.
pub(crate) async fn address_changed(
    connection: &mut PgConnection,
    account: AccountId,
    email_id: Uuid,
    former: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM email_verifications WHERE account_id = $1").bind(account.0).execute(&mut *connection).await?;
    sqlx::query(
        "INSERT INTO emails (id, account_id, kind, address, status)
         SELECT $1::uuid, $2::uuid, 'address_changed', $3, 'due' WHERE $3::text IS NOT NULL",
    )
    .bind(email_id)
    .bind(account.0)
    .bind(former)
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether the proof that this e-mail asks for is still waited for.
pub(crate) async fn is_waited_for(connection: &mut PgConnection, email_id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM email_verifications WHERE email_id = $1 AND used_at IS NULL AND expires_at > now())",
    )
    .bind(email_id)
    .fetch_one(connection)
    .await
}

/// Use a proof, once: whose it is and of which address. `None` if there is none like it, it was used or is too old.
pub(crate) async fn prove(
    connection: &mut PgConnection,
    token_hash: &TokenHash,
) -> Result<Option<(AccountId, String)>, sqlx::Error> {
    let proven: Option<(Uuid, String)> = sqlx::query_as(
        "UPDATE email_verifications SET used_at = now() WHERE token_hash = $1 AND used_at IS NULL AND expires_at > now()
         RETURNING account_id, address",
    )
    .bind(&token_hash[..])
    .fetch_optional(connection)
    .await?;
    Ok(proven.map(|(account, address)| (AccountId(account), address)))
}

/// No more e-mail to this account. What it chose besides stays, or is the defaults as they are now.
pub(crate) async fn unsubscribe(connection: &mut PgConnection, account: AccountId) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO notification_settings (account_id, events, email) SELECT id, $2, false FROM accounts WHERE id = $1
         ON CONFLICT (account_id) DO UPDATE SET email = false, updated_at = now()",
    )
    .bind(account.0)
    .bind(sqlx::types::Json(Choices::default().events))
    .execute(connection)
    .await?;
    Ok(())
}
