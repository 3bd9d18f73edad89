//! Secrets as they are stored: AES-256-GCM under a key made of the master key for one purpose, each bound to the row that
//! it belongs to, so that it cannot be moved to another.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::cursor::derive;

/// Encrypts and decrypts secrets of one purpose. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Seal(Arc<RandomizedNonceKey>);

/// The cipher refused: a fault of ours when closing; another master key or altered bytes when opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cipher refused")]
pub(crate) struct Refused;

impl Seal {
    /// The seal of this installation for `purpose`. A secret of one purpose says nothing about another's.
    pub(crate) fn new(master_key: &[u8; 32], purpose: &str) -> Result<Self, Refused> {
        let key = derive(master_key, purpose);
        Ok(Seal(Arc::new(RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).map_err(|_| Refused)?)))
    }

    /// As it is stored: nonce, ciphertext, tag.
    pub(crate) fn close(&self, bound_to: &[u8], secret: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut text = secret.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(bound_to), &mut text).map_err(|_| Refused)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// As it was. Wiped when dropped.
    pub(crate) fn open(&self, bound_to: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(Refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Refused)?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(bound_to), &mut text).map_err(|_| Refused)?.len();
        text.truncate(length);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_where_it_belongs_and_for_its_purpose() {
        let seal = Seal::new(&[7; 32], "one purpose").unwrap();
        let sealed = seal.close(b"row", b"a secret thing").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_ne!(sealed, seal.close(b"row", b"a secret thing").unwrap(), "each has a nonce of its own");
        assert_eq!(&**seal.open(b"row", &sealed).unwrap(), b"a secret thing");
        assert!(seal.open(b"another row", &sealed).is_err());
        for other in [Seal::new(&[8; 32], "one purpose"), Seal::new(&[7; 32], "another purpose")] {
            assert!(other.unwrap().open(b"row", &sealed).is_err());
        }
        for cut in 0..sealed.len() {
            assert!(seal.open(b"row", &sealed[..cut]).is_err());
        }
    }
}
