//! A nats-server of a test's own: JetStream on, every write synced, its store in a temporary folder.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream, time::Instant};

use crate::process::{ChildProcess, find_program};

/// How long a start may take; 50 ms on an idle machine.
const START: Duration = Duration::from_secs(30);

/// A running nats-server. It ends when this is dropped or when the test is killed. Its port stays the same over restarts.
#[derive(Debug)]
pub struct NatsServer {
    folder: TempDir,
    extra: String,
    port: u16,
    process: Option<ChildProcess>,
}

/// What nats-server writes when it is asked to tell its ports.
#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl NatsServer {
    /// Start one with JetStream, `sync_interval: always`, no authentication.
    ///
    /// # Panics
    /// When there is no nats-server, or it does not start; with what it logged.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same with lines added to its configuration file: users, accounts, limits.
    pub async fn start_with(extra: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("bowerbird-nats-").tempdir().expect("no temporary folder");
        let mut server = NatsServer { folder, extra: extra.to_owned(), port: 0, process: None };
        server.launch().await;
        server
    }

    /// `nats://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(ChildProcess::id)
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Stop it in good order.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait(Duration::from_secs(20)).await;
        }
    }

    /// Kill it if it runs, and start it again on the same port with the same store.
    pub async fn restart(&mut self) {
        self.kill9();
        self.launch().await;
    }

    /// Kill it, delete everything that JetStream stored, and start it again on the same port.
    pub async fn wipe_jetstream(&mut self) {
        self.kill9();
        let store = self.store();
        if store.exists() {
            fs::remove_dir_all(&store).expect("the store of a dead server can be removed");
        }
        self.launch().await;
    }

    /// Stand still (SIGSTOP), connections open, as a machine does that swaps or is cut off.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Go on after [`NatsServer::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// What it logged since it was first started, and what the last start wrote to standard error.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("log") + &read("stderr")
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    async fn launch(&mut self) {
        let program = find_program("nats-server").expect("there is no nats-server; run scripts/setup");
        let folder = self.folder.path();
        let asked = if self.port == 0 { -1 } else { i32::from(self.port) };
        let configuration = format!(
            "listen: \"127.0.0.1:{asked}\"\nlog_file: \"{log}\"\nports_file_dir: \"{ports}\"\n\
             jetstream {{ store_dir: \"{store}\", sync_interval: always, max_mem: 256MB, \
             max_file: 4GB }}\n{extra}\n",
            log = folder.join("log").display(),
            ports = folder.display(),
            store = self.store().display(),
            extra = self.extra,
        );
        let file = folder.join("nats.conf");
        fs::write(&file, configuration).expect("the configuration can be written");
        let mut command = ChildProcess::command(program);
        command.arg("-c").arg(&file).stdout(Stdio::null()).stderr(File::create(folder.join("stderr")).expect("a file"));
        let mut process = ChildProcess::spawn(&mut command).expect("nats-server can be started through setpriv");

        let deadline = Instant::now() + START;
        loop {
            if let Some(port) = self.told_port(process.id())
                && greets(port).await
            {
                self.port = port;
                self.process = Some(process);
                return;
            }
            let ended = process.try_wait().ok().flatten();
            assert!(ended.is_none() && Instant::now() < deadline, "nats-server did not start ({ended:?}):\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The port, once the server has told it.
    fn told_port(&self, pid: u32) -> Option<u16> {
        let text = fs::read_to_string(self.folder.path().join(format!("nats-server_{pid}.ports"))).ok()?;
        let ports: Ports = serde_json::from_str(&text).ok()?;
        ports.nats.first()?.rsplit(':').next()?.parse().ok()
    }
}

/// Whether a NATS server answers there: it speaks first, with `INFO`.
async fn greets(port: u16) -> bool {
    #[expect(clippy::disallowed_methods, reason = "a test dials its own server")]
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let mut greeting = [0_u8; 4];
    let read = tokio::time::timeout(Duration::from_secs(2), stream.read_exact(&mut greeting)).await;
    matches!(read, Ok(Ok(_))) && &greeting == b"INFO"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::process_exists;

    #[tokio::test]
    async fn a_server_keeps_its_port_over_a_kill_and_ends_with_its_owner() {
        let mut server = NatsServer::start().await;
        let (url, first) = (server.url(), server.pid().unwrap());
        server.restart().await;
        assert_eq!(server.url(), url);
        assert!(!process_exists(first));
        let second = server.pid().unwrap();
        server.stop().await;
        assert!(!process_exists(second));
        server.wipe_jetstream().await;
        let third = server.pid().unwrap();
        assert!(process_exists(third));
        drop(server);
        assert!(!process_exists(third));
    }

    #[tokio::test]
    #[should_panic(expected = "nonsense")]
    async fn a_server_that_refuses_its_configuration_says_why() {
        let _server = NatsServer::start_with("lame_duck_duration: nonsense").await;
    }
}
