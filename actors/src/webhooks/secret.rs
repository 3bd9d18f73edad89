//! Secrets that messages are signed with, and how they and the URLs of webhooks are stored.

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bowerbird_nats::WebhookId;
use zeroize::Zeroizing;

use crate::seal;

/// Bytes of a secret. Standard Webhooks wants 24 to 64.
pub(crate) const SECRET_BYTES: usize = 32;
/// What a secret as text begins with (Standard Webhooks).
const PREFIX: &str = "whsec_";

/// Something of a webhook cannot be encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The cipher or the source of random bytes refused; that is a fault of ours.
    #[error("a secret of a webhook could not be made or encrypted")]
    Make,
    /// Another master key, or bytes that were changed.
    #[error(
        "a stored webhook does not decrypt: the master key is not the one that it was stored with (auth.master_key_file), or the row was changed"
    )]
    Open,
}

/// A secret in clear. Wiped when dropped.
pub(crate) struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// New random bytes.
    pub(crate) fn random() -> Result<Self, Error> {
        let mut bytes = Zeroizing::new(vec![0; SECRET_BYTES]);
        rand::fill(&mut bytes).map_err(|_| Error::Make)?;
        Ok(Secret(bytes))
    }

    /// As its owner is shown it, and as the libraries of Standard Webhooks take it.
    pub(crate) fn text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&*self.0))
    }

    /// The key.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Encrypts and decrypts what is secret of a webhook. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Seal(seal::Seal);

impl Seal {
    /// The seal of this installation.
    pub(crate) fn new(master_key: &[u8; 32]) -> Result<Self, Error> {
        seal::Seal::new(master_key, "bowerbird webhooks v1").map(Seal).map_err(|_| Error::Make)
    }

    /// A secret as it is stored.
    pub(crate) fn close_secret(&self, id: WebhookId, secret: &Secret) -> Result<Vec<u8>, Error> {
        self.0.close(&bound_to(id, b"secret"), secret.bytes()).map_err(|_| Error::Make)
    }

    /// A secret as it was.
    pub(crate) fn open_secret(&self, id: WebhookId, sealed: &[u8]) -> Result<Secret, Error> {
        self.0.open(&bound_to(id, b"secret"), sealed).map(Secret).map_err(|_| Error::Open)
    }

    /// A URL as it is stored.
    pub(crate) fn close_url(&self, id: WebhookId, url: &str) -> Result<Vec<u8>, Error> {
        self.0.close(&bound_to(id, b"url"), url.as_bytes()).map_err(|_| Error::Make)
    }

    /// A URL as it was.
    pub(crate) fn open_url(&self, id: WebhookId, sealed: &[u8]) -> Result<String, Error> {
        let url = self.0.open(&bound_to(id, b"url"), sealed).map_err(|_| Error::Open)?;
        String::from_utf8(url.to_vec()).map_err(|_| Error::Open)
    }
}

fn bound_to(id: WebhookId, what: &[u8]) -> Vec<u8> {
    [id.0.as_bytes(), what].concat()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_secret_is_of_the_form_that_the_libraries_take_and_new_each_time() {
        let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        let encoded = one.text().strip_prefix("whsec_").unwrap().to_owned();
        assert_eq!(STANDARD.decode(encoded).unwrap(), one.bytes());
        assert_eq!(one.bytes().len(), 32);
        assert_ne!(one.text(), other.text());
    }

    #[test]
    fn what_is_stored_opens_only_as_what_it_is_and_where_it_belongs() {
        let seal = Seal::new(&[7; 32]).unwrap();
        let (id, other) = (WebhookId(Uuid::from_u128(1)), WebhookId(Uuid::from_u128(2)));
        let secret = Secret::random().unwrap();
        let sealed = seal.close_secret(id, &secret).unwrap();
        assert_eq!(seal.open_secret(id, &sealed).unwrap().text(), secret.text());
        assert!(seal.open_secret(other, &sealed).is_err());
        assert!(seal.open_url(id, &sealed).is_err(), "a secret is never taken for a URL, which is shown");
        let url = seal.close_url(id, "https://example.org/?token=hunter2").unwrap();
        assert!(!url.windows(6).any(|window| window == b"hunter"));
        assert_eq!(seal.open_url(id, &url).unwrap(), "https://example.org/?token=hunter2");
    }
}
