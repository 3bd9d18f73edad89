//! `/v1/trash`: what was deleted and can be had back.

use bowerbird_nats::{
    Page,
    file::OnCollision,
    trash::{ListTrash, PurgeTrashed, RestoreTrashed, Restored, Trashed},
};
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
use uuid::Uuid;

use crate::{
    actors::Actors,
    api::{Area, files::Deleted},
    caller::Caller,
    payload::StrictJson,
    refused::Refused,
};

pub(crate) struct TrashApi {
    pub(crate) actors: Actors,
}

#[OpenApi(tag = "Area::Trash")]
impl TrashApi {
    /// List the trash
    ///
    /// What was moved there last first. A folder is one item, whatever is in it.
    #[oai(path = "/v1/trash", method = "get", operation_id = "list_trash")]
    async fn list(
        &self,
        caller: Caller,
        /// Items of the page at most; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Page<Trashed>>, Refused> {
        Ok(StrictJson(self.actors.ask(&ListTrash { limit: limit.0, cursor: cursor.0 }, &caller.origin).await?))
    }

    /// Take something out of the trash
    ///
    /// To where it was. A folder brings back everything that went to the trash with it.
    #[oai(path = "/v1/trash/:id/restore", method = "post", operation_id = "restore_trashed")]
    async fn restore(
        &self,
        caller: Caller,
        /// The file or folder.
        id: Path<Uuid>,
        /// What is done when its name is taken: `fail` or `rename`; `rename` when not given.
        on_collision: Query<Option<OnCollision>>,
    ) -> Result<StrictJson<Restored>, Refused> {
        let restore = RestoreTrashed { id: id.0, on_collision: on_collision.0 };
        Ok(StrictJson(self.actors.ask(&restore, &caller.origin).await?))
    }

    /// Purge something in the trash now
    ///
    /// For good: nothing brings it back.
    #[oai(path = "/v1/trash/:id", method = "delete", operation_id = "purge_trashed")]
    async fn purge(
        &self,
        caller: Caller,
        /// The file or folder.
        id: Path<Uuid>,
    ) -> Result<Deleted, Refused> {
        self.actors.ask(&PurgeTrashed { id: id.0 }, &caller.origin).await?;
        Ok(Deleted::Done)
    }
}
