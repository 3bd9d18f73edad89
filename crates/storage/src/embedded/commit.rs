//! Every change of the index, one after the other, many to a commit.
//!
//! One thread applies changes in the order they come. Whatever has come while the last commit was being synced shares
//! the next one, so that the cost of a sync is split among those who wait. As changes are applied one at a time, a
//! change that looks before it writes (`If-None-Match: *`) cannot be raced.

use std::{sync::Arc, thread};

use redb::{ReadableTable, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::{
    data::{Data, NewFile},
    error::StoreError,
    index::{BUCKETS, CONTENTS, EVENTS, FILES, Index, NUMBERS, OBJECTS, PARTS, UPLOADS},
    record::{EventRecord, encode},
};
use bowerbird_lifecycle::Clock;

/// How many changes may wait, and how many share a commit at most.
const QUEUE: usize = 1024;
const GROUP: usize = 256;

/// From this size on the index is kept so that it opens at once after a crash.
const QUICK_REPAIR_FROM_BYTES: u64 = 256 << 20;

/// The tables of the index while a group of changes is applied, and what else happens with the commit.
///
/// A change that refuses must do so before it writes: the others of its group are committed nevertheless.
pub(super) struct Tables<'a> {
    pub(super) buckets: Table<'a, &'static str, &'static [u8]>,
    pub(super) objects: Table<'a, &'static [u8], &'static [u8]>,
    pub(super) contents: Table<'a, u64, &'static [u8]>,
    pub(super) uploads: Table<'a, &'static [u8], &'static [u8]>,
    pub(super) parts: Table<'a, &'static [u8], &'static [u8]>,
    pub(super) files: Table<'a, u64, ()>,
    pub(super) events: Table<'a, u64, &'static [u8]>,
    numbers: Table<'a, &'static str, u64>,
    clock: &'a Clock,
    /// Files to remove after the commit, by the version that they were the content of.
    pub(super) obsolete: Vec<(u64, Vec<u64>)>,
    /// Whether anybody listens for events.
    journal: bool,
}

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction, clock: &'a Clock, journal: bool) -> Result<Self, StoreError> {
        Ok(Tables {
            buckets: transaction.open_table(BUCKETS)?,
            objects: transaction.open_table(OBJECTS)?,
            contents: transaction.open_table(CONTENTS)?,
            uploads: transaction.open_table(UPLOADS)?,
            parts: transaction.open_table(PARTS)?,
            files: transaction.open_table(FILES)?,
            events: transaction.open_table(EVENTS)?,
            numbers: transaction.open_table(NUMBERS)?,
            clock,
            obsolete: Vec::new(),
            journal,
        })
    }

    /// A version that was never given before, and the time in milliseconds.
    ///
    /// It is the time in nanoseconds, so that it does not start over when the directory does.
    pub(super) fn next_version(&mut self) -> Result<(u64, i64), StoreError> {
        let now = self.clock.now();
        let last = self.numbers.get("version")?.map_or(0, |last| last.value());
        let version = u64::try_from(now.unix_timestamp_nanos()).unwrap_or(0).max(last + 1);
        self.numbers.insert("version", version)?;
        Ok((version, i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)))
    }

    /// Write an event into the journal.
    pub(super) fn record_event(&mut self, event: &EventRecord) -> Result<(), StoreError> {
        if self.journal {
            self.events.insert(event.version, encode(event)?.as_slice())?;
        }
        Ok(())
    }
}

/// Applies a change; what it returns is called with whether the commit held.
type Change = Box<dyn FnOnce(&mut Tables<'_>) -> Result<Settle, StoreError> + Send>;
type Settle = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct Job {
    change: Change,
    /// New files whose names must be durable before the commit.
    files: Vec<u64>,
}

/// Hands changes to the thread that commits them. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub(super) struct Committer {
    jobs: mpsc::Sender<Job>,
}

impl Committer {
    /// Start the thread. `committed` is told after each commit.
    pub(super) fn start(
        index: Arc<Index>,
        data: Arc<Data>,
        clock: Clock,
        journal: bool,
        committed: impl Fn() + Send + 'static,
    ) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name("store-commit".to_owned()).spawn(move || {
            run(queue, &index, &data, &clock, journal, &committed);
        })?;
        Ok((Committer { jobs }, thread))
    }

    /// Apply a change; returns when it is durable, or was refused.
    ///
    /// The change is made even if whoever asked goes away meanwhile, so the new files that it lists are handed over: they
    /// are kept with it, and removed if it is refused.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        files: Vec<NewFile>,
        change: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let numbers = files.iter().map(|file| file.number).collect();
        let change: Change = Box::new(move |tables| match change(tables) {
            Err(error) if error.is_uncertain() => {
                // Whoever asked may have gone; there is nobody else to tell.
                let _ = answer.send(Err(error.clone()));
                Err(error)
            }
            result => Ok(Box::new(move |commit: Result<(), StoreError>| {
                // After a commit that failed it is not known what holds; the next start removes what is not listed.
                if commit.is_err() || result.is_ok() {
                    files.into_iter().for_each(NewFile::keep);
                }
                let _ = answer.send(commit.and(result));
            }) as Settle),
        });
        self.jobs.send(Job { change, files: numbers }).await.map_err(|_| StoreError::Stopping)?;
        answered.await.map_err(|_| StoreError::Stopping)?
    }
}

fn run(mut queue: mpsc::Receiver<Job>, index: &Index, data: &Data, clock: &Clock, journal: bool, committed: &(impl Fn() + Send)) {
    let mut jobs = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut jobs, GROUP) > 0 {
        let files: Vec<u64> = jobs.iter().flat_map(|job| job.files.iter().copied()).collect();
        let mut settles = Vec::with_capacity(jobs.len());
        let outcome = data.sync_names(&files).map_err(StoreError::from).and_then(|()| {
            index.write(|mut transaction| {
                // A small index is repaired in no time after a crash; a large one pays a little with each commit instead.
                transaction.set_quick_repair(index.size_bytes() > QUICK_REPAIR_FROM_BYTES);
                let mut tables = Tables::open(&transaction, clock, journal)?;
                for job in jobs.drain(..) {
                    settles.push((job.change)(&mut tables)?);
                }
                let obsolete = std::mem::take(&mut tables.obsolete);
                drop(tables);
                transaction.commit()?;
                Ok(obsolete)
            })
        });
        match outcome {
            Ok(obsolete) => {
                for settle in settles {
                    settle(Ok(()));
                }
                for (version, files) in obsolete {
                    data.remove(version, files);
                }
                committed();
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a commit to the index failed");
                jobs.clear();
                // Before anybody is answered: what comes next must find an index that works.
                if let Err(error) = index.reopen() {
                    tracing::error!(error = &error as &dyn std::error::Error, "the index could not be reopened");
                }
                for settle in settles {
                    settle(Err(StoreError::Commit(Box::new(error.clone()))));
                }
            }
        }
    }
}
