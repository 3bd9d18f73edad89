//! The sweeps: what is kept for a time goes when that time is over. One list, one loop, small batches.
//!
//! The rows are the truth and every sweep is a DELETE that finds its own work, so any number of processes may sweep, a
//! crash costs nothing, and what one misses the next finds.

mod store;

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use self::store::SWEEPS;
use crate::supervision::OwnedTasks;

/// How often each sweep looks.
const EVERY: Duration = Duration::from_mins(10);
/// Rows of one statement.
const BATCH: i64 = 1000;

/// Sweeps.
#[derive(Clone)]
pub(crate) struct Janitor {
    pool: PgPool,
}

/// The loop has ended, which it should not.
pub(crate) struct Ended(String);

impl Janitor {
    /// A janitor for this database.
    pub(crate) fn new(pool: PgPool) -> Self {
        Janitor { pool }
    }

    async fn sweep_again_and_again(self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sweep().await;
        }
    }

    async fn sweep(&self) {
        for (name, statement) in SWEEPS {
            let mut rows = 0;
            loop {
                match store::sweep(&self.pool, statement, BATCH).await {
                    Ok(swept) => {
                        rows += swept;
                        if swept < BATCH.unsigned_abs() {
                            break;
                        }
                    }
                    Err(error) => {
                        warn!(sweep = name, %error, "a sweep failed; the next one goes on");
                        break;
                    }
                }
            }
            if rows > 0 {
                info!(sweep = name, rows, "swept");
            }
        }
    }
}

impl Actor for Janitor {
    type Msg = Ended;
    type State = OwnedTasks;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Ended>, (): ()) -> Result<OwnedTasks, ActorProcessingErr> {
        let mut tasks = OwnedTasks::default();
        tasks.spawn(&myself, self.clone().sweep_again_and_again(), |ended| {
            Ended(ended.err().map_or_else(|| "the sweeps returned".to_owned(), |panicked| panicked.to_string()))
        });
        Ok(tasks)
    }

    async fn handle(&self, _: ActorRef<Ended>, Ended(why): Ended, _: &mut OwnedTasks) -> Result<(), ActorProcessingErr> {
        Err(why.into())
    }
}

#[cfg(test)]
mod tests {
    use bowerbird_testkit::TestDatabase;

    use super::*;

    #[tokio::test]
    async fn a_sweep_takes_what_is_over_however_much_and_nothing_else() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        for statement in [
            "INSERT INTO idempotency_keys (scope, operation, key, fingerprint, created_at)
             SELECT gen_random_uuid(), 'test.do', i::text, '', now() - interval '25 hours' FROM generate_series(1, 2500) AS i",
            "INSERT INTO idempotency_keys (scope, operation, key, fingerprint) VALUES (gen_random_uuid(), 'test.do', 'young', '')",
            "INSERT INTO processed_events (consumer, event_id, processed_at)
             VALUES ('test', gen_random_uuid(), now() - interval '121 days'), ('test', gen_random_uuid(), now())",
            "INSERT INTO accounts (id, account_name, role, quota_bytes, created_at, updated_at)
             VALUES ('00000000-0000-7000-8000-000000000001', 'alice', 'user', 0, now(), now())",
            "INSERT INTO sessions (id, account_id, created_at, last_used_at, expires_at)
             SELECT gen_random_uuid(), '00000000-0000-7000-8000-000000000001', now(), now(), now() + d * interval '1 day'
             FROM unnest(ARRAY[-31, -29, 1]) AS d",
            "INSERT INTO refresh_tokens (token_hash, family_id, created_at, expires_at)
             SELECT sha256(id::text::bytea), id, now(), now() FROM sessions",
        ] {
            sqlx::query(statement).execute(&pool).await.unwrap();
        }
        let janitor = Janitor::new(pool.clone());
        // Twice: the second finds nothing to do.
        janitor.sweep().await;
        janitor.sweep().await;
        let left: (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM idempotency_keys), (SELECT count(*) FROM processed_events),
                    (SELECT count(*) FROM sessions), (SELECT count(*) FROM refresh_tokens)",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(left, (1, 1, 2, 2));
    }
}
