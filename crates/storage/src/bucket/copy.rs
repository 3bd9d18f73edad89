//! Copies inside the bucket: the bytes do not come here.

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Bucket, Error, ErrorKind, Stored, bare_etag, time_limit};

/// Longest object that S3 copies in one request: 5 GiB.
const ONE_REQUEST_BYTES: u64 = 5 << 30;
/// Shortest part of a longer one.
const PART_BYTES: u64 = 512 << 20;
/// Parts of one upload.
const PARTS_MAX: u64 = 10_000;
/// Parts that are copied at once.
const AT_ONCE: usize = 4;

impl Bucket {
    /// Copy an object of this length to another key, if it still has this entity tag: `PreconditionFailed` else.
    ///
    /// An object of more than 5 GiB is copied in parts; a copy that fails leaves nothing but perhaps an unfinished upload.
    pub async fn copy(&self, from: &str, to: &str, size_bytes: u64, etag: &str) -> Result<Stored, Error> {
        if size_bytes <= ONE_REQUEST_BYTES {
            return self.copy_in_one(from, to, size_bytes, etag).await;
        }
        self.copy_in_parts(from, to, size_bytes, etag, PART_BYTES.max(size_bytes.div_ceil(PARTS_MAX))).await
    }

    /// As `CopySource` wants it. Keys of ours need no escaping, and others are refused.
    fn source(&self, key: &str) -> Result<String, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if key.bytes().all(plain) {
            return Ok(format!("{}/{key}", self.name()));
        }
        Err(Error::new(ErrorKind::Other, "copy an object", "its key holds characters that ours do not"))
    }

    async fn copy_in_one(&self, from: &str, to: &str, size_bytes: u64, etag: &str) -> Result<Stored, Error> {
        let answer = self
            .client
            .copy_object()
            .bucket(self.name())
            .key(to)
            .copy_source(self.source(from)?)
            .copy_source_if_match(format!("\"{etag}\""))
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(time_limit(size_bytes / 64)))
            .send()
            .await
            .map_err(|error| Error::of("copy an object", error))?;
        Ok(Stored { etag: bare_etag(answer.copy_object_result().and_then(|copied| copied.e_tag())) })
    }

    async fn copy_in_parts(&self, from: &str, to: &str, size_bytes: u64, etag: &str, part_bytes: u64) -> Result<Stored, Error> {
        let begun = self.client.create_multipart_upload().bucket(self.name()).key(to).send().await;
        let begun = begun.map_err(|error| Error::of("begin a copy", error))?;
        let unnamed = || Error::new(ErrorKind::Other, "begin a copy", "its answer names no upload id");
        let upload_id = begun.upload_id().ok_or_else(unnamed)?;
        match self.copy_parts(from, to, size_bytes, etag, part_bytes, upload_id).await {
            Ok(stored) => Ok(stored),
            Err(error) => {
                // What is left of it the caller's clean-up finds, too.
                let _ = self.abort_multipart(to, upload_id).await;
                Err(error)
            }
        }
    }

    async fn copy_parts(
        &self,
        from: &str,
        to: &str,
        size_bytes: u64,
        etag: &str,
        part_bytes: u64,
        upload_id: &str,
    ) -> Result<Stored, Error> {
        let source = self.source(from)?;
        let copy = |number: i32, first: u64| {
            let last = (first + part_bytes).min(size_bytes) - 1;
            let request = self
                .client
                .upload_part_copy()
                .bucket(self.name())
                .key(to)
                .upload_id(upload_id)
                .part_number(number)
                .copy_source(&source)
                .copy_source_if_match(format!("\"{etag}\""))
                .copy_source_range(format!("bytes={first}-{last}"));
            async move {
                let answer = request
                    .customize()
                    .config_override(aws_sdk_s3::config::Builder::new().timeout_config(time_limit(part_bytes / 64)))
                    .send()
                    .await
                    .map_err(|error| Error::of("copy a part", error))?;
                let etag = answer.copy_part_result().and_then(|copied| copied.e_tag()).unwrap_or_default().to_owned();
                Ok::<_, Error>(CompletedPart::builder().part_number(number).e_tag(etag).build())
            }
        };
        let firsts = (0..size_bytes.div_ceil(part_bytes)).map(|nth| nth * part_bytes);
        let parts: Vec<CompletedPart> = stream::iter((1_i32..).zip(firsts))
            .map(|(number, first)| copy(number, first))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let answer = self
            .client
            .complete_multipart_upload()
            .bucket(self.name())
            .key(to)
            .upload_id(upload_id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(time_limit(size_bytes / 64)))
            .send()
            .await
            .map_err(|error| Error::of("complete a copy", error))?;
        Ok(Stored { etag: bare_etag(answer.e_tag()) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bowerbird_lifecycle::Clock;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{BucketOptions, embedded};

    #[tokio::test]
    async fn a_copy_in_one_or_in_parts_is_the_same_bytes_and_only_of_what_was_asked_for() {
        let folder = tempfile::TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = embedded::Options::new(folder.path(), "key", "secret", "bucket");
        let store = embedded::serve(options, listener, None, CancellationToken::new()).await.unwrap();
        let endpoint: url::Url = format!("http://{}", store.address()).parse().unwrap();
        let options = BucketOptions {
            endpoint: endpoint.clone(),
            public_endpoint: endpoint,
            region: "us-east-1".to_owned(),
            bucket: "bucket".to_owned(),
            access_key_id: "key".to_owned(),
            secret_access_key: "secret".to_owned(),
            path_style: true,
            clock: Clock::system(),
        };
        let bucket = Bucket::connect(options, Duration::from_secs(20)).await.unwrap();
        let content: Vec<u8> = (0..13_000_000_u32).map(|number| (number % 251) as u8).collect();
        let size = content.len() as u64;
        let stored = bucket.put("a/b/1", content.clone(), Some("text/plain"), None).await.unwrap();
        bucket.copy("a/b/1", "a/c/1", size, &stored.etag).await.unwrap();
        bucket.copy_in_parts("a/b/1", "a/d/1", size, &stored.etag, 5 << 20).await.unwrap();
        for key in ["a/c/1", "a/d/1"] {
            let bytes = bucket.get(key, None).await.unwrap().collect(1 << 30).await.unwrap();
            assert!(bytes == content, "{key}");
        }
        for outcome in [
            bucket.copy("a/b/1", "a/e/1", size, "other").await,
            bucket.copy_in_parts("a/b/1", "a/e/1", size, "other", 5 << 20).await,
        ] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::PreconditionFailed);
        }
        assert_eq!(bucket.copy("a/none", "a/e/1", 1, "x").await.unwrap_err().kind(), ErrorKind::NoSuchKey);
        assert!(bucket.copy("a/ü", "a/e/1", 1, "x").await.is_err());
        assert!(bucket.head("a/e/1").await.unwrap().is_none() && bucket.list_uploads("a/", 10).await.unwrap().is_empty());
    }
}
