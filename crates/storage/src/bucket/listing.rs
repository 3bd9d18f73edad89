//! What is in the bucket, in the order of keys.

use time::OffsetDateTime;

use super::{Bucket, Error, bare_etag, instant};

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Its key.
    pub key: String,
    /// Its length.
    pub size_bytes: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// When it was written, in UTC.
    pub modified: OffsetDateTime,
}

impl Bucket {
    /// Objects whose keys begin with `prefix` and come after `after`, in order, at most `limit` and at most 1000.
    ///
    /// Fewer than asked for means that there are no more.
    pub async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Listing>, Error> {
        let page = self
            .client
            .list_objects_v2()
            .bucket(self.name())
            .prefix(prefix)
            .set_start_after(after.map(str::to_owned))
            .max_keys(i32::try_from(limit.min(1000)).unwrap_or(1000))
            .send()
            .await
            .map_err(|error| Error::of("list objects", error))?;
        let objects = page.contents().iter().map(|object| Listing {
            key: object.key().unwrap_or_default().to_owned(),
            size_bytes: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            etag: bare_etag(object.e_tag()),
            modified: object.last_modified().map_or(OffsetDateTime::UNIX_EPOCH, instant),
        });
        Ok(objects.collect())
    }
}
