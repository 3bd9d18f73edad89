//! `/v1/files`: the objects that an account owns.

use bowerbird_nats::{
    FileId, Page,
    file::{DeleteFile, File, GetFile, Link, ListFiles, PresignFile},
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
    },
    caller::Caller,
    payload::StrictJson,
    refused::Refused,
};

pub(crate) struct FilesApi {
    pub(crate) actors: Actors,
    pub(crate) content: Content,
}

#[derive(ApiResponse)]
pub(crate) enum Deleted {
    /// It is gone.
    #[oai(status = 204)]
    Done,
}

#[OpenApi(tag = "Area::Files")]
impl FilesApi {
    /// List files
    ///
    /// Newest first.
    #[oai(path = "/v1/files", method = "get", operation_id = "list_files")]
    async fn list(
        &self,
        caller: Caller,
        /// Only this folder, not those below it.
        #[oai(validator(max_length = 1024))]
        folder: Query<Option<String>>,
        /// Only names that contain this, in any case.
        #[oai(validator(max_length = 200))]
        q: Query<Option<String>>,
        /// Items of the page; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Page<File>>, Refused> {
        let list = ListFiles { folder: folder.0, q: q.0, limit: limit.0, cursor: cursor.0 };
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

    /// Delete a file and its object
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
