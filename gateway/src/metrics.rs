//! What the gateway measures.

use std::time::Duration;

use bowerbird_lifecycle::{
    Metrics,
    prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use http::StatusCode;

type Labels = [(&'static str, String); 2];
type Operation = [(&'static str, &'static str); 1];

/// Counters and times of requests. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    requests: Family<Labels, Counter>,
    seconds: Family<Operation, Histogram>,
    proxied_streams: Gauge,
    event_streams: Gauge,
}

impl Measured {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let measured = Measured {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
            }),
            proxied_streams: Gauge::default(),
            event_streams: Gauge::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("gateway");
            registry.register("requests", "Requests answered, by operation and status", measured.requests.clone());
            registry.register("request_seconds", "Time from a request's head to its answer's head", measured.seconds.clone());
            registry.register("proxied_streams", "Files being streamed through the gateway", measured.proxied_streams.clone());
            registry.register("event_streams", "Clients that follow their events", measured.event_streams.clone());
        });
        measured
    }

    /// A request was answered. `operation` is an `operationId`, of which there are few.
    pub(crate) fn answered(&self, operation: &'static str, status: StatusCode, took: Duration) {
        let labels = [("operation", operation.to_owned()), ("status", status.as_str().to_owned())];
        self.requests.get_or_create(&labels).inc();
        self.seconds.get_or_create(&[("operation", operation)]).observe(took.as_secs_f64());
    }

    /// Clients that follow their events right now.
    pub(crate) fn event_streams(&self) -> &Gauge {
        &self.event_streams
    }

    /// Streams that run right now.
    pub(crate) fn proxied_streams(&self) -> &Gauge {
        &self.proxied_streams
    }
}
