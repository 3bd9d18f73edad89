//! Rows and objects are compared, and what one of them lost is put right.
//!
//! Nothing is concluded from silence: an error of the object store or the database ends the run, and then nothing is deleted.
//! An object counts as nobody's only when no row names it and it is older than any upload may take; a file counts as missing
//! only when a look at its very object says so. When most of what is there would have to go, the database is more likely the
//! wrong one than the bucket, and nothing goes unless the operator insists.

use std::{collections::BTreeMap, time::Duration};

use bowerbird_nats::{
    Code, FileId, Problem,
    answer::Call,
    file::FileStatus,
    reconciliation::{Reconcile, Report},
};
use bowerbird_storage::{Bucket, Listing};
use futures_util::{StreamExt as _, stream};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tracing::{info, warn};
use uuid::Uuid;

use super::{Error, Landing};
use crate::{
    database,
    supervision::{Address, OwnedTasks, Panicked},
    uploads::store::{self, Known, StoredFile},
};

/// A notification that has not come after this long counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// Rows and objects of one step.
const PAGE: usize = 1000;
/// Looks at objects beside each other.
const AT_ONCE: usize = 8;
/// Uploads in parts that are compared in one run.
const PARTS_MOST: usize = 10_000;
/// What one run deletes or calls missing at most; the next run goes on.
const MOST: usize = 100_000;
/// Fewer than this are believed whatever their share is.
const FEW: usize = 100;

/// Compares. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reconciler {
    pool: PgPool,
    bucket: Bucket,
    landing: Landing,
    orphan_age: Duration,
    address: Address<Message>,
}

/// What it is told.
pub(crate) enum Message {
    /// Compare, and tell the report.
    Begin(Reconcile, Option<Reply>),
    /// That is done.
    Done(Result<Finished, Panicked>),
}

type Reply = oneshot::Sender<Result<Report, Problem>>;

/// A run that ended.
pub(crate) struct Finished {
    report: Result<Report, Problem>,
    reply: Option<Reply>,
}

/// What it is at.
#[derive(Default)]
pub(crate) struct State {
    tasks: OwnedTasks,
    running: bool,
}

impl Reconciler {
    pub(super) fn new(pool: PgPool, bucket: Bucket, landing: Landing, orphan_age: Duration) -> Self {
        Reconciler { pool, bucket, landing, orphan_age, address: Address::default() }
    }

    /// Where it lives.
    pub(super) fn address(&self) -> &Address<Message> {
        &self.address
    }

    /// Compare now, and say what was found.
    pub(crate) async fn now(&self, asked: Reconcile) -> Result<Report, Problem> {
        let (reply, report) = oneshot::channel();
        let away = || Problem::unavailable("rows and objects cannot be compared right now; try again in a moment", 1);
        self.address.cast(Message::Begin(asked, Some(reply))).map_err(|_| away())?;
        report.await.map_err(|_| away())?
    }

    /// Compare now, unless it does already.
    pub(super) fn begin(&self) {
        let _ = self.address.cast(Message::Begin(Reconcile::default(), None));
    }
}

impl Actor for Reconciler {
    type Msg = Message;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<State, ActorProcessingErr> {
        Ok(State::default())
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Begin(_, reply) if state.running => {
                if let Some(reply) = reply {
                    let busy =
                        Problem::new(Code::InvalidState, "rows and objects are being compared already; its report is in the log");
                    let _ = reply.send(Err(busy));
                }
            }
            Message::Begin(asked, reply) => {
                state.running = true;
                let reconciler = self.clone();
                let run = async move { Finished { report: reconciler.run(&asked).await, reply } };
                state.tasks.spawn(&myself, run, Message::Done);
            }
            Message::Done(ended) => {
                // Before the answer: whoever has it may ask again.
                state.running = false;
                let Finished { report, reply } = ended?;
                // Whoever asked may have stopped waiting.
                let _ = reply.map(|reply| reply.send(report));
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.tasks.abort_all().await;
        Ok(())
    }
}

/// What operators ask.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) reconciler: Reconciler,
}

impl Requests {
    /// Compare now. It goes on when nobody waits for its report any more.
    pub(super) async fn reconcile(self, call: Call<Reconcile>) -> Result<Report, Problem> {
        self.reconciler.now(call.request).await
    }
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Looking(#[from] Error),
    #[error("{0}")]
    Suspicious(String),
}

impl From<store::Error> for Stopped {
    fn from(error: store::Error) -> Self {
        Stopped::Looking(error.into())
    }
}

impl From<bowerbird_storage::Error> for Stopped {
    fn from(error: bowerbird_storage::Error) -> Self {
        Stopped::Looking(error.into())
    }
}

/// What a run found and has not acted on yet.
#[derive(Default)]
struct Findings {
    orphans: Vec<Known>,
    missing: Vec<StoredFile>,
    files: u64,
}

impl Reconciler {
    async fn run(&self, asked: &Reconcile) -> Result<Report, Problem> {
        let now = store::now(&self.pool).await.map_err(|error| problem(&error))?;
        let mut report = Report {
            dry_run: asked.dry_run,
            started_at: now,
            finished_at: now,
            uploads: 0,
            landed: 0,
            objects: 0,
            orphans: 0,
            young: 0,
            foreign: 0,
            missing: 0,
            found: 0,
            abandoned_parts: 0,
            orphan_bytes: 0,
            stopped: None,
        };
        if let Err(stopped) = self.compare(asked, now, &mut report).await {
            warn!(%stopped, "the comparison of rows and objects ended early");
            report.stopped = Some(stopped.to_string());
        }
        report.finished_at = store::now(&self.pool).await.map_err(|error| problem(&error))?;
        info!(?report, "rows and objects were compared");
        Ok(report)
    }

    async fn compare(&self, asked: &Reconcile, now: OffsetDateTime, report: &mut Report) -> Result<(), Stopped> {
        self.uploads(asked.dry_run, report).await?;
        let findings = self.objects(asked.dry_run, now, report).await?;
        report.orphans = findings.orphans.len() as u64;
        report.missing = findings.missing.len() as u64;
        if !asked.force {
            believable("objects that no row names", findings.orphans.len(), report.objects)?;
            believable("files whose objects are not there", findings.missing.len(), findings.files)?;
        }
        if !asked.dry_run {
            for file in &findings.missing {
                self.landing.look_for(file).await?;
            }
            for orphan in &findings.orphans {
                store::purge_object(&self.pool, orphan).await?;
            }
            self.landing.purge_now();
        }
        self.parts(asked.dry_run, now, report).await
    }

    /// Pending uploads whose objects may be there.
    async fn uploads(&self, dry_run: bool, report: &mut Report) -> Result<(), Stopped> {
        let mut after: Option<Uuid> = None;
        loop {
            let ids = store::unfinished_after(&self.pool, after, LOST_AFTER, i64::try_from(PAGE).unwrap_or(i64::MAX)).await?;
            after = ids.last().map(|id| id.0);
            report.uploads += ids.len() as u64;
            let full = ids.len() == PAGE;
            let mut looks = stream::iter(ids)
                .map(|id| async move { if dry_run { self.landing.would_land(id).await } else { self.landing.look(id).await } })
                .buffer_unordered(AT_ONCE);
            while let Some(landed) = looks.next().await {
                report.landed += u64::from(landed?);
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// The whole bucket beside all files, in the order of keys.
    async fn objects(&self, dry_run: bool, now: OffsetDateTime, report: &mut Report) -> Result<Findings, Stopped> {
        let mut findings = Findings::default();
        let mut after: Option<String> = None;
        loop {
            let page = self.bucket.list("", after.as_deref(), PAGE).await?;
            let last_page = page.len() < PAGE;
            let to = if last_page { None } else { page.last().map(|object| object.key.clone()) };
            self.nobodys(&page, now, report, &mut findings).await?;
            self.files(dry_run, (after.as_deref(), to.as_deref()), &page, report, &mut findings).await?;
            if last_page {
                return Ok(findings);
            }
            after = to;
        }
    }

    async fn nobodys(
        &self,
        page: &[Listing],
        now: OffsetDateTime,
        report: &mut Report,
        findings: &mut Findings,
    ) -> Result<(), Stopped> {
        report.objects += page.len() as u64;
        let ours: Vec<(&Listing, Known)> = page.iter().filter_map(|object| Some((object, known(&object.key)?))).collect();
        report.foreign += (page.len() - ours.len()) as u64;
        let keys: Vec<Known> = ours.iter().map(|(_, known)| known.clone()).collect();
        let named = store::known_keys(&self.pool, &keys).await?;
        for (object, known) in ours {
            if named.contains(&object.key) {
                continue;
            }
            if object.modified > now - self.orphan_age {
                report.young += 1;
            } else if findings.orphans.len() < MOST {
                report.orphan_bytes += object.size_bytes;
                findings.orphans.push(known);
            }
        }
        Ok(())
    }

    /// Files with keys in this range, each beside its object.
    async fn files(
        &self,
        dry_run: bool,
        (after, to): (Option<&str>, Option<&str>),
        page: &[Listing],
        report: &mut Report,
        findings: &mut Findings,
    ) -> Result<(), Stopped> {
        let there: BTreeMap<&str, &Listing> = page.iter().map(|object| (object.key.as_str(), object)).collect();
        let mut after = after.map(str::to_owned);
        loop {
            let files = store::files_between(&self.pool, after.as_deref(), to, i64::try_from(PAGE).unwrap_or(i64::MAX)).await?;
            findings.files += files.len() as u64;
            let full = files.len() == PAGE;
            after = files.last().map(|file| file.object_key.clone());
            for file in files {
                match (file.status, there.get(file.object_key.as_str())) {
                    (FileStatus::Missing, Some(object)) if object.etag == file.etag => {
                        report.found += 1;
                        if !dry_run {
                            self.landing.look_for(&file).await?;
                        }
                    }
                    // It may have come after the page was read.
                    (FileStatus::Available | FileStatus::Quarantined, None)
                        if findings.missing.len() < MOST && self.bucket.head(&file.object_key).await?.is_none() =>
                    {
                        findings.missing.push(file);
                    }
                    _ => {}
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// Uploads in parts that nobody finishes.
    async fn parts(&self, dry_run: bool, now: OffsetDateTime, report: &mut Report) -> Result<(), Stopped> {
        let uploads = self.bucket.list_uploads("", PARTS_MOST).await?;
        let old: Vec<_> = uploads
            .into_iter()
            .filter(|upload| upload.initiated <= now - self.orphan_age)
            .filter_map(|upload| Some((known(&upload.key)?.file_id, upload)))
            .collect();
        let names: Vec<(String, Uuid)> = old.iter().map(|(file, upload)| (upload.upload_id.clone(), *file)).collect();
        let named = store::known_uploads(&self.pool, &names).await?;
        for (_, upload) in old.iter().filter(|(_, upload)| !named.contains(&upload.upload_id)) {
            report.abandoned_parts += 1;
            if !dry_run {
                self.bucket.abort_multipart(&upload.key, &upload.upload_id).await?;
            }
        }
        Ok(())
    }
}

/// Few, or not most of all there are.
fn believable(what: &str, count: usize, of: u64) -> Result<(), Stopped> {
    if count <= FEW || (count as u64).saturating_mul(2) <= of {
        return Ok(());
    }
    Err(Stopped::Suspicious(format!(
        "there are {count} {what}, of {of}: this looks like the database of another bucket, or an old backup; nothing was \
         deleted. If it is right all the same, ask again with \"force\": true"
    )))
}

/// A key of our form: `<account>/<file>/<number>`.
fn known(key: &str) -> Option<Known> {
    let mut tokens = key.split('/');
    let (account, file, number) = (tokens.next()?, tokens.next()?, tokens.next()?);
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && tokens.next().is_none();
    let file: FileId = file.parse().ok()?;
    account.parse::<FileId>().ok().filter(|_| plain)?;
    Some(Known { key: key.to_owned(), file_id: file.0 })
}

fn problem(error: &store::Error) -> Problem {
    match error {
        store::Error::Database(error) => database::problem(error),
        _ => Problem::internal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_of_our_form_are_ours() {
        let id = "0198c0de-7a2b-7c3d-8e4f-0123456789ab";
        assert!(known(&format!("{id}/{id}/0")).is_some());
        for key in [
            String::new(),
            "a/b/c".to_owned(),
            format!("{id}/{id}"),
            format!("{id}/{id}/"),
            format!("{id}/{id}/x"),
            format!("{id}/{id}/0/1"),
            ".self-test/ab".to_owned(),
        ] {
            assert_eq!(known(&key), None, "{key}");
        }
    }

    #[test]
    fn most_of_a_bucket_is_not_deleted_because_the_database_says_so() {
        assert!(believable("x", 100, 100).is_ok());
        assert!(believable("x", 101, 202).is_ok());
        let said = believable("objects", 101, 150).unwrap_err().to_string();
        assert!(said.contains("force"), "{said}");
    }
}
