//! Signing keys and tokens of a test's own.

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaEncoding},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bowerbird_nats::key::{KeySet, PublicKey};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://issuer.test";
pub(crate) const AUDIENCE: &str = "bowerbird";
/// The time that tokens of the tests are made at.
pub(crate) const NOW: i64 = 1_900_000_000;
pub(crate) const ACCOUNT: &str = "0198c0de-0000-7000-8000-00000000000a";
pub(crate) const SESSION: &str = "0198c0de-0000-7000-8000-00000000000b";

pub(crate) struct SigningKey {
    pair: KeyPair,
    pub(crate) public: PublicKey,
}

impl SigningKey {
    pub(crate) fn generate(kid: &str, size: KeySize) -> SigningKey {
        let pair = KeyPair::generate(size).unwrap();
        let public = pair.public_key();
        let public = PublicKey {
            kid: kid.to_owned(),
            kty: "RSA".to_owned(),
            usage: "sig".to_owned(),
            alg: "RS256".to_owned(),
            n: URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
            e: URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
        };
        SigningKey { pair, public }
    }

    pub(crate) fn set(&self) -> KeySet {
        KeySet { keys: vec![self.public.clone()] }
    }

    /// The public key as DER, as a forger would use it for a secret.
    pub(crate) fn public_der(&self) -> Vec<u8> {
        AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(self.pair.public_key()).unwrap().as_ref().to_vec()
    }

    pub(crate) fn sign_with(&self, scheme: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(scheme, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    /// A token of these very texts, correctly signed.
    pub(crate) fn token_of(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.sign_with(&RSA_PKCS1_SHA256, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    /// A good token.
    pub(crate) fn good(&self) -> String {
        self.token(&self.header(), &claims())
    }

    pub(crate) fn header(&self) -> Value {
        json!({"typ": "at+jwt", "alg": "RS256", "kid": self.public.kid})
    }
}

/// The claims of a good token.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": ACCOUNT, "client_id": "bowerbird", "iat": NOW - 10, "exp": NOW + 290,
        "jti": "0198c0de-0000-7000-8000-00000000000c", "sid": SESSION, "role": "user",
    })
}
