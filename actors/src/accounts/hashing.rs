//! Password hashes: Argon2id (RFC 9106) in PHC form, on as many cores as are set, with a bounded queue.
//!
//! A hash takes its memory and a core for tens of milliseconds whoever asks, so its place in the queue is taken before
//! anything else of a login is done, and what does not fit is refused at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use bowerbird_config::Auth;
use bowerbird_nats::Problem;
use tokio::sync::Semaphore;
use tracing::error;
use zeroize::Zeroizing;

use crate::metrics::Meters;

/// Seconds after which another try makes sense when the queue is full.
const RETRY_AFTER_SECONDS: u64 = 2;

/// Computes password hashes. Cheap to clone; clones share cores and queue.
#[derive(Clone)]
pub struct Hashing(Arc<Inner>);

struct Inner {
    params: Params,
    /// The hash of a password that nobody has, with the present parameters.
    nobody: String,
    cores: Arc<Semaphore>,
    most: usize,
    taken: AtomicUsize,
    meters: Meters,
}

/// A place in the queue; given back when dropped.
pub struct Place(Hashing);

/// What a comparison gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It is the password.
    pub matches: bool,
    /// The hash was made with parameters that are weaker than the present ones.
    pub outdated: bool,
}

/// Hashes cannot be computed with these settings.
#[derive(Debug, thiserror::Error)]
#[error("auth.argon2_memory_kib, auth.argon2_passes and auth.argon2_lanes are not parameters of Argon2id: {0}")]
pub struct BadParameters(String);

impl Hashing {
    /// Hashing with the parameters of the settings. Computes one hash.
    pub fn new(settings: &Auth, meters: Meters) -> Result<Self, BadParameters> {
        let refused = |error: argon2::Error| BadParameters(error.to_string());
        let params =
            Params::new(settings.argon2_memory_kib, settings.argon2_passes, settings.argon2_lanes, None).map_err(refused)?;
        let mut password = [0; 32];
        aws_lc_rs::rand::fill(&mut password).map_err(|_| BadParameters("the system gives no random numbers".into()))?;
        let nobody = hash(&params, &password).map_err(BadParameters)?;
        let cores = match settings.hash_concurrency {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cores => cores,
        };
        Ok(Hashing(Arc::new(Inner {
            params,
            nobody,
            cores: Arc::new(Semaphore::new(cores)),
            most: cores + settings.hash_queue,
            taken: AtomicUsize::new(0),
            meters,
        })))
    }

    /// Hashes that may run or wait at once.
    pub fn most(&self) -> usize {
        self.0.most
    }

    /// Take a place, or be told to come back.
    pub fn place(&self) -> Result<Place, Problem> {
        let room = |taken: usize| (taken < self.0.most).then_some(taken + 1);
        if self.0.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_err() {
            self.0.meters.0.hashes_refused.inc();
            return Err(Problem::unavailable("too many logins are waiting; try again in a moment", RETRY_AFTER_SECONDS));
        }
        self.0.meters.0.hashes_waiting.inc();
        Ok(Place(self.clone()))
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> Result<T, Problem> {
        let core = Arc::clone(&self.0.cores).acquire_owned().await.map_err(|_| Problem::internal())?;
        let this = Arc::clone(&self.0);
        // The core is held by the thread, not by the request: a caller that leaves must not make room for one hash too many.
        let computed = tokio::task::spawn_blocking(move || {
            let result = work(&this);
            drop(core);
            result
        })
        .await;
        self.0.meters.0.hashes.inc();
        computed.map_err(|error| {
            error!(%error, "a password hash was not computed");
            Problem::internal()
        })
    }
}

impl Place {
    /// The PHC string to store.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, Problem> {
        let hashed = self.0.compute(move |this| hash(&this.params, password.as_bytes())).await?;
        hashed.map_err(|error| {
            error!(error, "a password hash was not computed");
            Problem::internal()
        })
    }

    /// Compare with a stored PHC string. Without one the same work is done, and it never matches: nobody learns from the
    /// time of an answer whether an account exists.
    pub async fn verify(&self, password: Zeroizing<String>, stored: Option<String>) -> Result<Verdict, Problem> {
        let verdict = move |this: &Inner| {
            let exists = stored.is_some();
            let parsed = PasswordHash::new(stored.as_deref().unwrap_or(&this.nobody)).ok();
            let matches =
                parsed.as_ref().is_some_and(|parsed| Argon2::default().verify_password(password.as_bytes(), parsed).is_ok());
            let outdated = parsed.is_none_or(|parsed| is_weaker(&parsed, &this.params));
            Verdict { matches: matches && exists, outdated }
        };
        self.0.compute(verdict).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.0.meters.0.hashes_waiting.dec();
    }
}

fn hash(params: &Params, password: &[u8]) -> Result<String, String> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    // The salt is 16 random bytes of the system.
    let hash: PasswordHash = argon2.hash_password(password).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

fn is_weaker(stored: &PasswordHash, params: &Params) -> bool {
    if stored.algorithm != Algorithm::Argon2id.ident() {
        return true;
    }
    Params::try_from(stored).map_or(true, |stored| stored.m_cost() < params.m_cost() || stored.t_cost() < params.t_cost())
}

#[cfg(test)]
mod tests {
    use bowerbird_config::Settings;
    use bowerbird_lifecycle::Metrics;
    use bowerbird_nats::Code;

    use super::*;

    fn hashing(overrides: &str) -> Hashing {
        let settings = Settings::with_overrides(&format!("[auth]\n{overrides}")).unwrap();
        Hashing::new(&settings.auth, Meters::register(&Metrics::default())).unwrap()
    }

    fn password(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_matches_its_own_hash_and_the_hash_says_how_it_was_made() {
        let hashing = hashing("");
        let place = hashing.place().unwrap();
        let hash = place.hash(password("correct horse battery staple")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, place.hash(password("correct horse battery staple")).await.unwrap());
        let good = place.verify(password("correct horse battery staple"), Some(hash.clone())).await.unwrap();
        assert_eq!(good, Verdict { matches: true, outdated: false });
        assert!(!place.verify(password("correct horse battery stable"), Some(hash)).await.unwrap().matches);
        assert!(!place.verify(password("anything"), None).await.unwrap().matches);
    }

    #[tokio::test]
    async fn a_hash_with_weaker_parameters_is_called_outdated() {
        let weak = hashing("argon2_memory_kib = 64").place().unwrap().hash(password("a")).await.unwrap();
        let verdict =
            hashing("argon2_memory_kib = 128").place().unwrap().verify(password("a"), Some(weak.clone())).await.unwrap();
        assert_eq!(verdict, Verdict { matches: true, outdated: true });
        let verdict = hashing("argon2_memory_kib = 64").place().unwrap().verify(password("a"), Some(weak)).await.unwrap();
        assert_eq!(verdict, Verdict { matches: true, outdated: false });
    }

    #[tokio::test]
    async fn what_does_not_fit_the_queue_is_refused_at_once_and_places_come_back() {
        let hashing = hashing("hash_concurrency = 1\nhash_queue = 2");
        let places: Vec<Place> = (0..3).map(|_| hashing.place().unwrap()).collect();
        let refused = hashing.place().err().expect("the queue is full");
        assert_eq!((refused.code, refused.retry_after), (Code::Unavailable, Some(2)));
        drop(places);
        assert!(hashing.place().is_ok());
    }
}
