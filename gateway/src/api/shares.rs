//! `/v1/shares`: links to files and folders, for whoever has them.

use bowerbird_nats::{
    FileId, FolderId, Page, ShareId,
    share::{CreateShare, ListShares, RevokeShare, Share},
};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Header, Path, Query},
};

use crate::{
    actors::Actors,
    api::{Area, files::Deleted},
    caller::Caller,
    payload::StrictJson,
    refused::Refused,
};

pub(crate) struct SharesApi {
    pub(crate) actors: Actors,
}

#[derive(ApiResponse)]
pub(crate) enum Created {
    /// It is made.
    #[oai(status = 201)]
    Created(StrictJson<Share>),
}

#[OpenApi(tag = "Area::Shares")]
impl SharesApi {
    /// Share a file or a folder
    ///
    /// `url` is told in this answer and never again. Whoever has it can fetch the content, until the share ends: when it is
    /// revoked, when its time is over, or when what it leads to is deleted.
    #[oai(path = "/v1/shares", method = "post", operation_id = "create_share")]
    async fn create(
        &self,
        caller: Caller,
        /// Repeats with the same key and body have the effect of one. The answer to a repeat has no `url`.
        #[oai(name = "Idempotency-Key", validator(max_length = 255, pattern = "^[!-~]+$"))]
        idempotency_key: Header<Option<String>>,
        body: StrictJson<CreateShare>,
    ) -> Result<Created, Refused> {
        let origin = caller.origin.with_idempotency_key(idempotency_key.0);
        Ok(Created::Created(StrictJson(self.actors.ask(&body.0, &origin).await?)))
    }

    /// List shares
    ///
    /// Newest first; those that ended too, for a month.
    #[oai(path = "/v1/shares", method = "get", operation_id = "list_shares")]
    async fn list(
        &self,
        caller: Caller,
        /// Only those of this file.
        file_id: Query<Option<FileId>>,
        /// Only those of this folder.
        folder_id: Query<Option<FolderId>>,
        /// Items of the page; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Page<Share>>, Refused> {
        let list = ListShares { file_id: file_id.0, folder_id: folder_id.0, limit: limit.0, cursor: cursor.0 };
        Ok(StrictJson(self.actors.ask(&list, &caller.origin).await?))
    }

    /// End a share
    #[oai(path = "/v1/shares/:id", method = "delete", operation_id = "revoke_share")]
    async fn revoke(
        &self,
        caller: Caller,
        /// The share.
        id: Path<ShareId>,
    ) -> Result<Deleted, Refused> {
        self.actors.ask(&RevokeShare { id: id.0 }, &caller.origin).await?;
        Ok(Deleted::Done)
    }
}
