//! One PostgreSQL cluster for all tests of this machine's user, and a database of its own for each test.
//!
//! The cluster lives under the temporary folder, is started by the first test that needs it (under a file lock), is used by
//! all test processes at once, and is stopped by a small watchdog a minute after its last user has ended. It runs with
//! `fsync = off`: what a test proves about a killed process still holds, since the page cache outlives it; what would be
//! proved about a lost machine does not. The executable's own cluster syncs.
//!
//! A test's database is cloned from a template that was migrated once, named after the migrations' fingerprint, and dropped
//! with the test. What killed tests leave behind is swept when the cluster starts and when a later test asks for a database.

use std::{
    fs::File,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::OnceCell;

use crate::cluster;

/// A test database older than this was left by a killed test.
const LEFT_BEHIND_AFTER: Duration = Duration::from_hours(1);

static SHARED: OnceCell<Postgres> = OnceCell::const_new();

/// The cluster that all tests share.
#[derive(Debug)]
pub struct Postgres {
    pub(crate) port: u16,
    pub(crate) password: String,
    /// Locked for as long as this process lives, so that the watchdog leaves the cluster alone.
    pub(crate) _in_use: File,
}

impl Postgres {
    /// The running cluster; started if it is not there.
    ///
    /// # Panics
    /// When there is no PostgreSQL, or it does not start.
    pub async fn shared() -> &'static Postgres {
        SHARED
            .get_or_init(|| async {
                let opened = tokio::task::spawn_blocking(cluster::open).await.expect("opening the cluster does not panic");
                opened.unwrap_or_else(|error| panic!("the tests' PostgreSQL cannot be used: {error:#}"))
            })
            .await
    }

    /// `postgres://…/<database>` with password, over TCP on the loopback interface. The user is a superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }
}

/// A migrated database of a test's own. Dropped with it, whoever may still be connected.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    pool: PgPool,
}

impl TestDatabase {
    /// Clone one from the migrated template.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn new() -> Self {
        let template = format!("template_{}", bowerbird_migrations::fingerprint());
        Self::make(Some(&template)).await.unwrap_or_else(|error| panic!("no test database: {error:#}"))
    }

    /// One without any table, for tests of the migrations themselves.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn empty() -> Self {
        Self::make(None).await.unwrap_or_else(|error| panic!("no test database: {error:#}"))
    }

    async fn make(template: Option<&str>) -> Result<Self> {
        let cluster = Postgres::shared().await;
        let mut admin = connect(&cluster.url("postgres")).await?;
        sweep(&mut admin, seconds_now().saturating_sub(LEFT_BEHIND_AFTER.as_secs())).await?;
        if let Some(template) = template {
            ensure_template(cluster, &mut admin, template).await?;
        }
        let name = format!("test_{}_{:016x}", seconds_now(), rand::random::<u64>());
        let from = template.unwrap_or("template0");
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {from}"))).await?;
        admin.close().await?;
        let url = cluster.url(&name);
        let pool = PgPoolOptions::new()
            .max_connections(10)
            .acquire_timeout(Duration::from_secs(20))
            .connect_lazy_with(PgConnectOptions::from_str(&url)?);
        Ok(TestDatabase { name, url, pool })
    }

    /// `postgres://…` of this database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A pool of up to ten connections to it.
    pub fn pool(&self) -> PgPool {
        self.pool.clone()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(cluster) = SHARED.get() else { return };
        let (name, url) = (self.name.clone(), cluster.url("postgres"));
        // A runtime of its own on a thread of its own: the test's may be gone, or be the one that drops this.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let dropped = async {
                    let mut admin = connect(&url).await?;
                    admin.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))).await?;
                    admin.close().await?;
                    anyhow::Ok(())
                };
                tokio::time::timeout(Duration::from_secs(20), dropped).await?
            })
        });
        // What could not be dropped is swept later; a test must not fail for it.
        let _ = dropping.join();
    }
}

pub(crate) async fn connect(url: &str) -> Result<PgConnection> {
    let options = PgConnectOptions::from_str(url)?;
    let connecting = PgConnection::connect_with(&options);
    Ok(tokio::time::timeout(Duration::from_secs(20), connecting).await.context("no answer within 20 s")??)
}

/// Make the template if it is not there. One process builds it, under another name until it is whole.
async fn ensure_template(cluster: &Postgres, admin: &mut PgConnection, template: &str) -> Result<()> {
    if database_exists(admin, template).await? {
        return Ok(());
    }
    let _alone = tokio::task::spawn_blocking(|| cluster::lock_start(&cluster::folder()?)).await??;
    if database_exists(admin, template).await? {
        return Ok(());
    }
    let unfinished = template.replace("template_", "unfinished_");
    admin.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)"))).await?;
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {unfinished} TEMPLATE template0"))).await?;
    let pool = PgPoolOptions::new().max_connections(1).connect(&cluster.url(&unfinished)).await?;
    let migrated = bowerbird_migrations::migrate(&pool).await;
    pool.close().await;
    migrated?;
    // Nobody may be connected to a template while it is cloned.
    admin.execute(AssertSqlSafe(format!("ALTER DATABASE {unfinished} ALLOW_CONNECTIONS false"))).await?;
    admin.execute(AssertSqlSafe(format!("ALTER DATABASE {unfinished} RENAME TO {template}"))).await?;
    Ok(())
}

async fn database_exists(admin: &mut PgConnection, name: &str) -> Result<bool> {
    let found: Option<i32> =
        sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1").bind(name).fetch_optional(admin).await?;
    Ok(found.is_some())
}

/// Drop test databases that were made before `before` (seconds since 1970).
async fn sweep(admin: &mut PgConnection, before: u64) -> Result<()> {
    let names: Vec<String> =
        sqlx::query_scalar(r"SELECT datname FROM pg_database WHERE datname LIKE 'test\_%' ORDER BY 1 LIMIT 20")
            .fetch_all(&mut *admin)
            .await?;
    for name in names {
        let made: u64 = name.split('_').nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
        if made < before {
            // Another process may be sweeping the same one.
            let _ = admin.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))).await;
        }
    }
    Ok(())
}

fn seconds_now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the age of what killed tests left is real time")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_test_has_a_database_of_its_own_that_goes_with_it() {
        let (one, other) = tokio::join!(TestDatabase::new(), TestDatabase::new());
        assert_ne!(one.url(), other.url());
        one.pool().execute("CREATE TABLE nests (twigs int)").await.unwrap();
        let there: Option<String> =
            sqlx::query_scalar("SELECT to_regclass('nests')::text").fetch_one(&other.pool()).await.unwrap();
        assert_eq!(there, None);

        let name = one.name.clone();
        let _still_connected = one.pool().acquire().await.unwrap();
        drop(one);
        let mut admin = connect(&Postgres::shared().await.url("postgres")).await.unwrap();
        assert!(!database_exists(&mut admin, &name).await.unwrap());
    }

    #[tokio::test]
    async fn a_migrated_database_is_migrated_again_without_harm_and_an_empty_one_has_nothing() {
        let empty = TestDatabase::empty().await;
        let first = bowerbird_migrations::migrate(&empty.pool()).await.unwrap();
        let second = bowerbird_migrations::migrate(&empty.pool()).await.unwrap();
        assert_eq!(first.version, bowerbird_migrations::newest());
        assert_eq!((second.version, second.applied), (first.version, 0));
        let cloned = TestDatabase::new().await;
        assert_eq!(bowerbird_migrations::migrate(&cloned.pool()).await.unwrap().applied, 0);
    }

    #[tokio::test]
    async fn a_database_of_a_later_release_is_refused() {
        let database = TestDatabase::new().await;
        sqlx::query("INSERT INTO _sqlx_migrations VALUES (9999, 'later', now(), true, '', 0)")
            .execute(&database.pool())
            .await
            .unwrap();
        let refused = bowerbird_migrations::migrate(&database.pool()).await.unwrap_err();
        assert!(matches!(refused, bowerbird_migrations::Error::Newer { found: 9999, .. }), "{refused}");
        // The lock was given back with the connection.
        sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 9999").execute(&database.pool()).await.unwrap();
        bowerbird_migrations::migrate(&database.pool()).await.unwrap();
    }

    #[tokio::test]
    async fn two_processes_that_migrate_at_once_wait_for_each_other() {
        let database = TestDatabase::empty().await;
        let (one_pool, other_pool) = (database.pool(), database.pool());
        let (one, other) = tokio::join!(bowerbird_migrations::migrate(&one_pool), bowerbird_migrations::migrate(&other_pool));
        let applied = one.unwrap().applied + other.unwrap().applied;
        assert_eq!(i64::try_from(applied).unwrap(), bowerbird_migrations::newest());
    }

    #[tokio::test]
    async fn every_column_of_the_schema_says_what_it_holds() {
        let database = TestDatabase::new().await;
        let silent: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
               AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> '_sqlx_migrations'
               AND col_description(c.oid, a.attnum) IS NULL ORDER BY 1",
        )
        .fetch_all(&database.pool())
        .await
        .unwrap();
        assert!(silent.is_empty(), "columns without a comment: {silent:?}");
    }
}
