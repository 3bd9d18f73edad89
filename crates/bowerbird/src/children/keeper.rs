//! The thread that children are started from.
//!
//! The kernel ties a child's parent death signal to the thread that started it, not to the process. A runtime's worker
//! threads come and go; this one lives as long as the [`Keeper`].

use std::{io, process::ExitStatus, sync::mpsc, thread};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

type Request = (Command, Signal, oneshot::Sender<io::Result<Running>>);

/// A child that runs. Dropped, it is told to end: the kernel tells it only once it has asked for that, which takes it a
/// moment after its start.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stop: Signal,
}

impl Running {
    /// Ask it to end in good order.
    pub(crate) fn ask_to_end(&self) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // Not reaped yet, so the id is still its own.
            let _ = kill_process(pid, self.stop);
        }
    }

    /// Wait for its end.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// End it at once.
    pub(crate) async fn kill(&mut self) {
        // It may have ended meanwhile, which is what is wanted.
        let _ = self.child.kill().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ask_to_end();
    }
}

/// Starts children. When the last clone is dropped the thread ends, and the kernel stops every child that still runs.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    requests: mpsc::Sender<Request>,
}

impl Keeper {
    /// Start the thread. Must be called inside a tokio runtime.
    pub(crate) fn start() -> io::Result<Self> {
        let (requests, received) = mpsc::channel::<Request>();
        let runtime = Handle::current();
        thread::Builder::new().name("children".into()).spawn(move || {
            let _inside = runtime.enter();
            while let Ok((mut command, stop, reply)) = received.recv() {
                // Nobody waiting any more means that the process is ending, and the child with it.
                let _ = reply.send(command.spawn().map(|child| Running { child, stop }));
            }
        })?;
        Ok(Keeper { requests })
    }

    /// Start a child on the keeper's thread; `stop` asks it to end in good order.
    pub(crate) async fn spawn(&self, command: Command, stop: Signal) -> io::Result<Running> {
        let (reply, child) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts children has ended");
        self.requests.send((command, stop, reply)).map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_child_that_nobody_holds_any_more_is_told_to_end() {
        let keeper = Keeper::start().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let child = keeper.spawn(command, Signal::TERM).await.unwrap();
        let process = format!("/proc/{}/stat", child.child.id().unwrap());
        assert!(std::fs::exists(&process).unwrap());
        drop(child);
        // Reaped by the runtime or not, it does not run any more.
        bowerbird_testkit::eventually(Duration::from_secs(20), "it has ended", async || {
            match std::fs::read_to_string(&process) {
                Ok(stat) => stat.contains(") Z ").then_some(()),
                Err(_) => Some(()),
            }
        })
        .await;
    }
}
