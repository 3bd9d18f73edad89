//! The roles apart: two `actors`, one `gateway`, one `store`, against one PostgreSQL and one nats-server.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use bowerbird_testkit::{NatsServer, TestDatabase, eventually, http::Http};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{ACCESS_KEY, SECRET_KEY, executable, free_addresses, text};

/// How long a role may take to be ready.
const START: Duration = Duration::from_mins(1);

/// A role of the executable, in a process of its own.
#[derive(Debug)]
pub struct Role {
    /// What it was started as.
    pub name: &'static str,
    /// Address of its `/readyz`.
    pub operations: SocketAddr,
    child: Child,
}

impl Role {
    /// Send it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id().context("it has ended")?)?;
        Ok(kill_process(Pid::from_raw(id).context("a process id")?, signal)?)
    }
}

/// Everything, each in its own process.
#[derive(Debug)]
pub struct Cluster {
    directory: TempDir,
    /// The database that they share.
    pub database: TestDatabase,
    /// The bus that they share.
    pub nats: NatsServer,
    /// The workers.
    pub actors: Vec<Role>,
    /// The rest.
    pub others: Vec<Role>,
    /// Address of the REST API.
    pub api: SocketAddr,
    /// Address of the object store.
    pub objects: SocketAddr,
    environment: Vec<(String, String)>,
}

impl Cluster {
    /// Start `workers` actors, a gateway and a store, and wait until each is ready.
    pub async fn start(workers: usize, settings: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bowerbird-cluster-").tempdir()?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let (database, nats) = (TestDatabase::new().await, NatsServer::start().await);
        let [api, objects, _] = free_addresses()?;
        let key_file = directory.path().join("master-key");
        std::fs::write(&key_file, "5a".repeat(32))?;
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600))?;
        let mut environment: Vec<(String, String)> = [
            ("DATABASE__URL", database.url()),
            ("NATS__URL", &nats.url()),
            ("AUTH__MASTER_KEY_FILE", &key_file.display().to_string()),
            ("GATEWAY__LISTEN", &api.to_string()),
            ("GATEWAY__PUBLIC_URL", &format!("http://{api}")),
            ("STORAGE__LISTEN", &objects.to_string()),
            ("STORAGE__KIND", "s3"),
            ("STORAGE__ENDPOINT", &format!("http://{objects}")),
            ("STORAGE__ACCESS_KEY_ID", ACCESS_KEY),
            ("STORAGE__SECRET_ACCESS_KEY", SECRET_KEY),
            ("OUTBOUND__ALLOW", "[\"127.0.0.0/8\"]"),
            ("OUTBOUND__PORTS", "[]"),
            ("AUTH__ARGON2_MEMORY_KIB", "1024"),
            ("AUTH__ARGON2_PASSES", "1"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        environment.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let mut cluster =
            Cluster { directory, database, nats, actors: Vec::new(), others: Vec::new(), api, objects, environment };

        let store = cluster.role("store", "store")?;
        cluster.others.push(store);
        eventually(START, "the object store listens", async || std::net::TcpStream::connect(objects).ok()).await;
        let migrated = cluster.command("migrate", "migrate")?.status().await?;
        ensure!(migrated.success(), "migrate ended with {migrated}: {}", cluster.log("migrate"));
        for number in 0..workers {
            let role = cluster.role("actors", ["actors-0", "actors-1", "actors-2"][number])?;
            cluster.actors.push(role);
        }
        let gateway = cluster.role("gateway", "gateway")?;
        cluster.others.push(gateway);
        for role in cluster.actors.iter().chain(cluster.others.iter().filter(|role| role.name == "gateway")) {
            let http = Http::new(role.operations.to_string());
            eventually(START, &format!("{} is ready", role.name), async || {
                http.get("/readyz").await.ok().filter(|answer| answer.status == 200)
            })
            .await;
        }
        Ok(cluster)
    }

    fn command(&self, role: &str, folder: &str) -> Result<Command> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.path().join(folder).with_extension("log"))?;
        let mut command = Command::new("setpriv");
        // A test that is killed takes its processes along.
        command.args(["--pdeathsig", "KILL", "--"]).arg(executable()?).arg(role);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true).current_dir(self.directory.path());
        for (key, value) in &self.environment {
            command.env(format!("BOWERBIRD__{key}"), value);
        }
        command.env("BOWERBIRD__DATA_DIR", self.directory.path().join(folder));
        Ok(command)
    }

    fn role(&self, name: &'static str, folder: &str) -> Result<Role> {
        let [operations, _, _] = free_addresses()?;
        let child = self.command(name, folder)?.env("BOWERBIRD__GATEWAY__OPERATIONS_LISTEN", operations.to_string()).spawn()?;
        Ok(Role { name, operations, child })
    }

    /// A new account, logged in.
    pub async fn account(&self, name: &str) -> Result<Http> {
        let http = Http::new(self.api.to_string());
        let account = json!({"account_name": name, "password": "a password of the cluster tests"});
        http.post("/v1/auth/register", &account).await?.expect(201)?;
        self.login(name).await
    }

    /// An account that there is, logged in again: access tokens live for minutes.
    pub async fn login(&self, name: &str) -> Result<Http> {
        let http = Http::new(self.api.to_string());
        let login = json!({"login": name, "password": "a password of the cluster tests"});
        let pair = http.post("/v1/auth/login", &login).await?.expect(200)?;
        Ok(http.with_token(text(&pair, "access_token")))
    }

    /// The index of the worker that runs a download, and its fence. None while nobody does.
    ///
    /// Asked of the database, as no API tells which node does the work.
    pub async fn runner(&self, download_id: &str) -> Result<Option<(usize, i64)>> {
        let row: Option<(uuid::Uuid, i64)> =
            sqlx::query_as("SELECT worker, fence FROM downloads WHERE id = $1::text::uuid AND status = 'running'")
                .bind(download_id)
                .fetch_optional(&self.database.pool())
                .await?;
        let Some((worker, fence)) = row else { return Ok(None) };
        for index in 0..self.actors.len() {
            // Each says under which name it takes leases.
            if self.log(&format!("actors-{index}")).contains(&worker.to_string()) {
                return Ok(Some((index, fence)));
            }
        }
        anyhow::bail!("worker {worker} is none of this cluster")
    }

    /// What a role logged.
    pub fn log(&self, folder: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(folder).with_extension("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A stopped process would not see that it is killed by its parent's end only when it is continued.
        for role in self.actors.iter().chain(&self.others) {
            role.signal(Signal::KILL).ok();
        }
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows what the roles said")]
            for folder in ["actors-0", "actors-1", "gateway", "store", "migrate"] {
                let log = self.log(folder);
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- {folder}:\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
            }
        }
    }
}
