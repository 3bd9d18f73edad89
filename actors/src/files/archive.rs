//! Archives: what is in a folder, for whoever streams it, by a grant that outlives an access token.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use bowerbird_nats::{
    AccountId, Code, FolderId, Problem, ShareId,
    answer::Call,
    archive::{Archive, BeginArchive, Entries, LinkArchived, ListArchive},
    file::{FileStatus, Link},
};
use bowerbird_storage::Audience;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    requests::{Requests, problem},
    store::{archive, folders, shares},
};

/// How long a folder may be streamed.
const GRANT_LIFE: Duration = Duration::from_hours(12);
/// Entries of a page.
const PAGE: i64 = 200;
/// Bytes of a grant before its code, and of the code.
const GRANT_BYTES: usize = 56;
const CODE_BYTES: usize = 16;

/// What may be read, for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) account: AccountId,
    pub(super) folder: FolderId,
    /// The share that it came by: when that ends, so does this.
    pub(super) share: Option<ShareId>,
    /// Seconds since 1970.
    pub(super) until: i64,
}

impl Grant {
    /// When a grant ends that begins now.
    pub(super) fn until(now: OffsetDateTime) -> i64 {
        (now + GRANT_LIFE).unix_timestamp()
    }

    /// As text that only we can make.
    pub(super) fn seal(&self, key: &hmac::Key) -> String {
        let mut bytes = Vec::with_capacity(GRANT_BYTES + CODE_BYTES);
        bytes.extend(self.account.0.as_bytes());
        bytes.extend(self.folder.0.as_bytes());
        bytes.extend(self.share.map_or(Uuid::nil(), |share| share.0).as_bytes());
        bytes.extend(self.until.to_be_bytes());
        let code = hmac::sign(key, &bytes);
        bytes.extend(&code.as_ref()[..CODE_BYTES]);
        BASE64.encode(bytes)
    }

    /// The grant of a text, if it is one of ours.
    pub(super) fn open(key: &hmac::Key, text: &str) -> Option<Grant> {
        let bytes = BASE64.decode(text).ok()?;
        let (said, code) = bytes.split_at_checked(GRANT_BYTES)?;
        let expected = hmac::sign(key, said);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..CODE_BYTES], code).ok()?;
        let id = |at: usize| Uuid::from_slice(said.get(at..at + 16)?).ok();
        let share = id(32)?;
        Some(Grant {
            account: AccountId(id(0)?),
            folder: FolderId(id(16)?),
            share: (!share.is_nil()).then_some(ShareId(share)),
            until: i64::from_be_bytes(said.get(48..)?.try_into().ok()?),
        })
    }
}

impl Requests {
    /// Begin to stream a folder.
    pub(crate) async fn begin_archive(self, call: Call<BeginArchive>) -> Result<Archive, Problem> {
        let account = call.account()?.account_id;
        let id = call.request.folder_id;
        let folder = folders::find(&self.0.pool, account, id).await.map_err(problem)?;
        let folder = folder.ok_or_else(|| Problem::not_found("folder"))?;
        let grant = Grant { account, folder: id, share: None, until: Grant::until(self.0.clock.now()) };
        Ok(Archive { name: folder.name, grant: grant.seal(&self.0.seals.grants) })
    }

    /// Whether a grant is good, now.
    async fn granted(&self, text: &str) -> Result<Grant, Problem> {
        let grant = Grant::open(&self.0.seals.grants, text).filter(|grant| grant.until > self.0.clock.now().unix_timestamp());
        let grant = grant.ok_or_else(|| Problem::new(Code::Forbidden, "this grant is not good, or not any more"))?;
        if let Some(share) = grant.share
            && !shares::is_alive(&self.0.pool, share).await.map_err(problem)?
        {
            return Err(Problem::not_found("share"));
        }
        Ok(grant)
    }

    /// A page of what is in an archive.
    pub(crate) async fn list_archive(self, call: Call<ListArchive>) -> Result<Entries, Problem> {
        let grant = self.granted(&call.request.grant).await?;
        let after = call.request.after.as_deref().and_then(|after| after.split_once('\n'));
        let found = archive::entries(&self.0.pool, grant.account, grant.folder, after, PAGE).await.map_err(problem)?;
        let found = found.ok_or_else(|| Problem::not_found("folder"))?;
        let full = i64::try_from(found.len()).is_ok_and(|found| found == PAGE);
        let next = found.last().filter(|_| full).map(|last| format!("{}\n{}", last.path, last.name));
        Ok(Entries { entries: found.into_iter().map(|listed| listed.entry).collect(), next })
    }

    /// A link to one file of an archive.
    pub(crate) async fn link_archived(self, call: Call<LinkArchived>) -> Result<Link, Problem> {
        let grant = self.granted(&call.request.grant).await?;
        let found = archive::file(&self.0.pool, grant.account, grant.folder, call.request.file_id).await.map_err(problem)?;
        let stored = found.filter(|stored| stored.file.status == FileStatus::Available);
        let stored = stored.ok_or_else(|| Problem::not_found("file"))?;
        self.link(&stored.object_key, &stored.file, self.0.link_ttl, Audience::Internal).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_read_back_and_an_altered_one_is_none() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        for share in [None, Some(ShareId(Uuid::from_u128(3)))] {
            let grant = Grant { account: AccountId(Uuid::from_u128(1)), folder: FolderId(Uuid::from_u128(2)), share, until: 7 };
            let text = grant.seal(&key);
            assert_eq!(Grant::open(&key, &text), Some(grant));
            for at in 0..text.len() {
                let mut altered = text.clone().into_bytes();
                altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
                let altered = String::from_utf8(altered).unwrap();
                assert!(
                    altered == text
                        || Grant::open(&key, &altered) != Some(grant)
                        || BASE64.decode(&altered) == BASE64.decode(&text)
                );
            }
            assert_eq!(Grant::open(&hmac::Key::new(hmac::HMAC_SHA256, b"other"), &text), None);
        }
        for text in ["", "AAAA", "%"] {
            assert_eq!(Grant::open(&key, text), None);
        }
    }
}
