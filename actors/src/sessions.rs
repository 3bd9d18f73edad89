//! Sessions: log in, refresh, log out, verify. The tables `sessions` and `refresh_tokens` are all of it.
//!
//! A login waits for its password hash on the hash queue, holding no worker; everything else is short and runs on the
//! area's workers. Races are settled by PostgreSQL: of sixteen that bring one refresh token, one gets a successor.

mod store;
mod token;

use std::sync::Arc;

use bowerbird_config::Auth;
use bowerbird_lifecycle::{Clock, IdSource};
use bowerbird_nats::{
    Code, Problem,
    answer::{Call, Limit, ServiceBuilder},
    credential::Verifier,
    operation::Done,
    session::{Login, Logout, Refresh, TokenPair, Verified, Verify},
};
use sqlx::PgPool;
use time::OffsetDateTime;
use tracing::{error, warn};
use zeroize::Zeroizing;

use self::{
    store::{Lifetimes, Live},
    token::{AccessTokens, RefreshHash, bare, new_refresh, read_refresh},
};
use crate::{
    accounts::{self, hashing::Hashing},
    database,
    keyring::Signer,
    requests::Pool,
};

/// Longest password that is hashed; none that is longer was ever accepted.
const PASSWORD_MAX_BYTES: usize = 1024;
/// Longest name of a device.
const DEVICE_NAME_MAX_CHARACTERS: usize = 100;

/// The area. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    pool: PgPool,
    clock: Clock,
    ids: IdSource,
    hashing: Hashing,
    workers: Pool,
    verifier: Verifier,
    tokens: AccessTokens,
    lifetimes: Lifetimes,
}

impl Sessions {
    /// The area over this database. `issuer` is what the tokens say (`iss`).
    #[expect(clippy::too_many_arguments, reason = "collaborators, each handed in once by the composition root")]
    pub fn new(
        settings: &Auth,
        issuer: String,
        pool: PgPool,
        clock: Clock,
        ids: IdSource,
        hashing: Hashing,
        signer: Signer,
        verifier: Verifier,
        workers: Pool,
    ) -> Self {
        let span = |span: bowerbird_config::Span| time::Duration::try_from(span.get()).unwrap_or(time::Duration::MAX);
        let lifetimes = Lifetimes { refresh: span(settings.refresh_token_ttl), session: span(settings.session_ttl) };
        let tokens =
            AccessTokens { signer, issuer, audience: settings.audience.clone(), lifetime: span(settings.access_token_ttl) };
        Sessions(Arc::new(Inner { pool, clock, ids, hashing, workers, verifier, tokens, lifetimes }))
    }

    /// Add what this area answers.
    pub fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        let limit = self.0.workers.endpoint_limit();
        let hashing = Limit { concurrency: self.0.hashing.most(), queue: self.0.hashing.most() };
        let (login, refresh, logout, verify) = (self.clone(), self.clone(), self.clone(), self.clone());
        service
            .endpoint(hashing, move |call: Call<Login>| login.clone().login(call))
            .endpoint(limit, move |call: Call<Refresh>| refresh.clone().refresh(call))
            .endpoint(limit, move |call: Call<Logout>| logout.clone().logout(call))
            .endpoint(limit, move |call: Call<Verify>| {
                let verified = verify.verify(&call.request);
                async move { verified }
            })
    }

    async fn login(self, call: Call<Login>) -> Result<TokenPair, Problem> {
        let this = Arc::clone(&self.0);
        let Login { login, password, device_name } = call.request;
        let password = Zeroizing::new(password);
        check_device_name(device_name.as_deref())?;
        if password.len() > PASSWORD_MAX_BYTES {
            return Err(wrong_credentials());
        }
        let place = this.hashing.place()?;
        let pool = this.pool.clone();
        let lookup = async move { accounts::credentials(&pool, &login).await.map_err(|error| database::problem(&error)) };
        let found = this.workers.run("session.lookup", None, call.deadline, lookup).await?;

        // The same work whoever asks for whom: an unknown name, a disabled account and a wrong password cost the same and
        // are answered the same.
        let stored = found.as_ref().filter(|found| !found.disabled).and_then(|found| found.password_hash.clone());
        let verdict = place.verify(password.clone(), stored.clone()).await?;
        let (Some(found), true) = (found, verdict.matches) else { return Err(wrong_credentials()) };
        if let (true, Some(stored)) = (verdict.outdated, stored) {
            let stronger = place.hash(password).await?;
            // It will be tried again at the next login.
            if let Err(error) = accounts::rehash(&this.pool, found.account_id, &stored, &stronger).await {
                warn!(%error, "a password hash could not be renewed");
            }
        }
        drop(place);

        let work = async move {
            let this = self.0;
            let now = this.clock.now();
            let (refresh_token, hash) = new_refresh().map_err(|_| Problem::internal())?;
            let mut transaction = this.pool.begin().await.map_err(|error| database::problem(&error))?;
            let opened = store::open(&mut transaction, this.ids, found.account_id, device_name, &hash, this.lifetimes, now).await;
            let live = opened.map_err(|error| database::problem(&error))?.ok_or_else(wrong_credentials)?;
            let pair = this.pair(live, refresh_token, now).await?;
            transaction.commit().await.map_err(|error| database::problem(&error))?;
            Ok(pair)
        };
        this.workers.run("session.login", Some(found.account_id), call.deadline, work).await
    }

    async fn refresh(self, call: Call<Refresh>) -> Result<TokenPair, Problem> {
        let this = Arc::clone(&self.0);
        let used: RefreshHash = read_refresh(&call.request.refresh_token).ok_or_else(wrong_refresh_token)?;
        let work = async move {
            let this = self.0;
            let now = this.clock.now();
            let (refresh_token, hash) = new_refresh().map_err(|_| Problem::internal())?;
            let mut transaction = this.pool.begin().await.map_err(|error| database::problem(&error))?;
            let rotated = store::rotate(&mut transaction, &used, &hash, this.lifetimes, now).await;
            let live = rotated.map_err(|error| database::problem(&error))?.ok_or_else(wrong_refresh_token)?;
            // Signed before the commit: a token must not be used up for an answer that cannot be given.
            let pair = this.pair(live, refresh_token, now).await?;
            transaction.commit().await.map_err(|error| database::problem(&error))?;
            Ok(pair)
        };
        this.workers.run("session.refresh", None, call.deadline, work).await
    }

    async fn logout(self, call: Call<Logout>) -> Result<Done, Problem> {
        // What cannot be a token has no session, so there is nothing to close: the same as for one that is closed.
        let Some(token) = read_refresh(&call.request.refresh_token) else { return Ok(Done {}) };
        let this = Arc::clone(&self.0);
        let work = async move {
            let this = self.0;
            let mut transaction = this.pool.begin().await.map_err(|error| database::problem(&error))?;
            store::close(&mut transaction, this.ids, &token, "logout", this.clock.now())
                .await
                .map_err(|error| database::problem(&error))?;
            transaction.commit().await.map_err(|error| database::problem(&error))?;
            Ok(Done {})
        };
        this.workers.run("session.logout", None, call.deadline, work).await
    }

    fn verify(&self, request: &Verify) -> Result<Verified, Problem> {
        let caller = self.0.verifier.verify(bare(&request.access_token))?;
        Ok(Verified {
            account_id: caller.account_id,
            session_id: caller.session_id,
            role: caller.role,
            expires_at: caller.expires_at,
        })
    }
}

impl Inner {
    async fn pair(&self, live: Live, refresh_token: Zeroizing<String>, now: OffsetDateTime) -> Result<TokenPair, Problem> {
        let issued = self.tokens.issue(self.ids.next(), live.account_id, live.session_id, live.role, now).await;
        let access_token = issued.map_err(|error| {
            error!(%error, "an access token was not signed");
            Problem::unavailable("tokens cannot be signed right now; try again in a moment", 1)
        })?;
        let seconds = |duration: time::Duration| u64::try_from(duration.whole_seconds()).unwrap_or(0);
        Ok(TokenPair {
            access_token,
            token_type: "Bearer".to_owned(),
            expires_in: seconds(self.tokens.lifetime),
            refresh_token: refresh_token.to_string(),
            refresh_expires_in: seconds(live.refresh_expires_at - now),
            session_id: live.session_id,
            account_id: live.account_id,
        })
    }
}

fn check_device_name(name: Option<&str>) -> Result<(), Problem> {
    match name {
        Some(name)
            if name.trim().is_empty()
                || name.chars().count() > DEVICE_NAME_MAX_CHARACTERS
                || name.chars().any(char::is_control) =>
        {
            Err(Problem::invalid("device_name", format!("must be 1 to {DEVICE_NAME_MAX_CHARACTERS} characters that can be seen")))
        }
        _ => Ok(()),
    }
}

fn wrong_credentials() -> Problem {
    Problem::new(Code::InvalidCredentials, "login and password do not belong together")
}

fn wrong_refresh_token() -> Problem {
    Problem::new(Code::InvalidRefreshToken, "this refresh token is unknown, used or expired; log in again")
}
