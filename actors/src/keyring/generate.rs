//! New RSA key pairs. The one place that uses the `rsa` crate, and only to generate and export: what signs and verifies
//! is aws-lc-rs.

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bowerbird_nats::key::PublicKey;
use rsa::{RsaPrivateKey, pkcs8::EncodePrivateKey as _, rand_core, traits::PublicKeyParts as _};
use zeroize::Zeroizing;

/// 128 bits of security (OWASP ASVS 11.2.3).
const MODULUS_BITS: usize = 3072;

/// A new key pair. The private part is wiped when it is dropped.
pub(super) struct KeyPair {
    /// What verifiers get.
    pub(super) public: PublicKey,
    /// PKCS#8 DER.
    pub(super) private: Zeroizing<Vec<u8>>,
}

/// A key pair could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No primes were found; that is a fault.
    #[error("no RSA key pair could be generated")]
    Generate(#[from] rsa::Error),
    /// It cannot be written as PKCS#8.
    #[error("the new RSA key cannot be exported")]
    Export(#[from] rsa::pkcs8::Error),
}

/// Make a key pair. Takes a second or so of one core: call it on a blocking thread.
pub(super) fn generate() -> Result<KeyPair, Error> {
    let key = RsaPrivateKey::new(&mut SystemRandomness, MODULUS_BITS)?;
    let n = URL_SAFE_NO_PAD.encode(key.n().to_bytes_be());
    let e = URL_SAFE_NO_PAD.encode(key.e().to_bytes_be());
    let private = Zeroizing::new(key.to_pkcs8_der()?.as_bytes().to_vec());
    Ok(KeyPair { public: public_key(n, e), private })
}

/// The public key of this modulus and exponent (base64url), named by its thumbprint.
pub(super) fn public_key(n: String, e: String) -> PublicKey {
    PublicKey { kid: thumbprint(&n, &e), kty: "RSA".into(), usage: "sig".into(), alg: "RS256".into(), n, e }
}

/// RFC 7638: SHA-256 over the required members in lexical order, without white space.
fn thumbprint(n: &str, e: &str) -> String {
    let members = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, members.as_bytes()))
}

/// The system's random numbers in the shape that `rsa` asks for.
struct SystemRandomness;

impl rand_core::CryptoRng for SystemRandomness {}

impl rand_core::RngCore for SystemRandomness {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_ne_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_ne_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        // A key made of anything but random numbers would be worse than none.
        assert!(aws_lc_rs::rand::fill(bytes).is_ok(), "the system gives no random numbers");
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents},
    };

    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_the_example_in_rfc_7638() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
                 tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbI\
                 SD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        assert_eq!(thumbprint(n, "AQAB"), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_new_key_signs_what_its_public_part_verifies() {
        let pair = generate().unwrap();
        let signer = RsaKeyPair::from_pkcs8(&pair.private).unwrap();
        assert_eq!(signer.public_modulus_len(), MODULUS_BITS / 8);
        let mut signature = vec![0; signer.public_modulus_len()];
        signer.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), b"a fact", &mut signature).unwrap();
        let n = URL_SAFE_NO_PAD.decode(&pair.public.n).unwrap();
        let e = URL_SAFE_NO_PAD.decode(&pair.public.e).unwrap();
        let public = RsaPublicKeyComponents { n: &n, e: &e };
        assert!(public.verify(&RSA_PKCS1_2048_8192_SHA256, b"a fact", &signature).is_ok());
        assert!(public.verify(&RSA_PKCS1_2048_8192_SHA256, b"a lie", &signature).is_err());
    }
}
