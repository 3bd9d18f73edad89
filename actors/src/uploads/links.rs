//! Links: what to send where. Signed for the public address of the bucket, for exactly one key, length and type.

use std::{collections::BTreeMap, time::Duration};

use bowerbird_nats::{
    Code, Problem,
    upload::{Kind, PartLink, Transfer},
};
use bowerbird_storage::{Audience, Bucket, Error as BucketError, ErrorKind, PresignPut, PresignedLink};
use sqlx::PgPool;
use tracing::{debug, warn};

use super::{
    row::{Parts, Row},
    store,
};

/// Makes links.
#[derive(Clone)]
pub(super) struct Links {
    pub(super) pool: PgPool,
    pub(super) bucket: Bucket,
    /// Life of a link.
    pub(super) ttl: Duration,
}

/// Why there are no links.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The upload is not pending any more.
    #[error("the upload is not pending")]
    NotPending,
    /// The object store does not know the upload in parts.
    #[error("the object store does not know the upload in parts")]
    Forgotten,
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    pub(super) fn problem(self) -> Problem {
        match self {
            Error::NotPending => {
                Problem::new(Code::InvalidState, "the upload is not pending any more, so there is nothing to send")
            }
            Error::Forgotten => forgotten(),
            Error::Bucket(error) => unavailable(&error),
            Error::Store(error) => super::requests::problem(error),
        }
    }
}

/// The bucket did not do what it should.
pub(super) fn unavailable(error: &BucketError) -> Problem {
    warn!(%error, "the object store failed a request about an upload");
    Problem::new(Code::StorageUnavailable, "the object store is not available right now; try again")
}

/// Somebody aborted the upload in parts at the object store.
pub(super) fn forgotten() -> Problem {
    Problem::new(Code::InvalidState, "the object store does not know this upload any more; delete it and announce it anew")
}

impl Links {
    /// The link for an object that is put in one request.
    pub(super) async fn single(&self, row: &Row) -> Result<Transfer, Error> {
        let put = PresignPut {
            content_length: row.length(),
            content_type: Some(row.stored_type().to_owned()),
            sha256: row.sha256,
            // Whoever has the link can write the object, but not write over it.
            if_none_match: true,
        };
        let link = self.bucket.presign_put(&row.object_key, self.ttl, &put, Audience::Public).await?;
        if !store::links_given(&self.pool, row.id, link.expires_at).await? {
            return Err(Error::NotPending);
        }
        Ok(Transfer {
            kind: Kind::Single,
            method: link.method.clone(),
            url: Some(link.url.to_string()),
            headers: headers(&link),
            part_size_bytes: None,
            parts: Vec::new(),
            missing_parts: None,
            next_after_part: None,
            expires_at: link.expires_at,
        })
    }

    /// Links for parts after this one that the object store does not have.
    pub(super) async fn parts(&self, row: &Row, parts: Parts, after: u32, limit: usize) -> Result<Transfer, Error> {
        let (storage_upload_id, fresh) = self.begun(row).await?;
        let missing = if fresh {
            (after + 1..=parts.count()).collect()
        } else {
            missing(&self.stored(row, &storage_upload_id).await?, parts, after)
        };
        let mut links = Vec::with_capacity(limit.min(missing.len()));
        let mut expires_at = None;
        for number in missing.iter().copied().take(limit) {
            let length = parts.length(number);
            let link =
                self.bucket.presign_part(&row.object_key, &storage_upload_id, number, length, self.ttl, Audience::Public).await?;
            expires_at = expires_at.or(Some(link.expires_at));
            links.push(PartLink {
                part_number: number,
                size_bytes: i64::try_from(length).unwrap_or(i64::MAX),
                url: link.url.to_string(),
                headers: headers(&link),
            });
        }
        let next_after_part = links.last().map(|last| last.part_number).filter(|_| missing.len() > links.len());
        Ok(Transfer {
            kind: Kind::Multipart,
            method: "PUT".to_owned(),
            url: None,
            headers: BTreeMap::new(),
            part_size_bytes: i64::try_from(parts.part_size_bytes()).ok(),
            parts: links,
            missing_parts: u32::try_from(missing.len()).ok(),
            next_after_part,
            expires_at: expires_at.unwrap_or(row.expires_at),
        })
    }

    /// The parts that the object store has.
    pub(super) async fn stored(&self, row: &Row, storage_upload_id: &str) -> Result<Vec<Stored>, Error> {
        match self.bucket.list_parts(&row.object_key, storage_upload_id).await {
            Ok(parts) => {
                let stored =
                    parts.into_iter().map(|part| Stored { number: part.number, size_bytes: part.size_bytes, etag: part.etag });
                Ok(stored.collect())
            }
            Err(error) if error.kind() == ErrorKind::NoSuchUpload => Err(Error::Forgotten),
            Err(error) => Err(error.into()),
        }
    }

    /// What the object store calls the upload in parts, which is begun if it was not; and whether it was just begun.
    async fn begun(&self, row: &Row) -> Result<(String, bool), Error> {
        if let Some(name) = &row.storage_upload_id {
            return Ok((name.clone(), false));
        }
        let own = self.bucket.create_multipart_for_links(&row.object_key, row.stored_type()).await?;
        let kept = store::begin_parts(&self.pool, row.id, &own).await;
        match kept {
            Ok(Some(name)) if name == own => Ok((name, true)),
            other => {
                // Somebody else was faster, or the upload ended. One that stays is found when everything is compared.
                if let Err(error) = self.bucket.abort_multipart(&row.object_key, &own).await {
                    debug!(%error, "an upload in parts that nobody needs could not be aborted");
                }
                match other? {
                    Some(name) => Ok((name, false)),
                    None => Err(Error::NotPending),
                }
            }
        }
    }
}

/// A part that the object store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) number: u32,
    pub(super) size_bytes: u64,
    pub(super) etag: String,
}

/// Which parts after this one are not there, or not of their length.
pub(super) fn missing(stored: &[Stored], parts: Parts, after: u32) -> Vec<u32> {
    let there: BTreeMap<u32, u64> = stored.iter().map(|part| (part.number, part.size_bytes)).collect();
    (after + 1..=parts.count()).filter(|number| there.get(number) != Some(&parts.length(*number))).collect()
}

/// Headers that a client must send exactly so. One that cannot choose its own `Content-Length` sends the right one anyway.
fn headers(link: &PresignedLink) -> BTreeMap<String, String> {
    link.headers.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_another_length_is_missing() {
        let parts = Parts::of(25 << 20, 10 << 20);
        let stored = |number, size_bytes| Stored { number, size_bytes, etag: String::new() };
        assert_eq!(missing(&[], parts, 0), [1, 2, 3]);
        assert_eq!(missing(&[stored(1, 10 << 20), stored(3, 4 << 20), stored(9, 1)], parts, 0), [2, 3]);
        assert_eq!(missing(&[stored(3, 5 << 20)], parts, 1), [2]);
    }
}
