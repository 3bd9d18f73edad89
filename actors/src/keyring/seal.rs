//! Private keys as they are stored: encrypted under a key made of the master key, bound to their `kid`.

use zeroize::Zeroizing;

use crate::seal;

/// What the master key is made into here.
const PURPOSE: &str = "bowerbird signing keys v1";

/// Encrypts and decrypts private keys. Cheap to clone.
#[derive(Clone)]
pub(super) struct Seal(seal::Seal);

/// A private key cannot be encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The cipher refused; that is a fault of ours.
    #[error("a signing key could not be encrypted")]
    Close,
    /// Another master key, or bytes that were changed.
    #[error(
        "the stored signing key {0} does not decrypt: the master key is not the one that it was stored with; put the right one into auth.master_key_file"
    )]
    Open(String),
}

impl Seal {
    /// The seal of this installation.
    pub(super) fn new(master_key: &[u8; 32]) -> Result<Self, Error> {
        seal::Seal::new(master_key, PURPOSE).map(Seal).map_err(|_| Error::Close)
    }

    /// As it is stored: nonce, ciphertext, tag.
    pub(super) fn close(&self, kid: &str, private: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.close(kid.as_bytes(), private).map_err(|_| Error::Close)
    }

    /// As it was. Wiped when dropped.
    pub(super) fn open(&self, kid: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.0.open(kid.as_bytes(), sealed).map_err(|_| Error::Open(kid.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_only_under_its_name_and_its_master_key() {
        let seal = Seal::new(&[7; 32]).unwrap();
        let sealed = seal.close("one", b"a private key").unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"private"));
        assert_eq!(&**seal.open("one", &sealed).unwrap(), b"a private key");
        assert!(seal.open("two", &sealed).is_err());
        assert!(Seal::new(&[8; 32]).unwrap().open("one", &sealed).is_err());
        for cut in 0..sealed.len() {
            assert!(seal.open("one", &sealed[..cut]).is_err());
        }
    }
}
