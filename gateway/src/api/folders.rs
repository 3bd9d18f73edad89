//! `/v1/folders`: where files lie.

use bowerbird_nats::{
    FolderId,
    archive::BeginArchive,
    folder::{CreateFolder, DeleteFolder, Folder, FolderChanges, GetFolder, ListFolder, Listing, UpdateFolder},
};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Header, Path, Query},
};

use crate::{
    actors::Actors,
    api::{
        Area,
        content::{Content, Packed},
        files::Deleted,
        version,
    },
    caller::Caller,
    payload::StrictJson,
    refused::Refused,
};

pub(crate) struct FoldersApi {
    pub(crate) actors: Actors,
    pub(crate) content: Content,
}

#[derive(ApiResponse)]
pub(crate) enum Created {
    /// It is made.
    #[oai(status = 201)]
    Created(
        StrictJson<Folder>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(tag = "Area::Folders")]
impl FoldersApi {
    /// Make a folder
    ///
    /// And those above it that are not there.
    #[oai(path = "/v1/folders", method = "post", operation_id = "create_folder")]
    async fn create(
        &self,
        caller: Caller,
        /// Repeats with the same key and body have the effect of one, and the same answer.
        #[oai(name = "Idempotency-Key", validator(max_length = 255, pattern = "^[!-~]+$"))]
        idempotency_key: Header<Option<String>>,
        body: StrictJson<CreateFolder>,
    ) -> Result<Created, Refused> {
        let origin = caller.origin.with_idempotency_key(idempotency_key.0);
        let folder = self.actors.ask(&body.0, &origin).await?;
        let location = format!("/v1/folders/{}", folder.id);
        Ok(Created::Created(StrictJson(folder), location))
    }

    /// List what is in the folder at a path
    ///
    /// Folders first, then files, each by name.
    #[oai(path = "/v1/folders", method = "get", operation_id = "list_folder")]
    async fn list(
        &self,
        caller: Caller,
        /// The path; `/` when not given.
        #[oai(validator(max_length = 1024))]
        path: Query<Option<String>>,
        /// Items of the page at most; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Listing>, Refused> {
        let list = ListFolder { id: None, path: path.0, limit: limit.0, cursor: cursor.0 };
        Ok(StrictJson(self.actors.ask(&list, &caller.origin).await?))
    }

    /// Get a folder
    #[oai(path = "/v1/folders/:id", method = "get", operation_id = "get_folder")]
    async fn get(
        &self,
        caller: Caller,
        /// The folder.
        id: Path<FolderId>,
    ) -> Result<StrictJson<Folder>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetFolder { id: id.0 }, &caller.origin).await?))
    }

    /// List what is in a folder
    ///
    /// Folders first, then files, each by name.
    #[oai(path = "/v1/folders/:id/children", method = "get", operation_id = "list_folder_children")]
    async fn children(
        &self,
        caller: Caller,
        /// The folder.
        id: Path<FolderId>,
        /// Items of the page at most; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Listing>, Refused> {
        let list = ListFolder { id: Some(id.0), path: None, limit: limit.0, cursor: cursor.0 };
        Ok(StrictJson(self.actors.ask(&list, &caller.origin).await?))
    }

    /// Get a folder as a zip
    ///
    /// With everything in it, as it is while it is sent; contents are stored, not compressed. An answer that breaks off is
    /// not whole.
    #[oai(path = "/v1/folders/:id/zip", method = "get", operation_id = "get_folder_zip")]
    async fn zip(
        &self,
        caller: Caller,
        /// The folder.
        id: Path<FolderId>,
    ) -> Result<Packed, Refused> {
        let archive = self.actors.ask(&BeginArchive { folder_id: id.0 }, &caller.origin).await?;
        Ok(Packed(self.content.archive(archive, &caller.origin, self.content.place()?).await?))
    }

    /// Rename or move a folder
    ///
    /// Everything in it goes along.
    #[oai(path = "/v1/folders/:id", method = "patch", operation_id = "update_folder")]
    async fn update(
        &self,
        caller: Caller,
        /// The folder.
        id: Path<FolderId>,
        /// Only if the folder still has this `version`, in quotes: `"3"`.
        #[oai(name = "If-Match", validator(max_length = 32))]
        if_match: Header<Option<String>>,
        body: StrictJson<FolderChanges>,
    ) -> Result<StrictJson<Folder>, Refused> {
        let update = UpdateFolder { id: id.0, if_version: version(if_match.0.as_deref())?, changes: body.0 };
        Ok(StrictJson(self.actors.ask(&update, &caller.origin).await?))
    }

    /// Move a folder to the trash
    ///
    /// With everything in it, up to 100 000 files; one restore brings it all back.
    #[oai(path = "/v1/folders/:id", method = "delete", operation_id = "delete_folder")]
    async fn delete(
        &self,
        caller: Caller,
        /// The folder.
        id: Path<FolderId>,
    ) -> Result<Deleted, Refused> {
        self.actors.ask(&DeleteFolder { id: id.0 }, &caller.origin).await?;
        Ok(Deleted::Done)
    }
}
