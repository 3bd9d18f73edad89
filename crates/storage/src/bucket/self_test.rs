//! The trial at the start: whether the server does what everything else relies on. What cannot be done without refuses the
//! start; what can be is told. Each is one sentence that says what to do.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_sdk_s3::{
    operation::create_bucket::CreateBucketError,
    types::{BucketLocationConstraint, CreateBucketConfiguration},
};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{Audience, Bucket, Error, ErrorKind, PresignGet, PresignPut, PresignedLink, follow::Followed};

/// Where the trial writes. What a killed trial leaves is overwritten by no other.
const PREFIX: &str = ".self-test/";
const CONTENT: &[u8] = b"bowerbird";
/// As long, and not the same.
const OTHER: &[u8] = b"birdbower";
const PAUSE: Duration = Duration::from_millis(500);
/// Life of the trial's links.
const LINK_TTL: Duration = Duration::from_mins(5);
/// Clocks that differ by this much make links live noticeably longer or shorter than they should.
const SKEW_NOTICED: time::Duration = time::Duration::seconds(60);

impl Bucket {
    /// Try until the server is fit, is found unfit, or `wait` is over. Returns what it does less well than it could.
    #[expect(clippy::disallowed_methods, reason = "a pause before the next try")]
    pub(super) async fn wait_until_fit(&self, wait: Duration) -> Result<Vec<String>, Error> {
        let deadline = Instant::now() + wait;
        loop {
            let attempt = tokio::time::timeout_at(deadline.max(Instant::now() + PAUSE), self.self_test()).await;
            let error = match attempt {
                Ok(Ok(shortcomings)) => return Ok(shortcomings),
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

    async fn self_test(&self) -> Result<Vec<String>, Error> {
        self.ensure_bucket().await?;
        let key = format!("{PREFIX}{:032x}", rand::random::<u128>());
        let (linked, copied) = (format!("{key}-linked"), format!("{key}-copied"));
        let mut trial = Trial { bucket: self, shortcomings: Vec::new() };
        let outcome = async {
            trial.objects(&key).await?;
            trial.parts(&key).await?;
            trial.copies(&key, &copied).await?;
            trial.links(&linked).await
        };
        let outcome = outcome.await;
        // Also after a failure; what cannot be removed does no harm.
        let mut removed = Ok(());
        for key in [&key, &linked, &copied] {
            removed = removed.and(self.delete(key).await);
        }
        outcome.and(removed)?;
        Ok(trial.shortcomings)
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
}

/// A trial under way.
struct Trial<'a> {
    bucket: &'a Bucket,
    shortcomings: Vec<String>,
}

impl Trial<'_> {
    fn unfit(&self, what: &str) -> Error {
        let server = self.bucket.endpoint();
        Error::new(ErrorKind::Unfit, "be used", format!("the server at {server} {what}; use one that does it right"))
    }

    fn falls_short(&mut self, sentence: &str) {
        self.shortcomings.push(format!("the object store at {} {sentence}", self.bucket.endpoint()));
    }

    /// Checksums, conditions and ranges.
    async fn objects(&mut self, key: &str) -> Result<(), Error> {
        let (bucket, content, crc64) = (self.bucket, Bytes::from_static(CONTENT), crc64(CONTENT));
        match bucket.put(key, content.clone(), None, Some(crc64 ^ 1)).await {
            Err(error) if matches!(error.kind(), ErrorKind::BadDigest | ErrorKind::Other) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(self.unfit("does not check x-amz-checksum-crc64nvme")),
        }
        bucket.put_new(key, content.clone(), Some("text/plain"), Some(crc64)).await?;
        match bucket.put_new(key, content, None, Some(crc64)).await {
            Err(error) if error.kind() == ErrorKind::PreconditionFailed => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(self.unfit("ignores If-None-Match on writes")),
        }
        if bucket.get(key, Some(4..9)).await?.collect(1024).await? != CONTENT[4..] {
            return Err(self.unfit("does not answer ranges"));
        }
        Ok(())
    }

    /// An object in parts.
    async fn parts(&mut self, key: &str) -> Result<(), Error> {
        let (bucket, size_bytes, crc64) = (self.bucket, CONTENT.len() as u64, crc64(CONTENT));
        let upload_id = bucket.create_multipart(key, Some("text/plain")).await?;
        let part = bucket.upload_part(key, &upload_id, 1, Bytes::from_static(CONTENT), crc64).await?;
        if bucket.list_parts(key, &upload_id).await?.len() != 1 {
            return Err(self.unfit("does not list the parts of an upload"));
        }
        let begun = bucket.list_uploads(&key[..key.len() - 1], 1000).await?;
        if !begun.iter().any(|begun| begun.upload_id == upload_id) {
            self.falls_short(
                "lists unfinished uploads only by their exact keys: abandoned ones are not found here, so let it remove those \
                 that are older than `uploads.orphan_age` by a lifecycle rule of its own",
            );
        }
        match bucket.complete_multipart(key, &upload_id, &[(1, part.clone(), crc64)], size_bytes, crc64 ^ 1).await {
            Ok(_) => self.falls_short(
                "does not check the CRC-64/NVME of an object in parts as a whole: that of each part is what there is to rely on",
            ),
            Err(error) if matches!(error.kind(), ErrorKind::BadDigest | ErrorKind::Other) => {
                bucket.complete_multipart(key, &upload_id, &[(1, part, crc64)], size_bytes, crc64).await?;
            }
            Err(error) => return Err(error),
        }
        match bucket.head(key).await? {
            Some(info) if info.size_bytes == size_bytes => Ok(()),
            _ => Err(self.unfit("does not show an object after it was completed")),
        }
    }

    async fn copies(&mut self, key: &str, copied: &str) -> Result<(), Error> {
        match self.bucket.copy(key, copied, CONTENT.len() as u64, "another").await {
            Err(error) if error.kind() == ErrorKind::PreconditionFailed => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                self.falls_short(
                    "ignores x-amz-copy-source-if-match: let nothing else write to this bucket, or a copy may be of something else",
                );
                Ok(())
            }
        }
    }

    /// Links: that they work, by whose clock, and that they open nothing else.
    async fn links(&mut self, key: &str) -> Result<(), Error> {
        let bucket = self.bucket;
        let put = PresignPut {
            content_length: CONTENT.len() as u64,
            content_type: Some("text/plain".to_owned()),
            sha256: digest(&SHA256, CONTENT).as_ref().try_into().ok(),
            if_none_match: true,
        };
        let link = bucket.presign_put(key, LINK_TTL, &put, Audience::Internal).await?;
        if bucket.follow_put(&forged(&link), Bytes::from_static(CONTENT)).await.outcome.is_ok() {
            return Err(self.unfit("does not check the signatures of links, so that anybody may write"));
        }
        let answer = bucket.follow_put(&link, Bytes::from_static(OTHER)).await;
        let skew = answer.date().map(|date| date - bucket.options.clock.now());
        match answer.outcome {
            Err(error) if matches!(error.kind(), ErrorKind::BadDigest | ErrorKind::Other) => {}
            Err(error) => return Err(self.refused(error, skew)),
            Ok(()) => {
                bucket.doubt_sha256();
                self.falls_short("does not check x-amz-checksum-sha256: what is uploaded with one is read back to be sure");
                bucket.delete(key).await?;
            }
        }
        if let Err(error) = bucket.follow_put(&link, Bytes::from_static(CONTENT)).await.outcome {
            return Err(self.refused(error, skew));
        }
        match bucket.follow_put(&link, Bytes::from_static(CONTENT)).await.outcome {
            Err(error) if error.kind() == ErrorKind::PreconditionFailed => {}
            Err(error) => return Err(error),
            Ok(()) => return Err(self.unfit("ignores If-None-Match in links, so that one could write over a finished file")),
        }
        self.links_to_read(key).await?;
        if let Some(skew) = skew.filter(|skew| skew.abs() >= SKEW_NOTICED) {
            let (seconds, way, links) = match skew.whole_seconds() {
                ahead @ 0.. => (ahead, "ahead of", "shorter"),
                behind => (-behind, "behind", "longer"),
            };
            self.falls_short(&format!(
                "has a clock that is {seconds} s {way} this machine's: links live that much {links}; set both by NTP"
            ));
        }
        Ok(())
    }

    async fn links_to_read(&mut self, key: &str) -> Result<(), Error> {
        let bucket = self.bucket;
        let get = PresignGet {
            file_name: Some("a.txt".to_owned()),
            content_type: Some("application/octet-stream".to_owned()),
            ..PresignGet::default()
        };
        let link = bucket.presign_get(key, LINK_TTL, &get, Audience::Internal).await?;
        let answer: Followed = bucket.follow_get(&link).await;
        let inert = answer.header("content-disposition").starts_with("attachment")
            && answer.header("content-type").starts_with("application/octet-stream");
        answer.outcome?;
        if !inert {
            return Err(self.unfit(
                "ignores response-content-disposition or response-content-type, so that browsers would open what somebody uploaded",
            ));
        }
        let mut bare = link.clone();
        bare.url.set_query(None);
        if bucket.follow_get(&bare).await.outcome.is_ok() {
            return Err(Error::new(
                ErrorKind::Unfit,
                "be used",
                format!(
                    "the server at {} lets everybody read it without a link; take public access away from `{}`",
                    bucket.endpoint(),
                    bucket.name()
                ),
            ));
        }
        Ok(())
    }

    /// A link that should have worked was refused: mostly it is the clocks.
    fn refused(&self, error: Error, skew: Option<time::Duration>) -> Error {
        if error.kind() != ErrorKind::Denied {
            return error;
        }
        let why = match skew {
            Some(skew) if skew.abs() >= SKEW_NOTICED => {
                format!("its clock and this machine's differ by {} s; set both by NTP", skew.abs().whole_seconds())
            }
            _ => "check that nothing between here and there changes `Host`, paths or headers".to_owned(),
        };
        let server = self.bucket.endpoint();
        Error::new(
            ErrorKind::Denied,
            "be used",
            format!("the server at {server} refuses a link that was just signed ({error}); {why}"),
        )
    }
}

/// The link with a signature that nobody made.
fn forged(link: &PresignedLink) -> PresignedLink {
    let mut forged = link.clone();
    let pairs: Vec<(String, String)> = link
        .url
        .query_pairs()
        .map(|(name, value)| match &*name {
            "X-Amz-Signature" => (name.into_owned(), "0".repeat(value.len())),
            _ => (name.into_owned(), value.into_owned()),
        })
        .collect();
    forged.url.query_pairs_mut().clear().extend_pairs(pairs);
    forged
}

fn crc64(content: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, content)
}
