//! Who calls: a bearer token, verified here in memory, and handed on as it came.

use std::{fmt, sync::Arc};

use bowerbird_nats::{
    Code, Problem,
    credential::{Caller as Verified, Verifier},
};
use http::{HeaderMap, header};
use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaSecurityScheme, Registry},
};

use crate::{actors::Origin, refused::Refused};

/// Name of the security scheme in the document.
const SCHEME: &str = "access_token";

/// A token that was found good. Never printed.
#[derive(Clone)]
pub(crate) struct Credential {
    token: Arc<str>,
}

impl Credential {
    /// The token, without `Bearer `.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

/// Verify the bearer token of a request.
pub(crate) fn authenticate(headers: &HeaderMap, verifier: &Verifier) -> Result<(Verified, Credential), Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next(), values.next()) else {
        return Err(Problem::new(Code::Unauthorized, "there is more than one Authorization header"));
    };
    let value = value.ok_or_else(|| Problem::new(Code::Unauthorized, "this needs `Authorization: Bearer <access token>`"))?;
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| Problem::new(Code::Unauthorized, "the Authorization header has to be `Bearer <access token>`"))?;
    let verified = verifier.verify(token)?;
    Ok((verified, Credential { token: token.into() }))
}

/// An operation's argument that says: only with a good token. The token was verified before anything else was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// What goes along with its questions.
    pub(crate) origin: Origin,
    /// What its token says.
    pub(crate) verified: Verified,
    /// The token.
    pub(crate) credential: Credential,
}

impl<'a> ApiExtractor<'a> for Caller {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme(
            SCHEME,
            MetaSecurityScheme {
                ty: "http",
                description: Some("An access token of `POST /v1/auth/login` or `/v1/auth/refresh`."),
                name: None,
                key_in: None,
                scheme: Some("bearer"),
                bearer_format: Some("JWT"),
                flows: None,
                openid_connect_url: None,
            },
        );
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        // The guard of the operation has verified it, because the document says that it needs a token.
        let (Some(verified), Some(credential)) = (request.data::<Verified>(), request.data::<Credential>()) else {
            return Err(Refused::new(Code::Unauthorized, "this needs `Authorization: Bearer <access token>`").into());
        };
        Ok(Caller { origin: Origin::of(request), verified: *verified, credential: credential.clone() })
    }
}
