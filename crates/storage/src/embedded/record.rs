//! What the index keeps about buckets, objects, unfinished uploads and their parts, and how it is written down.
//!
//! Records are JSON: a field can be added without rewriting what is there.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{checksum::Checksums, error::StoreError};

/// A bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct BucketRecord {
    /// Milliseconds since 1970.
    pub(super) created_ms: i64,
}

/// What the client said about an object, kept as it came and sent with every GET and HEAD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Headers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cache_control: Option<String>,
    /// The `x-amz-meta-` headers, without the prefix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: BTreeMap<String, String>,
}

/// An object. Its content is kept beside it, under its version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ObjectRecord {
    /// Unique in this store and rising with every write: nanoseconds since 1970, or one more than the last.
    pub(super) version: u64,
    /// Entity tag, without quotes.
    pub(super) etag: String,
    pub(super) size_bytes: u64,
    /// Milliseconds since 1970.
    pub(super) modified_ms: i64,
    pub(super) headers: Headers,
    pub(super) checksums: Checksums,
    /// Whether the content is in the index itself; otherwise it is in files.
    pub(super) inline: bool,
    /// How many parts it was completed from. None: it came in one PUT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parts: Option<u32>,
}

/// An unfinished multipart upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UploadRecord {
    /// Milliseconds since 1970.
    pub(super) initiated_ms: i64,
    pub(super) headers: Headers,
    /// The algorithm that the client announced, as S3 spells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) checksum_algorithm: Option<String>,
    /// Whether the checksum of the object shall be a checksum of the parts' checksums.
    #[serde(default)]
    pub(super) composite: bool,
}

/// A part of an unfinished upload. It is always a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PartRecord {
    pub(super) file: u64,
    /// Entity tag, without quotes.
    pub(super) etag: String,
    pub(super) size_bytes: u64,
    /// Milliseconds since 1970.
    pub(super) modified_ms: i64,
    pub(super) checksums: Checksums,
}

/// A run of an object's bytes: one file, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) file: u64,
    pub(super) size_bytes: u64,
}

/// Something that happened to an object, to be told to whoever listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EventRecord {
    /// `s3:ObjectCreated:Put` and its like.
    pub(super) name: String,
    pub(super) bucket: String,
    pub(super) key: String,
    /// Nanoseconds since 1970; rises with every event of this store.
    pub(super) version: u64,
    /// Milliseconds since 1970.
    pub(super) time_ms: i64,
    /// None: the object is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) object: Option<EventObject>,
}

/// The object that an event is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EventObject {
    pub(super) size_bytes: u64,
    pub(super) etag: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: BTreeMap<String, String>,
}

/// Write a record down.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|source| StoreError::Record { source: Arc::new(source) })
}

/// Read a record.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|source| StoreError::Record { source: Arc::new(source) })
}

/// Write the list of an object's segments down: 16 bytes each.
pub(super) fn encode_segments(segments: &[Segment]) -> Vec<u8> {
    segments.iter().flat_map(|segment| segment.file.to_be_bytes().into_iter().chain(segment.size_bytes.to_be_bytes())).collect()
}

/// Read the list of an object's segments.
pub(super) fn decode_segments(bytes: &[u8]) -> Vec<Segment> {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    bytes.chunks_exact(16).map(|pair| Segment { file: number(&pair[..8]), size_bytes: number(&pair[8..]) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_segments_reads_back_as_it_was_written() {
        let segments = [Segment { file: 1, size_bytes: u64::MAX }, Segment { file: 0x0102_0304_0506_0708, size_bytes: 0 }];
        assert_eq!(decode_segments(&encode_segments(&segments)), segments);
    }
}
