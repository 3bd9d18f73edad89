//! Looking at an object and saying what it means: for the upload that waits for it, or for the file that had it.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use bowerbird_nats::{
    UploadId,
    file::FileStatus,
    upload::{ErrorCode, Failure, Status},
};
use bowerbird_storage::{self as bucket, Bucket, ErrorKind, ObjectInfo};
use futures_util::future::BoxFuture;
use sqlx::{PgConnection, PgPool};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    intake,
    outside::{Decision, Outside},
    sniff,
};
use crate::{
    alarms::{self, Due, Kind, WakeError, Wakes},
    events::Bell,
    files,
    metrics::{Meters, TryResult},
    supervision::Address,
    uploads::{
        row::Row,
        store::{self, Landed},
    },
};

/// What is read back for its digest while somebody waits. More is read later.
const READ_AT_ONCE_BYTES: u64 = 4 << 20;
/// An upload that is being worked on is looked at by nobody else for this long.
const LOOK_AGAIN_AFTER: Duration = Duration::from_mins(2);
/// How often whoever works on it says so.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// Looking did not work; it may go better later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The object store did not answer.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    /// The database did not.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Looks at what has arrived. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Landing(Arc<Collaborators>);

/// See [`Landing`].
pub(super) struct Collaborators {
    pub(super) pool: PgPool,
    pub(super) bucket: Bucket,
    pub(super) bell: Bell,
    pub(super) meters: Meters,
    pub(super) purger: files::PurgerAddress,
    pub(super) intake: Address<intake::Message>,
    /// Whom to ask about each object, if anybody.
    pub(super) check: Option<Outside>,
}

impl Landing {
    pub(super) fn new(collaborators: Collaborators) -> Self {
        Landing(Arc::new(collaborators))
    }

    /// Somebody says that an object with this key is there. True if that meant something.
    pub(crate) async fn created(&self, key: &str) -> Result<bool, Error> {
        if let Some(row) = store::find_by_key(&self.0.pool, key).await? {
            return match row.status {
                Status::Pending => self.look_at(row).await,
                Status::Processing => Ok(false),
                Status::Completed | Status::Failed | Status::Aborted | Status::Expired => self.came_too_late(&row).await,
            };
        }
        match store::file_by_key(&self.0.pool, key).await? {
            Some(file) if file.status == FileStatus::Missing => self.look_for(&file).await,
            // A download writes its row when it has its object; what has no row yet is none of our business.
            Some(_) | None => Ok(false),
        }
    }

    /// Somebody says that the object with this key is gone. True if it is, and was a file's.
    pub(crate) async fn removed(&self, key: &str) -> Result<bool, Error> {
        if let Some(file) = store::file_by_key(&self.0.pool, key).await? {
            return self.look_for(&file).await;
        }
        match store::find_by_key(&self.0.pool, key).await? {
            Some(row) if row.status == Status::Processing => {
                let _ = self.0.intake.cast(intake::Message::Look(vec![row.id]));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Look whether the object of a pending upload is there, or its time over. True if something came of it.
    pub(crate) async fn look(&self, id: UploadId) -> Result<bool, Error> {
        match store::find_any(&self.0.pool, id).await? {
            Some(row) if row.status == Status::Pending => self.look_at(row).await,
            _ => Ok(false),
        }
    }

    /// Whether the object of a pending upload is there.
    pub(super) async fn would_land(&self, id: UploadId) -> Result<bool, Error> {
        match store::find_any(&self.0.pool, id).await? {
            Some(row) if row.status == Status::Pending => Ok(self.0.bucket.head(&row.object_key).await?.is_some()),
            _ => Ok(false),
        }
    }

    /// There is something to be deleted in the bucket.
    pub(super) fn purge_now(&self) {
        self.0.purger.wake();
    }

    /// Bring an upload as far as it goes, however long that takes.
    pub(super) async fn work(&self, id: UploadId) -> Result<(), Error> {
        let Some(row) = store::find_any(&self.0.pool, id).await? else { return Ok(()) };
        match row.status {
            Status::Pending => {
                let (is_over, expires_in) = (row.is_over, row.expires_at - row.created_at);
                if !self.look_at(row).await? && !is_over {
                    // Its alarm came too early, as after a change of clocks.
                    store::look_again(&self.0.pool, id, expires_in.try_into().unwrap_or(LOOK_AGAIN_AFTER)).await?;
                }
                Ok(())
            }
            Status::Processing => {
                #[expect(clippy::disallowed_methods, reason = "as long as the work: it moves the alarm on")]
                let mut signs = interval(SIGN_OF_LIFE);
                signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
                signs.tick().await;
                let mut work = Box::pin(self.process(row));
                loop {
                    tokio::select! {
                        done = &mut work => return done,
                        _ = signs.tick() => store::look_again(&self.0.pool, id, LOOK_AGAIN_AFTER).await?,
                    }
                }
            }
            Status::Completed | Status::Failed | Status::Aborted | Status::Expired => Ok(()),
        }
    }

    async fn look_at(&self, row: Row) -> Result<bool, Error> {
        match self.0.bucket.head(&row.object_key).await? {
            Some(found) => self.landed(row, &found).await,
            None if row.is_over => {
                let Some(row) = store::expire(&self.0.pool, row.id).await? else { return Ok(false) };
                debug!(upload = %row.id, "nothing came in time");
                self.ended(&row, "expired").await;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// The object of a pending upload is there.
    async fn landed(&self, row: Row, found: &ObjectInfo) -> Result<bool, Error> {
        if let Some(failure) = judge(&row, found) {
            return self.fail(&row, failure).await;
        }
        let Head::Looks(detected) = self.sniff(&row, found).await? else { return Ok(false) };
        let proven = row.sha256.is_some() && row.sha256 == found.sha256;
        let unread = row.sha256.is_some() && !proven;
        if unread && row.length() <= READ_AT_ONCE_BYTES && self.0.check.is_none() {
            match self.digest(&row, &found.etag).await? {
                Some(digest) if Some(digest) == row.sha256 => {}
                Some(_) => return self.fail(&row, mismatch()).await,
                None => return Ok(false),
            }
        } else if unread || self.0.check.is_some() {
            let landed = Landed { verified: proven, ..of(found, detected) };
            let Some(row) = store::land(&self.0.pool, row.id, &landed).await? else { return Ok(false) };
            // One that is not there finds it by the alarm.
            let _ = self.0.intake.cast(intake::Message::Look(vec![row.id]));
            return Ok(true);
        }
        self.complete(&row, &Landed { verified: row.sha256.is_some(), ..of(found, detected) }, None).await
    }

    /// What takes a while: the digest of what was read back, and the external check.
    async fn process(&self, row: Row) -> Result<(), Error> {
        let found = match self.0.bucket.head(&row.object_key).await? {
            Some(found) if Some(&found.etag) == row.etag.as_ref() => found,
            _ => {
                self.fail(&row, vanished()).await?;
                return Ok(());
            }
        };
        if row.sha256.is_some() && !row.verified {
            match self.digest(&row, &found.etag).await? {
                Some(digest) if Some(digest) == row.sha256 => store::verified(&self.0.pool, row.id).await?,
                Some(_) => {
                    self.fail(&row, mismatch()).await?;
                    return Ok(());
                }
                None => {
                    self.fail(&row, vanished()).await?;
                    return Ok(());
                }
            }
        }
        let decision = match &self.0.check {
            None => Decision::Continue,
            Some(check) => check.ask(&row).await?,
        };
        let detected = row.detected_type.as_deref();
        let landed = Landed { etag: &found.etag, crc64: row.crc64, detected_type: detected, verified: row.sha256.is_some() };
        match decision {
            Decision::Continue => self.complete(&row, &landed, None).await?,
            Decision::Quarantine(reason) => self.complete(&row, &landed, Some(&reason)).await?,
            Decision::Delete(detail) => self.fail(&row, Failure { code: ErrorCode::Rejected, detail }).await?,
            Decision::Later(after) => {
                store::look_again(&self.0.pool, row.id, after).await?;
                true
            }
            Decision::Nothing => false,
        };
        Ok(())
    }

    async fn complete(&self, row: &Row, landed: &Landed<'_>, quarantine: Option<&str>) -> Result<bool, Error> {
        if !store::complete(&self.0.pool, row.id, landed, quarantine).await? {
            return Ok(false);
        }
        info!(upload = %row.id, file = %row.file_id, bytes = row.size_bytes, quarantined = quarantine.is_some(), "uploaded");
        self.count(if quarantine.is_some() { "quarantined" } else { "completed" });
        self.0.bell.ring();
        Ok(true)
    }

    async fn fail(&self, row: &Row, failure: Failure) -> Result<bool, Error> {
        if store::fail(&self.0.pool, row.id, &failure).await?.is_none() {
            return Ok(false);
        }
        info!(upload = %row.id, code = failure.code.as_str(), "what arrived was refused");
        self.ended(row, failure.code.as_str()).await;
        Ok(true)
    }

    async fn ended(&self, row: &Row, result: &'static str) {
        self.count(result);
        self.0.bell.ring();
        self.0.purger.wake();
        forget_parts(&self.0.bucket, row).await;
    }

    fn count(&self, result: &'static str) {
        self.0.meters.0.uploads_ended.get_or_create(&TryResult { result }).inc();
    }

    /// An object for an upload that has ended: a link that was still good, used after the end. It goes, unless a file has it.
    async fn came_too_late(&self, row: &Row) -> Result<bool, Error> {
        let file = store::file_by_key(&self.0.pool, &row.object_key).await?;
        if let Some(file) = file {
            return if file.status == FileStatus::Missing { self.look_for(&file).await } else { Ok(false) };
        }
        if self.0.bucket.head(&row.object_key).await?.is_none() {
            return Ok(false);
        }
        let purged = store::purge_key(&self.0.pool, row).await?;
        if purged {
            warn!(upload = %row.id, "an object came for an upload that had ended; it is removed");
            self.0.purger.wake();
        }
        Ok(purged)
    }

    /// Whether the object of a file is there. True if that is news.
    pub(super) async fn look_for(&self, file: &store::StoredFile) -> Result<bool, Error> {
        let found = self.0.bucket.head(&file.object_key).await?;
        let news = match (file.status, found) {
            (FileStatus::Available | FileStatus::Quarantined, None) => {
                let missing = store::missing(&self.0.pool, file.id, &file.object_key).await?;
                if missing {
                    warn!(file = %file.id, "the object of a file was removed by somebody else");
                }
                missing
            }
            (FileStatus::Missing, Some(found)) if i64::try_from(found.size_bytes) == Ok(file.size_bytes) => {
                store::found(&self.0.pool, file.id, &found.etag).await?
            }
            _ => false,
        };
        if news {
            self.0.bell.ring();
        }
        Ok(news)
    }

    /// What the first bytes look like.
    async fn sniff(&self, row: &Row, found: &ObjectInfo) -> Result<Head, Error> {
        if found.size_bytes == 0 {
            return Ok(Head::Looks(None));
        }
        let stream = match self.0.bucket.get(&row.object_key, Some(0..sniff::NEEDED_BYTES.min(found.size_bytes))).await {
            Ok(stream) if stream.etag == found.etag => stream,
            Ok(_) => return Ok(Head::Changed),
            Err(error) if error.kind() == ErrorKind::NoSuchKey => return Ok(Head::Changed),
            Err(error) => return Err(error.into()),
        };
        let head = stream.collect(sniff::NEEDED_BYTES).await?;
        Ok(Head::Looks(sniff::media_type(&head)))
    }

    /// SHA-256 of what is stored, read back. None: the object is another one by now, or gone.
    async fn digest(&self, row: &Row, etag: &str) -> Result<Option<[u8; 32]>, Error> {
        let mut stream = match self.0.bucket.get(&row.object_key, None).await {
            Ok(stream) if stream.etag == etag => stream,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NoSuchKey => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut hash = digest::Context::new(&digest::SHA256);
        while let Some(block) = stream.next().await? {
            hash.update(&block);
        }
        Ok(hash.finish().as_ref().try_into().ok())
    }
}

/// The first bytes of an object.
enum Head {
    /// They look like this type, or like none.
    Looks(Option<&'static str>),
    /// The object is another one by now, or gone.
    Changed,
}

/// What is wrong with an object, as far as a look at its head tells.
fn judge(row: &Row, found: &ObjectInfo) -> Option<Failure> {
    let failure = |code, detail: String| Some(Failure { code, detail });
    if found.size_bytes != row.length() {
        let detail = format!("the object has {} bytes, {} were announced", found.size_bytes, row.size_bytes);
        return failure(ErrorCode::LengthMismatch, detail);
    }
    if row.sha256.is_some() && found.sha256.is_some() && row.sha256 != found.sha256 {
        return Some(mismatch());
    }
    let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match (&row.content_type, &found.content_type) {
        (Some(announced), Some(stored)) if essence(announced) != essence(stored) => {
            failure(ErrorCode::TypeMismatch, "the object was stored under another media type than was announced".to_owned())
        }
        _ => None,
    }
}

fn of<'a>(found: &'a ObjectInfo, detected_type: Option<&'a str>) -> Landed<'a> {
    Landed { etag: &found.etag, crc64: found.crc64.map(u64::cast_signed), detected_type, verified: false }
}

fn mismatch() -> Failure {
    Failure { code: ErrorCode::ChecksumMismatch, detail: "the content has another SHA-256 than was announced".to_owned() }
}

fn vanished() -> Failure {
    Failure { code: ErrorCode::Vanished, detail: "the object was removed or replaced while it was looked at".to_owned() }
}

/// Give up at the object store what was begun in parts. What is left is found when rows and objects are compared.
pub(crate) async fn forget_parts(bucket: &Bucket, row: &Row) {
    let Some(storage_upload_id) = &row.storage_upload_id else { return };
    if let Err(error) = bucket.abort_multipart(&row.object_key, storage_upload_id).await {
        debug!(%error, upload = %row.id, "an upload in parts could not be aborted yet");
    }
}

impl Wakes for Landing {
    fn kind(&self) -> Kind {
        Kind::Upload
    }

    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async move {
            let ids: Vec<Uuid> = due.iter().map(|due| due.subject_id).collect();
            let unfinished = store::unfinished_among(connection, &ids).await?;
            // Looking comes after the commit; should it not come, another look does.
            let now = due.first().map(|due| due.now);
            let again: Vec<_> = unfinished.into_iter().filter_map(|id| Some((id, now? + LOOK_AGAIN_AFTER))).collect();
            alarms::arm_many(connection, Kind::Upload, &again).await?;
            Ok(())
        })
    }

    fn committed(&self, due: &[Due]) {
        let ids = due.iter().map(|due| UploadId(due.subject_id)).collect();
        let _ = self.0.intake.cast(intake::Message::Look(ids));
    }
}
