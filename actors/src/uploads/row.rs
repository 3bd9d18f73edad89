//! A row of `uploads`, and how its owner sees it.

use bowerbird_nats::{
    AccountId, FileId, UploadId,
    upload::{Failure, Kind, Status, Upload},
};
use time::OffsetDateTime;

use crate::downloads::row::hexadecimal;

/// What is stored and signed where no media type was announced.
const OPAQUE: &str = "application/octet-stream";

/// A row, as it is stored; the schema documents each column.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: UploadId,
    pub(crate) account_id: AccountId,
    pub(crate) file_id: FileId,
    pub(crate) file_name: String,
    pub(crate) size_bytes: i64,
    pub(crate) content_type: Option<String>,
    pub(crate) sha256: Option<[u8; 32]>,
    pub(crate) object_key: String,
    pub(crate) part_size_bytes: Option<i64>,
    pub(crate) storage_upload_id: Option<String>,
    pub(crate) status: Status,
    pub(crate) etag: Option<String>,
    pub(crate) crc64: Option<i64>,
    pub(crate) detected_type: Option<String>,
    pub(crate) verified: bool,
    pub(crate) error: Option<Failure>,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) finished_at: Option<OffsetDateTime>,
    /// Whether its time is over, by the database's clock when it was read.
    pub(crate) is_over: bool,
    /// Seconds since its object was first seen, by the same clock.
    pub(crate) landed_seconds_ago: Option<f64>,
}

impl Row {
    /// As its owner sees it, without links.
    pub(crate) fn to_upload(&self) -> Upload {
        Upload {
            id: self.id,
            file_name: self.file_name.clone(),
            size_bytes: self.size_bytes,
            content_type: self.content_type.clone(),
            sha256: self.sha256.as_ref().map(|digest| hexadecimal(digest)),
            status: self.status,
            kind: self.kind(),
            detected_content_type: self.detected_type.clone(),
            file_id: (self.status == Status::Completed).then_some(self.file_id),
            error: self.error.clone(),
            transfer: None,
            expires_at: self.expires_at,
            created_at: self.created_at,
            finished_at: self.finished_at,
        }
    }

    /// In one request or in parts.
    pub(crate) fn kind(&self) -> Kind {
        if self.part_size_bytes.is_some() { Kind::Multipart } else { Kind::Single }
    }

    /// Its length.
    pub(crate) fn length(&self) -> u64 {
        u64::try_from(self.size_bytes).unwrap_or(0)
    }

    /// The media type that the object is stored under.
    pub(crate) fn stored_type(&self) -> &str {
        self.content_type.as_deref().unwrap_or(OPAQUE)
    }

    /// The media type of the file: what its owner said, else what it looks like.
    pub(crate) fn file_type(&self) -> &str {
        self.content_type.as_deref().or(self.detected_type.as_deref()).unwrap_or(OPAQUE)
    }

    /// Below this lies whatever belongs to the file to be.
    pub(crate) fn prefix(&self) -> String {
        format!("{}/{}/", self.account_id, self.file_id)
    }

    /// Its parts; none for an object that is put in one request.
    pub(crate) fn parts(&self) -> Option<Parts> {
        let part_size_bytes = u64::try_from(self.part_size_bytes?).ok().filter(|size| *size > 0)?;
        Some(Parts { size_bytes: self.length(), part_size_bytes })
    }
}

/// The key of the object to be. Nothing in it comes from a person.
pub(crate) fn object_key(account: AccountId, file: FileId) -> String {
    format!("{account}/{file}/0")
}

/// How an object is cut: parts of one size, and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    size_bytes: u64,
    part_size_bytes: u64,
}

/// Parts of one object at most, as S3 has it.
const MOST_PARTS: u64 = 10_000;
/// Part sizes are whole numbers of these.
const STEP_BYTES: u64 = 1 << 20;

impl Parts {
    /// Parts of at least this size for an object of this length: larger, if there would be too many.
    pub(crate) fn of(size_bytes: u64, least_bytes: u64) -> Parts {
        let needed = size_bytes.div_ceil(MOST_PARTS).next_multiple_of(STEP_BYTES);
        Parts { size_bytes, part_size_bytes: least_bytes.max(needed).max(1) }
    }

    /// Length of every part but the last.
    pub(crate) fn part_size_bytes(self) -> u64 {
        self.part_size_bytes
    }

    /// How many.
    pub(crate) fn count(self) -> u32 {
        u32::try_from(self.size_bytes.div_ceil(self.part_size_bytes).max(1)).unwrap_or(u32::MAX)
    }

    /// Length of one; from 1.
    pub(crate) fn length(self, number: u32) -> u64 {
        let before = u64::from(number.saturating_sub(1)) * self.part_size_bytes;
        self.size_bytes.saturating_sub(before).min(self.part_size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn five_tebibytes_fit_into_ten_thousand_parts_that_s3_takes() {
        let parts = Parts::of(5 << 40, 32 << 20);
        assert!(parts.count() <= 10_000 && parts.part_size_bytes() <= 5 << 30, "{parts:?}");
        let small = Parts::of(200 << 20, 32 << 20);
        assert_eq!((small.count(), small.length(1), small.length(7)), (7, 32 << 20, 8 << 20));
    }

    proptest! {
        #[test]
        fn the_parts_are_of_one_size_and_make_up_the_whole(size in 1_u64..5 << 40, least in (5_u64 << 20)..5 << 30) {
            let parts = Parts::of(size, least);
            prop_assert!(parts.count() <= 10_000);
            let full = u64::from(parts.count() - 1) * parts.part_size_bytes();
            let last = parts.length(parts.count());
            prop_assert!(last > 0 && last <= parts.part_size_bytes());
            prop_assert_eq!(full + last, size);
            prop_assert_eq!(parts.length(parts.count() + 1), 0);
        }
    }
}
