//! Accounts: who owns things. The table `accounts` is all of it; requests are short and run on the area's workers.

pub mod hashing;
mod password;
mod store;
mod update;

use std::sync::Arc;

use aws_lc_rs::hmac;
use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, IdSource};
use bowerbird_nats::{
    Code, Problem,
    account::{Account, GetAccount, GetUsage, Register, Role, UpdateAccount, Usage},
    answer::{Call, Limit, ServiceBuilder},
    problem::FieldError,
};
use sqlx::PgPool;
use zeroize::Zeroizing;

pub(crate) use self::store::{credentials, email_verified, rehash, role};
use self::{
    hashing::Hashing,
    store::{InsertError, NewAccount},
};
use crate::{
    database,
    idempotency::{self, Begun},
    requests::Pool,
};

/// What a digest of a body that holds a password is keyed with, made of the master key.
const FINGERPRINT_PURPOSE: &[u8] = b"bowerbird request fingerprints v1";

/// The area. Cheap to clone.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

struct Inner {
    settings: Arc<Settings>,
    pool: PgPool,
    clock: Clock,
    ids: IdSource,
    hashing: Hashing,
    workers: Pool,
    fingerprints: hmac::Key,
}

impl Accounts {
    /// The area over this database.
    pub fn new(
        settings: Arc<Settings>,
        pool: PgPool,
        clock: Clock,
        ids: IdSource,
        hashing: Hashing,
        workers: Pool,
        master_key: &[u8; 32],
    ) -> Self {
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, master_key), FINGERPRINT_PURPOSE);
        let fingerprints = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
        Accounts(Arc::new(Inner { settings, pool, clock, ids, hashing, workers, fingerprints }))
    }

    /// Add what this area answers.
    pub fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        let limit = self.0.workers.endpoint_limit();
        let hashing = Limit { concurrency: self.0.hashing.most(), queue: self.0.hashing.most() };
        let (register, get, update, usage) = (self.clone(), self.clone(), self.clone(), self.clone());
        service
            .endpoint(hashing, move |call: Call<Register>| register.clone().register(call))
            .endpoint(limit, move |call: Call<GetAccount>| get.clone().get(call))
            .endpoint(limit, move |call: Call<UpdateAccount>| update.clone().update(call))
            .endpoint(limit, move |call: Call<GetUsage>| usage.clone().usage(call))
    }

    async fn register(self, call: Call<Register>) -> Result<Account, Problem> {
        let this = Arc::clone(&self.0);
        if !this.settings.auth.open_registration {
            return Err(Problem::new(
                Code::RegistrationClosed,
                "strangers may not register here; ask an administrator for an account",
            ));
        }
        let request = check(call.request, this.settings.auth.password_min_length)?;
        let key =
            idempotency::Request::new(None, "account.register", call.idempotency_key, &self.fingerprint(&call.fingerprint))?;
        let place = this.hashing.place()?;
        // Not worth a hash when it is taken already, unless this is a repetition that has an answer.
        if key.is_none() {
            let (pool, name) = (this.pool.clone(), request.account_name.clone());
            let taken = async move { store::is_taken(&pool, &name).await.map_err(|error| database::problem(&error)) };
            if this.workers.run("account.lookup", None, call.deadline, taken).await? {
                return Err(name_taken());
            }
        }
        let password_hash = place.hash(request.password).await?;
        let (pool, clock, ids) = (this.pool.clone(), this.clock.clone(), this.ids);
        let quota_bytes = i64::try_from(this.settings.accounts.default_quota.get()).unwrap_or(i64::MAX);
        let work = async move {
            let new = NewAccount {
                account_name: &request.account_name,
                email: request.email.as_deref(),
                display_name: request.display_name.as_deref(),
                password_hash: &password_hash,
                role: Role::User,
                quota_bytes,
            };
            let mut transaction = pool.begin().await.map_err(|error| database::problem(&error))?;
            let ticket = match idempotency::begin(&mut transaction, key).await? {
                Begun::Done(account) => return Ok(account),
                Begun::New(ticket) => ticket,
            };
            let account = store::insert(&mut transaction, ids, clock.now(), &new).await.map_err(refuse)?;
            idempotency::finish(&mut transaction, ticket, &account).await?;
            transaction.commit().await.map_err(|error| database::problem(&error))?;
            Ok(account)
        };
        this.workers.run("account.register", None, call.deadline, work).await
    }

    async fn get(self, call: Call<GetAccount>) -> Result<Account, Problem> {
        let account = call.account()?.account_id;
        let pool = self.0.pool.clone();
        let work =
            async move { store::get(&pool, account).await.map_err(|error| database::problem(&error))?.ok_or_else(not_any_more) };
        self.0.workers.run("account.get", Some(account), call.deadline, work).await
    }

    async fn usage(self, call: Call<GetUsage>) -> Result<Usage, Problem> {
        let account = call.account()?.account_id;
        let pool = self.0.pool.clone();
        let work = async move {
            store::usage(&pool, account).await.map_err(|error| database::problem(&error))?.ok_or_else(not_any_more)
        };
        self.0.workers.run("account.usage", Some(account), call.deadline, work).await
    }

    /// The body holds a password, so what is stored must not be a plain digest of it: that could be guessed at leisure.
    fn fingerprint(&self, plain: &str) -> String {
        let tag = hmac::sign(&self.0.fingerprints, plain.as_bytes());
        crate::downloads::row::hexadecimal(tag.as_ref())
    }
}

/// A registration whose values are allowed.
struct Checked {
    account_name: String,
    email: Option<String>,
    display_name: Option<String>,
    password: Zeroizing<String>,
}

fn check(request: Register, password_min_characters: usize) -> Result<Checked, Problem> {
    let Register { account_name, password, email, display_name } = request;
    let password = Zeroizing::new(password);
    let context = [Some(account_name.as_str()), email.as_deref(), display_name.as_deref()];
    let context: Vec<&str> = context.into_iter().flatten().collect();
    let faults = [
        ("account_name", name_fault(&account_name)),
        ("password", password::fault(&password, password_min_characters, &context)),
        ("email", email.as_deref().and_then(email_fault)),
        ("display_name", display_name.as_deref().and_then(display_name_fault)),
    ];
    without(faults)?;
    Ok(Checked { account_name, email, display_name, password })
}

/// One problem that names every field at fault.
fn without<const N: usize>(faults: [(&str, Option<String>); N]) -> Result<(), Problem> {
    let errors: Vec<FieldError> =
        faults.into_iter().filter_map(|(field, fault)| Some(FieldError { field: field.to_owned(), message: fault? })).collect();
    if errors.is_empty() {
        return Ok(());
    }
    let sentences: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
    let mut problem = Problem::new(Code::InvalidValue, sentences.join("; "));
    problem.errors = errors;
    Err(problem)
}

fn name_fault(name: &str) -> Option<String> {
    let allowed = (3..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    (!allowed).then(|| "must be 3 to 32 letters, digits, `-`, `_` or `.`, and start with a letter".into())
}

fn email_fault(email: &str) -> Option<String> {
    let form =
        email.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
    let allowed = form && email.len() <= 254 && !email.chars().any(|c| c.is_whitespace() || c.is_control());
    (!allowed).then(|| "must be an e-mail address such as alice@example.org".into())
}

fn display_name_fault(name: &str) -> Option<String> {
    let allowed = (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control) && !name.trim().is_empty();
    (!allowed).then(|| "must be 1 to 100 characters that can be seen".into())
}

fn refuse(error: InsertError) -> Problem {
    match error {
        InsertError::NameTaken => name_taken(),
        InsertError::Database(error) => database::problem(&error),
    }
}

fn name_taken() -> Problem {
    Problem::new(Code::NameTaken, "this account name is taken; choose another")
}

/// The token was good, the account is disabled or gone.
fn not_any_more() -> Problem {
    Problem::new(Code::Unauthorized, "this account may not do anything any more")
}

/// An account cannot be made from the command line.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A value is not allowed; says which and why.
    #[error("{0}")]
    Invalid(String),
    /// The name is in use.
    #[error("the account name {0} is taken; choose another")]
    NameTaken(String),
    /// The database failed.
    #[error("the account could not be written: {0}")]
    Database(#[from] sqlx::Error),
}

/// Make an account with the role `admin`. For the command line: no actor needs to run.
pub async fn create_admin(
    pool: &PgPool,
    settings: &Settings,
    clock: &Clock,
    ids: IdSource,
    account_name: &str,
    password: Zeroizing<String>,
) -> Result<Account, AdminError> {
    let request =
        Register { account_name: account_name.to_owned(), password: password.to_string(), email: None, display_name: None };
    let checked = check(request, settings.auth.password_min_length).map_err(|problem| AdminError::Invalid(problem.detail))?;
    let invalid = |problem: Problem| AdminError::Invalid(problem.detail);
    let meters = crate::metrics::Meters::register(&bowerbird_lifecycle::Metrics::default());
    let hashing = Hashing::new(&settings.auth, meters).map_err(|error| AdminError::Invalid(error.to_string()))?;
    let password_hash = hashing.place().map_err(invalid)?.hash(checked.password).await.map_err(invalid)?;
    let new = NewAccount {
        account_name: &checked.account_name,
        email: None,
        display_name: None,
        password_hash: &password_hash,
        role: Role::Admin,
        quota_bytes: i64::try_from(settings.accounts.default_quota.get()).unwrap_or(i64::MAX),
    };
    let mut transaction = pool.begin().await?;
    let account = store::insert(&mut transaction, ids, clock.now(), &new).await.map_err(|error| match error {
        InsertError::NameTaken => AdminError::NameTaken(account_name.to_owned()),
        InsertError::Database(error) => AdminError::Database(error),
    })?;
    transaction.commit().await?;
    Ok(account)
}
