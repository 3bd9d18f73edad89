//! The cluster behind [`crate::Postgres`]: found running or made, started, watched, swept. Everything here blocks.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::{
    port::free_port,
    postgres::{Postgres, connect},
    process::{find_program, run},
};

/// Oldest major version that Bowerbird runs on.
const OLDEST_MAJOR: u32 = 15;
/// The cluster is stopped when it was not used for this long.
const IDLE_SECONDS: u32 = 60;
const SETTINGS: &str = "\
fsync = off
full_page_writes = off
synchronous_commit = on
autovacuum = off
max_connections = 400
shared_buffers = 64MB
max_wal_size = 256MB
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
log_min_messages = warning
";

/// Where the cluster lives: one per user and major version.
pub(crate) fn folder() -> Result<PathBuf> {
    let (major, _) = programs()?;
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("bowerbird-testkit-{user}-pg{major}"));
    if let Err(error) = fs::create_dir(&folder)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(error).with_context(|| format!("{} cannot be made", folder.display()));
    }
    let owner = fs::symlink_metadata(&folder)?.uid();
    ensure!(owner == user, "{} belongs to user {owner}; remove it", folder.display());
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// Major version and folder of the newest PostgreSQL on this machine.
fn programs() -> Result<(u32, PathBuf)> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        if let Some(major) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((major, entry.path().join("bin")));
        }
    }
    if let Some(folder) = find_program("initdb").and_then(|path| path.parent().map(Path::to_path_buf)) {
        let version =
            run(Command::new(folder.join("initdb")).arg("--version"), Duration::from_secs(10)).map_err(anyhow::Error::msg)?;
        let major = version.split_whitespace().last().and_then(|word| word.split('.').next()?.parse().ok()).unwrap_or(0);
        found.push((major, folder));
    }
    found.retain(|(major, folder)| *major >= OLDEST_MAJOR && folder.join("initdb").is_file());
    found.sort();
    found.pop().with_context(|| format!("there is no PostgreSQL {OLDEST_MAJOR} or newer; run scripts/setup"))
}

pub(crate) fn lock_start(folder: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("start.lock"))?;
    file.lock()?;
    Ok(file)
}

/// Blocking: find the cluster running or start it.
pub(crate) fn open() -> Result<Postgres> {
    let folder = folder()?;
    // In this order the watchdog cannot stop the cluster between the check and the first use.
    let in_use = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("users.lock"))?;
    in_use.lock_shared()?;
    let _alone = lock_start(&folder)?;
    let cluster = Cluster { programs: programs()?.1, user: server_user()?, folder };
    if let Some((port, password)) = cluster.running()? {
        return Ok(Postgres { port, password, _in_use: in_use });
    }
    let (port, password) = cluster.start()?;
    Ok(Postgres { port, password, _in_use: in_use })
}

/// Who the server runs as: PostgreSQL refuses to be root.
fn server_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let fields: Vec<&str> = users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .context("there is no user `postgres`; run scripts/setup")?
        .split(':')
        .collect();
    Ok(Some((fields[2].parse()?, fields[3].parse()?)))
}

struct Cluster {
    programs: PathBuf,
    user: Option<(u32, u32)>,
    folder: PathBuf,
}

impl Cluster {
    fn data(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        let mut command = match self.user {
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups", "--"]).arg(path);
                command
            }
            None => Command::new(path),
        };
        command.current_dir(&self.folder);
        command
    }

    /// Port and password, if the cluster answers.
    fn running(&self) -> Result<Option<(u16, String)>> {
        let (Ok(port), Ok(password)) =
            (fs::read_to_string(self.folder.join("port")), fs::read_to_string(self.folder.join("password")))
        else {
            return Ok(None);
        };
        let port: u16 = port.trim().parse().unwrap_or(0);
        // The password proves that it is ours and not somebody else on that port.
        Ok(answers(port, &password)?.then_some((port, password)))
    }

    fn start(&self) -> Result<(u16, String)> {
        if !self.data().join("PG_VERSION").is_file() || !self.folder.join("whole").is_file() {
            self.initialise()?;
        }
        let password = fs::read_to_string(self.folder.join("password"))?;
        let mut said = String::new();
        for _ in 0..5 {
            let port = free_port();
            let options = format!("-p {port}");
            let started = run(
                self.command("pg_ctl")
                    .arg("start")
                    .arg("-w")
                    .args(["-t", "60"])
                    .arg("-D")
                    .arg(self.data())
                    .arg("-l")
                    .arg(self.log())
                    .args(["-o", &options]),
                Duration::from_secs(70),
            );
            if let Err(error) = started {
                said = error;
                continue;
            }
            ensure!(answers(port, &password)?, "the cluster started and refuses its own password");
            fs::write(self.folder.join("port"), port.to_string())?;
            self.start_watchdog()?;
            sweep_everything(port, &password)?;
            return Ok((port, password));
        }
        bail!("{said}\n{}", fs::read_to_string(self.log()).unwrap_or_default())
    }

    fn log(&self) -> PathBuf {
        self.data().join("server.log")
    }

    fn initialise(&self) -> Result<()> {
        let data = self.data();
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        fs::create_dir(&data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        let password_file = self.folder.join("password");
        let _ = fs::remove_file(&password_file);
        let mut file = OpenOptions::new().create_new(true).write(true).open(&password_file)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        write!(file, "{:032x}", rand::random::<u128>())?;
        if let Some((user, group)) = self.user {
            chown(&data, Some(user), Some(group))?;
            chown(&password_file, Some(user), Some(group))?;
        }
        run(
            self.command("initdb")
                .args(["--username=postgres", "--auth=password", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
                .arg("--pwfile")
                .arg(&password_file)
                .arg("-D")
                .arg(&data),
            Duration::from_mins(2),
        )
        .map_err(anyhow::Error::msg)?;
        let mut settings = OpenOptions::new().append(true).open(data.join("postgresql.conf"))?;
        settings.write_all(SETTINGS.as_bytes())?;
        fs::write(self.folder.join("whole"), "")?;
        Ok(())
    }

    fn start_watchdog(&self) -> Result<()> {
        let script = self.folder.join("watchdog.sh");
        fs::write(&script, include_str!("watchdog.sh"))?;
        Command::new("setsid")
            .arg("sh")
            .arg(&script)
            .arg(&self.folder)
            .arg(IDLE_SECONDS.to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the watchdog of the cluster cannot be started")?;
        Ok(())
    }
}

/// A cluster that was just started has no users: every test database and every template of other migrations goes.
fn sweep_everything(port: u16, password: &str) -> Result<()> {
    let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
    let current = format!("template_{}", bowerbird_migrations::fingerprint());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut admin = connect(&url).await?;
        let names: Vec<String> = sqlx::query_scalar(
            r"SELECT datname FROM pg_database WHERE datname LIKE 'test\_%' OR datname LIKE 'template\_%' OR datname LIKE 'unfinished\_%'",
        )
        .fetch_all(&mut admin)
        .await?;
        for name in names.iter().filter(|name| **name != current) {
            admin.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await?;
        }
        admin.close().await?;
        anyhow::Ok(())
    })
}

fn answers(port: u16, password: &str) -> Result<bool> {
    let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async { connect(&url).await.is_ok() }))
}
