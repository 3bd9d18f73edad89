//! `/.well-known/jwks.json`: the keys that access tokens are verified with (RFC 7517), for services that do it themselves.

use bowerbird_nats::{credential::Verifier, key::KeySet};
use poem_openapi::{ApiResponse, OpenApi};

use crate::{api::Area, payload::StrictJson, refused::Refused};

/// New keys are published a day before they sign, so five minutes are never too long.
const CACHE_CONTROL: &str = "public, max-age=300";

pub(crate) struct KeysApi {
    pub(crate) verifier: Verifier,
}

#[derive(ApiResponse)]
pub(crate) enum Keys {
    /// The keys.
    #[oai(status = 200)]
    Keys(StrictJson<KeySet>, #[oai(header = "Cache-Control")] String),
}

#[OpenApi(tag = "Area::Public")]
impl KeysApi {
    /// The keys that access tokens are verified with
    #[oai(path = "/.well-known/jwks.json", method = "get", operation_id = "get_keys")]
    #[expect(clippy::unused_async, reason = "poem-openapi wants operations to be async")]
    async fn keys(&self) -> Result<Keys, Refused> {
        Ok(Keys::Keys(StrictJson(self.verifier.key_set()), CACHE_CONTROL.into()))
    }
}
