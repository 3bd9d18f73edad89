//! The embedded object store alone, for tests that kill it and for measuring it.
//!
//! `store <directory> [address] [notify]`: serves the bucket `bowerbird` with the keys `test-key` and `test-secret`,
//! prints its address. With `notify` it keeps events in the journal, as nobody takes them, and ends with its standard input,
//! so that it does not outlive the test that started it.

use std::{sync::Arc, time::Duration};

use bowerbird_storage::embedded::{self, BoxFuture, Notifier, NotifyError, Options};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

struct Nobody;

impl Notifier for Nobody {
    fn publish(&self, _payload: Bytes, _message_id: String) -> BoxFuture<'_, Result<(), NotifyError>> {
        Box::pin(async { Err(NotifyError("nobody listens".to_owned())) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let root = arguments.get(1).ok_or("store <directory> [address] [notify]")?;
    let address = arguments.get(2).map_or("127.0.0.1:0", String::as_str);
    let notifier = (arguments.get(3).is_some()).then(|| Arc::new(Nobody) as Arc<dyn Notifier>);
    let listener = TcpListener::bind(address).await?;
    let shutdown = CancellationToken::new();
    let options = Options::new(root, "test-key", "test-secret", "bowerbird");
    let running = embedded::serve(options, listener, notifier, shutdown.clone()).await?;
    #[expect(clippy::print_stdout, reason = "whoever started it waits for the address")]
    {
        println!("{}", running.address());
    }
    let (ended, parent_is_gone) = tokio::sync::oneshot::channel();
    let held = if arguments.get(3).is_some() {
        std::thread::spawn(move || {
            // However it ends, whoever held the other side is gone.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = ended.send(());
        });
        None
    } else {
        Some(ended)
    };
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = parent_is_gone => {}
    }
    drop(held);
    shutdown.cancel();
    running.stopped(Duration::from_secs(10)).await;
    Ok(())
}
