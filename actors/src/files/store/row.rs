//! Rows of files, and of folders, as what they tell of.

use bowerbird_nats::{
    DownloadId, FileId, FolderId, UploadId,
    file::{File, FileStatus, Source},
    folder::Folder,
};
use sqlx::{Row as _, postgres::PgRow};
use uuid::Uuid;

use super::Error;
use crate::downloads::row::{hexadecimal, word};

/// The columns of a file `f` in its folder `d`.
macro_rules! file_columns {
    () => {
        "f.id, f.name, d.path AS folder, f.folder_id, f.size_bytes, f.content_type, f.sha256, f.etag, f.status, f.source, \
         f.download_id, f.upload_id, f.tags, f.description, f.expires_at, f.version, f.created_at, f.updated_at, f.object_key, f.account_id"
    };
}
pub(crate) use file_columns;

/// The columns of a folder.
macro_rules! folder_columns {
    () => {
        "id, name, path, parent_id, version, created_at, updated_at"
    };
}
pub(crate) use folder_columns;

/// The file of a row.
pub(crate) fn file(row: &PgRow) -> Result<File, Error> {
    Ok(File {
        id: FileId(row.try_get("id")?),
        name: row.try_get("name")?,
        folder: row.try_get("folder")?,
        size_bytes: row.try_get("size_bytes")?,
        content_type: row.try_get("content_type")?,
        sha256: row.try_get::<Option<Vec<u8>>, _>("sha256")?.as_deref().map(hexadecimal),
        etag: row.try_get("etag")?,
        status: word::<FileStatus>(row.try_get("status")?).ok_or(Error::Corrupt("status"))?,
        source: word::<Source>(row.try_get("source")?).ok_or(Error::Corrupt("source"))?,
        download_id: row.try_get::<Option<Uuid>, _>("download_id")?.map(DownloadId),
        upload_id: row.try_get::<Option<Uuid>, _>("upload_id")?.map(UploadId),
        folder_id: Some(FolderId(row.try_get("folder_id")?)),
        tags: row.try_get("tags")?,
        description: row.try_get("description")?,
        expires_at: row.try_get("expires_at")?,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// The folder of a row.
pub(crate) fn folder(row: &PgRow) -> Result<Folder, Error> {
    Ok(Folder {
        id: FolderId(row.try_get("id")?),
        name: row.try_get("name")?,
        path: row.try_get("path")?,
        parent_id: row.try_get::<Option<Uuid>, _>("parent_id")?.map(FolderId),
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
