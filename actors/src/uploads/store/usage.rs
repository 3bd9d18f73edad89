//! What uploads set aside of an account's quota. Each change is one statement that holds the quota, so that no race can go
//! over it. Called last in a transaction, as the row is what all work of an account shares.

use bowerbird_nats::AccountId;
use sqlx::PgConnection;

use super::Error;

/// One more unfinished upload, and its bytes set aside.
pub(super) async fn reserve(
    connection: &mut PgConnection,
    account: AccountId,
    bytes: i64,
    max_unfinished: i64,
) -> Result<(), Error> {
    let reserved = sqlx::query(
        "INSERT INTO account_usage AS u (account_id, unfinished_uploads, reserved_bytes)
         SELECT id, 1, $2 FROM accounts WHERE id = $1 AND disabled_at IS NULL AND $2 <= quota_bytes AND $3 > 0
         ON CONFLICT (account_id) DO UPDATE SET
             unfinished_uploads = u.unfinished_uploads + 1, reserved_bytes = u.reserved_bytes + $2
         WHERE u.unfinished_uploads < $3
           AND u.stored_bytes + u.reserved_bytes + $2 <= (SELECT quota_bytes FROM accounts WHERE id = $1)",
    )
    .bind(account.0)
    .bind(bytes)
    .bind(max_unfinished)
    .execute(&mut *connection)
    .await?;
    if reserved.rows_affected() == 1 {
        return Ok(());
    }
    let unfinished: Option<i64> = sqlx::query_scalar(
        "SELECT coalesce(u.unfinished_uploads, 0) FROM accounts a LEFT JOIN account_usage u ON u.account_id = a.id
         WHERE a.id = $1 AND a.disabled_at IS NULL",
    )
    .bind(account.0)
    .fetch_optional(connection)
    .await?;
    Err(match unfinished {
        None => Error::Disabled,
        Some(unfinished) if unfinished >= max_unfinished => Error::TooMany,
        Some(_) => Error::QuotaExceeded,
    })
}

/// One unfinished upload less; its bytes are free.
pub(super) async fn release(connection: &mut PgConnection, account: AccountId, bytes: i64) -> Result<(), Error> {
    sqlx::query(
        "UPDATE account_usage SET unfinished_uploads = unfinished_uploads - 1, reserved_bytes = reserved_bytes - $2
         WHERE account_id = $1",
    )
    .bind(account.0)
    .bind(bytes)
    .execute(connection)
    .await?;
    Ok(())
}

/// One unfinished upload less and one file more: what was set aside is stored.
pub(super) async fn settle(connection: &mut PgConnection, account: AccountId, bytes: i64) -> Result<(), Error> {
    sqlx::query(
        "UPDATE account_usage SET unfinished_uploads = unfinished_uploads - 1, reserved_bytes = reserved_bytes - $2,
             stored_bytes = stored_bytes + $2, files = files + 1
         WHERE account_id = $1",
    )
    .bind(account.0)
    .bind(bytes)
    .execute(connection)
    .await?;
    Ok(())
}
