//! `/v1/files`: the objects that an account owns.

use bowerbird_nats::{
    FileId, FileVersionId, Page,
    file::{
        BulkFiles, BulkResult, CopyFile, CopyTarget, DeleteFile, File, FileChanges, FileStatus, FileVersions, GetFile, Link,
        ListFiles, ListVersions, Order, PresignFile, RestoreVersion, Sort, UpdateFile,
    },
};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Header, Path, Query},
};

use crate::{
    actors::Actors,
    api::{
        Area,
        content::{Content, ContentAnswer, Wanted},
        version,
    },
    caller::Caller,
    payload::StrictJson,
    refused::Refused,
};
use time::OffsetDateTime;

pub(crate) struct FilesApi {
    pub(crate) actors: Actors,
    pub(crate) content: Content,
}

#[derive(ApiResponse)]
pub(crate) enum Deleted {
    /// It is done.
    #[oai(status = 204)]
    Done,
}

#[derive(ApiResponse)]
pub(crate) enum Copied {
    /// It is copied.
    #[oai(status = 201)]
    Created(
        StrictJson<File>,
        /// Where the copy is.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(tag = "Area::Files")]
impl FilesApi {
    /// List and search files
    ///
    /// Newest first unless another order is asked for. What is given narrows the list, all of it together. A page may have
    /// fewer items than asked for and still not be the last: `next_cursor` says.
    #[oai(path = "/v1/files", method = "get", operation_id = "list_files")]
    #[expect(clippy::too_many_arguments, reason = "one for each filter")]
    async fn list(
        &self,
        caller: Caller,
        /// Only this folder, not those below it.
        #[oai(validator(max_length = 1024))]
        folder: Query<Option<String>>,
        /// Only names that contain this, in any case.
        #[oai(validator(max_length = 200))]
        q: Query<Option<String>>,
        /// Only media types that begin with this: `image/`, `application/pdf`.
        #[oai(validator(max_length = 255))]
        content_type: Query<Option<String>>,
        /// Only files that have all of these tags, with commas between.
        #[oai(validator(max_length = 4096))]
        tags: Query<Option<String>>,
        /// Only files of at least this length.
        #[oai(validator(minimum(value = "0")))]
        min_size_bytes: Query<Option<i64>>,
        /// Only files of at most this length.
        #[oai(validator(minimum(value = "0")))]
        max_size_bytes: Query<Option<i64>>,
        /// Only files made at this time or later.
        created_after: Query<Option<OffsetDateTime>>,
        /// Only files made before this time.
        created_before: Query<Option<OffsetDateTime>>,
        /// Only files last changed at this time or later.
        updated_after: Query<Option<OffsetDateTime>>,
        /// Only files last changed before this time.
        updated_before: Query<Option<OffsetDateTime>>,
        /// Only files in this status.
        status: Query<Option<FileStatus>>,
        /// What they are ordered by; `created` when not given.
        sort: Query<Option<Sort>>,
        /// In which direction; `asc` for names, `desc` for everything else when not given.
        order: Query<Option<Order>>,
        /// Items of the page at most; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Page<File>>, Refused> {
        let tags = tags.0.filter(|tags| !tags.is_empty());
        let list = ListFiles {
            folder: folder.0,
            q: q.0,
            content_type: content_type.0,
            tags: tags.map(|tags| tags.split(',').map(str::to_owned).collect()).unwrap_or_default(),
            min_size_bytes: min_size_bytes.0,
            max_size_bytes: max_size_bytes.0,
            created_after: created_after.0,
            created_before: created_before.0,
            updated_after: updated_after.0,
            updated_before: updated_before.0,
            status: status.0,
            sort: sort.0,
            order: order.0,
            limit: limit.0,
            cursor: cursor.0,
        };
        Ok(StrictJson(self.actors.ask(&list, &caller.origin).await?))
    }

    /// Get a file
    #[oai(path = "/v1/files/:id", method = "get", operation_id = "get_file")]
    async fn get(
        &self,
        caller: Caller,
        /// The file.
        id: Path<FileId>,
    ) -> Result<StrictJson<File>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetFile { id: id.0 }, &caller.origin).await?))
    }

    /// Change a file
    ///
    /// Rename it, move it, tag it, describe it, or say when it expires. What is not given stays. An expired file moves to the
    /// trash. With `on_collision: replace` the answer is the file that had the name, with the new content.
    #[oai(path = "/v1/files/:id", method = "patch", operation_id = "update_file")]
    async fn update(
        &self,
        caller: Caller,
        /// The file.
        id: Path<FileId>,
        /// Only if the file still has this `version`, in quotes: `"3"`.
        #[oai(name = "If-Match", validator(max_length = 32))]
        if_match: Header<Option<String>>,
        body: StrictJson<FileChanges>,
    ) -> Result<StrictJson<File>, Refused> {
        let update = UpdateFile { id: id.0, if_version: version(if_match.0.as_deref())?, changes: body.0 };
        Ok(StrictJson(self.actors.ask(&update, &caller.origin).await?))
    }

    /// Move a file to the trash
    ///
    /// It can be had back from there for a time, and counts for the quota until it is purged.
    #[oai(path = "/v1/files/:id", method = "delete", operation_id = "delete_file")]
    async fn delete(
        &self,
        caller: Caller,
        /// The file.
        id: Path<FileId>,
    ) -> Result<Deleted, Refused> {
        self.actors.ask(&DeleteFile { id: id.0 }, &caller.origin).await?;
        Ok(Deleted::Done)
    }

    /// Copy a file
    ///
    /// The bytes are copied by the object store, and count for the quota. Tags and description go along; shares and versions
    /// do not.
    #[oai(path = "/v1/files/:id/copy", method = "post", operation_id = "copy_file")]
    async fn copy(
        &self,
        caller: Caller,
        /// The file.
        id: Path<FileId>,
        /// Repeats with the same key and body have the effect of one, and the same answer.
        #[oai(name = "Idempotency-Key", validator(max_length = 255, pattern = "^[!-~]+$"))]
        idempotency_key: Header<Option<String>>,
        body: StrictJson<CopyTarget>,
    ) -> Result<Copied, Refused> {
        let origin = caller.origin.with_idempotency_key(idempotency_key.0);
        let file = self.actors.ask(&CopyFile { id: id.0, target: body.0 }, &origin).await?;
        let location = format!("/v1/files/{}", file.id);
        Ok(Copied::Created(StrictJson(file), location))
    }

    /// Do something to many files
    ///
    /// Each is done on its own: look at each item for what went wrong with it.
    #[oai(path = "/v1/files/bulk", method = "post", operation_id = "bulk_files")]
    async fn bulk(&self, caller: Caller, body: StrictJson<BulkFiles>) -> Result<StrictJson<BulkResult>, Refused> {
        Ok(StrictJson(self.actors.ask(&body.0, &caller.origin).await?))
    }

    /// List the versions of a file
    ///
    /// Contents that it had before they were replaced, newest first. They count for the quota until their time is over.
    #[oai(path = "/v1/files/:id/versions", method = "get", operation_id = "list_file_versions")]
    async fn versions(
        &self,
        caller: Caller,
        /// The file.
        id: Path<FileId>,
    ) -> Result<StrictJson<FileVersions>, Refused> {
        Ok(StrictJson(self.actors.ask(&ListVersions { id: id.0 }, &caller.origin).await?))
    }

    /// Give a file a content back that it had
    ///
    /// What it holds now becomes a version.
    #[oai(path = "/v1/files/:id/versions/:version_id/restore", method = "post", operation_id = "restore_file_version")]
    async fn restore_version(
        &self,
        caller: Caller,
        /// The file.
        id: Path<FileId>,
        /// The version.
        version_id: Path<FileVersionId>,
    ) -> Result<StrictJson<File>, Refused> {
        let restore = RestoreVersion { id: id.0, version_id: version_id.0 };
        Ok(StrictJson(self.actors.ask(&restore, &caller.origin).await?))
    }

    /// Get a link to the content
    ///
    /// Whoever has the link can read the file, for a short time.
    #[oai(path = "/v1/files/:id/url", method = "get", operation_id = "get_file_url")]
    async fn url(
        &self,
        caller: Caller,
        /// The file.
        id: Path<FileId>,
    ) -> Result<StrictJson<Link>, Refused> {
        Ok(StrictJson(self.actors.ask(&PresignFile { id: id.0, internal: false }, &caller.origin).await?))
    }

    /// Get the content
    #[oai(path = "/v1/files/:id/content", method = "get", operation_id = "get_file_content")]
    async fn content(
        &self,
        caller: Caller,
        /// The file.
        id: Path<FileId>,
        /// The bytes themselves instead of a redirect to the object store.
        proxy: Query<Option<bool>>,
        /// One range of bytes; only with `proxy=true`.
        #[oai(name = "Range")]
        range: Header<Option<String>>,
        /// The range only if the file still has this `ETag`, else all of it.
        #[oai(name = "If-Range")]
        if_range: Header<Option<String>>,
    ) -> Result<ContentAnswer, Refused> {
        let wanted = Wanted { proxied: proxy.0.unwrap_or(false), range: range.0, if_range: if_range.0 };
        self.content.answer(id.0, wanted, &caller.origin).await
    }
}
