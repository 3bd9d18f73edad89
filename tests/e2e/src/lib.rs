//! The executable as a user runs it, for tests: started, asked over HTTP, killed and started again.
//!
//! What outlives a [`House`] is its data directory, as with a real one; the directory goes when the house is dropped.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

pub mod cluster;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bowerbird_lifecycle::Clock;
use bowerbird_storage::{Bucket, BucketOptions};
use bowerbird_testkit::{find_program, http::Http};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// The keys of the house's object store.
const ACCESS_KEY: &str = "e2e";
const SECRET_KEY: &str = "the secret key of the end-to-end tests";
/// How long a start may take: a new PostgreSQL cluster on a busy machine, at worst.
const START: Duration = Duration::from_secs(90);
/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(40);

/// One `bowerbird up` with a data directory of its own.
#[derive(Debug)]
pub struct House {
    directory: TempDir,
    /// Address of the REST API.
    pub api: SocketAddr,
    /// Address of `/readyz` and `/metrics`.
    pub operations: SocketAddr,
    /// Address of the object store.
    pub objects: SocketAddr,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl House {
    /// A house that is not started yet. `settings` are environment variables without their prefix: `LEASES__DURATION`.
    pub fn new(settings: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bowerbird-e2e-").tempdir()?;
        // PostgreSQL runs as another user when we are root, and must be able to come through here.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let [api, operations, objects] = free_addresses()?;
        let mut environment = vec![
            ("DATA_DIR".to_owned(), directory.path().join("data").display().to_string()),
            ("GATEWAY__LISTEN".to_owned(), api.to_string()),
            ("GATEWAY__OPERATIONS_LISTEN".to_owned(), operations.to_string()),
            ("STORAGE__LISTEN".to_owned(), objects.to_string()),
            ("OUTBOUND__ALLOW".to_owned(), "[\"127.0.0.0/8\"]".to_owned()),
            ("OUTBOUND__PORTS".to_owned(), "[]".to_owned()),
            ("STORAGE__ACCESS_KEY_ID".to_owned(), ACCESS_KEY.to_owned()),
            ("STORAGE__SECRET_ACCESS_KEY".to_owned(), SECRET_KEY.to_owned()),
            // The cost of a password hash is not what these tests are about.
            ("AUTH__ARGON2_MEMORY_KIB".to_owned(), "1024".to_owned()),
            ("AUTH__ARGON2_PASSES".to_owned(), "1".to_owned()),
        ];
        environment.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        Ok(House { directory, api, operations, objects, environment, child: None })
    }

    /// A house that is started and ready.
    pub async fn start(settings: &[(&str, &str)]) -> Result<Self> {
        let mut house = House::new(settings)?;
        house.up().await?;
        Ok(house)
    }

    /// `bowerbird <arguments>` with the settings of this house.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(executable()?);
        command.args(arguments).stdin(Stdio::null()).current_dir(self.directory.path()).kill_on_drop(true);
        for (key, value) in &self.environment {
            command.env(format!("BOWERBIRD__{key}"), value);
        }
        command.env("PATH", path_with_tools());
        Ok(command)
    }

    /// `bowerbird up`, until it says that it is ready.
    pub async fn up(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the house is up already");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut child = self.command(&["up"])?.stdout(Stdio::piped()).stderr(log).spawn().context("start bowerbird")?;
        let mut lines = BufReader::new(child.stdout.take().context("its standard output")?).lines();
        let ready = tokio::time::timeout(START, async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with("Bowerbird is ready") {
                    return Ok(());
                }
            }
            bail!("it ended before it was ready")
        })
        .await
        .unwrap_or_else(|_| bail!("it was not ready within {START:?}"));
        if let Err(error) = ready {
            child.start_kill().ok();
            child.wait().await.ok();
            bail!("{error}; its log ends:\n{}", self.log_tail());
        }
        self.child = Some(child);
        Ok(())
    }

    /// Process id of the running house.
    pub fn pid(&self) -> Result<Pid> {
        let id = self.child.as_ref().and_then(Child::id).context("the house is not up")?;
        Pid::from_raw(i32::try_from(id)?).context("a process id")
    }

    /// SIGKILL, at once and without a word.
    pub async fn kill(&mut self) -> Result<()> {
        kill_process(self.pid()?, Signal::KILL)?;
        self.child.take().context("the house is not up")?.wait().await?;
        Ok(())
    }

    /// SIGTERM, and the exit code of the orderly stop.
    pub async fn stop(&mut self) -> Result<Option<i32>> {
        kill_process(self.pid()?, Signal::TERM)?;
        let mut child = self.child.take().context("the house is not up")?;
        let status = tokio::time::timeout(STOP, child.wait()).await.context("it did not stop in time")??;
        Ok(status.code())
    }

    /// Where `data_dir` points.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where its nats-server keeps the streams.
    pub fn jetstream_dir(&self) -> Result<PathBuf> {
        let nats = self.data_dir().join("nats");
        let mut folders = vec![nats.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name == "jetstream") {
                    return Ok(path);
                }
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        bail!("no jetstream folder under {}", nats.display())
    }

    /// How many objects the bucket holds.
    pub async fn objects_in_bucket(&self) -> Result<usize> {
        let endpoint: url::Url = format!("http://{}", self.objects).parse()?;
        let bucket = Bucket::connect(
            BucketOptions {
                endpoint: endpoint.clone(),
                public_endpoint: endpoint,
                region: "us-east-1".to_owned(),
                bucket: "bowerbird".to_owned(),
                access_key_id: ACCESS_KEY.to_owned(),
                secret_access_key: SECRET_KEY.to_owned(),
                path_style: true,
                clock: Clock::system(),
            },
            Duration::from_secs(10),
        )
        .await?;
        let (mut objects, mut after) = (0, None::<String>);
        loop {
            let page = bucket.list("", after.as_deref(), 1_000).await?;
            objects += page.len();
            match page.last() {
                Some(last) if page.len() == 1_000 => after = Some(last.key.clone()),
                _ => return Ok(objects),
            }
        }
    }

    /// A client of the REST API, nobody logged in.
    pub fn http(&self) -> Http {
        Http::new(self.api.to_string())
    }

    /// A new account, logged in.
    pub async fn account(&self, name: &str) -> Result<Http> {
        let http = self.http();
        let password = format!("the long secret of {name}");
        http.post("/v1/auth/register", &json!({"account_name": name, "password": password})).await?.expect(201)?;
        self.login(name).await
    }

    /// An account made by [`House::account`], logged in again.
    pub async fn login(&self, name: &str) -> Result<Http> {
        let password = format!("the long secret of {name}");
        let pair = self.http().post("/v1/auth/login", &json!({"login": name, "password": password})).await?.expect(200)?;
        Ok(self.http().with_token(text(&pair, "access_token")))
    }

    /// The last lines that the house logged.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Everything that the house logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("bowerbird.log")
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // An orderly stop takes the children along; a child of ours that hangs is killed by `kill_on_drop`.
        if let (Ok(pid), Some(mut child)) = (self.pid(), self.child.take()) {
            kill_process(pid, Signal::TERM).ok();
            let end = std::time::Instant::now() + STOP;
            while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < end {
                std::thread::yield_now();
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows what the house said")]
            {
                eprintln!("--- the house's log ends:\n{}", self.log_tail());
            }
        }
    }
}

/// A field of a JSON object as text; empty when it is not there.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Wait until a download has ended, and return it.
pub async fn ended(http: &Http, id: &str, within: Duration) -> Result<Value> {
    let end = tokio::time::Instant::now() + within;
    loop {
        let answer = http.get(&format!("/v1/downloads/{id}")).await?;
        // A worker that was stopped still gets its share of the questions; those end as 504.
        if !matches!(answer.status.as_u16(), 503 | 504) {
            let download = answer.expect(200)?;
            if matches!(text(&download, "status"), "completed" | "failed" | "canceled") {
                return Ok(download);
            }
        }
        let last = String::from_utf8_lossy(&answer.body);
        ensure!(tokio::time::Instant::now() < end, "download {id} did not end within {within:?}: {last}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The search path, with the tools that `scripts/setup` fetched for this workspace in front.
fn path_with_tools() -> std::ffi::OsString {
    let mut folders: Vec<PathBuf> =
        find_program("nats-server").and_then(|path| Some(path.parent()?.to_owned())).into_iter().collect();
    #[expect(clippy::disallowed_methods, reason = "handed on to the executable as it is")]
    let path = std::env::var("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    std::env::join_paths(folders).unwrap_or_default()
}

/// The `bowerbird` that was built beside this test.
fn executable() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let found = test.ancestors().skip(1).take(3).map(|folder| folder.join("bowerbird")).find(|path| is_executable(path));
    found.context("bowerbird is not built; `make test` builds it first, or run `cargo build --profile quick`")
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

/// Three addresses that nobody listens on right now.
fn free_addresses() -> Result<[SocketAddr; 3]> {
    let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().map_err(|_| anyhow::anyhow!("three addresses"))
}
