//! The trial at the start: whether the server does what everything else relies on, and one sentence if not.

use std::time::Duration;

use aws_sdk_s3::{
    operation::create_bucket::CreateBucketError,
    types::{BucketLocationConstraint, CreateBucketConfiguration},
};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{Bucket, Error, ErrorKind};

/// Where the trial writes. What a killed trial leaves is overwritten by no other.
const PREFIX: &str = ".self-test/";
const CONTENT: &[u8] = b"bowerbird";
const PAUSE: Duration = Duration::from_millis(500);

impl Bucket {
    /// Try until the server is fit, is found unfit, or `wait` is over.
    #[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
    pub(super) async fn wait_until_fit(&self, wait: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + wait;
        loop {
            let attempt = tokio::time::timeout_at(deadline.max(Instant::now() + PAUSE), self.self_test()).await;
            let error = match attempt {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if error.kind() != ErrorKind::Unavailable => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => Error::new(ErrorKind::Unavailable, "be reached", self.unreachable()),
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(error);
            }
            tracing::info!(endpoint = %self.endpoint(), %error, "waiting for the object store");
            sleep(PAUSE).await;
        }
    }

    fn unreachable(&self) -> String {
        format!("nothing answers at {}; check `storage.endpoint` and that the server runs", self.endpoint())
    }

    async fn self_test(&self) -> Result<(), Error> {
        self.ensure_bucket().await?;
        let key = format!("{PREFIX}{:032x}", rand::random::<u128>());
        let outcome = self.try_everything(&key).await;
        // Also after a failure; what cannot be removed does no harm.
        let removed = self.delete(&key).await;
        outcome.and(removed)
    }

    async fn ensure_bucket(&self) -> Result<(), Error> {
        let denied = || {
            let name = self.name();
            Error::new(
                ErrorKind::Denied,
                "be used",
                format!(
                    "the server at {} refuses the keys for `{name}`; check `storage.access_key_id`, \
                     `storage.secret_access_key`, that they may read and write the bucket, and that the clocks agree",
                    self.endpoint()
                ),
            )
        };
        let found = self.client.head_bucket().bucket(self.name()).send().await;
        match found.map_err(|error| Error::of("be found", error)) {
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::NoSuchKey | ErrorKind::NoSuchBucket) => {}
            Err(error) if error.kind() == ErrorKind::Denied => return Err(denied()),
            Err(error) => return Err(error),
        }
        let mut create = self.client.create_bucket().bucket(self.name());
        if self.options.region != "us-east-1" {
            let region = BucketLocationConstraint::from(self.options.region.as_str());
            let place = CreateBucketConfiguration::builder().location_constraint(region).build();
            create = create.create_bucket_configuration(place);
        }
        match create.send().await {
            Ok(_) => Ok(()),
            // Another process was faster.
            Err(error) if error.as_service_error().is_some_and(CreateBucketError::is_bucket_already_owned_by_you) => Ok(()),
            Err(error) => match Error::of("be made", error) {
                error if error.kind() == ErrorKind::Denied => Err(denied()),
                error => Err(error),
            },
        }
    }

    async fn try_everything(&self, key: &str) -> Result<(), Error> {
        let unfit = |what: &str| {
            let server = self.endpoint();
            Error::new(ErrorKind::Unfit, "be used", format!("the server at {server} {what}; use one that does it right"))
        };
        let content = Bytes::from_static(CONTENT);
        let crc64 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, CONTENT);

        match self.put(key, content.clone(), None, Some(crc64 ^ 1)).await {
            Err(error) if matches!(error.kind(), ErrorKind::BadDigest | ErrorKind::Other) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(unfit("does not check x-amz-checksum-crc64nvme")),
        }
        self.put_new(key, content.clone(), Some("text/plain"), Some(crc64)).await?;
        match self.put_new(key, content.clone(), None, Some(crc64)).await {
            Err(error) if error.kind() == ErrorKind::PreconditionFailed => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(unfit("ignores If-None-Match on writes")),
        }
        if self.get(key, Some(4..9)).await?.collect(1024).await? != CONTENT[4..] {
            return Err(unfit("does not answer ranges"));
        }

        let upload_id = self.create_multipart(key, Some("text/plain")).await?;
        let part = self.upload_part(key, &upload_id, 1, content, crc64).await?;
        if self.list_parts(key, &upload_id).await?.len() != 1 {
            return Err(unfit("does not list the parts of an upload"));
        }
        self.complete_multipart(key, &upload_id, &[(1, part, crc64)], CONTENT.len() as u64, crc64).await?;
        match self.head(key).await? {
            Some(info) if info.size_bytes == CONTENT.len() as u64 => Ok(()),
            _ => Err(unfit("does not show an object after it was completed")),
        }
    }
}
