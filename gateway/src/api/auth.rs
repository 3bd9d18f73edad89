//! `/v1/auth`: get tokens, renew them, give them up.

use bowerbird_nats::{
    account::{Account, Register, VerifyEmail},
    session::{Login, Logout, Refresh, TokenPair},
};
use poem_openapi::{ApiResponse, OpenApi, param::Header};

use crate::{
    actors::{Actors, Origin},
    api::Area,
    payload::StrictJson,
    refused::Refused,
};

pub(crate) struct AuthApi {
    pub(crate) actors: Actors,
}

#[derive(ApiResponse)]
pub(crate) enum Registered {
    /// The account was made.
    #[oai(status = 201)]
    Created(
        StrictJson<Account>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

#[derive(ApiResponse)]
pub(crate) enum LoggedOut {
    /// The session is closed, now or since before.
    #[oai(status = 204)]
    Done,
}

#[derive(ApiResponse)]
pub(crate) enum EmailVerified {
    /// The address is verified.
    #[oai(status = 204)]
    Done,
}

#[OpenApi(tag = "Area::Auth")]
impl AuthApi {
    /// Make an account
    ///
    /// Account names are compared without regard to case. Does not log in.
    #[oai(path = "/v1/auth/register", method = "post", operation_id = "register")]
    async fn register(
        &self,
        origin: Origin,
        /// Repeats with the same key and body have the effect of one, and the same answer.
        #[oai(name = "Idempotency-Key", validator(max_length = 255, pattern = "^[!-~]+$"))]
        idempotency_key: Header<Option<String>>,
        body: StrictJson<Register>,
    ) -> Result<Registered, Refused> {
        let account = self.actors.ask(&body.0, &origin.with_idempotency_key(idempotency_key.0)).await?;
        Ok(Registered::Created(StrictJson(account), "/v1/account".into()))
    }

    /// Log in
    ///
    /// Opens a session: an access token for `Authorization: Bearer`, and a refresh token for the next pair.
    #[oai(path = "/v1/auth/login", method = "post", operation_id = "login")]
    async fn login(&self, origin: Origin, body: StrictJson<Login>) -> Result<StrictJson<TokenPair>, Refused> {
        Ok(StrictJson(self.actors.ask(&body.0, &origin).await?))
    }

    /// Trade a refresh token for a new pair
    ///
    /// The old refresh token is used up.
    #[oai(path = "/v1/auth/refresh", method = "post", operation_id = "refresh")]
    async fn refresh(&self, origin: Origin, body: StrictJson<Refresh>) -> Result<StrictJson<TokenPair>, Refused> {
        Ok(StrictJson(self.actors.ask(&body.0, &origin).await?))
    }

    /// Log out
    ///
    /// Closes the session that the refresh token belongs to. Harmless when it is closed already.
    #[oai(path = "/v1/auth/logout", method = "post", operation_id = "logout")]
    async fn logout(&self, origin: Origin, body: StrictJson<Logout>) -> Result<LoggedOut, Refused> {
        self.actors.ask(&body.0, &origin).await?;
        Ok(LoggedOut::Done)
    }

    /// Use a link that verifies an e-mail address
    ///
    /// Needs no login: whoever has the link reads the address.
    #[oai(path = "/v1/auth/verify-email", method = "post", operation_id = "verify_email")]
    async fn verify_email(&self, origin: Origin, proof: StrictJson<VerifyEmail>) -> Result<EmailVerified, Refused> {
        self.actors.ask(&proof.0, &origin).await?;
        Ok(EmailVerified::Done)
    }
}
