//! Who is asking: access tokens (RFC 9068) verified in memory, as strictly as RFC 8725 wants it.
//!
//! The keys come from the bucket `KEYS` and nowhere else; nothing that a token says is ever fetched or looked up but in
//! the map of those keys. A verified token is remembered by its SHA-256 until it expires or the keys change.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use moka::sync::Cache;
use serde::{Deserialize, de::IgnoredAny};
use time::OffsetDateTime;
use tracing::warn;
use uuid::Uuid;

use crate::{
    account::Role,
    id::{AccountId, SessionId},
    key::{KeySet, PublicKey},
    problem::{Code, Problem},
};

/// Longest token that is looked at.
const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// How far the clocks of two machines may be apart.
const LEEWAY: time::Duration = time::Duration::seconds(5);
/// Verified tokens that are remembered.
const REMEMBERED_MAX: u64 = 50_000;
/// No verdict is older than this, whatever the token says.
const REMEMBERED_FOR: Duration = Duration::from_mins(15);
/// `client_id` of the tokens that are made here.
const CLIENT_ID: &str = "bowerbird";
/// Smallest modulus that is believed.
const MODULUS_MIN_BYTES: usize = 256;
/// Largest modulus that is believed: a verification with more costs too much.
const MODULUS_MAX_BYTES: usize = 1024;

/// Who asks, as a valid token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub account_id: AccountId,
    /// The session.
    pub session_id: SessionId,
    /// What the account may do.
    pub role: Role,
    /// When the token expires.
    pub expires_at: OffsetDateTime,
}

/// Verifies access tokens. Cheap to clone; clones share keys and memory.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    issuer: String,
    audience: String,
    now: Arc<dyn Fn() -> OffsetDateTime + Send + Sync>,
    keys: RwLock<Arc<Keys>>,
    remembered: Cache<[u8; 32], Remembered>,
}

#[derive(Default)]
struct Keys {
    /// Goes up with each change, so that a verdict under older keys is not believed.
    generation: u64,
    set: KeySet,
    by_kid: HashMap<String, DecodingKey>,
}

#[derive(Clone, Copy)]
struct Remembered {
    caller: Caller,
    generation: u64,
}

/// The JOSE header. What could lead somewhere else (`jku`, `jwk`, `x5u`) is not even read.
#[derive(Deserialize)]
struct Header {
    typ: String,
    alg: String,
    kid: String,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: AccountId,
    client_id: String,
    exp: i64,
    iat: i64,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<i64>,
    #[serde(rename = "jti")]
    _jti: Uuid,
    sid: SessionId,
    role: Role,
}

/// A number if the claim is there at all; `null` is no number.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    i64::deserialize(deserializer).map(Some)
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("issuer", &self.0.issuer).field("audience", &self.0.audience).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier without keys: until [`Verifier::set_keys`] nothing is valid.
    pub fn new(issuer: String, audience: String, now: Arc<dyn Fn() -> OffsetDateTime + Send + Sync>) -> Verifier {
        Verifier(Arc::new(Inner {
            issuer,
            audience,
            now,
            keys: RwLock::default(),
            remembered: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED_FOR).build(),
        }))
    }

    /// Replaces the keys. Tokens of keys that are gone stop verifying at once. A key that is not RS256 with a modulus of
    /// 2048 to 8192 bits is left out.
    pub fn set_keys(&self, set: &KeySet) {
        let mut by_kid = HashMap::with_capacity(set.keys.len());
        let mut usable = KeySet::default();
        for key in &set.keys {
            match decoding_key(key) {
                Ok(decoding) => {
                    by_kid.insert(key.kid.clone(), decoding);
                    usable.keys.push(key.clone());
                }
                Err(reason) => warn!(kid = key.kid, reason, "a signing key is not usable and was left out"),
            }
        }
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.set == usable {
            return;
        }
        *keys = Arc::new(Keys { generation: keys.generation + 1, set: usable, by_kid });
        drop(keys);
        self.0.remembered.invalidate_all();
    }

    /// The keys, for `/.well-known/jwks.json`.
    pub fn key_set(&self) -> KeySet {
        self.keys().set.clone()
    }

    /// Whose token it is; `token_expired` when only its time is over, `unauthorized` for everything else.
    pub fn verify(&self, token: &str) -> Result<Caller, Problem> {
        if token.len() > TOKEN_MAX_BYTES || !token.bytes().all(is_token_byte) {
            return Err(invalid());
        }
        let digest = sha256(&[token.as_bytes()]);
        let keys = self.keys();
        if let Some(remembered) = self.0.remembered.get(&digest)
            && remembered.generation == keys.generation
        {
            return self.in_time(remembered.caller);
        }
        let caller = self.check(token, &keys).ok_or_else(invalid)?;
        let caller = self.in_time(caller)?;
        self.0.remembered.insert(digest, Remembered { caller, generation: keys.generation });
        Ok(caller)
    }

    /// How long the token of this caller is still good.
    pub fn time_left(&self, caller: &Caller) -> Duration {
        Duration::try_from(caller.expires_at - self.now()).unwrap_or_default()
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        (self.0.now)()
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.0.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn in_time(&self, caller: Caller) -> Result<Caller, Problem> {
        if self.now() < caller.expires_at + LEEWAY {
            return Ok(caller);
        }
        Err(Problem::new(Code::TokenExpired, "the access token has expired; get a new one with the refresh token"))
    }

    /// Everything but the expiry.
    fn check(&self, token: &str, keys: &Keys) -> Option<Caller> {
        let (header, rest) = token.split_once('.')?;
        if rest.matches('.').count() != 1 {
            return None;
        }
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.alg != "RS256" || header.crit.is_some() || !is_access_token(&header.typ) {
            return None;
        }
        let key = keys.by_kid.get(&header.kid)?;

        // Times are compared here, with the clock that was handed in; the library would ask the machine's.
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.set_issuer(&[&self.0.issuer]);
        validation.set_audience(&[&self.0.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, key, &validation).ok()?.claims;

        let now = self.now();
        let issued_at = OffsetDateTime::from_unix_timestamp(claims.iat).ok()?;
        let expires_at = OffsetDateTime::from_unix_timestamp(claims.exp).ok()?;
        let not_before = claims.nbf.map_or(Ok(issued_at), OffsetDateTime::from_unix_timestamp).ok()?;
        let fits = claims.iss == self.0.issuer
            && claims.aud == self.0.audience
            && claims.client_id == CLIENT_ID
            && issued_at < expires_at
            && issued_at <= now + LEEWAY
            && not_before <= now + LEEWAY;
        fits.then_some(Caller { account_id: claims.sub, session_id: claims.sid, role: claims.role, expires_at })
    }
}

/// RFC 9068 §4: both spellings name the same type.
fn is_access_token(typ: &str) -> bool {
    typ.eq_ignore_ascii_case("at+jwt") || typ.eq_ignore_ascii_case("application/at+jwt")
}

/// RFC 8725: nothing but what base64url and the dots are made of.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn invalid() -> Problem {
    // The same for every fault: what exactly is wrong helps only those who forge.
    Problem::new(Code::Unauthorized, "the access token is not valid")
}

fn decoding_key(key: &PublicKey) -> Result<DecodingKey, &'static str> {
    if key.kty != "RSA" || key.alg != "RS256" || key.usage != "sig" {
        return Err("only RSA keys for RS256 signatures are");
    }
    if key.kid.is_empty() {
        return Err("it has no kid");
    }
    let modulus = URL_SAFE_NO_PAD.decode(&key.n).map_err(|_| "its modulus is not base64url")?;
    if !(MODULUS_MIN_BYTES..=MODULUS_MAX_BYTES).contains(&modulus.len()) || modulus.first() == Some(&0) {
        return Err("its modulus is not of 2048 to 8192 bits");
    }
    DecodingKey::from_rsa_components(&key.n, &key.e).map_err(|_| "its modulus or exponent is not a number")
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

pub(crate) fn sha256_hex(parts: &[&[u8]]) -> String {
    use std::fmt::Write as _;
    sha256(parts).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
