//! Sources as they are stored: encrypted, because links and headers carry secrets of the people who hand them in.
//!
//! AES-256-GCM under a key made of the master key for this one purpose, bound to the download's id, so that a row's
//! source cannot be moved to another row.

use std::collections::BTreeMap;

use bowerbird_nats::DownloadId;
use serde::{Deserialize, Serialize};

use crate::seal;

/// First byte of what is stored, should the form ever change.
const VERSION: u8 = 1;

/// Where to fetch from, and what to say there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// The URL, whole.
    pub(crate) url: String,
    /// Request headers.
    pub(crate) headers: BTreeMap<String, String>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source(..)")
    }
}

/// Encrypts and decrypts sources. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Seal(seal::Seal);

/// A source cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The cipher refused; that is a fault of ours.
    #[error("a source could not be encrypted")]
    Encrypt,
    /// Another master key, or bytes that were changed.
    #[error(
        "a stored source does not decrypt: the master key is not the one that it was stored with (auth.master_key_file), or the row was changed"
    )]
    Decrypt,
}

impl Seal {
    /// The seal of this installation.
    pub(crate) fn new(master_key: &[u8; 32]) -> Result<Self, Error> {
        seal::Seal::new(master_key, "bowerbird download sources v1").map(Seal).map_err(|_| Error::Encrypt)
    }

    /// As it is stored.
    pub(crate) fn close(&self, id: DownloadId, source: &Source) -> Result<Vec<u8>, Error> {
        let text = serde_json::to_vec(source).map_err(|_| Error::Encrypt)?;
        let mut sealed = vec![VERSION];
        sealed.append(&mut self.0.close(id.0.as_bytes(), &text).map_err(|_| Error::Encrypt)?);
        Ok(sealed)
    }

    /// As it was given.
    pub(crate) fn open(&self, id: DownloadId, sealed: &[u8]) -> Result<Source, Error> {
        let (&version, rest) = sealed.split_first().ok_or(Error::Decrypt)?;
        if version != VERSION {
            return Err(Error::Decrypt);
        }
        let text = self.0.open(id.0.as_bytes(), rest).map_err(|_| Error::Decrypt)?;
        serde_json::from_slice(&text).map_err(|_| Error::Decrypt)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_stored_source_shows_nothing_and_opens_only_where_it_belongs() {
        let seal = Seal::new(&[3; 32]).unwrap();
        let (id, other) = (DownloadId(Uuid::from_u128(1)), DownloadId(Uuid::from_u128(2)));
        let source = Source {
            url: "https://example.org/a?token=hunter2".to_owned(),
            headers: BTreeMap::from([("authorization".to_owned(), "Bearer hunter3".to_owned())]),
        };
        let sealed = seal.close(id, &source).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"hunter" || window == b"exampl"));
        assert_ne!(sealed, seal.close(id, &source).unwrap(), "each has a nonce of its own");
        assert_eq!(seal.open(id, &sealed).unwrap(), source);
        assert!(seal.open(other, &sealed).is_err());
        assert!(Seal::new(&[4; 32]).unwrap().open(id, &sealed).is_err());
        for cut in 0..sealed.len() {
            assert!(seal.open(id, &sealed[..cut]).is_err());
        }
        assert!(!format!("{source:?}").contains("hunter"));
    }
}
