//! What the links in e-mails carry. Both kinds are made of the master key and of what they are for, so that an e-mail that is
//! sent again carries the same, and nothing that could be used lies in the database.

use aws_lc_rs::{constant_time, digest, hmac};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bowerbird_nats::AccountId;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::cursor::derive;

/// Longest text that is looked at.
const LONGEST: usize = 128;
/// Bytes of the code in an unsubscribing token that are kept: 128 bits, to turn off somebody's e-mail at worst.
const UNSUBSCRIBE_CODE_BYTES: usize = 16;

/// SHA-256 of a verification token: all that is kept of it.
pub(crate) type TokenHash = [u8; digest::SHA256_OUTPUT_LEN];

/// Makes and reads tokens. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tokens {
    verification: hmac::Key,
    unsubscribing: hmac::Key,
}

impl Tokens {
    /// Tokens of this installation; all nodes have the same master key.
    pub(crate) fn new(master_key: &[u8; 32]) -> Self {
        let key = |purpose| hmac::Key::new(hmac::HMAC_SHA256, derive(master_key, purpose).as_ref());
        Tokens { verification: key("bowerbird e-mail verification v1"), unsubscribing: key("bowerbird unsubscribing v1") }
    }

    /// The token by which the owner of this account proves to read this address: 256 bits, for one e-mail.
    pub(crate) fn verification(&self, email_id: Uuid, account: AccountId, address: &str) -> Zeroizing<String> {
        let mut context = hmac::Context::with_key(&self.verification);
        context.update(email_id.as_bytes());
        context.update(account.0.as_bytes());
        context.update(address.as_bytes());
        Zeroizing::new(URL_SAFE_NO_PAD.encode(context.sign()))
    }

    /// The token that turns off the e-mail of this account, and can do nothing else. It does not expire: an e-mail of last
    /// year must be able to do it.
    pub(crate) fn unsubscribing(&self, account: AccountId) -> String {
        let mut bytes = account.0.as_bytes().to_vec();
        bytes.extend(self.unsubscribing_code(account));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whose e-mail a token turns off; `None` if it is none of ours.
    pub(crate) fn read_unsubscribing(&self, token: &str) -> Option<AccountId> {
        let bytes = decode(token)?;
        let (id, code) = bytes.split_at_checked(16)?;
        let account = AccountId(Uuid::from_slice(id).ok()?);
        constant_time::verify_slices_are_equal(&self.unsubscribing_code(account), code).ok()?;
        Some(account)
    }

    fn unsubscribing_code(&self, account: AccountId) -> Vec<u8> {
        hmac::sign(&self.unsubscribing, account.0.as_bytes()).as_ref()[..UNSUBSCRIBE_CODE_BYTES].to_vec()
    }
}

/// The hash of a verification token that somebody brings; `None` if it cannot be one.
pub(crate) fn hash(token: &str) -> Option<TokenHash> {
    let bytes = decode(token)?;
    if bytes.len() != digest::SHA256_OUTPUT_LEN {
        return None;
    }
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
    Some(hash)
}

fn decode(token: &str) -> Option<Vec<u8>> {
    if token.len() > LONGEST { None } else { URL_SAFE_NO_PAD.decode(token).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verification_token_is_of_one_email_account_and_address() {
        let tokens = Tokens::new(&[7; 32]);
        let (email, account) = (Uuid::from_u128(1), AccountId(Uuid::from_u128(2)));
        let token = tokens.verification(email, account, "a@example.org");
        assert_eq!(*token, *tokens.verification(email, account, "a@example.org"), "sent again it is the same");
        for other in [
            tokens.verification(Uuid::from_u128(3), account, "a@example.org"),
            tokens.verification(email, AccountId(Uuid::from_u128(3)), "a@example.org"),
            tokens.verification(email, account, "b@example.org"),
            Tokens::new(&[8; 32]).verification(email, account, "a@example.org"),
        ] {
            assert_ne!(hash(&other), hash(&token));
        }
        assert!(hash(&token).is_some());
        for wrong in ["", "AAAA", &token[1..], &format!("{}A", *token), &"A".repeat(1000), "ä"] {
            assert_eq!(hash(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_unsubscribing_token_names_its_account_and_cannot_be_altered() {
        let tokens = Tokens::new(&[7; 32]);
        let account = AccountId(Uuid::from_u128(0x0198_c0de_7a2b_7c3d_8e4f_0123_4567_89ab));
        let token = tokens.unsubscribing(account);
        assert_eq!(tokens.read_unsubscribing(&token), Some(account));
        assert_eq!(Tokens::new(&[8; 32]).read_unsubscribing(&token), None);
        for position in 0..token.len() {
            let mut altered = token.clone().into_bytes();
            altered[position] = if altered[position] == b'B' { b'C' } else { b'B' };
            let altered = String::from_utf8(altered).unwrap();
            if altered != token {
                assert_eq!(tokens.read_unsubscribing(&altered), None, "{altered}");
            }
        }
        assert_eq!(tokens.read_unsubscribing(""), None);
    }
}
