//! `/v1/admin`: what operators ask. All of it is for accounts with the role `admin`; the actors see to that.

use bowerbird_nats::{
    DeadLetterId, Page,
    dead_letter::{DeadLetter, DeleteDeadLetter, GetDeadLetter, ListDeadLetters, OpenedDeadLetter, ReplayDeadLetter},
    reconciliation::{Reconcile, Report},
    statistics::{GetSystemStatistics, Statistics},
    sweep::{ListSweeps, RunSweep, Sweeps, Swept},
};
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
use time::Date;

use crate::{
    actors::Actors,
    api::{Area, files::Deleted},
    caller::Caller,
    payload::StrictJson,
    refused::Refused,
};

pub(crate) struct AdminApi {
    pub(crate) actors: Actors,
}

#[OpenApi(tag = "Area::Admin")]
impl AdminApi {
    /// List dead letters
    ///
    /// Messages that were refused, the youngest first. Only for administrators.
    #[oai(path = "/v1/admin/dead-letters", method = "get", operation_id = "list_dead_letters")]
    async fn list_dead_letters(
        &self,
        caller: Caller,
        /// Only of this stream: `EVENTS`.
        #[oai(validator(max_length = 64))]
        stream: Query<Option<String>>,
        /// Only of this consumer: `statistics`.
        #[oai(validator(max_length = 64))]
        consumer: Query<Option<String>>,
        /// Items of the page; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Page<DeadLetter>>, Refused> {
        let list = ListDeadLetters { stream: stream.0, consumer: consumer.0, limit: limit.0, cursor: cursor.0 };
        Ok(StrictJson(self.actors.ask(&list, &caller.origin).await?))
    }

    /// Get a dead letter
    ///
    /// With its headers and its body. Only for administrators.
    #[oai(path = "/v1/admin/dead-letters/:id", method = "get", operation_id = "get_dead_letter")]
    async fn get_dead_letter(
        &self,
        caller: Caller,
        /// The letter.
        id: Path<DeadLetterId>,
    ) -> Result<StrictJson<OpenedDeadLetter>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetDeadLetter { id: id.0 }, &caller.origin).await?))
    }

    /// Send a dead letter back
    ///
    /// The consumer that refused it, and no other, handles it once more. Refused again, it is another letter. Only for
    /// administrators.
    #[oai(path = "/v1/admin/dead-letters/:id/replay", method = "post", operation_id = "replay_dead_letter")]
    async fn replay_dead_letter(
        &self,
        caller: Caller,
        /// The letter.
        id: Path<DeadLetterId>,
    ) -> Result<StrictJson<DeadLetter>, Refused> {
        Ok(StrictJson(self.actors.ask(&ReplayDeadLetter { id: id.0 }, &caller.origin).await?))
    }

    /// Delete a dead letter
    ///
    /// For good, in the stream `DEAD` too. Only for administrators.
    #[oai(path = "/v1/admin/dead-letters/:id", method = "delete", operation_id = "delete_dead_letter")]
    async fn delete_dead_letter(
        &self,
        caller: Caller,
        /// The letter.
        id: Path<DeadLetterId>,
    ) -> Result<Deleted, Refused> {
        self.actors.ask(&DeleteDeadLetter { id: id.0 }, &caller.origin).await?;
        Ok(Deleted::Done)
    }

    /// Compare rows and objects
    ///
    /// Finds what notifications were lost of, objects that no row names, files whose objects are gone, and uploads in parts
    /// that nobody finishes, and puts it right, as happens every hour by itself. It goes on when the answer comes too late;
    /// the report is in the log then. Only for administrators.
    #[oai(path = "/v1/admin/sweeps/reconcile", method = "post", operation_id = "reconcile")]
    async fn reconcile(&self, caller: Caller, body: StrictJson<Reconcile>) -> Result<StrictJson<Report>, Refused> {
        Ok(StrictJson(self.actors.ask(&body.0, &caller.origin).await?))
    }

    /// List sweeps
    ///
    /// What is kept for a time goes when that time is over; each sweep comes around by itself. Only for administrators.
    #[oai(path = "/v1/admin/sweeps", method = "get", operation_id = "list_sweeps")]
    async fn list_sweeps(&self, caller: Caller) -> Result<StrictJson<Sweeps>, Refused> {
        Ok(StrictJson(self.actors.ask(&ListSweeps {}, &caller.origin).await?))
    }

    /// Sweep now
    ///
    /// Answers when it is done. Only for administrators.
    #[oai(path = "/v1/admin/sweeps/:name", method = "post", operation_id = "run_sweep")]
    async fn run_sweep(
        &self,
        caller: Caller,
        /// The sweep.
        #[oai(validator(max_length = 100))]
        name: Path<String>,
    ) -> Result<StrictJson<Swept>, Refused> {
        Ok(StrictJson(self.actors.ask(&RunSweep { name: name.0 }, &caller.origin).await?))
    }

    /// Everybody's statistics
    ///
    /// By day, counted exactly once, some moments behind. Only for administrators.
    #[oai(path = "/v1/admin/stats", method = "get", operation_id = "get_system_statistics")]
    async fn statistics(
        &self,
        caller: Caller,
        /// First day, UTC; 29 days before the last when not given.
        from: Query<Option<Date>>,
        /// Last day; today when not given. At most 366 days.
        to: Query<Option<Date>>,
    ) -> Result<StrictJson<Statistics>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetSystemStatistics { from: from.0, to: to.0 }, &caller.origin).await?))
    }
}
