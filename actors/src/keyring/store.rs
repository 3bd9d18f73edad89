//! The table `signing_keys`.

use std::time::Duration;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    event::KEY_ROTATED,
    key::{KeySet, Rotated},
};
use sqlx::{PgConnection, PgPool, Row as _, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    generate::{self, KeyPair},
    schedule::{Dates, Rhythm, State, Step, next, plan},
    seal::{self, Seal},
};
use crate::{
    alarms::{self, Kind},
    events::{self, NewEvent},
};

/// Replicas take turns under this advisory lock.
const LOCK: i64 = 0x626f_7765_726b_6579;
/// The thing that events about keys are about.
const KEYRING: Uuid = Uuid::nil();
/// A clock that is behind the database's wakes too early; it is asked again after this.
const SOONEST: Duration = Duration::from_secs(1);
/// When a rotation is tried again that was begun and came to nothing.
const AGAIN: Duration = Duration::from_mins(1);

/// The keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A key cannot be encrypted or decrypted.
    #[error(transparent)]
    Seal(#[from] seal::Error),
}

/// What the table says.
pub(super) struct Keys {
    /// The life of each key that is not gone.
    pub(super) dates: Vec<Dates>,
    /// Their public parts.
    pub(super) set: KeySet,
    /// The key that signs, encrypted.
    pub(super) active: Option<(String, Vec<u8>)>,
}

/// What [`advance`] did.
#[derive(Debug, Default)]
pub(super) struct Advanced {
    /// The key that began to sign.
    pub(super) activated: Option<String>,
    /// A key has to be generated before the plan can go on.
    pub(super) wants_key: bool,
}

/// Read what there is.
pub(super) async fn load(connection: &mut PgConnection) -> Result<Keys, Error> {
    let rows = sqlx::query(
        "SELECT kid, state, modulus, exponent, private_key, created_at, activated_at, retired_at
         FROM signing_keys WHERE state <> 'gone' ORDER BY created_at, kid",
    )
    .fetch_all(connection)
    .await?;
    let mut keys = Keys { dates: Vec::new(), set: KeySet::default(), active: None };
    for row in &rows {
        let dates = dates(row)?;
        if let (State::Active, Some(sealed)) = (dates.state, row.try_get("private_key")?) {
            keys.active = Some((dates.kid.clone(), sealed));
        }
        keys.dates.push(dates);
        keys.set.keys.push(generate::public_key(row.try_get("modulus")?, row.try_get("exponent")?));
    }
    Ok(keys)
}

fn dates(row: &PgRow) -> Result<Dates, sqlx::Error> {
    let state = match row.try_get("state")? {
        "pending" => State::Pending,
        "active" => State::Active,
        "retiring" => State::Retiring,
        _ => State::Gone,
    };
    Ok(Dates {
        kid: row.try_get("kid")?,
        state,
        created_at: row.try_get("created_at")?,
        activated_at: row.try_get("activated_at")?,
        retired_at: row.try_get("retired_at")?,
    })
}

/// Carry out the plan as it is now, in one transaction that replicas take in turns. `fresh` is used if the plan asks for a
/// key, else it is thrown away: another replica was faster.
pub(super) async fn advance(
    pool: &PgPool,
    rhythm: Rhythm,
    seal: &Seal,
    ids: IdSource,
    now: OffsetDateTime,
    fresh: Option<&KeyPair>,
) -> Result<Advanced, Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    let keys = load(&mut transaction).await?;
    let mut advanced = Advanced::default();
    for step in plan(&keys.dates, rhythm, now) {
        match step {
            Step::Create(state) => match fresh {
                None => advanced.wants_key = true,
                Some(pair) => {
                    insert(&mut transaction, pair, state, seal, now).await?;
                    advanced.activated = (state == State::Active).then(|| pair.public.kid.clone());
                }
            },
            Step::Activate(kid) => {
                activate(&mut transaction, &kid, now).await?;
                advanced.activated = Some(kid);
            }
            Step::Remove(kid) => remove(&mut transaction, &kid, now).await?,
        }
    }
    if let Some(kid) = advanced.activated.clone() {
        let fact = NewEvent::new(ids, KEY_ROTATED, None, KEYRING, &Rotated { kid });
        events::record(&mut transaction, fact).await?;
    }
    if !advanced.wants_key {
        arm_next(&mut transaction, rhythm, now).await?;
    }
    transaction.commit().await?;
    Ok(advanced)
}

/// Have the keyring woken when there is something to do next.
async fn arm_next(connection: &mut PgConnection, rhythm: Rhythm, now: OffsetDateTime) -> Result<(), Error> {
    let keys = load(connection).await?;
    if let Some(at) = next(&keys.dates, rhythm) {
        // The dates of the keys are by the clock of whoever made them; the alarms go by the database's.
        let after = Duration::try_from(at - now).unwrap_or_default().max(SOONEST);
        alarms::arm_after(connection, Kind::KeyRotation, KEYRING, after).await?;
    }
    Ok(())
}

/// The keyring is being woken: once more after a while, should what follows be lost with its process.
pub(super) async fn arm_again(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    alarms::arm_after(connection, Kind::KeyRotation, KEYRING, AGAIN).await
}

async fn insert(
    connection: &mut PgConnection,
    pair: &KeyPair,
    state: State,
    seal: &Seal,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let sealed = seal.close(&pair.public.kid, &pair.private)?;
    sqlx::query(
        "INSERT INTO signing_keys (kid, state, modulus, exponent, private_key, created_at, activated_at)
         VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $2 = 'active' THEN $6 END)",
    )
    .bind(&pair.public.kid)
    .bind(state.as_str())
    .bind(&pair.public.n)
    .bind(&pair.public.e)
    .bind(sealed)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

async fn activate(connection: &mut PgConnection, kid: &str, now: OffsetDateTime) -> Result<(), Error> {
    // Its private part is not needed any more, so it is not kept.
    sqlx::query("UPDATE signing_keys SET state = 'retiring', retired_at = $1, private_key = NULL WHERE state = 'active'")
        .bind(now)
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE signing_keys SET state = 'active', activated_at = $2 WHERE kid = $1")
        .bind(kid)
        .bind(now)
        .execute(connection)
        .await?;
    Ok(())
}

async fn remove(connection: &mut PgConnection, kid: &str, now: OffsetDateTime) -> Result<(), Error> {
    sqlx::query("UPDATE signing_keys SET state = 'gone', gone_at = $2, private_key = NULL WHERE kid = $1")
        .bind(kid)
        .bind(now)
        .execute(connection)
        .await?;
    Ok(())
}
