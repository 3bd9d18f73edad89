//! `/v1/downloads`: start one, look at one, change its course. Each operation is one question to the actors.

use bowerbird_nats::{
    Code, DownloadId, Page,
    download::{
        CancelDownload, CreateDownload, DeleteDownload, Download, GetDownload, ListDownloads, RetryDownload, Status,
        UpdateDownload,
    },
};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Path, Query},
};
use serde::{Deserialize, Serialize};

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

pub(crate) struct DownloadsApi {
    pub(crate) actors: Actors,
    pub(crate) content: Content,
}

/// What may be changed of a download; what is not given stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, skip_serializing_if_is_none)]
pub(crate) struct DownloadChanges {
    /// A new link to the same content. What is stored is kept if the validator or the digest still fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[oai(nullable, validator(min_length = 1, max_length = 4096))]
    url: Option<String>,
    /// 0 (low) to 9 (high).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[oai(nullable, validator(minimum(value = "0"), maximum(value = "9")))]
    priority: Option<u8>,
}

#[derive(ApiResponse)]
pub(crate) enum Accepted {
    /// Accepted; look at the download to see how it goes.
    #[oai(status = 202)]
    Accepted(
        StrictJson<Download>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

impl Accepted {
    fn at(download: Download) -> Self {
        let location = format!("/v1/downloads/{}", download.id);
        Accepted::Accepted(StrictJson(download), location)
    }
}

#[derive(ApiResponse)]
pub(crate) enum Deleted {
    /// It is gone.
    #[oai(status = 204)]
    Done,
}

#[OpenApi(tag = "Area::Downloads")]
impl DownloadsApi {
    /// Start a download
    ///
    /// It runs when a slot is free; look at it, or at its events, to see how it goes.
    #[oai(path = "/v1/downloads", method = "post", operation_id = "create_download")]
    async fn create(
        &self,
        caller: Caller,
        /// Repeats with the same key and body have the effect of one, and the same answer.
        #[oai(name = "Idempotency-Key", validator(max_length = 255, pattern = "^[!-~]+$"))]
        idempotency_key: Header<Option<String>>,
        body: StrictJson<CreateDownload>,
    ) -> Result<Accepted, Refused> {
        let origin = caller.origin.with_idempotency_key(idempotency_key.0);
        Ok(Accepted::at(self.actors.ask(&body.0, &origin).await?))
    }

    /// List downloads
    ///
    /// Newest first.
    #[oai(path = "/v1/downloads", method = "get", operation_id = "list_downloads")]
    async fn list(
        &self,
        caller: Caller,
        /// Only those in this status.
        status: Query<Option<Status>>,
        /// Only those whose URL or file name contains this, in any case.
        #[oai(validator(max_length = 200))]
        q: Query<Option<String>>,
        /// Items of the page; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Page<Download>>, Refused> {
        let list = ListDownloads { status: status.0, q: q.0, limit: limit.0, cursor: cursor.0 };
        Ok(StrictJson(self.actors.ask(&list, &caller.origin).await?))
    }

    /// Get a download
    #[oai(path = "/v1/downloads/:id", method = "get", operation_id = "get_download")]
    async fn get(
        &self,
        caller: Caller,
        /// The download.
        id: Path<DownloadId>,
    ) -> Result<StrictJson<Download>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetDownload { id: id.0 }, &caller.origin).await?))
    }

    /// Change a download
    ///
    /// Only while it is not running and not completed.
    #[oai(path = "/v1/downloads/:id", method = "patch", operation_id = "update_download")]
    async fn update(
        &self,
        caller: Caller,
        /// The download.
        id: Path<DownloadId>,
        body: StrictJson<DownloadChanges>,
    ) -> Result<StrictJson<Download>, Refused> {
        let update = UpdateDownload { id: id.0, url: body.0.url, priority: body.0.priority };
        Ok(StrictJson(self.actors.ask(&update, &caller.origin).await?))
    }

    /// Take a download off the list
    ///
    /// One that is not finished is canceled first.
    #[oai(path = "/v1/downloads/:id", method = "delete", operation_id = "delete_download")]
    async fn delete(
        &self,
        caller: Caller,
        /// The download.
        id: Path<DownloadId>,
        /// Delete the file that came of it as well.
        with_file: Query<Option<bool>>,
    ) -> Result<Deleted, Refused> {
        let delete = DeleteDownload { id: id.0, with_file: with_file.0.unwrap_or(false) };
        self.actors.ask(&delete, &caller.origin).await?;
        Ok(Deleted::Done)
    }

    /// End a download
    #[oai(path = "/v1/downloads/:id/cancel", method = "post", operation_id = "cancel_download")]
    async fn cancel(
        &self,
        caller: Caller,
        /// The download.
        id: Path<DownloadId>,
    ) -> Result<Accepted, Refused> {
        Ok(Accepted::at(self.actors.ask(&CancelDownload { id: id.0 }, &caller.origin).await?))
    }

    /// Try a failed or canceled download again
    ///
    /// From what is stored of it.
    #[oai(path = "/v1/downloads/:id/retry", method = "post", operation_id = "retry_download")]
    async fn retry(
        &self,
        caller: Caller,
        /// The download.
        id: Path<DownloadId>,
    ) -> Result<Accepted, Refused> {
        Ok(Accepted::at(self.actors.ask(&RetryDownload { id: id.0 }, &caller.origin).await?))
    }

    /// Get the file of a completed download
    #[oai(path = "/v1/downloads/:id/file", method = "get", operation_id = "get_download_file")]
    async fn file(
        &self,
        caller: Caller,
        /// The download.
        id: Path<DownloadId>,
        /// The bytes themselves instead of a redirect to the object store.
        proxy: Query<Option<bool>>,
        /// One range of bytes; only with `proxy=true`.
        #[oai(name = "Range")]
        range: Header<Option<String>>,
        /// The range only if the file still has this `ETag`, else all of it.
        #[oai(name = "If-Range")]
        if_range: Header<Option<String>>,
    ) -> Result<ContentAnswer, Refused> {
        let download = self.actors.ask(&GetDownload { id: id.0 }, &caller.origin).await?;
        let file_id = download.file_id.ok_or_else(|| {
            Refused::new(Code::InvalidState, format!("the download is {}, there is no file yet", download.status.as_str()))
        })?;
        let wanted = Wanted { proxied: proxy.0.unwrap_or(false), range: range.0, if_range: if_range.0 };
        self.content.answer(file_id, wanted, &caller.origin).await
    }
}
