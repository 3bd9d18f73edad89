//! `/v1/stats`: what happened to the caller's things, in numbers.

use bowerbird_nats::statistics::{GetStatistics, Statistics};
use poem_openapi::{OpenApi, param::Query};
use time::Date;

use crate::{actors::Actors, api::Area, caller::Caller, payload::StrictJson, refused::Refused};

pub(crate) struct StatisticsApi {
    pub(crate) actors: Actors,
}

#[OpenApi(tag = "Area::Account")]
impl StatisticsApi {
    /// The caller's statistics
    ///
    /// By day, counted exactly once, some moments behind.
    #[oai(path = "/v1/stats", method = "get", operation_id = "get_statistics")]
    async fn get(
        &self,
        caller: Caller,
        /// First day, UTC; 29 days before the last when not given.
        from: Query<Option<Date>>,
        /// Last day; today when not given. At most 366 days.
        to: Query<Option<Date>>,
    ) -> Result<StrictJson<Statistics>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetStatistics { from: from.0, to: to.0 }, &caller.origin).await?))
    }
}
