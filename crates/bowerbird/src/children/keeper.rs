//! The thread that children are started from.
//!
//! The kernel ties a child's parent death signal to the thread that started it, not to the process. A runtime's worker
//! threads come and go; this one lives as long as the [`Keeper`].

use std::{io, sync::mpsc, thread};

use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

type Request = (Command, oneshot::Sender<io::Result<Child>>);

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
            while let Ok((mut command, reply)) = received.recv() {
                // Nobody waiting any more means that the process is ending, and the child with it.
                let _ = reply.send(command.spawn());
            }
        })?;
        Ok(Keeper { requests })
    }

    /// Start a child on the keeper's thread.
    pub(crate) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, child) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts children has ended");
        self.requests.send((command, reply)).map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}
