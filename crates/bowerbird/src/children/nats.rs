//! Our own nats-server: on the loopback interface, with a password, every write of JetStream synced.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
};

use super::{
    guardian::{Guardian, Recipe},
    keeper::Keeper,
    leftover,
    program::{self, Version, WhenOrphaned},
};
use crate::{
    data_dir::{Credentials, DataDir, cannot_write, write_private},
    failure::Failure,
};

/// Oldest version that Bowerbird runs on: schedules with all their fixes, cheap syncs.
const OLDEST: Version = Version(2, 15);
/// Longest first line of a NATS server that is read, in bytes.
const LONGEST_GREETING: u64 = 16 << 10;
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);

/// A nats-server in the data directory that can be started.
pub(crate) struct NatsServer {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    name: String,
}

impl NatsServer {
    /// Settle the port of this program's server, write its configuration.
    pub(crate) async fn prepare(program: PathBuf, data_dir: &DataDir, credentials: &mut Credentials) -> Result<Self, Failure> {
        let folder = data_dir.folder("nats")?;
        if !leftover::end("nats-server", &folder, Signal::TERM, LEFTOVER_PATIENCE).await {
            return Err(Failure::Unavailable(format!(
                "a nats-server of an earlier run still uses {} and does not end; end it, then start again",
                folder.display()
            )));
        }
        data_dir.settle_nats_port(credentials)?;
        let file = folder.join("nats.conf");
        write_private(&file, configuration(&folder, credentials).as_bytes()).map_err(|error| cannot_write(&file, &error))?;
        Ok(NatsServer { program, folder, port: credentials.nats_port, name: server_name(credentials) })
    }

    /// Start it.
    pub(crate) async fn start(
        self,
        keeper: Keeper,
        tasks: &bowerbird_lifecycle::Tasks,
        gave_up: impl FnOnce(Failure) + Send + 'static,
    ) -> Result<Guardian, Failure> {
        let (port, name) = (self.port, format!("\"{}\"", self.name));
        let recipe = Recipe {
            name: "nats-server",
            log: self.folder.join("server.log"),
            stop: Signal::TERM,
            command: Box::new(move || {
                let mut command = program::command(&self.program, None, WhenOrphaned::Terminate);
                command.arg("-c").arg(self.folder.join("nats.conf")).current_dir(&self.folder);
                command
            }),
            answers: Box::new(move || Box::pin(greets(port, name.clone()))),
        };
        Guardian::start(recipe, keeper, tasks, gave_up).await
    }
}

/// The URL that our own server is reached at.
pub(crate) fn url(credentials: &Credentials) -> String {
    format!("nats://127.0.0.1:{}", credentials.nats_port)
}

/// Where our own server listens, which nobody's download may dial.
pub(crate) fn address(credentials: &Credentials) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, credentials.nats_port).into()
}

/// What our own server calls itself, unlike that of any other data directory.
fn server_name(credentials: &Credentials) -> String {
    format!("bowerbird-{}", credentials.node_id)
}

fn configuration(folder: &Path, credentials: &Credentials) -> String {
    format!(
        "# Written by `bowerbird up` at every start.\n\
         server_name: \"{name}\"\n\
         listen: \"127.0.0.1:{port}\"\n\
         max_payload: 1MB\n\
         max_pending: 64MB\n\
         write_deadline: \"10s\"\n\
         authorization {{ user: \"{user}\", password: \"{password}\" }}\n\
         jetstream {{\n\
         \x20   store_dir: {store:?}\n\
         \x20   max_mem: 256MB\n\
         \x20   # What was acknowledged is on the disk.\n\
         \x20   sync_interval: always\n\
         }}\n",
        name = server_name(credentials),
        port = credentials.nats_port,
        user = credentials.nats_user,
        password = credentials.nats_password,
        store = folder.join("store").to_string_lossy(),
    )
}

/// The nats-server of this machine. Writes nothing.
pub(crate) async fn find() -> Result<PathBuf, Failure> {
    program::require_setpriv()?;
    let mut found = Vec::new();
    for candidate in program::candidates("nats-server").await {
        match program::version(&candidate).await {
            // The rest need not be asked.
            Some(version) if version >= OLDEST => return Ok(candidate),
            Some(version) => found.push((version, candidate)),
            None => {}
        }
    }
    choose(found)
}

/// The first nats-server that is new enough; if there are only old ones, the sentence names the first.
fn choose(found: Vec<(Version, PathBuf)>) -> Result<PathBuf, Failure> {
    let first = found.first().cloned();
    if let Some((_, path)) = found.into_iter().find(|(version, _)| *version >= OLDEST) {
        return Ok(path);
    }
    Err(Failure::Unavailable(match first {
        Some((version, path)) => format!(
            "nats-server {version} at {} is too old, {OLDEST} or newer is needed; run scripts/setup, or set nats.url to a server \
             that runs already",
            path.display()
        ),
        None => format!(
            "there is no nats-server on this machine, {OLDEST} or newer is needed; run scripts/setup, or set nats.url to a \
             server that runs already"
        ),
    }))
}

/// Whether our own NATS server answers: it speaks first, with `INFO` and its name in it. Another program on the port is not it.
async fn greets(port: u16, quoted_name: String) -> bool {
    #[expect(clippy::disallowed_methods, reason = "our own child on the loopback interface, no address that anybody gave")]
    let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        return false;
    };
    let mut greeting = String::new();
    let read = BufReader::new(stream.take(LONGEST_GREETING)).read_line(&mut greeting).await;
    read.is_ok() && greeting.starts_with("INFO") && greeting.contains(&quoted_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_old_server_is_a_sentence_that_says_what_to_do() {
        let old = (Version(2, 9), PathBuf::from("/usr/sbin/nats-server"));
        let new = (Version(2, 16), PathBuf::from("/opt/nats-server"));
        assert_eq!(choose(vec![old.clone(), new]).unwrap(), PathBuf::from("/opt/nats-server"));
        let refused = choose(vec![old]).unwrap_err().to_string();
        assert!(refused.contains("2.9 at /usr/sbin/nats-server is too old, 2.15"), "{refused}");
        let missing = choose(Vec::new()).unwrap_err();
        assert!(matches!(&missing, Failure::Unavailable(sentence) if sentence.contains("scripts/setup")), "{missing}");
    }
}
