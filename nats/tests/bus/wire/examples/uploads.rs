//! Uploads and what becomes of files in the bucket.

use std::collections::BTreeMap;

use bowerbird_nats::{
    AccountId, FileId, Page, UploadId, event,
    file::{self, File, FileStatus, Source},
    operation::Done,
    reconciliation::{Reconcile, Report},
    upload::{
        AbortUpload, Changed, Check, Checked, CompleteUpload, CreateUpload, ErrorCode, Failure, GetUpload, Kind, LinkUpload,
        ListUploads, PartLink, Status, Transfer, Upload, Verdict,
    },
};

use super::{AT, Examples, a_file, checksum, uuid};

fn pending() -> Upload {
    Upload {
        id: UploadId(uuid(8)),
        file_name: "film.mkv".into(),
        size_bytes: 734_003_200,
        content_type: Some("video/x-matroska".into()),
        sha256: Some(checksum().value),
        status: Status::Pending,
        kind: Kind::Single,
        detected_content_type: None,
        file_id: None,
        error: None,
        transfer: None,
        expires_at: AT,
        created_at: AT,
        finished_at: None,
    }
}

fn link() -> Transfer {
    let headers = [("content-length", "734003200"), ("content-type", "video/x-matroska"), ("if-none-match", "*")];
    Transfer {
        kind: Kind::Single,
        method: "PUT".into(),
        url: Some("https://objects.example.org/bowerbird/o/0198?X-Amz-Signature=…".into()),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        part_size_bytes: None,
        parts: Vec::new(),
        missing_parts: None,
        next_after_part: None,
        expires_at: AT,
    }
}

fn part_links() -> Transfer {
    let part = PartLink {
        part_number: 3,
        size_bytes: 33_554_432,
        url: "https://objects.example.org/bowerbird/o/0198?partNumber=3&X-Amz-Signature=…".into(),
        headers: BTreeMap::from([("content-length".to_owned(), "33554432".to_owned())]),
    };
    Transfer {
        kind: Kind::Multipart,
        url: None,
        headers: BTreeMap::new(),
        part_size_bytes: Some(33_554_432),
        parts: vec![part],
        missing_parts: Some(20),
        next_after_part: Some(3),
        ..link()
    }
}

pub(super) fn add(examples: &mut Examples) {
    let id = UploadId(uuid(8));
    let create = CreateUpload {
        file_name: "film.mkv".into(),
        size_bytes: 734_003_200,
        content_type: Some("video/x-matroska".into()),
        sha256: Some(checksum().value),
    };
    examples.operation(&create, &Upload { transfer: Some(link()), ..pending() });
    examples.operation(&GetUpload { id }, &pending());
    let list = ListUploads { status: Some(Status::Pending), limit: Some(50), cursor: Some("b3BhcXVl".into()) };
    examples.operation(&list, &Page { items: vec![pending()], next_cursor: None });
    examples.operation(&LinkUpload { id, after_part: Some(2), limit: Some(1) }, &part_links());
    let detected = Some("video/x-matroska".to_owned());
    let completed = Upload {
        status: Status::Completed,
        detected_content_type: detected.clone(),
        file_id: Some(FileId(uuid(4))),
        finished_at: Some(AT),
        ..pending()
    };
    examples.operation(&CompleteUpload { id }, &completed);
    examples.operation(&AbortUpload { id }, &Done {});
    let ended = |status| Upload { status, finished_at: Some(AT), ..pending() };
    let error =
        Failure { code: ErrorCode::ChecksumMismatch, detail: "the content has another SHA-256 than was announced".into() };
    for (event_type, upload) in [
        (&event::UPLOAD_CREATED, pending()),
        (&event::UPLOAD_COMPLETED, completed),
        (&event::UPLOAD_FAILED, Upload { error: Some(error), ..ended(Status::Failed) }),
        (&event::UPLOAD_ABORTED, ended(Status::Aborted)),
        (&event::UPLOAD_EXPIRED, ended(Status::Expired)),
    ] {
        examples.event(event_type, &Changed { upload });
    }
    let uploaded = File { source: Source::Upload, download_id: None, upload_id: Some(id), ..a_file() };
    let quarantined = File { status: FileStatus::Quarantined, ..uploaded.clone() };
    examples.event(&event::FILE_QUARANTINED, &file::Quarantined { file: quarantined, reason: "Eicar-Test-Signature".into() });
    examples.event(&event::FILE_MISSING, &file::Missing { file: File { status: FileStatus::Missing, ..uploaded.clone() } });
    examples.event(&event::FILE_FOUND, &file::Found { file: uploaded });
    let check = Check {
        upload_id: id,
        file_id: FileId(uuid(4)),
        account_id: AccountId(uuid(1)),
        file_name: "film.mkv".into(),
        size_bytes: 734_003_200,
        content_type: detected.clone(),
        detected_content_type: detected,
        sha256: Some(checksum().value),
        url: "http://127.0.0.1:9000/bowerbird/o/0198?X-Amz-Signature=…".into(),
        attempt: 1,
    };
    examples.add("check.question".into(), &check);
    let checked =
        Checked { outcome: Verdict::Quarantine, retry_after_seconds: None, reason: Some("Eicar-Test-Signature".into()) };
    examples.add("check.answer".into(), &checked);
    let report = Report {
        dry_run: false,
        started_at: AT,
        finished_at: AT,
        uploads: 12,
        landed: 1,
        objects: 48_211,
        orphans: 2,
        young: 3,
        foreign: 0,
        missing: 0,
        found: 0,
        abandoned_parts: 1,
        orphan_bytes: 1_468_006_400,
        stopped: None,
    };
    examples.operation(&Reconcile { dry_run: false, force: false }, &report);
}
