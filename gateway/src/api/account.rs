//! `/v1/account`: the caller's account.

use bowerbird_nats::account::{Account, GetAccount, GetUsage, RequestEmailVerification, UpdateAccount, Usage};
use poem_openapi::{ApiResponse, OpenApi};

use crate::{actors::Actors, api::Area, caller::Caller, payload::StrictJson, refused::Refused};

pub(crate) struct AccountApi {
    pub(crate) actors: Actors,
}

#[derive(ApiResponse)]
pub(crate) enum LinkSent {
    /// The link is on its way, unless the address is verified already.
    #[oai(status = 202)]
    Accepted,
}

#[OpenApi(tag = "Area::Account")]
impl AccountApi {
    /// Get the caller's account
    #[oai(path = "/v1/account", method = "get", operation_id = "get_account")]
    async fn get(&self, caller: Caller) -> Result<StrictJson<Account>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetAccount {}, &caller.origin).await?))
    }

    /// Change the caller's account
    ///
    /// What is not given stays. Another address, or none, wants the present `password`. It is not verified, so nothing but the link that
    /// verifies it is sent there; the address that was verified before is told of the change.
    #[oai(path = "/v1/account", method = "patch", operation_id = "update_account")]
    async fn update(&self, caller: Caller, body: StrictJson<UpdateAccount>) -> Result<StrictJson<Account>, Refused> {
        Ok(StrictJson(self.actors.ask(&body.0, &caller.origin).await?))
    }

    /// What the caller's account stores, and may
    #[oai(path = "/v1/account/usage", method = "get", operation_id = "get_usage")]
    async fn usage(&self, caller: Caller) -> Result<StrictJson<Usage>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetUsage {}, &caller.origin).await?))
    }

    /// Verify the e-mail address
    ///
    /// Sends a link to the account's address that proves that it is read. It is good once and for a day, and a new one voids the
    /// one before. Nothing else is ever sent to an address that was not verified.
    #[oai(path = "/v1/account/email-verification", method = "post", operation_id = "request_email_verification")]
    async fn request_email_verification(&self, caller: Caller) -> Result<LinkSent, Refused> {
        self.actors.ask(&RequestEmailVerification {}, &caller.origin).await?;
        Ok(LinkSent::Accepted)
    }
}
