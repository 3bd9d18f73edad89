//! An S3 server of our own, for those who have none.
//!
//! The `s3s` crate speaks the protocol; what is behind it is here. An object is visible, with its metadata, all at once
//! or not at all, and durable before the answer:
//!
//! - `receive` writes a body to a file of its own and fsyncs it; a small one stays in memory;
//! - `commit` then writes everything else (record, list of files, event) in one transaction of the `index`, shared
//!   by all who wait at that moment;
//! - `data` removes files when nothing lists them any more and nobody reads them.
//!
//! What outlives a request is the directory: `index.redb`, `data/` and `lock`.

mod buckets;
mod checksum;
mod commit;
mod cors;
mod data;
mod error;
mod index;
mod journal;
mod listing;
mod multipart;
mod objects;
mod read;
mod receive;
mod record;
mod server;
mod service;
mod store;

use std::{
    fs::{self, File, TryLockError},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use bowerbird_lifecycle::{Clock, Tasks};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tokio::{net::TcpListener, sync::Notify, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use self::{commit::Committer, cors::Cors, error::StoreError, index::Index, server::Server, service::Service, store::Store};
pub use self::{
    error::Error,
    journal::{BoxFuture, Notifier, NotifyError},
};

/// What an embedded object store is made of.
#[derive(Clone)]
pub struct Options {
    /// The directory that it keeps everything in. Made when it is missing; never shared with another process.
    pub root: PathBuf,
    /// The key that requests are signed with.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// The region it says that it is in.
    pub region: String,
    /// A bucket that is made at the start.
    pub bucket: String,
    /// Origins whose pages may talk to it: `https://app.example`, or `*` for any.
    pub cors_origins: Vec<String>,
    /// How many connections there may be; the next one waits.
    pub max_connections: usize,
    /// Space on the disk that no object may take, so that what is there can still be deleted.
    pub reserve_bytes: u64,
    /// What tells the time.
    pub clock: Clock,
}

impl Options {
    /// Options that fit most: any origin, 512 connections, 64 MiB of reserve.
    pub fn new(root: impl Into<PathBuf>, access_key_id: &str, secret_access_key: &str, bucket: &str) -> Self {
        Options {
            root: root.into(),
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
            region: "us-east-1".to_owned(),
            bucket: bucket.to_owned(),
            cors_origins: vec!["*".to_owned()],
            max_connections: 512,
            reserve_bytes: 64 << 20,
            clock: Clock::system(),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Options").field("root", &self.root).field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

/// A store that serves. It stops when the token that it was given is cancelled; [`Running::stopped`] waits for that.
pub struct Running {
    address: SocketAddr,
    tasks: Tasks,
    commits: thread::JoinHandle<()>,
    index: Arc<Index>,
    lock: File,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Wait until every request is answered and the directory is free again. False: not within `grace`.
    pub async fn stopped(self, grace: Duration) -> bool {
        let Running { tasks, commits, index, lock, .. } = self;
        if !tasks.wait(grace).await {
            return false;
        }
        // The last handle on the store was dropped with the last task, which ends the thread.
        let ended = spawn_blocking(move || {
            let ended = commits.join().is_ok();
            // A request that was cut off may still be reading somewhere in the blocking pool.
            index.close();
            ended
        });
        let ended = tokio::time::timeout(grace, ended).await.is_ok_and(|ended| ended.unwrap_or(false));
        drop(lock);
        ended
    }
}

/// Open the directory and serve it on a listener until `shutdown`.
///
/// Every change of an object is told to `notifier`, also those that a former process had no time to tell.
pub async fn serve(
    options: Options,
    listener: TcpListener,
    notifier: Option<Arc<dyn Notifier>>,
    shutdown: CancellationToken,
) -> Result<Running, Error> {
    let address = listener.local_addr().map_err(Error::Listen)?;
    let (root, reserve_bytes) = (options.root.clone(), options.reserve_bytes);
    let directory_error = |source| Error::Directory { root: options.root.clone(), source };
    let opened = spawn_blocking(move || {
        let lock = lock(&root)?;
        let (index, data) = Store::open_directory(&root, reserve_bytes)?;
        Ok((lock, index, data))
    });
    let (lock, index, data) = opened.await.map_err(|error| directory_error(std::io::Error::other(error)))??;

    let committed = Arc::new(Notify::new());
    let wake = Arc::clone(&committed);
    let (committer, commits) =
        Committer::start(Arc::clone(&index), Arc::clone(&data), options.clock.clone(), notifier.is_some(), move || {
            wake.notify_one();
        })
        .map_err(directory_error)?;
    let store = Arc::new(Store { index: Arc::clone(&index), data, committer, clock: options.clock, region: options.region });
    match store.make_bucket(options.bucket.clone()).await {
        Ok(()) | Err(StoreError::BucketExists) => {}
        Err(error) => return Err(Error::Bucket { bucket: options.bucket, reason: error.to_string() }),
    }

    let tasks = Tasks::default();
    if let Some(notifier) = notifier {
        tasks.spawn(journal::deliver(Arc::clone(&store), notifier, committed, shutdown.clone()));
    }
    let mut builder = S3ServiceBuilder::new(Service(store));
    builder.set_auth(SimpleAuth::from_single(options.access_key_id, options.secret_access_key));
    let server = Arc::new(Server {
        service: builder.build(),
        cors: Cors::new(options.cors_origins),
        max_connections: options.max_connections,
    });
    tasks.spawn(server.run(listener, tasks.clone(), shutdown));
    Ok(Running { address, tasks, commits, index, lock })
}

/// Take the directory for this process alone.
fn lock(root: &Path) -> Result<File, Error> {
    let directory = |source| Error::Directory { root: root.to_owned(), source };
    fs::create_dir_all(root).map_err(directory)?;
    let file = File::options().create(true).truncate(false).write(true).open(root.join("lock")).map_err(directory)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { root: root.to_owned() }),
        Err(TryLockError::Error(source)) => Err(directory(source)),
    }
}
