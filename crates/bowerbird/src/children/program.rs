//! Where programs are, how old they are, and how they are run.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use crate::failure::Failure;

/// How long a program may take to print its version or to do a small errand.
const ERRAND: Duration = Duration::from_secs(20);

/// Folders of programs on Debian, Ubuntu and most others; children get the same as their `PATH`.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A version of two numbers: major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Version {
    /// The first `number.number` of a program's greeting, such as `nats-server: v2.15.1` or `postgres (PostgreSQL) 15.18`.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split(|c: char| c.is_whitespace() || c == '(' || c == ')').find_map(|word| {
            let mut numbers = word.trim_start_matches('v').split('.');
            let major = numbers.next()?.parse().ok()?;
            let minor: String = numbers.next()?.chars().take_while(char::is_ascii_digit).collect();
            Some(Version(major, minor.parse().ok()?))
        })
    }
}

/// A user of the system that a child runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) group: u32,
}

/// What a child is told when its parent is gone, in the words of setpriv(1).
#[derive(Clone, Copy, Debug)]
pub(crate) enum WhenOrphaned {
    /// SIGINT: PostgreSQL rolls back what runs and writes a checkpoint.
    Interrupt,
    /// SIGTERM: nats-server ends in good order.
    Terminate,
    /// SIGKILL, for errands.
    Kill,
}

/// A command that runs `program` with an empty environment, detached from the terminal, told when its parent is gone.
pub(crate) fn command(program: &Path, user: Option<User>, when_orphaned: WhenOrphaned) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    let signal = match when_orphaned {
        WhenOrphaned::Interrupt => "INT",
        WhenOrphaned::Terminate => "TERM",
        WhenOrphaned::Kill => "KILL",
    };
    command.args(["--pdeathsig", signal]);
    if let Some(User { id, group }) = user {
        command.arg(format!("--reuid={id}")).arg(format!("--regid={group}")).arg("--clear-groups");
    }
    command.arg("--").arg(program);
    command.env_clear().env("PATH", SYSTEM_PATH).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.stdin(Stdio::null()).process_group(0);
    command
}

/// Run an errand to its end; its standard output, or everything it wrote when it failed.
pub(crate) async fn errand(mut command: Command) -> Result<String, String> {
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(ERRAND.max(Duration::from_mins(2)), running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("not finished within two minutes".into()),
    };
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)))
}

/// What `program --version` says of itself.
pub(crate) async fn version(program: &Path) -> Option<Version> {
    let mut asking = command(program, None, WhenOrphaned::Kill);
    asking.arg("--version");
    Version::find(&errand(asking).await.ok()?)
}

/// Every place that a program of this name is at, best first: `.tools/bin` of the folders above the executable (where
/// `scripts/setup` puts it; never of the working folder, which may be anybody's), then the folders of the user's `PATH`.
pub(crate) async fn candidates(name: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Ok(executable) = std::env::current_exe() {
        folders.extend(executable.ancestors().skip(1).take(5).map(|folder| folder.join(".tools/bin")));
    }
    let mut found: Vec<PathBuf> = folders.into_iter().map(|folder| folder.join(name)).collect();
    // The shell knows the user's PATH.
    let mut asking = Command::new("/bin/sh");
    asking.args(["-c", "command -v -- \"$1\"", "sh", name]).stdin(Stdio::null());
    if let Ok(said) = errand(asking).await {
        found.push(PathBuf::from(said.trim()));
    }
    found.extend(SYSTEM_PATH.split(':').map(|folder| Path::new(folder).join(name)));
    found.retain(|path| path.is_absolute() && path.is_file());
    found.dedup();
    found
}

/// Refuse to start without what every child is started with.
pub(crate) fn require_setpriv() -> Result<(), Failure> {
    if Path::new("/usr/bin/setpriv").is_file() {
        return Ok(());
    }
    Err(Failure::Unavailable(
        "/usr/bin/setpriv is missing; install util-linux, or set database.url and nats.url to servers that run already".into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        for (text, version) in [
            ("nats-server: v2.15.1", Some(Version(2, 15))),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(Version(15, 18))),
            ("postgres (PostgreSQL) 18beta1", None),
            ("nats-server: v2.15.0-beta.2", Some(Version(2, 15))),
            ("hello", None),
        ] {
            assert_eq!(Version::find(text), version, "{text}");
        }
        assert!(Version(2, 9) < Version(2, 15));
    }
}
