//! Signing keys: what verifiers need to know (RFC 7517), mirrored in the KV bucket `KEYS`.

use serde::{Deserialize, Serialize};

/// The public part of one RSA signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct PublicKey {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// `RSA`.
    pub kty: String,
    /// `sig`.
    #[serde(rename = "use")]
    #[cfg_attr(feature = "openapi", oai(rename = "use"))]
    pub usage: String,
    /// `RS256`.
    pub alg: String,
    /// Modulus, base64url without padding.
    pub n: String,
    /// Exponent, base64url without padding.
    pub e: String,
}

/// Every key that a valid token may be signed with, now or soon. The value of the one entry of the bucket `KEYS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct KeySet {
    /// The keys.
    pub keys: Vec<PublicKey>,
}

/// `key.rotated`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// The key that signs from now on.
    pub kid: String,
}
