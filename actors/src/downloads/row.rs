//! A row of `downloads`, and how its owner sees it.

use bowerbird_nats::{
    AccountId, DownloadId, FileId,
    download::{Algorithm, Checksum, Download, ErrorCode, Failure, Status, Verified},
    id::NodeId,
};
use serde::{Deserialize, de::IntoDeserializer};
use time::OffsetDateTime;

/// A part that is stored, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// From 1.
    pub(crate) number: i32,
    pub(crate) size_bytes: i64,
    pub(crate) etag: String,
    /// CRC-64/NVME, its bits as a signed number.
    pub(crate) crc64: i64,
}

/// A row, as it is stored; the schema documents each column.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: DownloadId,
    pub(crate) account_id: AccountId,
    pub(crate) source_sealed: Vec<u8>,
    pub(crate) display_url: String,
    pub(crate) asked_name: Option<String>,
    pub(crate) folder: String,
    pub(crate) checksum: Option<(Algorithm, Vec<u8>)>,
    pub(crate) max_connections: Option<i32>,
    pub(crate) priority: i16,
    pub(crate) max_attempts: i32,
    pub(crate) start_at: Option<OffsetDateTime>,
    pub(crate) status: Status,
    pub(crate) attempt: i32,
    pub(crate) lost: i32,
    pub(crate) not_before: Option<OffsetDateTime>,
    pub(crate) worker: Option<NodeId>,
    pub(crate) fence: i64,
    pub(crate) file_id: FileId,
    pub(crate) object_key: Option<String>,
    pub(crate) upload_id: Option<String>,
    pub(crate) part_size_bytes: Option<i64>,
    pub(crate) size_bytes: Option<i64>,
    pub(crate) validator: Option<String>,
    pub(crate) source_content_type: Option<String>,
    pub(crate) source_name: Option<String>,
    pub(crate) restarts: i32,
    pub(crate) received_bytes: i64,
    pub(crate) mark_bytes: i64,
    pub(crate) reserved_bytes: i64,
    pub(crate) bytes_per_second: i64,
    pub(crate) connections: i32,
    pub(crate) sha256: Option<Vec<u8>>,
    pub(crate) verified: Verified,
    pub(crate) error: Option<Failure>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) started_at: Option<OffsetDateTime>,
    pub(crate) finished_at: Option<OffsetDateTime>,
}

impl Row {
    /// As its owner sees it.
    pub(crate) fn to_download(&self) -> Download {
        let runs = self.status == Status::Running;
        Download {
            id: self.id,
            url: self.display_url.clone(),
            file_name: self.asked_name.clone().or_else(|| self.source_name.clone()),
            folder: self.folder.clone(),
            status: self.status,
            size_bytes: self.size_bytes,
            received_bytes: self.received_bytes,
            bytes_per_second: if runs { self.bytes_per_second } else { 0 },
            connections: if runs { self.connections } else { 0 },
            content_type: self.source_content_type.clone(),
            sha256: self.sha256.as_deref().map(hexadecimal),
            checksum: self
                .checksum
                .as_ref()
                .map(|(algorithm, value)| Checksum { algorithm: *algorithm, value: hexadecimal(value) }),
            priority: self.priority,
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            start_at: self.start_at,
            next_attempt_at: self.not_before.filter(|_| self.status == Status::Queued),
            file_id: (self.status == Status::Completed).then_some(self.file_id),
            verified: self.verified,
            error: self.error.clone(),
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
        }
    }

    /// Below this lies every object and upload of the download.
    pub(crate) fn prefix(&self) -> String {
        format!("{}/{}/", self.account_id, self.file_id)
    }

    /// Where this try stores what it finds. A try of its own key, so that one which was given up cannot write over
    /// what a later one stored.
    pub(crate) fn key_of_this_try(&self) -> String {
        format!("{}{}", self.prefix(), self.fence)
    }
}

/// A failure as it is stored beside the row.
pub(crate) fn failure(code: &str, detail: String, retryable: bool) -> Option<Failure> {
    word::<ErrorCode>(code).map(|code| Failure { code, detail, retryable })
}

/// A word of one of the closed lists of the contract.
pub(crate) fn word<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    let text: serde::de::value::BorrowedStrDeserializer<'a, serde::de::value::Error> =
        serde::de::value::BorrowedStrDeserializer::new(text);
    T::deserialize(text.into_deserializer()).ok()
}

/// Bytes as people write digests.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_contract_are_read_and_others_are_not() {
        assert_eq!(word::<Status>("running"), Some(Status::Running));
        assert_eq!(word::<ErrorCode>("checksum_mismatch"), Some(ErrorCode::ChecksumMismatch));
        assert_eq!(word::<Status>("Running"), None);
        assert_eq!(hexadecimal(&[0, 0xab, 0x7f]), "00ab7f");
    }
}
