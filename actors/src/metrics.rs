//! What this room measures.

use std::sync::Arc;

use bowerbird_lifecycle::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

/// Upper bounds of the histogram of request times, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

/// An operation and how it went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestResult {
    /// `download.create`.
    pub(crate) operation: &'static str,
    /// `ok`, or the code of the problem.
    pub(crate) result: &'static str,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Operation {
    /// `download.create`.
    pub(crate) operation: &'static str,
}

/// An area with workers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Area {
    /// `download`.
    pub(crate) area: &'static str,
}

/// How a try of a download ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TryResult {
    /// `completed`, `given_back`, or the code of the failure.
    pub(crate) result: &'static str,
}

type Histograms = Family<Operation, Histogram, fn() -> Histogram>;

/// The meters of this room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Meters(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) requests: Family<RequestResult, Counter>,
    pub(crate) request_seconds: Histograms,
    pub(crate) requests_waiting: Family<Area, Gauge>,
    pub(crate) outbox_published: Counter,
    pub(crate) outbox_failures: Counter,
    pub(crate) outbox_pending: Gauge,
    pub(crate) outbox_age_seconds: Gauge,
    pub(crate) outbox_republished: Counter,
    pub(crate) hashes: Counter,
    pub(crate) hashes_refused: Counter,
    pub(crate) hashes_waiting: Gauge,
    pub(crate) key_rotations: Counter,
    pub(crate) downloads_running: Gauge,
    pub(crate) download_tries: Family<TryResult, Counter>,
    pub(crate) download_bytes: Counter,
    pub(crate) download_leases_lost: Counter,
    pub(crate) objects_purged: Counter,
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Meters {
    /// Register them. To be called once per registry.
    pub fn register(metrics: &Metrics) -> Self {
        let inner = Inner {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(histogram),
            requests_waiting: Family::default(),
            outbox_published: Counter::default(),
            outbox_failures: Counter::default(),
            outbox_pending: Gauge::default(),
            outbox_age_seconds: Gauge::default(),
            outbox_republished: Counter::default(),
            hashes: Counter::default(),
            hashes_refused: Counter::default(),
            hashes_waiting: Gauge::default(),
            key_rotations: Counter::default(),
            downloads_running: Gauge::default(),
            download_tries: Family::default(),
            download_bytes: Counter::default(),
            download_leases_lost: Counter::default(),
            objects_purged: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register("actor_requests", "Requests by operation and result", inner.requests.clone());
            registry.register("actor_request_seconds", "Time of a request from intake to answer", inner.request_seconds.clone());
            registry.register("actor_requests_waiting", "Requests taken in and not answered", inner.requests_waiting.clone());
            registry.register("outbox_published", "Events that JetStream has acknowledged", inner.outbox_published.clone());
            registry.register(
                "outbox_failures",
                "Events whose publishing failed and is tried again",
                inner.outbox_failures.clone(),
            );
            registry.register("outbox_pending", "Events that wait to be published", inner.outbox_pending.clone());
            registry.register("outbox_age_seconds", "Age of the oldest event that waits", inner.outbox_age_seconds.clone());
            registry.register(
                "outbox_republished",
                "Events published again for a stream that lost them",
                inner.outbox_republished.clone(),
            );
            registry.register("password_hashes", "Password hashes computed", inner.hashes.clone());
            registry.register(
                "password_hashes_refused",
                "Password hashes refused because the queue was full",
                inner.hashes_refused.clone(),
            );
            registry.register("password_hashes_waiting", "Password hashes waiting or running", inner.hashes_waiting.clone());
            registry.register("downloads_running", "Downloads that run on this node", inner.downloads_running.clone());
            registry.register(
                "download_tries",
                "Tries of downloads by how they ended on this node",
                inner.download_tries.clone(),
            );
            registry.register(
                "download_bytes",
                "Bytes of downloads that were completed on this node",
                inner.download_bytes.clone(),
            );
            registry.register(
                "download_leases_lost",
                "Downloads that were taken back from workers that were lost",
                inner.download_leases_lost.clone(),
            );
            registry.register("objects_purged", "Purges in the bucket that were carried out", inner.objects_purged.clone());
            registry.register("key_rotations", "Signing keys that this process made active", inner.key_rotations.clone());
        });
        Meters(Arc::new(inner))
    }
}
