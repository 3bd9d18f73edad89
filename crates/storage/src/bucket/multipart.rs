//! Objects in parts.

use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use time::OffsetDateTime;

use super::{Blocks, Bucket, Error, ErrorKind, Stored, bare_etag, decode_crc64, encode_crc64, instant, time_limit};

/// A part that the bucket has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartInfo {
    /// From 1 to 10 000.
    pub number: u32,
    /// Its length.
    pub size_bytes: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// Its CRC-64/NVME, where the server keeps it.
    pub crc64: Option<u64>,
}

/// An upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadInfo {
    /// The key that it is for.
    pub key: String,
    /// Its identifier.
    pub upload_id: String,
    /// When it was begun, in UTC.
    pub initiated: OffsetDateTime,
}

impl Bucket {
    /// Begin an object in parts. Returns the upload id.
    pub async fn create_multipart(&self, key: &str, content_type: Option<&str>) -> Result<String, Error> {
        let answer = self
            .client
            .create_multipart_upload()
            .bucket(self.name())
            .key(key)
            .set_content_type(content_type.map(str::to_owned))
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_type(ChecksumType::FullObject)
            .send()
            .await
            .map_err(|error| Error::of("begin an upload", error))?;
        answer
            .upload_id()
            .map(str::to_owned)
            .ok_or_else(|| Error::new(ErrorKind::Other, "begin an upload", "its answer names no upload id"))
    }

    /// Store a part, all or nothing; the server refuses bytes that do not have the CRC. Returns its entity tag.
    pub async fn upload_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u32,
        body: impl Into<Blocks>,
        crc64: u64,
    ) -> Result<String, Error> {
        let body: Blocks = body.into();
        let size_bytes = body.size_bytes();
        let answer = self
            .client
            .upload_part()
            .bucket(self.name())
            .key(key)
            .upload_id(upload_id)
            .part_number(part_number(number)?)
            .checksum_crc64_nvme(encode_crc64(crc64))
            .content_length(i64::try_from(size_bytes).unwrap_or(i64::MAX))
            .body(body.into_byte_stream())
            .customize()
            .disable_payload_signing()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(time_limit(size_bytes)))
            .send()
            .await
            .map_err(|error| Error::of("store a part", error))?;
        Ok(bare_etag(answer.e_tag()))
    }

    /// Make the object of its parts, given as number, entity tag and CRC-64, in ascending order.
    ///
    /// The server refuses if a part is not the one named, or the whole does not have `size_bytes` and `crc64`; the
    /// upload stays usable then.
    pub async fn complete_multipart(
        &self,
        key: &str,
        upload_id: &str,
        parts: &[(u32, String, u64)],
        size_bytes: u64,
        crc64: u64,
    ) -> Result<Stored, Error> {
        let mut listed = Vec::with_capacity(parts.len());
        for (number, etag, crc64) in parts {
            listed.push(
                CompletedPart::builder()
                    .part_number(part_number(*number)?)
                    .e_tag(format!("\"{etag}\""))
                    .checksum_crc64_nvme(encode_crc64(*crc64))
                    .build(),
            );
        }
        let answer = self
            .client
            .complete_multipart_upload()
            .bucket(self.name())
            .key(key)
            .upload_id(upload_id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(listed)).build())
            .mpu_object_size(i64::try_from(size_bytes).unwrap_or(i64::MAX))
            .checksum_crc64_nvme(encode_crc64(crc64))
            .checksum_type(ChecksumType::FullObject)
            .customize()
            // Other servers copy the parts together first.
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(time_limit(size_bytes / 64)))
            .send()
            .await
            .map_err(|error| Error::of("complete an upload", error))?;
        Ok(Stored { etag: bare_etag(answer.e_tag()) })
    }

    /// Begin an object in parts that somebody else writes, by links to each. Returns the upload id.
    ///
    /// Without a checksum algorithm: a link cannot know the checksum of what it will carry, and where an upload was begun
    /// with one, servers refuse parts that have none.
    pub async fn create_multipart_for_links(&self, key: &str, content_type: &str) -> Result<String, Error> {
        let answer = self
            .client
            .create_multipart_upload()
            .bucket(self.name())
            .key(key)
            .content_type(content_type)
            .send()
            .await
            .map_err(|error| Error::of("begin an upload", error))?;
        answer
            .upload_id()
            .map(str::to_owned)
            .ok_or_else(|| Error::new(ErrorKind::Other, "begin an upload", "its answer names no upload id"))
    }

    /// Make the object of parts that were written by links, given as number and entity tag, in ascending order.
    ///
    /// The server refuses if a part is not the one named, or the whole does not have `size_bytes`; the upload stays usable
    /// then.
    pub async fn complete_multipart_of_links(
        &self,
        key: &str,
        upload_id: &str,
        parts: &[(u32, String)],
        size_bytes: u64,
    ) -> Result<Stored, Error> {
        let mut listed = Vec::with_capacity(parts.len());
        for (number, etag) in parts {
            listed.push(CompletedPart::builder().part_number(part_number(*number)?).e_tag(format!("\"{etag}\"")).build());
        }
        let answer = self
            .client
            .complete_multipart_upload()
            .bucket(self.name())
            .key(key)
            .upload_id(upload_id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(listed)).build())
            .mpu_object_size(i64::try_from(size_bytes).unwrap_or(i64::MAX))
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(time_limit(size_bytes / 64)))
            .send()
            .await
            .map_err(|error| Error::of("complete an upload", error))?;
        Ok(Stored { etag: bare_etag(answer.e_tag()) })
    }

    /// Give an upload and its parts up. It is no error if there is none.
    pub async fn abort_multipart(&self, key: &str, upload_id: &str) -> Result<(), Error> {
        let answer = self.client.abort_multipart_upload().bucket(self.name()).key(key).upload_id(upload_id).send().await;
        match answer.map_err(|error| Error::of("abort an upload", error)) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NoSuchUpload => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Every part of an upload, by number.
    pub async fn list_parts(&self, key: &str, upload_id: &str) -> Result<Vec<PartInfo>, Error> {
        let mut parts = Vec::new();
        let mut marker = None;
        loop {
            let page = self
                .client
                .list_parts()
                .bucket(self.name())
                .key(key)
                .upload_id(upload_id)
                .set_part_number_marker(marker)
                .send()
                .await
                .map_err(|error| Error::of("list the parts of an upload", error))?;
            parts.extend(page.parts().iter().map(|part| PartInfo {
                number: part.part_number().and_then(|number| u32::try_from(number).ok()).unwrap_or(0),
                size_bytes: part.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                etag: bare_etag(part.e_tag()),
                crc64: part.checksum_crc64_nvme().and_then(decode_crc64),
            }));
            marker = page.next_part_number_marker().map(str::to_owned);
            if !page.is_truncated().unwrap_or(false) || marker.is_none() {
                return Ok(parts);
            }
        }
    }

    /// Unfinished uploads of keys that begin with `prefix`, at most `limit`.
    pub async fn list_uploads(&self, prefix: &str, limit: usize) -> Result<Vec<UploadInfo>, Error> {
        let mut uploads = Vec::new();
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(self.name())
                .prefix(prefix)
                .set_key_marker(key_marker)
                .set_upload_id_marker(id_marker)
                .send()
                .await
                .map_err(|error| Error::of("list unfinished uploads", error))?;
            uploads.extend(page.uploads().iter().map(|upload| UploadInfo {
                key: upload.key().unwrap_or_default().to_owned(),
                upload_id: upload.upload_id().unwrap_or_default().to_owned(),
                initiated: upload.initiated().map_or(OffsetDateTime::UNIX_EPOCH, instant),
            }));
            key_marker = page.next_key_marker().map(str::to_owned);
            id_marker = page.next_upload_id_marker().map(str::to_owned);
            if uploads.len() >= limit || !page.is_truncated().unwrap_or(false) || key_marker.is_none() {
                uploads.truncate(limit);
                return Ok(uploads);
            }
        }
    }
}

fn part_number(number: u32) -> Result<i32, Error> {
    i32::try_from(number)
        .ok()
        .filter(|number| (1..=10_000).contains(number))
        .ok_or_else(|| Error::new(ErrorKind::Other, "store a part", "a part number is from 1 to 10000"))
}
