//! The two kinds of token: access tokens are signed claims (RFC 9068), refresh tokens are random numbers.

use aws_lc_rs::{digest, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bowerbird_nats::{AccountId, SessionId, account::Role};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::keyring::{SignError, Signer};

/// `typ` of an access token.
const ACCESS_TYPE: &str = "at+jwt";
/// `client_id`: there is one client, ourselves.
const CLIENT_ID: &str = "bowerbird";
/// What a refresh token starts with, so that people and secret scanners know it when they see one.
const REFRESH_PREFIX: &str = "bbr_";
/// 256 bits.
const REFRESH_BYTES: usize = 32;

/// Signs access tokens. Cheap to clone.
#[derive(Clone)]
pub(super) struct AccessTokens {
    pub(super) signer: Signer,
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) lifetime: time::Duration,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: AccountId,
    client_id: &'static str,
    iat: i64,
    exp: i64,
    jti: Uuid,
    sid: SessionId,
    role: Role,
}

impl AccessTokens {
    /// A token that lets its bearer be `account`. Signs on a blocking thread, as it takes milliseconds of a core.
    pub(super) async fn issue(
        &self,
        jti: Uuid,
        account: AccountId,
        session: SessionId,
        role: Role,
        now: OffsetDateTime,
    ) -> Result<String, SignError> {
        let this = self.clone();
        let sign = move || {
            let claims = Claims {
                iss: &this.issuer,
                aud: &this.audience,
                sub: account,
                client_id: CLIENT_ID,
                iat: now.unix_timestamp(),
                exp: (now + this.lifetime).unix_timestamp(),
                jti,
                sid: session,
                role,
            };
            this.signer.sign(ACCESS_TYPE, &claims)
        };
        tokio::task::spawn_blocking(sign).await.map_err(|_| SignError::Refused)?
    }
}

/// SHA-256 of a refresh token: all that is kept of it.
pub(super) type RefreshHash = [u8; digest::SHA256_OUTPUT_LEN];

/// A new refresh token with its hash.
pub(super) fn new_refresh() -> Result<(Zeroizing<String>, RefreshHash), aws_lc_rs::error::Unspecified> {
    let mut random = Zeroizing::new([0; REFRESH_BYTES]);
    rand::fill(&mut random[..])?;
    let mut token = Zeroizing::new(String::with_capacity(64));
    token.push_str(REFRESH_PREFIX);
    URL_SAFE_NO_PAD.encode_string(&random[..], &mut token);
    let hash = hash(&token);
    Ok((token, hash))
}

/// The hash of a refresh token that somebody brings; `None` if it cannot be one of ours.
pub(super) fn read_refresh(text: &str) -> Option<RefreshHash> {
    let token = bare(text);
    let random = URL_SAFE_NO_PAD.decode(token.strip_prefix(REFRESH_PREFIX)?).ok()?;
    (random.len() == REFRESH_BYTES).then(|| hash(token))
}

/// A token without the `Bearer ` that people copy with it, and without white space around it.
pub(super) fn bare(text: &str) -> &str {
    let text = text.trim();
    match text.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token.trim_start(),
        _ => text,
    }
}

fn hash(token: &str) -> RefreshHash {
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_is_read_back_with_or_without_its_scheme() {
        let (token, hash) = new_refresh().unwrap();
        for text in [token.to_string(), format!("Bearer {}", *token), format!(" bearer   {} ", *token)] {
            assert_eq!(read_refresh(&text), Some(hash), "{text}");
        }
        assert_ne!(new_refresh().unwrap().1, hash);
        let (cut, longer) = (&token[..token.len() - 1], format!("{}A", *token));
        for wrong in ["", "Bearer ", "bbr_", cut, &longer, &token[4..], "eyJhbGciOiJub25lIn0.e30."] {
            assert_eq!(read_refresh(wrong), None, "{wrong}");
        }
    }
}
