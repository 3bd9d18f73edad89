//! Reading an object, as a stream of blocks with a limit on how long each may take.

use std::{ops::Range, time::Duration};

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::time::timeout;

use super::{Bucket, Error, ErrorKind, bare_etag};

/// A server that sends nothing for so long is stuck.
const STALL: Duration = Duration::from_secs(30);

/// The bytes of an object, or of a range of it.
#[derive(Debug)]
pub struct ObjectStream {
    /// Length of what is read, not of the object.
    pub size_bytes: u64,
    /// Entity tag of the object, without quotes.
    pub etag: String,
    /// Its media type.
    pub content_type: Option<String>,
    body: ByteStream,
}

impl ObjectStream {
    /// The next block. None: that was all.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let next = timeout(STALL, self.body.next()).await.map_err(|_| {
            Error::new(ErrorKind::Unavailable, "read an object", format!("nothing came for {} s", STALL.as_secs()))
        })?;
        next.transpose().map_err(Error::broken_body)
    }

    /// All of it, if it is no longer than `limit_bytes`.
    pub async fn collect(mut self, limit_bytes: u64) -> Result<Bytes, Error> {
        if self.size_bytes > limit_bytes {
            return Err(Error::new(ErrorKind::Other, "read an object", format!("it has {} bytes", self.size_bytes)));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.size_bytes).unwrap_or(0));
        while let Some(block) = self.next().await? {
            bytes.extend_from_slice(&block);
        }
        Ok(bytes.into())
    }
}

impl Bucket {
    /// Read an object, or the bytes of `range`.
    pub async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<ObjectStream, Error> {
        let range = match range {
            Some(range) if range.is_empty() => {
                return Err(Error::new(ErrorKind::InvalidRange, "read an object", "the range is empty"));
            }
            Some(range) => Some(format!("bytes={}-{}", range.start, range.end - 1)),
            None => None,
        };
        let answer = self
            .client
            .get_object()
            .bucket(self.name())
            .key(key)
            .set_range(range)
            .send()
            .await
            .map_err(|error| Error::of("read an object", error))?;
        Ok(ObjectStream {
            size_bytes: answer.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
            etag: bare_etag(answer.e_tag()),
            content_type: answer.content_type().map(str::to_owned),
            body: answer.body,
        })
    }
}
