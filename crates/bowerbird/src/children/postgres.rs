//! Our own PostgreSQL cluster: made once, reached through a socket in the data directory, never over TCP.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use rustix::process::{Signal, geteuid};
use sqlx::{Connection, PgConnection, Postgres, migrate::MigrateDatabase, postgres::PgConnectOptions};
use url::Url;

use super::{
    guardian::{Guardian, Recipe},
    keeper::Keeper,
    leftover,
    program::{self, User, Version, WhenOrphaned},
};
use crate::{
    data_dir::{Credentials, DataDir, cannot_write, write_private},
    failure::Failure,
};

/// Oldest version that Bowerbird runs on.
const OLDEST_MAJOR: u32 = 15;
/// Longest path of a socket (`sun_path` of unix(7), with its terminating zero).
const LONGEST_SOCKET_PATH: usize = 107;
/// How long what a killed run left behind may take to end by itself: PostgreSQL writes a checkpoint.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(10);
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// Appended to `postgresql.conf` when the cluster is made, for an operator to change.
const SETTINGS: &str = "
# Added by `bowerbird up` when this cluster was made.
max_connections = 100
shared_buffers = 128MB
max_wal_size = 1GB
wal_compression = on
password_encryption = 'scram-sha-256'
log_min_messages = warning
log_timezone = 'UTC'
timezone = 'UTC'
";

/// A cluster in the data directory that can be started.
pub(crate) struct Cluster {
    programs: PathBuf,
    user: Option<User>,
    folder: PathBuf,
    url: String,
}

/// What of PostgreSQL this machine has for a data directory, and whether its server could work there.
pub(crate) struct Installed {
    programs: PathBuf,
    user: Option<User>,
}

impl Installed {
    /// Look, and write nothing: a start that is refused here leaves nothing behind.
    pub(crate) async fn look(data_dir: &Path) -> Result<Self, Failure> {
        program::require_setpriv()?;
        let data_dir = resolved(data_dir);
        let folder = data_dir.join("postgres");
        let socket = folder.join("run").join(SOCKET_NAME);
        if socket.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(Failure::Settings(format!(
                "data_dir: the path of PostgreSQL's socket, {}, has {} bytes and the system takes at most {LONGEST_SOCKET_PATH}; \
                 set data_dir to a shorter path",
                socket.display(),
                socket.as_os_str().len()
            )));
        }
        let user = server_user()?;
        if let Some(user) = user {
            reachable(&folder, user).await?;
        }
        Ok(Installed { programs: programs(&folder.join("cluster")).await?, user })
    }
}

/// The absolute path that a folder has or will have: what is there of it, without links, and the rest as it is written.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for there in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (there.canonicalize(), path.strip_prefix(there)) {
            return real.join(rest);
        }
    }
    path
}

impl Cluster {
    /// Make the cluster if it is not there.
    pub(crate) async fn prepare(installed: Installed, data_dir: &DataDir, credentials: &Credentials) -> Result<Self, Failure> {
        let Installed { programs, user } = installed;
        let folder = data_dir.folder("postgres")?;
        let cluster = Cluster { programs, user, url: url(&folder, &credentials.postgres_password, "bowerbird"), folder };
        let gone = leftover::end("postgres", &cluster.data(), Signal::INT, LEFTOVER_PATIENCE).await;
        if !gone {
            return Err(Failure::Unavailable(format!(
                "a PostgreSQL server of an earlier run still uses {} and does not end; end it, then start again",
                cluster.data().display()
            )));
        }
        cluster.make_run_folder()?;
        if !cluster.data().exists() {
            cluster.initialise(&credentials.postgres_password).await?;
        }
        Ok(cluster)
    }

    /// Start it, and make the database if it is not there. Answers the database's URL.
    pub(crate) async fn start(
        self,
        keeper: Keeper,
        tasks: &bowerbird_lifecycle::Tasks,
        gave_up: impl FnOnce(Failure) + Send + 'static,
    ) -> Result<(Guardian, String), Failure> {
        let url = self.url.clone();
        let maintenance = maintenance_url(&self.url);
        let log = self.folder.join("server.log");
        let recipe = Recipe {
            name: "PostgreSQL",
            log,
            // Fast shutdown: what runs is rolled back.
            stop: Signal::INT,
            command: Box::new(move || {
                let mut command = program::command(&self.programs.join("postgres"), self.user, WhenOrphaned::Interrupt);
                command
                    .arg("-D")
                    .arg(self.data())
                    .args(["-c", "listen_addresses=", "-p", "5432", "-k"])
                    .arg(self.folder.join("run"));
                command.current_dir(self.data());
                command
            }),
            answers: Box::new(move || {
                let url = maintenance.clone();
                Box::pin(async move { answers(&url).await })
            }),
        };
        let guardian = Guardian::start(recipe, keeper, tasks, gave_up).await?;
        let failed = |error: sqlx::Error| Failure::Unavailable(format!("the database cannot be made: {error}"));
        let made = async { if Postgres::database_exists(&url).await? { Ok(()) } else { Postgres::create_database(&url).await } };
        match made.await {
            Ok(()) => Ok((guardian, url)),
            Err(error) => {
                guardian.stop().await;
                Err(failed(error))
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    /// The folder of the socket, which the server must be able to write.
    fn make_run_folder(&self) -> Result<(), Failure> {
        let run = self.folder.join("run");
        self.make_own_folder(&run)
    }

    fn make_own_folder(&self, folder: &Path) -> Result<(), Failure> {
        let make = || {
            fs::create_dir_all(folder)?;
            if let Some(User { id, group }) = self.user {
                chown(folder, Some(id), Some(group))?;
            }
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
        };
        make().map_err(|error| cannot_write(folder, &error))
    }

    /// `initdb` beside the final place, moved there when it is whole, so that a killed first start leaves nothing half made.
    async fn initialise(&self, password: &str) -> Result<(), Failure> {
        tracing::info!(folder = %self.data().display(), "making a PostgreSQL cluster");
        let unfinished = self.folder.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(|error| cannot_write(&unfinished, &error))?;
        }
        self.make_own_folder(&unfinished)?;
        let password_file = self.folder.join("run/password");
        write_private(&password_file, password.as_bytes()).map_err(|error| cannot_write(&password_file, &error))?;
        if let Some(User { id, group }) = self.user {
            chown(&password_file, Some(id), Some(group)).map_err(|error| cannot_write(&password_file, &error))?;
        }
        let mut command = program::command(&self.programs.join("initdb"), self.user, WhenOrphaned::Kill);
        command
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums"])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("-D")
            .arg(&unfinished)
            .current_dir(&self.folder);
        let done = program::errand(command).await;
        let _ = fs::remove_file(&password_file);
        done.map_err(|said| {
            if said.contains("No space left on device") {
                return cannot_write(&self.data(), &std::io::ErrorKind::StorageFull.into());
            }
            Failure::Unavailable(format!("the PostgreSQL cluster cannot be made; initdb said: {}", last_lines(&said)))
        })?;
        let settle = || {
            use std::io::Write;
            let configuration = unfinished.join("postgresql.conf");
            fs::OpenOptions::new().append(true).open(&configuration)?.write_all(SETTINGS.as_bytes())?;
            fs::rename(&unfinished, self.data())
        };
        settle().map_err(|error| cannot_write(&self.data(), &error))
    }
}

/// The URL of a database of the cluster that `up` keeps in `data_dir`, for the other commands on this machine.
pub(crate) fn url_in(data_dir: &Path, credentials: &Credentials) -> String {
    url(&data_dir.join("postgres"), &credentials.postgres_password, "bowerbird")
}

fn url(folder: &Path, password: &str, database: &str) -> String {
    let socket_folder = folder.join("run");
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("host", &socket_folder.to_string_lossy())
        .append_pair("port", "5432")
        .finish();
    format!("postgres://postgres:{password}@localhost/{database}?{}", query.replace('+', "%20"))
}

/// The same server's own database, which is there before ours.
fn maintenance_url(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return url.to_owned() };
    parsed.set_path("/postgres");
    parsed.into()
}

async fn answers(url: &str) -> bool {
    let Ok(options) = PgConnectOptions::from_str(url) else { return false };
    let Ok(connection) = PgConnection::connect_with(&options).await else { return false };
    connection.close().await.is_ok()
}

/// PostgreSQL refuses to run as root; then it runs as the user that its packages make.
fn server_user() -> Result<Option<User>, Failure> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, id, group, ..] = fields.as_slice() else { return None };
        (*name == "postgres").then_some(User { id: id.parse().ok()?, group: group.parse().ok()? })
    });
    user.map(Some).ok_or_else(|| {
        Failure::Unavailable(
            "PostgreSQL does not run as root, and there is no user `postgres` that it could run as; run scripts/setup, or \
             start Bowerbird as another user"
                .into(),
        )
    })
}

/// Refuse a folder that the server's user cannot enter, naming the first closed folder on the way. What is not there yet
/// will be made passable.
async fn reachable(folder: &Path, user: User) -> Result<(), Failure> {
    let mut way: Vec<&Path> = folder.ancestors().collect();
    way.reverse();
    for step in way.into_iter().take_while(|step| step.is_dir()) {
        let mut test = program::command(Path::new("/usr/bin/test"), Some(user), WhenOrphaned::Kill);
        test.arg("-x").arg(step).current_dir("/");
        if program::errand(test).await.is_err() {
            return Err(Failure::Settings(format!(
                "data_dir: PostgreSQL runs as the user `postgres`, which cannot enter {}; set data_dir to a folder that it can \
                 reach, such as /var/lib/bowerbird, or open the way with `chmod o+x {}`",
                step.display(),
                step.display()
            )));
        }
    }
    Ok(())
}

/// The folder with `postgres` and `initdb`: of the cluster's own major version, or the newest for a new one.
async fn programs(cluster: &Path) -> Result<PathBuf, Failure> {
    let mut found: Vec<(Version, PathBuf)> = Vec::new();
    let packaged =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin/postgres"));
    for server in packaged.chain(program::candidates("postgres").await) {
        let complete = server.with_file_name("initdb").is_file();
        if let (true, Some(version), Some(folder)) = (complete, program::version(&server).await, server.parent()) {
            found.push((version, folder.to_path_buf()));
        }
    }
    found.sort();
    let made_by = fs::read_to_string(cluster.join("PG_VERSION")).ok().and_then(|text| text.trim().parse().ok());
    choose(found, made_by, cluster)
}

/// From what is installed, oldest first: the same major version that made the cluster, or the newest for a new one.
fn choose(found: Vec<(Version, PathBuf)>, made_by: Option<u32>, cluster: &Path) -> Result<PathBuf, Failure> {
    if let Some(wanted) = made_by {
        let same = found.into_iter().rev().find(|(Version(major, _), _)| *major == wanted);
        return same.map(|(_, folder)| folder).ok_or_else(|| {
            Failure::Unavailable(format!(
                "the database in {} was made by PostgreSQL {wanted}, which is not installed; install postgresql-{wanted}, or \
                 move the data to a newer one as docs/operations.md says",
                cluster.display()
            ))
        });
    }
    match found.into_iter().next_back() {
        Some((Version(major, _), folder)) if major >= OLDEST_MAJOR => Ok(folder),
        Some((version, folder)) => Err(Failure::Unavailable(format!(
            "PostgreSQL {version} in {} is too old, {OLDEST_MAJOR} or newer is needed; run scripts/setup, or set database.url to a \
             server that runs already",
            folder.display()
        ))),
        None => Err(Failure::Unavailable(format!(
            "there is no PostgreSQL on this machine, {OLDEST_MAJOR} or newer is needed; run scripts/setup, or set database.url to \
             a server that runs already"
        ))),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_run_by_the_version_that_made_it() {
        let (old, new) = ((Version(15, 18), PathBuf::from("/15")), (Version(17, 2), PathBuf::from("/17")));
        let cluster = Path::new("/srv/cluster");
        let both = vec![old.clone(), new.clone()];
        assert_eq!(choose(both.clone(), None, cluster).unwrap(), PathBuf::from("/17"));
        assert_eq!(choose(both, Some(15), cluster).unwrap(), PathBuf::from("/15"));
        let gone = choose(vec![new], Some(15), cluster).unwrap_err().to_string();
        assert!(gone.contains("install postgresql-15"), "{gone}");
        let ancient = choose(vec![(Version(13, 4), PathBuf::from("/13"))], None, cluster).unwrap_err().to_string();
        assert!(ancient.contains("PostgreSQL 13.4 in /13 is too old, 15 or newer"), "{ancient}");
        let missing = choose(Vec::new(), None, cluster).unwrap_err().to_string();
        assert!(missing.contains("no PostgreSQL") && missing.contains("database.url"), "{missing}");
    }

    #[test]
    fn a_url_with_an_odd_folder_reads_back_as_it_was_meant() {
        let made = url(Path::new("/srv/my data+more/postgres"), "secret", "bowerbird");
        let options = PgConnectOptions::from_str(&made).unwrap();
        assert_eq!(options.get_database(), Some("bowerbird"));
        assert_eq!(options.get_socket().map(PathBuf::as_path), Some(Path::new("/srv/my data+more/postgres/run")));
        assert!(maintenance_url(&made).contains("/postgres?host="), "{}", maintenance_url(&made));
    }
}
