//! What this room measures.

use std::sync::Arc;

use bowerbird_lifecycle::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

/// Upper bounds of the histogram of request times, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

/// Upper bounds of the histogram of how late alarms are, in seconds: up to a day, for what came due in an outage.
const LATENESS_SECONDS: [f64; 13] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 3600.0, 86400.0];

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

/// Whose an alarm is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AlarmKind {
    /// `reminder`; also of kinds that this version does not know.
    pub(crate) kind: String,
}

/// A durable consumer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Consumer {
    /// `statistics`.
    pub(crate) consumer: String,
}

/// A sweep.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SweepName {
    /// `shares-that-ended`.
    pub(crate) sweep: String,
}

/// A sweep and how it went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SweepResult {
    /// `shares-that-ended`.
    pub(crate) sweep: String,
    /// `ok` or `failed`.
    pub(crate) result: &'static str,
}

/// How a try of a download or of a message ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TryResult {
    /// `completed`, `given_back`, `received`, or the code of the failure.
    pub(crate) result: &'static str,
}

/// What became of a reminder that was due.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReminderResult {
    /// `fired`, `late`, `missed` or `canceled`.
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
    pub(crate) dead_letters: Family<Consumer, Counter>,
    pub(crate) dead_letters_waiting: Family<Consumer, Gauge>,
    pub(crate) statistics_events: Counter,
    pub(crate) hashes: Counter,
    pub(crate) hashes_refused: Counter,
    pub(crate) hashes_waiting: Gauge,
    pub(crate) key_rotations: Counter,
    pub(crate) downloads_running: Gauge,
    pub(crate) download_tries: Family<TryResult, Counter>,
    pub(crate) download_bytes: Counter,
    pub(crate) download_leases_lost: Counter,
    pub(crate) objects_purged: Counter,
    pub(crate) uploads_ended: Family<TryResult, Counter>,
    pub(crate) object_notifications: Family<TryResult, Counter>,
    pub(crate) alarms_woken: Family<AlarmKind, Counter>,
    pub(crate) alarm_failures: Family<AlarmKind, Counter>,
    pub(crate) alarms_refused: Family<AlarmKind, Counter>,
    pub(crate) alarms_due: Family<AlarmKind, Gauge>,
    pub(crate) alarms_unknown: Gauge,
    pub(crate) alarm_lateness_seconds: Histogram,
    pub(crate) alarm_buckets: Gauge,
    pub(crate) alarm_horizon_seconds: Gauge,
    pub(crate) alarm_buckets_armed: Counter,
    pub(crate) reminders_due: Family<ReminderResult, Counter>,
    pub(crate) sweep_rows: Family<SweepName, Counter>,
    pub(crate) sweep_runs: Family<SweepResult, Counter>,
    pub(crate) webhooks_sending: Gauge,
    pub(crate) webhook_tries: Family<TryResult, Counter>,
    pub(crate) webhooks_disabled: Counter,
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
            dead_letters: Family::default(),
            dead_letters_waiting: Family::default(),
            statistics_events: Counter::default(),
            hashes: Counter::default(),
            hashes_refused: Counter::default(),
            hashes_waiting: Gauge::default(),
            key_rotations: Counter::default(),
            downloads_running: Gauge::default(),
            download_tries: Family::default(),
            download_bytes: Counter::default(),
            download_leases_lost: Counter::default(),
            objects_purged: Counter::default(),
            uploads_ended: Family::default(),
            object_notifications: Family::default(),
            alarms_woken: Family::default(),
            alarm_failures: Family::default(),
            alarms_refused: Family::default(),
            alarms_due: Family::default(),
            alarms_unknown: Gauge::default(),
            alarm_lateness_seconds: Histogram::new(LATENESS_SECONDS),
            alarm_buckets: Gauge::default(),
            alarm_horizon_seconds: Gauge::default(),
            alarm_buckets_armed: Counter::default(),
            reminders_due: Family::default(),
            sweep_rows: Family::default(),
            sweep_runs: Family::default(),
            webhooks_sending: Gauge::default(),
            webhook_tries: Family::default(),
            webhooks_disabled: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register("alarms_woken", "Alarms that this process has woken", inner.alarms_woken.clone());
            registry.register("alarm_failures", "Times that waking an alarm failed", inner.alarm_failures.clone());
            registry.register("alarms_refused", "Alarms that were given up, with a dead letter", inner.alarms_refused.clone());
            registry.register("alarms_due", "Alarms that are due and wait, up to 100 000 of a kind", inner.alarms_due.clone());
            registry.register(
                "alarms_unknown",
                "Alarms due of kinds that this version does not know",
                inner.alarms_unknown.clone(),
            );
            registry.register(
                "alarm_lateness_seconds",
                "From when an alarm was due to the commit of what it did",
                inner.alarm_lateness_seconds.clone(),
            );
            registry.register(
                "alarm_buckets",
                "Seconds of the horizon that JetStream holds a schedule for; told by whoever guards it",
                inner.alarm_buckets.clone(),
            );
            registry.register(
                "alarm_horizon_seconds",
                "How far ahead JetStream knows what is due; told by whoever guards it, 0 until it has looked through it",
                inner.alarm_horizon_seconds.clone(),
            );
            registry.register("alarm_buckets_armed", "Schedules that this process had stored", inner.alarm_buckets_armed.clone());
            registry.register("sweep_rows", "What each sweep took", inner.sweep_rows.clone());
            registry.register("sweep_runs", "Rounds of each sweep by how they went", inner.sweep_runs.clone());
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
            registry.register(
                "dead_letters",
                "Messages that a consumer refused, as this process wrote them down",
                inner.dead_letters.clone(),
            );
            registry.register(
                "dead_letters_waiting",
                "Refused messages that were never sent back to their consumer",
                inner.dead_letters_waiting.clone(),
            );
            registry.register("statistics_events", "Events that were counted, each once", inner.statistics_events.clone());
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
            registry.register(
                "uploads_ended",
                "Uploads that this process brought to an end, by how: completed, quarantined, expired, or why they failed",
                inner.uploads_ended.clone(),
            );
            registry.register(
                "object_notifications",
                "Records of the object store's notifications, by what came of them here",
                inner.object_notifications.clone(),
            );
            registry.register(
                "reminders_due",
                "Reminders that were due, by what became of them: fired, late, missed, canceled by an event",
                inner.reminders_due.clone(),
            );
            registry.register(
                "webhooks_sending",
                "Messages that this node is sending to webhooks",
                inner.webhooks_sending.clone(),
            );
            registry.register(
                "webhook_tries",
                "Tries to send a message to a webhook by how they ended",
                inner.webhook_tries.clone(),
            );
            registry.register(
                "webhooks_disabled",
                "Webhooks that were disabled because their receivers were gone or kept failing",
                inner.webhooks_disabled.clone(),
            );
            registry.register("key_rotations", "Signing keys that this process made active", inner.key_rotations.clone());
        });
        Meters(Arc::new(inner))
    }
}
