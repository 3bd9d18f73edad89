//! Schema: forward-only SQL, embedded in the executable.
//!
//! Each file of `migrations/sql` is named `NNNN_what.sql` and is listed below in order. A file that was released is never
//! edited: the database remembers its checksum. What it makes outlives every process.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};

use sqlx::{
    Connection, Executor, PgConnection, PgPool, SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../sql/", $name, ".sql")))),*]
    };
}

/// Name without `.sql`, and text. One line per file, in order.
const FILES: &[(&str, &str)] = files![
    "0001_accounts",
    "0002_events",
    "0003_downloads_files",
    "0004_alarms",
    "0005_reminders",
    "0006_notifications",
    "0007_webhooks",
    "0008_dead_letters",
    "0009_statistics",
    "0010_uploads",
    "0011_drive",
    "0012_review",
    "0013_account_changes",
];

/// Held while a process looks and migrates, so that what it saw is still true when it acts. The migrator's own lock comes
/// later. Any number does that nobody else uses in this database.
const LOCK_KEY: i64 = 0x626f_7765_7262_6972;

/// How long another process that is migrating is waited for.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '120s'";

/// The schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database was migrated by a later release.
    #[error(
        "the database is at schema {found:04}, this executable knows up to {known:04}; run the release that migrated it, or a \
         later one"
    )]
    Newer {
        /// Newest migration that the database names.
        found: i64,
        /// Newest migration of this executable.
        known: i64,
    },
    /// A migration that was applied has another text in this executable.
    #[error(
        "migration {0:04} was applied to this database with another text than this executable has; it belongs to another \
         build, so point database.url at the database of this one"
    )]
    Different(i64),
    /// Another process has been migrating for too long.
    #[error("another process has been migrating this database for two minutes; wait for it or end it, then start again")]
    Locked(#[source] sqlx::Error),
    /// A statement of a migration failed; that migration was rolled back.
    #[error("migration {version:04} failed and was rolled back: {source}")]
    Failed {
        /// The migration that failed.
        version: i64,
        /// What the database said.
        source: sqlx::Error,
    },
    /// An extension of PostgreSQL is missing, or may not be made by this role.
    #[error(
        "the database needs the extensions pg_trgm and btree_gin, which are part of PostgreSQL's contrib modules, and they cannot \
         be made: {0}; install the contrib package of your PostgreSQL if it is missing, have a superuser run `CREATE EXTENSION \
         pg_trgm; CREATE EXTENSION btree_gin;` in this database if its role may not, then start again"
    )]
    Extension(#[source] sqlx::Error),
    /// The database cannot be reached or refuses to work.
    #[error("the database cannot be migrated: {0}")]
    Database(#[from] sqlx::Error),
    /// Anything else that the migrator says.
    #[error("the database cannot be migrated: {0}")]
    Other(#[source] MigrateError),
}

/// What [`migrate`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Newest migration of the database now; 0 if there is none.
    pub version: i64,
    /// How many were applied by this call.
    pub applied: usize,
}

/// Bring the database up to date. Harmless when it is already; waits while another process does it.
pub async fn migrate(pool: &PgPool) -> Result<Outcome, Error> {
    // A connection of its own, closed at the end: an error must not put a held lock or these timeouts back into the pool.
    let mut connection = pool.acquire().await?.detach();
    let outcome = migrate_with(&mut connection).await;
    let _ = connection.close().await;
    outcome
}

async fn migrate_with(connection: &mut PgConnection) -> Result<Outcome, Error> {
    connection.execute("SET statement_timeout = 0").await?;
    connection.execute(LOCK_TIMEOUT).await?;
    // "Already there, skipping" is no news.
    connection.execute("SET client_min_messages = warning").await?;
    // Released when the connection is closed.
    let locked = sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK_KEY).execute(&mut *connection).await;
    locked.map_err(|error| if is_lock_timeout(&error) { Error::Locked(error) } else { Error::Database(error) })?;
    let migrator = migrator();
    let before = applied(connection).await?;
    migrator.run_direct(None, connection, false).await.map_err(|error| explain(error, before.iter().copied().max()))?;
    let after = applied(connection).await?;
    Ok(Outcome { version: after.last().copied().unwrap_or(0), applied: after.len().saturating_sub(before.len()) })
}

/// Versions that the database has, ascending.
async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, Error> {
    let there: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text").fetch_one(&mut *connection).await?;
    if there.is_none() {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_scalar("SELECT version FROM _sqlx_migrations ORDER BY version").fetch_all(connection).await?)
}

fn explain(error: MigrateError, newest_applied: Option<i64>) -> Error {
    let known = newest();
    match error {
        MigrateError::VersionMissing(missing) => match newest_applied {
            Some(found) if found > known => Error::Newer { found, known },
            _ => Error::Different(missing),
        },
        MigrateError::VersionMismatch(version) => Error::Different(version),
        MigrateError::ExecuteMigration(source, _) if is_about_an_extension(&source) => Error::Extension(source),
        MigrateError::ExecuteMigration(source, version) => Error::Failed { version, source },
        MigrateError::Execute(source) => Error::Database(source),
        other => Error::Other(other),
    }
}

/// Not on the server's disk (`undefined_file`, `feature_not_supported`), or not this role's to make.
fn is_about_an_extension(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.message().contains("extension") && error.code().is_some_and(|code| matches!(&*code, "42501" | "58P01" | "0A000"))
    })
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "55P03")
}

/// Newest migration of this executable; 0 if there is none.
pub fn newest() -> i64 {
    FILES.iter().filter_map(|(name, _)| version_of(name)).max().unwrap_or(0)
}

/// A short name of this exact schema: changes with every byte of every file.
pub fn fingerprint() -> String {
    let mut hasher = DefaultHasher::new();
    FILES.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn migrator() -> Migrator {
    let migrations = FILES.iter().filter_map(|(name, sql)| {
        let version = version_of(name)?;
        let description = name.split_once('_').map_or(*name, |(_, rest)| rest).replace('_', " ");
        Some(Migration::new(version, description.into(), MigrationType::Simple, (*sql).into_sql_str(), false))
    });
    Migrator::with_migrations(migrations.collect())
}

fn version_of(name: &str) -> Option<i64> {
    name.split('_').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_listed_once_and_in_order() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
        let in_folder: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .collect();
        let listed: Vec<String> = FILES.iter().map(|(name, _)| format!("{name}.sql")).collect();
        assert_eq!(listed, in_folder.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn every_file_has_a_number_of_its_own_and_they_are_in_order() {
        let versions: Vec<i64> = FILES.iter().map(|(name, _)| version_of(name).unwrap()).collect();
        assert_eq!(versions.first(), Some(&1));
        assert!(versions.is_sorted_by(|earlier, later| earlier < later), "{versions:?}");
    }

    #[test]
    fn a_database_of_a_later_release_is_told_from_one_of_another_build() {
        let later = explain(MigrateError::VersionMissing(newest() + 3), Some(newest() + 3));
        assert!(matches!(later, Error::Newer { found, known } if found == newest() + 3 && known == newest()), "{later}");
        let foreign = explain(MigrateError::VersionMissing(0), Some(0));
        assert!(matches!(foreign, Error::Different(0)), "{foreign}");
    }
}
