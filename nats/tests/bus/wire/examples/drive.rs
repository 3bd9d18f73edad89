//! Examples of files, folders and the trash.

use bowerbird_nats::{
    Code, DownloadId, FileId, FileVersionId, FolderId, Page, event,
    file::{
        self, BulkAction, BulkError, BulkFiles, BulkItem, BulkResult, Clearable, CopyFile, CopyTarget, DeleteFile, File,
        FileChanges, FileStatus, FileVersion, FileVersions, GetFile, Link, ListFiles, ListVersions, OnCollision, Order,
        PresignFile, RestoreVersion, Sort, UpdateFile,
    },
    folder::{self, CreateFolder, DeleteFolder, Folder, FolderChanges, GetFolder, Item, ListFolder, Listing, UpdateFolder},
    operation::Done,
    trash::{Kind, ListTrash, PurgeTrashed, RestoreTrashed, Restored, Trashed},
};

use super::{AT, Examples, checksum, uuid};

pub(super) fn a_file() -> File {
    File {
        id: FileId(uuid(4)),
        name: "film.mkv".into(),
        folder: "/films".into(),
        size_bytes: 734_003_200,
        content_type: "video/x-matroska".into(),
        sha256: Some(checksum().value),
        etag: "\"5d41402abc4b2a76b9719d911017c592-88\"".into(),
        status: FileStatus::Available,
        source: file::Source::Download,
        download_id: Some(DownloadId(uuid(3))),
        upload_id: None,
        folder_id: Some(FolderId(uuid(20))),
        tags: vec!["1999".into(), "to watch".into()],
        description: Some("The one with the ship.".into()),
        expires_at: Some(AT),
        version: 3,
        created_at: AT,
        updated_at: AT,
    }
}

fn a_folder() -> Folder {
    Folder {
        id: FolderId(uuid(20)),
        name: "films".into(),
        path: "/films".into(),
        parent_id: Some(FolderId(uuid(21))),
        version: 1,
        created_at: AT,
        updated_at: AT,
    }
}

pub(super) fn add(examples: &mut Examples) {
    files(examples);
    folders(examples);
    trash(examples);
}

fn files(examples: &mut Examples) {
    let id = FileId(uuid(4));
    examples.operation(&GetFile { id }, &a_file());
    let list = ListFiles {
        folder: Some("/films".into()),
        q: Some("film".into()),
        content_type: Some("video/".into()),
        tags: vec!["to watch".into()],
        min_size_bytes: Some(1_000_000),
        max_size_bytes: Some(1_000_000_000),
        created_after: Some(AT),
        created_before: Some(AT),
        updated_after: Some(AT),
        updated_before: Some(AT),
        status: Some(FileStatus::Available),
        sort: Some(Sort::Name),
        order: Some(Order::Asc),
        limit: Some(50),
        cursor: Some("b3BhcXVl".into()),
    };
    examples.operation(&list, &Page { items: vec![a_file()], next_cursor: None });
    let changes = FileChanges {
        name: Some("film.mkv".into()),
        folder: Some("/films".into()),
        on_collision: Some(OnCollision::Rename),
        tags: Some(vec!["to watch".into(), "1999".into()]),
        description: Some("The one with the ship.".into()),
        expires_at: None,
        clear: vec![Clearable::ExpiresAt],
    };
    examples.operation(&UpdateFile { id, if_version: Some(2), changes }, &a_file());
    examples.operation(&DeleteFile { id }, &Done {});
    contents(examples, id);
    let link = Link { url: "https://objects.example.org/bowerbird/o/0198?X-Amz-Signature=…".into(), expires_at: AT };
    examples.operation(&PresignFile { id, internal: false }, &link);

    examples.event(&event::FILE_AVAILABLE, &file::Available { file: a_file() });
    let renamed = file::Renamed { file: a_file(), old_name: "film.part".into(), old_folder: "/".into() };
    examples.event(&event::FILE_RENAMED, &renamed);
    for event_type in [&event::FILE_UPDATED, &event::FILE_TRASHED, &event::FILE_EXPIRED, &event::FILE_RESTORED] {
        examples.event(event_type, &file::Changed { file: a_file() });
    }
    examples.event(&event::FILE_PURGED, &file::Purged { file_id: id, size_bytes: 734_003_200 });
}

fn contents(examples: &mut Examples, id: FileId) {
    let target = CopyTarget {
        name: Some("film (copy).mkv".into()),
        folder: Some("/films".into()),
        on_collision: Some(OnCollision::Rename),
    };
    examples.operation(&CopyFile { id, target }, &a_file());
    let bulk = BulkFiles {
        action: BulkAction::Move,
        ids: vec![id],
        folder: Some("/films".into()),
        tags: Vec::new(),
        on_collision: Some(OnCollision::Rename),
    };
    let error = Some(BulkError { code: Code::NotFound, detail: "there is no such file".into() });
    examples.operation(&bulk, &BulkResult { items: vec![BulkItem { id, error }] });
    let version = FileVersion {
        id: FileVersionId(uuid(23)),
        size_bytes: 734_003_100,
        content_type: "video/x-matroska".into(),
        sha256: Some(checksum().value),
        replaced_at: AT,
        expires_at: AT,
    };
    examples.operation(&ListVersions { id }, &FileVersions { items: vec![version] });
    examples.operation(&RestoreVersion { id, version_id: FileVersionId(uuid(23)) }, &a_file());
}

fn folders(examples: &mut Examples) {
    let id = FolderId(uuid(20));
    let create = CreateFolder { path: "/films".into(), on_collision: Some(OnCollision::Fail) };
    examples.operation(&create, &a_folder());
    examples.operation(&GetFolder { id }, &a_folder());
    let list = ListFolder { id: Some(id), path: None, limit: Some(50), cursor: Some("b3BhcXVl".into()) };
    let inner =
        Folder { id: FolderId(uuid(22)), name: "old".into(), path: "/films/old".into(), parent_id: Some(id), ..a_folder() };
    let items = vec![Item { folder: Some(inner), file: None }, Item { folder: None, file: Some(a_file()) }];
    examples.operation(&list, &Listing { folder: a_folder(), items, next_cursor: None });
    let changes = FolderChanges { name: Some("films".into()), parent: Some("/".into()), on_collision: Some(OnCollision::Rename) };
    examples.operation(&UpdateFolder { id, if_version: Some(1), changes }, &a_folder());
    examples.operation(&DeleteFolder { id }, &Done {});
    examples.event(&event::FOLDER_CREATED, &folder::Changed { folder: a_folder() });
    examples.event(&event::FOLDER_RENAMED, &folder::Renamed { folder: a_folder(), old_path: "/movies".into() });
    examples.event(&event::FOLDER_TRASHED, &folder::Trashed { folder: a_folder(), folders: 1, files: 12 });
    examples.event(&event::FOLDER_RESTORED, &folder::Changed { folder: a_folder() });
}

fn trash(examples: &mut Examples) {
    let id = uuid(4);
    let trashed = Trashed {
        kind: Kind::File,
        id,
        name: "film.mkv".into(),
        folder: "/films".into(),
        size_bytes: 734_003_200,
        files: 1,
        deleted_at: AT,
        purge_after: AT,
    };
    let list = ListTrash { limit: Some(50), cursor: Some("b3BhcXVl".into()) };
    examples.operation(&list, &Page { items: vec![trashed], next_cursor: None });
    let restored = Restored { kind: Kind::File, id, name: "film (2).mkv".into(), folder: "/films".into() };
    examples.operation(&RestoreTrashed { id, on_collision: Some(OnCollision::Rename) }, &restored);
    examples.operation(&PurgeTrashed { id }, &Done {});
}
