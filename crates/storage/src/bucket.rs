//! The port to a bucket on any S3 server: whole objects, parts, listings and presigned links.
//!
//! Every call has a time limit and an error that says what to do about it. Bodies are handed over as the blocks they
//! are in, without copying, and are sent again by themselves when an attempt fails. Each carries the CRC-64/NVME of its
//! bytes, which the server checks before it stores anything; payloads are not signed besides, as that costs five times
//! the CPU.

mod blocks;
mod copy;
mod error;
mod follow;
mod listing;
mod multipart;
mod presign;
mod read;
mod self_test;
mod set_up;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bowerbird_lifecycle::Clock;
use time::OffsetDateTime;
use url::Url;

pub use self::{
    blocks::Blocks,
    error::{Error, ErrorKind},
    listing::Listing,
    multipart::{PartInfo, UploadInfo},
    presign::{Audience, Disposition, PresignGet, PresignPut, PresignedLink},
    read::ObjectStream,
    set_up::{SetUp, SetUpReport},
};

/// Where a bucket is and how to get in.
#[derive(Clone)]
pub struct BucketOptions {
    /// Where this process reaches the server.
    pub endpoint: Url,
    /// Where clients reach it: what public links are signed for.
    pub public_endpoint: Url,
    /// The region that signatures are made for.
    pub region: String,
    /// Name of the bucket.
    pub bucket: String,
    /// The key that requests are signed with.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// `http://host/bucket/key` rather than `http://bucket.host/key`.
    pub path_style: bool,
    /// What tells the time.
    pub clock: Clock,
}

impl fmt::Debug for BucketOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BucketOptions")
            .field("endpoint", &self.endpoint.as_str())
            .field("public_endpoint", &self.public_endpoint.as_str())
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

/// A bucket. Cheap to clone; outlives every request.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    /// Signs links for the public address; never sends anything.
    public: Client,
    options: Arc<BucketOptions>,
    /// The server was seen to keep a SHA-256 that it had not checked.
    doubts_sha256: Arc<AtomicBool>,
}

/// An object that was just written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its entity tag, without quotes. Not a hash of anything.
    pub etag: String,
}

/// What the bucket knows about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its length.
    pub size_bytes: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// Its media type.
    pub content_type: Option<String>,
    /// CRC-64/NVME of the whole, where the server keeps it.
    pub crc64: Option<u64>,
    /// SHA-256 of the whole, where the server checked and keeps it: it does for an object that was written with one in one
    /// request.
    pub sha256: Option<[u8; 32]>,
    /// When it was written, in UTC.
    pub modified: OffsetDateTime,
}

/// Time for a call that moves no body, and what a body adds to it: a slow disk still does this much.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const SLOWEST_BYTES_PER_SECOND: u64 = 128 << 10;
const ATTEMPTS: u32 = 4;

impl Bucket {
    /// Reach the bucket, make it if it is missing, and try what is needed of it.
    ///
    /// Tried again for as long as `wait` while the server does not answer. The error says what is missing; what can be done
    /// without is logged.
    pub async fn connect(options: BucketOptions, wait: Duration) -> Result<Bucket, Error> {
        let (bucket, shortcomings) = Bucket::try_out(options, wait).await?;
        for shortcoming in shortcomings {
            tracing::warn!("{shortcoming}");
        }
        Ok(bucket)
    }

    /// As [`Bucket::connect`], with what the server does less well than it could: a sentence each, that says what to do.
    pub async fn try_out(options: BucketOptions, wait: Duration) -> Result<(Bucket, Vec<String>), Error> {
        let bucket = Bucket::new(options);
        let shortcomings = bucket.wait_until_fit(wait).await?;
        Ok((bucket, shortcomings))
    }

    /// The port, without asking the server anything.
    pub fn new(options: BucketOptions) -> Bucket {
        let client = |endpoint: &Url| {
            let configuration = aws_sdk_s3::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .endpoint_url(endpoint.as_str())
                .region(Region::new(options.region.clone()))
                .credentials_provider(Credentials::new(
                    options.access_key_id.clone(),
                    options.secret_access_key.clone(),
                    None,
                    None,
                    "settings",
                ))
                .force_path_style(options.path_style)
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
                // Our own limits say when a transfer is stuck; its guess of throughput has ended healthy ones.
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
                .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
                .timeout_config(time_limit(0))
                .build();
            Client::from_conf(configuration)
        };
        Bucket {
            client: client(&options.endpoint),
            public: client(&options.public_endpoint),
            options: Arc::new(options),
            doubts_sha256: Arc::default(),
        }
    }

    /// Believe no SHA-256 that the server names from now on.
    fn doubt_sha256(&self) {
        self.doubts_sha256.store(true, Ordering::Relaxed);
    }

    /// Name of the bucket.
    pub fn name(&self) -> &str {
        &self.options.bucket
    }

    /// Where this process reaches the server.
    pub fn endpoint(&self) -> &Url {
        &self.options.endpoint
    }

    /// Where clients reach it.
    pub fn public_endpoint(&self) -> &Url {
        &self.options.public_endpoint
    }

    /// Write an object in one request, all or nothing. With `crc64`, the server refuses bytes that do not have it.
    pub async fn put(
        &self,
        key: &str,
        body: impl Into<Blocks>,
        content_type: Option<&str>,
        crc64: Option<u64>,
    ) -> Result<Stored, Error> {
        self.put_if(key, body.into(), content_type, crc64, None).await
    }

    /// Write an object unless there is one: `PreconditionFailed` then.
    pub async fn put_new(
        &self,
        key: &str,
        body: impl Into<Blocks>,
        content_type: Option<&str>,
        crc64: Option<u64>,
    ) -> Result<Stored, Error> {
        self.put_if(key, body.into(), content_type, crc64, Some("*".to_owned())).await
    }

    async fn put_if(
        &self,
        key: &str,
        body: Blocks,
        content_type: Option<&str>,
        crc64: Option<u64>,
        if_none_match: Option<String>,
    ) -> Result<Stored, Error> {
        let size_bytes = body.size_bytes();
        let answer = self
            .client
            .put_object()
            .bucket(self.name())
            .key(key)
            .set_content_type(content_type.map(str::to_owned))
            .set_checksum_crc64_nvme(crc64.map(encode_crc64))
            .set_if_none_match(if_none_match)
            .content_length(i64::try_from(size_bytes).unwrap_or(i64::MAX))
            .body(body.into_byte_stream())
            .customize()
            .disable_payload_signing()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(time_limit(size_bytes)))
            .send()
            .await
            .map_err(|error| Error::of("write an object", error))?;
        Ok(Stored { etag: bare_etag(answer.e_tag()) })
    }

    /// What is known about an object. None: there is none.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, Error> {
        let answer = self
            .client
            .head_object()
            .bucket(self.name())
            .key(key)
            .checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled)
            .send()
            .await
            .map_err(|error| Error::of("look at an object", error));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.kind() == ErrorKind::NoSuchKey => {
                // A proxy before a store that is away says 404 as well, and an answer to HEAD has nothing by which to tell. A
                // listing has: what is said here may have content deleted.
                let listed = self.list(key, None, 1).await?;
                return if listed.iter().any(|object| object.key == key) { Err(error) } else { Ok(None) };
            }
            Err(error) => return Err(error),
        };
        Ok(Some(ObjectInfo {
            size_bytes: answer.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
            etag: bare_etag(answer.e_tag()),
            content_type: answer.content_type().map(str::to_owned),
            crc64: answer.checksum_crc64_nvme().and_then(decode_crc64),
            // Of an object in parts it is a hash of hashes, with the number of parts behind it, and is no base64 then.
            sha256: answer
                .checksum_sha256()
                .filter(|_| !self.doubts_sha256.load(Ordering::Relaxed))
                .filter(|_| answer.checksum_type() != Some(&aws_sdk_s3::types::ChecksumType::Composite))
                .and_then(decode_sha256),
            modified: answer.last_modified().map_or(OffsetDateTime::UNIX_EPOCH, instant),
        }))
    }

    /// Remove an object. It is no error if there is none.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        let answer = self.client.delete_object().bucket(self.name()).key(key).send().await;
        match answer.map_err(|error| Error::of("remove an object", error)) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NoSuchKey => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// How long a call with a body of so many bytes may take.
fn time_limit(body_bytes: u64) -> TimeoutConfig {
    let attempt = CALL_TIMEOUT + Duration::from_secs(body_bytes / SLOWEST_BYTES_PER_SECOND);
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(attempt)
        .operation_attempt_timeout(attempt)
        .operation_timeout(attempt * ATTEMPTS)
        .build()
}

/// A CRC-64/NVME as S3 writes it.
fn encode_crc64(crc64: u64) -> String {
    STANDARD.encode(crc64.to_be_bytes())
}

fn decode_crc64(value: &str) -> Option<u64> {
    let bytes: [u8; 8] = STANDARD.decode(value).ok()?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

fn decode_sha256(value: &str) -> Option<[u8; 32]> {
    STANDARD.decode(value).ok()?.try_into().ok()
}

fn bare_etag(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}

fn instant(time: &aws_sdk_s3::primitives::DateTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(time.as_nanos()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
