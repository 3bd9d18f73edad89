//! Child processes that end with the test.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A child that is killed when this is dropped, and by the kernel when the thread that started it ends.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
}

impl ChildProcess {
    /// A command that runs `program` so that it is killed with the thread that spawns it. Add arguments, then hand it to
    /// [`ChildProcess::spawn`].
    pub fn command(program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
        command
    }

    /// Start it.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(ChildProcess { child: command.spawn()? })
    }

    /// The process id; also that of the program itself, as `setpriv` becomes it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Send a signal. Nothing happens if the child has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended meanwhile; it is not reaped before `wait`, so the id is still its own.
            let _ = kill_process(pid, signal);
        }
    }

    /// `Some` when it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Wait for its end without blocking the runtime.
    ///
    /// # Panics
    /// When it has not ended within `within`.
    pub async fn wait(&mut self, within: Duration) -> ExitStatus {
        crate::eventually(within, "the child process ends", async || self.child.try_wait().ok().flatten()).await
    }

    /// Kill it and wait for its end.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What the child writes to its standard output and error, for those that asked for pipes.
    pub fn streams(&mut self) -> (Option<std::process::ChildStdout>, Option<std::process::ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Whether a process with this id exists (a zombie does).
pub fn process_exists(pid: u32) -> bool {
    i32::try_from(pid).ok().and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Run a program to its end and return what it wrote to standard output.
pub(crate) fn run(command: &mut Command, within: Duration) -> Result<String, String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    let deadline = Instant::now() + within;
    // Only for programs that write less than a pipe holds.
    while child.try_wait().map_err(|error| format!("{shown}: {error}"))?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{shown}: not finished within {within:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{shown}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// The folder of the workspace, where `.tools` is.
pub fn workspace_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

/// A program that `scripts/setup` put into `.tools/bin`, else one from the system's folders.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let system = ["/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    std::iter::once(workspace_folder().join(".tools/bin"))
        .chain(system.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
