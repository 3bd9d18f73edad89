//! `/v1/account`: the caller's account.

use bowerbird_nats::account::{Account, GetAccount, GetUsage, Usage};
use poem_openapi::OpenApi;

use crate::{actors::Actors, api::Area, caller::Caller, payload::StrictJson, refused::Refused};

pub(crate) struct AccountApi {
    pub(crate) actors: Actors,
}

#[OpenApi(tag = "Area::Account")]
impl AccountApi {
    /// Get the caller's account
    #[oai(path = "/v1/account", method = "get", operation_id = "get_account")]
    async fn get(&self, caller: Caller) -> Result<StrictJson<Account>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetAccount {}, &caller.origin).await?))
    }

    /// What the caller's account stores, and may
    #[oai(path = "/v1/account/usage", method = "get", operation_id = "get_usage")]
    async fn usage(&self, caller: Caller) -> Result<StrictJson<Usage>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetUsage {}, &caller.origin).await?))
    }
}
