//! When a key is made, begins to sign, stops to sign and stops to verify. Nothing but arithmetic.
//!
//! `pending → active → retiring → gone`: a key is published for `overlap` before its first signature and for `overlap`
//! after its last, so that a verifier whose copy of the set is up to `overlap` old refuses no valid token.

use time::{Duration, OffsetDateTime};

/// State of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Published, does not sign yet.
    Pending,
    /// Signs.
    Active,
    /// Signs no more, still verifies.
    Retiring,
    /// Does nothing any more.
    Gone,
}

impl State {
    /// As it is stored.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Active => "active",
            State::Retiring => "retiring",
            State::Gone => "gone",
        }
    }
}

/// What the schedule needs to know of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dates {
    /// The key.
    pub(super) kid: String,
    /// Its state.
    pub(super) state: State,
    /// When it was made and published.
    pub(super) created_at: OffsetDateTime,
    /// When it began to sign.
    pub(super) activated_at: Option<OffsetDateTime>,
    /// When it stopped to sign.
    pub(super) retired_at: Option<OffsetDateTime>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make a key and publish it in this state: the first of all signs at once, since nobody holds an older set.
    Create(State),
    /// Let this pending key sign; the active one, if any, retires.
    Activate(String),
    /// Forget this key.
    Remove(String),
}

/// The rhythm, from the settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    /// A new key signs this often.
    pub(super) interval: Duration,
    /// Published for so long before it signs, and after.
    pub(super) overlap: Duration,
}

/// What is to be done now. Doing it and asking again gives nothing more.
pub(super) fn plan(keys: &[Dates], rhythm: Rhythm, now: OffsetDateTime) -> Vec<Step> {
    let mut steps: Vec<Step> = keys
        .iter()
        .filter(|key| key.state == State::Retiring && key.retired_at.is_none_or(|retired| retired + rhythm.overlap <= now))
        .map(|key| Step::Remove(key.kid.clone()))
        .collect();
    let pending = keys.iter().find(|key| key.state == State::Pending);
    let active = keys.iter().find(|key| key.state == State::Active);
    match (active, pending) {
        (None, None) => steps.push(Step::Create(State::Active)),
        // The active key was removed in an emergency: waiting for the overlap would mean signing with nothing.
        (None, Some(next)) => steps.push(Step::Activate(next.kid.clone())),
        (Some(active), next) => {
            let due = active.activated_at.unwrap_or(active.created_at) + rhythm.interval;
            match next {
                None if now >= due - rhythm.overlap => steps.push(Step::Create(State::Pending)),
                Some(next) if now >= due && now >= next.created_at + rhythm.overlap => {
                    steps.push(Step::Activate(next.kid.clone()));
                }
                _ => {}
            }
        }
    }
    steps
}

/// When there is something to do next, if nothing is done before. Past if something is to be done now.
pub(super) fn next(keys: &[Dates], rhythm: Rhythm) -> Option<OffsetDateTime> {
    let removals =
        keys.iter().filter(|key| key.state == State::Retiring).filter_map(|key| Some(key.retired_at? + rhythm.overlap));
    let pending = keys.iter().find(|key| key.state == State::Pending);
    let rotation = keys.iter().find(|key| key.state == State::Active).map(|active| {
        let due = active.activated_at.unwrap_or(active.created_at) + rhythm.interval;
        pending.map_or(due - rhythm.overlap, |next| due.max(next.created_at + rhythm.overlap))
    });
    removals.chain(rotation).min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Carries out a plan the way the store does.
    fn carry_out(keys: &mut Vec<Dates>, steps: Vec<Step>, now: OffsetDateTime) {
        for step in steps {
            match step {
                Step::Create(state) => keys.push(Dates {
                    kid: keys.len().to_string(),
                    state,
                    created_at: now,
                    activated_at: (state == State::Active).then_some(now),
                    retired_at: None,
                }),
                Step::Activate(kid) => {
                    for key in keys.iter_mut() {
                        if key.state == State::Active {
                            (key.state, key.retired_at) = (State::Retiring, Some(now));
                        }
                        if key.kid == kid {
                            (key.state, key.activated_at) = (State::Active, Some(now));
                        }
                    }
                }
                Step::Remove(kid) => {
                    keys.iter_mut().filter(|key| key.kid == kid).for_each(|key| key.state = State::Gone);
                }
            }
        }
    }

    fn published(keys: &[Dates]) -> Vec<String> {
        keys.iter().filter(|key| key.state != State::Gone).map(|key| key.kid.clone()).collect()
    }

    proptest! {
        /// Polls at any distance, verifiers whose set is up to half the overlap old, tokens that live for less than that.
        #[test]
        fn no_valid_token_is_refused_and_one_key_signs(
            interval in 100_i64..1000,
            overlap in 10_i64..100,
            polls in prop::collection::vec(1_i64..40, 50..150),
        ) {
            let rhythm = Rhythm { interval: Duration::seconds(interval), overlap: Duration::seconds(overlap) };
            let (lifetime, staleness) = (Duration::seconds(overlap / 2), Duration::seconds(overlap / 2));
            let mut now = OffsetDateTime::UNIX_EPOCH;
            let mut keys = Vec::new();
            let mut sets: Vec<(OffsetDateTime, Vec<String>)> = Vec::new();
            let mut signed: Vec<(OffsetDateTime, String)> = Vec::new();
            for wait in polls {
                let plan_now = plan(&keys, rhythm, now);
                carry_out(&mut keys, plan_now, now);
                prop_assert!(plan(&keys, rhythm, now).is_empty());
                let at = next(&keys, rhythm).unwrap();
                prop_assert!(at > now && plan(&keys, rhythm, at - Duration::microseconds(1)).is_empty());
                prop_assert!(!plan(&keys, rhythm, at).is_empty());
                prop_assert_eq!(keys.iter().filter(|key| key.state == State::Active).count(), 1);
                prop_assert!(keys.iter().filter(|key| key.state == State::Pending).count() <= 1);
                sets.push((now, published(&keys)));
                signed.push((now, keys.iter().find(|key| key.state == State::Active).unwrap().kid.clone()));
                now += Duration::seconds(wait);
            }
            let first = sets[0].0;
            for (signed_at, kid) in &signed {
                // Whoever verifies while the token lives holds a set of up to `staleness` ago, but none from before the first.
                for (seen_at, set) in &sets {
                    let held_until = *seen_at + staleness;
                    let used = *seen_at <= *signed_at + lifetime && held_until >= *signed_at && *seen_at >= first;
                    prop_assert!(!used || set.contains(kid), "{kid} signed at {signed_at} is not in the set of {seen_at}");
                }
            }
        }
    }
}
