//! The table `accounts`.

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId,
    account::{Account, Field, Registered, Role, Updated, Usage},
    event::{ACCOUNT_REGISTERED, ACCOUNT_UPDATED},
};
use sqlx::{PgConnection, PgPool, Row as _, postgres::PgRow};
use time::OffsetDateTime;

use crate::{
    database::is_conflict_on,
    events::{self, NewEvent},
};

/// An account that is about to be made; its values are checked.
pub(crate) struct NewAccount<'a> {
    pub(crate) account_name: &'a str,
    pub(crate) email: Option<&'a str>,
    pub(crate) display_name: Option<&'a str>,
    pub(crate) password_hash: &'a str,
    pub(crate) role: Role,
    pub(crate) quota_bytes: i64,
}

/// An account cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InsertError {
    /// Somebody was faster, in whatever case.
    #[error("the name is taken")]
    NameTaken,
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// What a login needs to know.
pub(crate) struct Credentials {
    pub(crate) account_id: AccountId,
    pub(crate) password_hash: Option<String>,
    pub(crate) disabled: bool,
}

/// Make an account, in the caller's transaction.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    ids: IdSource,
    now: OffsetDateTime,
    new: &NewAccount<'_>,
) -> Result<Account, InsertError> {
    let account = Account {
        id: AccountId(ids.next()),
        account_name: new.account_name.to_owned(),
        email: new.email.map(str::to_owned),
        email_verified: false,
        display_name: new.display_name.map(str::to_owned),
        role: new.role,
        quota_bytes: new.quota_bytes,
        // As PostgreSQL keeps it, so that it reads back the same.
        created_at: now.replace_nanosecond(now.microsecond() * 1000).unwrap_or(now),
    };
    let written = sqlx::query(
        "INSERT INTO accounts (id, account_name, email, display_name, password_hash, role, quota_bytes, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
    )
    .bind(account.id.0)
    .bind(&account.account_name)
    .bind(&account.email)
    .bind(&account.display_name)
    .bind(new.password_hash)
    .bind(account.role.as_str())
    .bind(account.quota_bytes)
    .bind(account.created_at)
    .execute(&mut *connection)
    .await;
    if let Err(error) = written {
        return Err(if is_conflict_on(&error, "accounts_name_unique") { InsertError::NameTaken } else { error.into() });
    }
    let told = Registered { account_id: account.id, account_name: account.account_name.clone(), role: account.role };
    events::record(connection, NewEvent::new(ids, ACCOUNT_REGISTERED, Some(account.id), account.id.0, &told)).await?;
    Ok(account)
}

/// Whether the name is taken, in whatever case. Only a hint: the index decides.
pub(crate) async fn is_taken(pool: &PgPool, account_name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM accounts WHERE lower(account_name) = lower($1))")
        .bind(account_name)
        .fetch_one(pool)
        .await
}

/// The account, unless it is disabled.
pub(crate) async fn get(pool: &PgPool, account: AccountId) -> Result<Option<Account>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT id, account_name, email, email_verified_at, display_name, role, quota_bytes, created_at
         FROM accounts WHERE id = $1 AND disabled_at IS NULL",
    )
    .bind(account.0)
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &PgRow) -> Result<Account, sqlx::Error> {
    Ok(Account {
        id: AccountId(row.try_get("id")?),
        account_name: row.try_get("account_name")?,
        email: row.try_get("email")?,
        email_verified: row.try_get::<Option<OffsetDateTime>, _>("email_verified_at")?.is_some(),
        display_name: row.try_get("display_name")?,
        role: role(row)?,
        quota_bytes: row.try_get("quota_bytes")?,
        created_at: row.try_get("created_at")?,
    })
}

/// The account and the hash of its password, unless it is disabled. Held until the transaction ends.
pub(crate) async fn hold(
    connection: &mut PgConnection,
    account: AccountId,
) -> Result<Option<(Account, Option<String>)>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT id, account_name, email, email_verified_at, display_name, role, quota_bytes, created_at, password_hash
         FROM accounts WHERE id = $1 AND disabled_at IS NULL FOR NO KEY UPDATE",
    )
    .bind(account.0)
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok((read(&row)?, row.try_get("password_hash")?))).transpose()
}

/// Write down what was changed of a held account, and tell of it.
pub(crate) async fn update(
    connection: &mut PgConnection,
    ids: IdSource,
    account: &Account,
    changed: Vec<Field>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE accounts SET email = $2, email_verified_at = CASE WHEN $3 THEN email_verified_at END, display_name = $4,
                             updated_at = now()
         WHERE id = $1",
    )
    .bind(account.id.0)
    .bind(&account.email)
    .bind(account.email_verified)
    .bind(&account.display_name)
    .execute(&mut *connection)
    .await?;
    let told = Updated { account_id: account.id, changed };
    events::record(connection, NewEvent::new(ids, ACCOUNT_UPDATED, Some(account.id), account.id.0, &told)).await?;
    Ok(())
}

/// The hash of the account's password, unless it is disabled.
pub(crate) async fn password_hash(pool: &PgPool, account: AccountId) -> Result<Option<Option<String>>, sqlx::Error> {
    sqlx::query_scalar("SELECT password_hash FROM accounts WHERE id = $1 AND disabled_at IS NULL")
        .bind(account.0)
        .fetch_optional(pool)
        .await
}

/// The owner of this account proved to read this address. False if it is not the account's address any more, or the
/// account is disabled.
pub(crate) async fn email_verified(
    connection: &mut PgConnection,
    account: AccountId,
    address: &str,
) -> Result<bool, sqlx::Error> {
    let verified = sqlx::query(
        "UPDATE accounts SET email_verified_at = coalesce(email_verified_at, now()), updated_at = now()
         WHERE id = $1 AND email = $2 AND disabled_at IS NULL",
    )
    .bind(account.0)
    .bind(address)
    .execute(connection)
    .await?;
    Ok(verified.rows_affected() == 1)
}

/// What the account stores, and may; `None` when it is disabled.
pub(crate) async fn usage(pool: &PgPool, account: AccountId) -> Result<Option<Usage>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT a.quota_bytes, coalesce(u.stored_bytes, 0) AS stored_bytes, coalesce(u.reserved_bytes, 0) AS reserved_bytes,
                coalesce(u.files, 0) AS files, coalesce(u.unfinished_downloads, 0) AS unfinished_downloads
         FROM accounts AS a LEFT JOIN account_usage AS u ON u.account_id = a.id
         WHERE a.id = $1 AND a.disabled_at IS NULL",
    )
    .bind(account.0)
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Usage {
        stored_bytes: row.try_get("stored_bytes")?,
        reserved_bytes: row.try_get("reserved_bytes")?,
        quota_bytes: row.try_get("quota_bytes")?,
        files: row.try_get("files")?,
        unfinished_downloads: row.try_get("unfinished_downloads")?,
    }))
}

/// What a login under this name needs to know.
pub(crate) async fn credentials(pool: &PgPool, login: &str) -> Result<Option<Credentials>, sqlx::Error> {
    let row = sqlx::query("SELECT id, password_hash, disabled_at FROM accounts WHERE lower(account_name) = lower($1)")
        .bind(login)
        .fetch_optional(pool)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Credentials {
        account_id: AccountId(row.try_get("id")?),
        password_hash: row.try_get("password_hash")?,
        disabled: row.try_get::<Option<OffsetDateTime>, _>("disabled_at")?.is_some(),
    }))
}

/// Store the same password under stronger parameters, unless it was changed in the meantime.
pub(crate) async fn rehash(pool: &PgPool, account: AccountId, old: &str, new: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE accounts SET password_hash = $3, updated_at = now() WHERE id = $1 AND password_hash = $2")
        .bind(account.0)
        .bind(old)
        .bind(new)
        .execute(pool)
        .await?;
    Ok(())
}

/// The role of a row that has one.
pub(crate) fn role(row: &PgRow) -> Result<Role, sqlx::Error> {
    Ok(if row.try_get::<&str, _>("role")? == Role::Admin.as_str() { Role::Admin } else { Role::User })
}
