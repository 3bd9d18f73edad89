//! Ingest: what arrives in the bucket becomes files, and what leaves it without us is noticed.
//!
//! What the object store tells is a hint to look: it may come twice, late, in no order, never, or from somebody else. A look
//! at the object decides ([`Landing`]), and the status of the row lets each step happen once. What no hint came for is found
//! when rows and objects are compared ([`Reconciler`]).

mod intake;
mod landing;
mod outside;
mod reconciler;
mod sniff;

use std::{sync::Arc, time::Duration};

use bowerbird_config::Settings;
use bowerbird_lifecycle::Clock;
use bowerbird_nats::{
    Bus,
    answer::{Call, ServiceBuilder},
    reconciliation::Reconcile,
    subject::{self, BadSubject},
};
use bowerbird_storage::Bucket;
use sqlx::PgPool;

use self::{intake::Intake, landing::Collaborators, outside::Outside, reconciler::Requests};
pub(crate) use self::{
    landing::{Error, Landing, forget_parts},
    reconciler::Reconciler,
};
use crate::{
    alarms::Wakes,
    desk::Desk,
    events::Bell,
    files,
    janitor::Sweep,
    metrics::Meters,
    requests::Pool,
    supervision::{Address, ChildSpec},
};

/// Number of the sweep.
const SWEEP: u128 = 0x0a00;
/// How often rows and objects are compared.
const EVERY: Duration = Duration::from_hours(1);

/// Nothing can be taken in as the settings say.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The subject of the external check is not one.
    #[error("uploads.check_subject: {0}")]
    CheckSubject(#[from] BadSubject),
}

/// What the area is made of.
pub(crate) struct Foundation<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) pool: PgPool,
    pub(crate) bus: Bus,
    pub(crate) bucket: Bucket,
    pub(crate) bell: Bell,
    pub(crate) meters: Meters,
    pub(crate) workers: Pool,
    pub(crate) purger: files::PurgerAddress,
}

/// The area.
pub(crate) struct Ingest {
    landing: Landing,
    intake: Intake,
    intake_address: Address<intake::Message>,
    reconciler: Reconciler,
    workers: Pool,
}

impl Ingest {
    /// The area over this database, bus and bucket; nothing runs yet.
    pub(crate) fn new(foundation: Foundation<'_>) -> Result<Self, SetupError> {
        let Foundation { settings, pool, bus, bucket, bell, meters, workers, purger } = foundation;
        let settings = &settings.uploads;
        let check = settings
            .check_subject
            .as_deref()
            .map(|text| {
                Ok::<_, BadSubject>(Outside {
                    bus: bus.clone(),
                    bucket: bucket.clone(),
                    pool: pool.clone(),
                    subject: subject::of_service(text)?,
                    timeout: settings.check_timeout.get(),
                    deadline: settings.check_deadline.get(),
                    fallback: settings.check_fallback,
                })
            })
            .transpose()?;
        let intake_address = Address::default();
        let landing = Landing::new(Collaborators {
            pool: pool.clone(),
            bucket: bucket.clone(),
            bell,
            meters: meters.clone(),
            purger,
            intake: intake_address.clone(),
            check,
        });
        let intake = Intake { bus, bucket_name: bucket.name().into(), landing: landing.clone(), meters };
        let reconciler = Reconciler::new(pool, bucket, landing.clone(), settings.orphan_age.get());
        Ok(Ingest { landing, intake, intake_address, reconciler, workers })
    }

    /// Looks at what has arrived.
    pub(crate) fn landing(&self) -> Landing {
        self.landing.clone()
    }

    /// Compares rows and objects.
    #[cfg(test)]
    pub(crate) fn reconciler(&self) -> Reconciler {
        self.reconciler.clone()
    }

    /// What runs, in the order in which it starts.
    pub(crate) fn children(&self, clock: &Clock) -> Vec<ChildSpec> {
        let (intake, reconciler) = (self.intake.clone(), self.reconciler.clone());
        vec![
            self.workers.child(clock),
            ChildSpec::actor("intake", &self.intake_address, move || (intake.clone(), ())),
            ChildSpec::actor("reconciler", self.reconciler.address(), move || (reconciler.clone(), ())),
        ]
    }

    /// What is woken when an upload is over or is to be looked at again.
    pub(crate) fn wakes(&self) -> Arc<dyn Wakes> {
        Arc::new(self.landing.clone())
    }

    /// Compares rows and objects.
    pub(crate) fn sweep(&self) -> Sweep {
        let reconciler = self.reconciler.clone();
        Sweep::new(SWEEP, "rows without objects, objects without rows", EVERY, move || {
            reconciler.begin();
            // It runs on by itself; there is no second batch.
            std::future::ready(Ok(0))
        })
    }

    /// Add what this area answers.
    pub(crate) fn endpoints(&self, service: ServiceBuilder) -> ServiceBuilder {
        let requests = Requests { reconciler: self.reconciler.clone() };
        let desk = Desk::new(requests, self.workers.clone(), "sweep.reconcile");
        service
            .endpoint(self.workers.endpoint_limit(), move |call: Call<Reconcile>| desk.clone().serve(call, Requests::reconcile))
    }
}
