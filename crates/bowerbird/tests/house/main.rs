//! The executable and the servers that it starts: ready, stopped, killed, refused. Real processes, bounded waits.

#![expect(clippy::unwrap_used, reason = "a test that cannot have what it needs fails")]

mod refused;
mod roles;
mod survives;
mod up;

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use bowerbird_testkit::{ChildProcess, eventually, free_port, workspace_folder};
use rustix::process::Signal;
use tempfile::TempDir;

/// A first start makes a database cluster; machines that build something else meanwhile are slow.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(90);
pub(crate) const STOPPED_WITHIN: Duration = Duration::from_mins(1);

/// A place for one `up`: a data directory and ports that nobody uses.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) api: u16,
    pub(crate) operations: u16,
    pub(crate) store: u16,
}

/// The search path, with what `scripts/setup` fetched for this workspace in front: the target folder may be anywhere.
fn path_with_tools() -> std::ffi::OsString {
    let mut folders = vec![workspace_folder().join(".tools/bin")];
    folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    std::env::join_paths(folders).unwrap()
}

impl Place {
    pub(crate) fn new() -> Self {
        // As root, PostgreSQL runs as another user, who must be able to pass through.
        let passable = fs::Permissions::from_mode(0o711);
        let folder = tempfile::Builder::new().prefix("bowerbird-up-").permissions(passable).tempdir().unwrap();
        Place { folder, api: free_port(), operations: free_port(), store: free_port() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `bowerbird` with settings for this place.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ChildProcess::command(env!("CARGO_BIN_EXE_bowerbird"));
        command
            .args(arguments)
            .current_dir(workspace_folder())
            .env("PATH", path_with_tools())
            .env("BOWERBIRD__DATA_DIR", self.data())
            .env("BOWERBIRD__GATEWAY__LISTEN", format!("127.0.0.1:{}", self.api))
            .env("BOWERBIRD__GATEWAY__OPERATIONS_LISTEN", format!("127.0.0.1:{}", self.operations))
            .env("BOWERBIRD__STORAGE__LISTEN", format!("127.0.0.1:{}", self.store));
        command
    }

    /// Start `up`.
    pub(crate) fn up(&self) -> Up {
        let log = self.folder.path().join(format!("log-{}", rand_name()));
        let file = File::create(&log).unwrap();
        let mut command = self.command(&["up"]);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Up { process: ChildProcess::spawn(&mut command).unwrap(), log, data: self.data(), operations: self.operations }
    }

    /// Run to the end, which must come within a minute: exit code, and everything that was written.
    pub(crate) async fn run(&self, arguments: &[&str]) -> (i32, String) {
        end_of(self.command(arguments)).await
    }
}

pub(crate) async fn end_of(mut command: Command) -> (i32, String) {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = ChildProcess::spawn(&mut command).unwrap();
    let (stdout, stderr) = process.streams();
    let status = process.wait(STOPPED_WITHIN).await;
    let mut said = String::new();
    stdout.unwrap().read_to_string(&mut said).unwrap();
    stderr.unwrap().read_to_string(&mut said).unwrap();
    (status.code().unwrap_or(-1), said)
}

/// A running `up`. Killed when this is dropped.
pub(crate) struct Up {
    pub(crate) process: ChildProcess,
    log: PathBuf,
    data: PathBuf,
    operations: u16,
}

impl Up {
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Wait for the line that says so, and give it.
    pub(crate) async fn ready(&mut self) -> String {
        eventually(READY_WITHIN, "Bowerbird is ready, or it ends", async || {
            let said = self.said();
            if let Some(line) = said.lines().find(|line| line.starts_with("Bowerbird is ready")) {
                return Some(line.to_owned());
            }
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "it ended with {ended:?}:\n{said}");
            None
        })
        .await
    }

    /// Ctrl-C, and the exit code.
    pub(crate) async fn stop(&mut self) -> i32 {
        self.process.signal(Signal::INT);
        let status = self.process.wait(STOPPED_WITHIN).await;
        status.code().unwrap_or(-1)
    }

    /// The process id of one of its servers.
    pub(crate) fn server(&self, name: &str) -> Option<u32> {
        // The one that is its own process group's leader; PostgreSQL's workers are not.
        servers(&self.data, name).into_iter().min()
    }

    /// Wait until `/readyz` answers this status.
    pub(crate) async fn readiness(&self, status: u16) {
        let what = format!("/readyz answers {status}");
        eventually(READY_WITHIN, &what, async || (readyz(self.operations) == Some(status)).then_some(())).await;
    }
}

/// Processes of this name that work in the data directory.
pub(crate) fn servers(data: &Path, name: &str) -> Vec<u32> {
    let Ok(data) = data.canonicalize() else { return Vec::new() };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let process = PathBuf::from(format!("/proc/{id}"));
        fs::read_to_string(process.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
            && fs::read_link(process.join("cwd")).is_ok_and(|at| at.starts_with(&data))
    })
    .collect()
}

/// Wait until none of the servers works in the data directory any more.
pub(crate) async fn no_server_left(data: &Path) {
    eventually(STOPPED_WITHIN, "no server is left", async || {
        let left = servers(data, "postgres").len() + servers(data, "nats-server").len();
        (left == 0).then_some(())
    })
    .await;
}

/// Status of `/readyz`, if it is answered.
fn readyz(port: u16) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

fn rand_name() -> String {
    format!("{:08x}", rand::random::<u32>())
}
