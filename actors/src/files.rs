//! Files: what accounts own. Requests about them, about folders and about the trash, and the purger that deletes in the bucket
//! what is no longer wanted.

mod archive;
mod bulk;
mod check;
mod content_type;
mod contents;
mod folders;
mod names;
mod page;
mod purger;
mod requests;
mod shares;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod trash;

use std::{sync::Arc, time::Duration};

use bowerbird_config::Settings;
use bowerbird_lifecycle::Clock;
use bowerbird_nats::{
    answer::{Call, ServiceBuilder},
    archive::{BeginArchive, LinkArchived, ListArchive},
    file::{BulkFiles, CopyFile, DeleteFile, GetFile, ListFiles, ListVersions, PresignFile, RestoreVersion, UpdateFile},
    folder::{CreateFolder, DeleteFolder, GetFolder, ListFolder, UpdateFolder},
    share::{CreateShare, FetchShare, ListShares, OpenShare, RevokeShare, UnlockShare},
    trash::{ListTrash, PurgeTrashed, RestoreTrashed},
};
use bowerbird_storage::Bucket;
use sqlx::PgPool;

#[cfg(test)]
pub(crate) use self::content_type::inert;
use self::{purger::Purger, requests::Collaborators, shares::Seals};
pub(crate) use self::{purger::PurgerAddress, requests::Requests};
use crate::{
    accounts::hashing::Hashing,
    alarms::{AlarmsAddress, Wakes},
    cursor::Cursors,
    desk::Desk,
    events::Bell,
    janitor::Sweep,
    metrics::Meters,
    requests::Pool,
    supervision::ChildSpec,
};

/// How often what is over is looked for.
const EVERY: Duration = Duration::from_mins(10);
/// Rows that a sweep takes at once.
const BATCH: i64 = 1000;

/// The area.
pub(crate) struct Files {
    pub(crate) requests: Requests,
    workers: Pool,
    /// For whoever has a link: strangers must not take the places of owners.
    strangers: Pool,
    purger: Purger,
    address: PurgerAddress,
    trash_grace: Duration,
}

/// What the area is made of.
pub(crate) struct Foundation<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) pool: PgPool,
    pub(crate) bucket: Bucket,
    pub(crate) bell: Bell,
    pub(crate) meters: Meters,
    pub(crate) workers: Pool,
    /// For requests of nobody.
    pub(crate) strangers: Pool,
    pub(crate) alarms: AlarmsAddress,
    pub(crate) hashing: Hashing,
    pub(crate) clock: Clock,
    pub(crate) master_key: &'a [u8; 32],
}

impl Files {
    /// The area over this database and this bucket; nothing runs yet.
    pub(crate) fn new(foundation: Foundation<'_>) -> Self {
        let Foundation { settings, pool, bucket, bell, meters, workers, strangers, alarms, hashing, clock, master_key } =
            foundation;
        let address = PurgerAddress::default();
        let trash_grace = settings.files.trash_grace.get();
        let requests = Requests::new(Collaborators {
            pool: pool.clone(),
            bucket: bucket.clone(),
            cursors: Cursors::new(master_key),
            purger: address.clone(),
            alarms,
            link_ttl: settings.storage.presign_get_ttl.get(),
            trash_grace,
            keep_versions: settings.files.keep_versions.get(),
            hashing,
            seals: Seals::new(master_key),
            clock,
            public_url: crate::app::public_url(settings),
        });
        Files { requests, workers, strangers, purger: Purger { pool, bucket, bell, meters }, address, trash_grace }
    }

    /// Where to wake the purger.
    pub(crate) fn purger(&self) -> PurgerAddress {
        self.address.clone()
    }

    /// What runs, in the order in which it starts.
    pub(crate) fn children(&self, clock: &Clock) -> Vec<ChildSpec> {
        let purger = self.purger.clone();
        let purger_child = ChildSpec::actor("purger", &self.address.0, move || (purger.clone(), ()));
        vec![self.workers.child(clock), self.strangers.child(clock), purger_child]
    }

    /// What is woken: the purger, what has been in the trash for long enough, and what expires.
    pub(crate) fn wakes(&self) -> Vec<Arc<dyn Wakes>> {
        vec![
            Arc::new(purger::Waiting(self.address.clone())),
            Arc::new(trash::Over(self.address.clone())),
            trash::Expired::wakes(self.trash_grace),
            shares::Over::wakes(),
        ]
    }

    /// What is swept.
    pub(crate) fn sweeps(&self) -> Vec<Sweep> {
        let (of_folders, of_versions, purger) = (self.purger.pool.clone(), self.purger.pool.clone(), self.purger());
        vec![
            Sweep::new(0x0200, "folders of the trash", EVERY, move || {
                let pool = of_folders.clone();
                async move { store::trash::remove_empty(&pool, BATCH).await }
            }),
            Sweep::new(0x0201, "versions of files", EVERY, move || {
                let (pool, purger) = (of_versions.clone(), purger.clone());
                async move {
                    let gone = store::contents::expire(&pool, BATCH).await?;
                    purger.wake();
                    Ok(gone)
                }
            }),
        ]
    }

    /// Add what this area answers.
    pub(crate) fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        macro_rules! answers {
            ($service:expr, $workers:expr, $($request:ty, $operation:literal, $method:ident;)*) => {{
                let (service, workers) = ($service, $workers);
                let limit = workers.endpoint_limit();
                $(
                    let desk = Desk::new(self.requests.clone(), workers.clone(), $operation);
                    let service =
                        service.endpoint(limit, move |call: Call<$request>| desk.clone().serve(call, Requests::$method));
                )*
                service
            }};
        }
        let service = answers! {
            service, &self.strangers,
            ListArchive, "archive.list", list_archive;
            LinkArchived, "archive.link", link_archived;
            OpenShare, "share.open", open_share;
            UnlockShare, "share.unlock", unlock_share;
            FetchShare, "share.fetch", fetch_share;
        };
        answers! {
            service, &self.workers,
            GetFile, "file.get", get;
            ListFiles, "file.list", list;
            UpdateFile, "file.update", update;
            DeleteFile, "file.delete", delete;
            PresignFile, "file.presign", presign;
            CopyFile, "file.copy", copy;
            BulkFiles, "file.bulk", bulk;
            ListVersions, "file.versions", list_versions;
            RestoreVersion, "file.restore_version", restore_version;
            CreateFolder, "folder.create", create_folder;
            GetFolder, "folder.get", get_folder;
            ListFolder, "folder.list", list_folder;
            UpdateFolder, "folder.update", update_folder;
            DeleteFolder, "folder.delete", delete_folder;
            BeginArchive, "archive.begin", begin_archive;
            CreateShare, "share.create", create_share;
            ListShares, "share.list", list_shares;
            RevokeShare, "share.revoke", revoke_share;
            ListTrash, "trash.list", list_trash;
            RestoreTrashed, "trash.restore", restore;
            PurgeTrashed, "trash.purge", purge;
        }
    }
}
