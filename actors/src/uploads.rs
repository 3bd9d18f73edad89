//! Uploads: the right to put one object, by links, until it is there, aborted or over. Requests about them, and what is
//! kept of each. What arrives is looked at by [`crate::ingest`].

mod check;
mod links;
mod requests;
pub(crate) mod row;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, IdSource};
use bowerbird_nats::{
    answer::{Call, ServiceBuilder},
    upload::{AbortUpload, CompleteUpload, CreateUpload, GetUpload, LinkUpload, ListUploads},
};
use bowerbird_storage::Bucket;
use sqlx::PgPool;

pub(crate) use self::requests::Requests;
use self::{
    links::Links,
    requests::{Collaborators, Limits},
};
use crate::{cursor::Cursors, desk::Desk, files, ingest::Landing, requests::Pool, supervision::ChildSpec};

/// What the area is made of.
pub(crate) struct Foundation<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) pool: PgPool,
    pub(crate) bucket: Bucket,
    pub(crate) ids: IdSource,
    pub(crate) workers: Pool,
    pub(crate) purger: files::PurgerAddress,
    /// Looks at what has arrived.
    pub(crate) landing: Landing,
    pub(crate) master_key: &'a [u8; 32],
}

/// The area.
pub(crate) struct Uploads {
    pub(crate) requests: Requests,
    workers: Pool,
}

impl Uploads {
    /// The area over this database and this bucket; nothing runs yet.
    pub(crate) fn new(foundation: Foundation<'_>) -> Self {
        let Foundation { settings, pool, bucket, ids, workers, purger, landing, master_key } = foundation;
        let settings = &settings.uploads;
        let requests = Requests::new(Collaborators {
            links: Links { pool: pool.clone(), bucket: bucket.clone(), ttl: settings.link_ttl.get() },
            pool,
            bucket,
            ids,
            cursors: Cursors::new(master_key),
            purger,
            landing,
            limits: Limits {
                ttl: settings.ttl.get(),
                single_limit_bytes: settings.single_limit.get(),
                part_size_bytes: settings.part_size.get(),
                max_size_bytes: settings.max_size.get(),
                max_unfinished: i64::from(settings.max_unfinished_per_account),
            },
        });
        Uploads { requests, workers }
    }

    /// What runs.
    pub(crate) fn children(&self, clock: &Clock) -> Vec<ChildSpec> {
        vec![self.workers.child(clock)]
    }

    /// Add what this area answers.
    pub(crate) fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        let limit = self.workers.endpoint_limit();
        let with = |operation| Desk::new(self.requests.clone(), self.workers.clone(), operation);
        let (create, get, list) = (with("upload.create"), with("upload.get"), with("upload.list"));
        let (link, complete, abort) = (with("upload.link"), with("upload.complete"), with("upload.abort"));
        service
            .endpoint(limit, move |call: Call<CreateUpload>| create.clone().serve(call, Requests::create))
            .endpoint(limit, move |call: Call<GetUpload>| get.clone().serve(call, Requests::get))
            .endpoint(limit, move |call: Call<ListUploads>| list.clone().serve(call, Requests::list))
            .endpoint(limit, move |call: Call<LinkUpload>| link.clone().serve(call, Requests::link))
            .endpoint(limit, move |call: Call<CompleteUpload>| complete.clone().serve(call, Requests::complete))
            .endpoint(limit, move |call: Call<AbortUpload>| abort.clone().serve(call, Requests::abort))
    }
}
