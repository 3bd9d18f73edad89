//! `/v1/uploads`: announce an object, get links to put it, see what became of it. Each operation is one question to the
//! actors; the bytes go to the object store without passing here.

use bowerbird_nats::{
    Page, UploadId,
    upload::{AbortUpload, CompleteUpload, CreateUpload, GetUpload, LinkUpload, ListUploads, Status, Transfer, Upload},
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

pub(crate) struct UploadsApi {
    pub(crate) actors: Actors,
}

#[derive(ApiResponse)]
pub(crate) enum Announced {
    /// Announced; `transfer` says what to send where.
    #[oai(status = 201)]
    Created(
        StrictJson<Upload>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(tag = "Area::Uploads")]
impl UploadsApi {
    /// Announce an upload
    ///
    /// Its size is set aside of the quota. `transfer` holds a link to put the content in one request or, above a limit, links
    /// to put its parts. Send exactly the headers that stand beside a link. A content that is put in one request becomes a
    /// file by itself; after parts, call `complete`.
    #[oai(path = "/v1/uploads", method = "post", operation_id = "create_upload")]
    async fn create(
        &self,
        caller: Caller,
        /// Repeats with the same key and body have the effect of one; the answer is the same upload, with fresh links.
        #[oai(name = "Idempotency-Key", validator(max_length = 255, pattern = "^[!-~]+$"))]
        idempotency_key: Header<Option<String>>,
        body: StrictJson<CreateUpload>,
    ) -> Result<Announced, Refused> {
        let origin = caller.origin.with_idempotency_key(idempotency_key.0);
        let upload = self.actors.ask(&body.0, &origin).await?;
        let location = format!("/v1/uploads/{}", upload.id);
        Ok(Announced::Created(StrictJson(upload), location))
    }

    /// List uploads
    ///
    /// Newest first. Those that ended stay for seven days.
    #[oai(path = "/v1/uploads", method = "get", operation_id = "list_uploads")]
    async fn list(
        &self,
        caller: Caller,
        /// Only those in this status.
        status: Query<Option<Status>>,
        /// Items of the page; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Page<Upload>>, Refused> {
        let list = ListUploads { status: status.0, limit: limit.0, cursor: cursor.0 };
        Ok(StrictJson(self.actors.ask(&list, &caller.origin).await?))
    }

    /// Get an upload
    #[oai(path = "/v1/uploads/:id", method = "get", operation_id = "get_upload")]
    async fn get(
        &self,
        caller: Caller,
        /// The upload.
        id: Path<UploadId>,
    ) -> Result<StrictJson<Upload>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetUpload { id: id.0 }, &caller.origin).await?))
    }

    /// Get fresh links
    ///
    /// For what the object store does not have yet: so an upload is resumed after a break, or goes on when its links have
    /// expired. Of an upload in parts a page of links, in the order of parts.
    #[oai(path = "/v1/uploads/:id/links", method = "post", operation_id = "link_upload")]
    async fn link(
        &self,
        caller: Caller,
        /// The upload.
        id: Path<UploadId>,
        /// Only parts after this one: `next_after_part` of the page before.
        #[oai(validator(maximum(value = "10000")))]
        after_part: Query<Option<u32>>,
        /// Links of the page; 100 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u32>>,
    ) -> Result<StrictJson<Transfer>, Refused> {
        let link = LinkUpload { id: id.0, after_part: after_part.0, limit: limit.0 };
        Ok(StrictJson(self.actors.ask(&link, &caller.origin).await?))
    }

    /// Say that everything is sent
    ///
    /// Needed after parts: the object store is asked which ones it has, and makes the object of them. Harmless otherwise.
    #[oai(path = "/v1/uploads/:id/complete", method = "post", operation_id = "complete_upload")]
    async fn complete(
        &self,
        caller: Caller,
        /// The upload.
        id: Path<UploadId>,
    ) -> Result<StrictJson<Upload>, Refused> {
        Ok(StrictJson(self.actors.ask(&CompleteUpload { id: id.0 }, &caller.origin).await?))
    }

    /// Abort an upload
    ///
    /// What was sent is deleted, and what was set aside of the quota is free.
    #[oai(path = "/v1/uploads/:id", method = "delete", operation_id = "abort_upload")]
    async fn abort(
        &self,
        caller: Caller,
        /// The upload.
        id: Path<UploadId>,
    ) -> Result<Deleted, Refused> {
        self.actors.ask(&AbortUpload { id: id.0 }, &caller.origin).await?;
        Ok(Deleted::Done)
    }
}
