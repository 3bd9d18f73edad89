//! The clock of the alarms: schedules are published, replaced by publishing them again, and fire inside the stream.

use async_nats::{
    HeaderMap,
    header::{NATS_SCHEDULE, NATS_SCHEDULE_TARGET, NATS_SCHEDULE_TTL},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Error, Outgoing};
use crate::{
    alarm::{Bucket, Refused},
    bus::Bus,
    envelope, topology,
};

/// Schedules on their way at once.
const AT_ONCE: usize = 256;
/// How long a bucket that fired may wait to be heard. By then the backstop has looked long ago.
const FIRED_KEPT: &str = "1h";

impl Bus {
    /// Have JetStream fire these buckets, once each; one that is past fires at once. Doing it again changes nothing. The
    /// result has one entry for each, in the same order.
    pub async fn schedule_buckets(&self, buckets: &[Bucket]) -> Vec<Result<(), Error>> {
        let schedule = |bucket| {
            let bus = self.clone();
            async move { bus.schedule_bucket(bucket).await }
        };
        stream::iter(buckets.to_vec()).map(schedule).buffered(AT_ONCE).collect().await
    }

    async fn schedule_bucket(&self, bucket: Bucket) -> Result<(), Error> {
        // The years that the format cannot write are further than any horizon.
        let at = OffsetDateTime::from_unix_timestamp(bucket.0).ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
        let mut headers = HeaderMap::new();
        headers.insert(NATS_SCHEDULE, format!("@at {at}"));
        headers.insert(NATS_SCHEDULE_TARGET, self.subjects().alarms_due(bucket).as_str());
        headers.insert(NATS_SCHEDULE_TTL, FIRED_KEPT);
        self.publish(Outgoing {
            stream: topology::ALARMS,
            subject: self.subjects().alarm_bucket(bucket),
            // The subject says which it is: the second one replaces the first.
            message_id: None,
            headers,
            body: Bytes::new(),
        })
        .await
    }

    /// Tell in `DEAD` of an alarm that was given up, once however often it is told. Sending that letter again has the
    /// alarm tried again; given up again it is told again.
    pub async fn publish_dead_alarm(&self, alarm: &Refused<'_>) -> Result<(), Error> {
        let subject = self.subjects().alarm_again(alarm.kind, alarm.subject_id);
        let body = json!({"kind": alarm.kind, "subject_id": alarm.subject_id, "due_at": alarm.due_at.unix_timestamp()});
        let mut headers = HeaderMap::new();
        envelope::put(&mut headers, envelope::CONTENT_TYPE, "application/json");
        envelope::put(&mut headers, envelope::DEAD_REASON, &envelope::percent_encode(alarm.reason));
        envelope::put(&mut headers, envelope::DEAD_SUBJECT, subject.as_str());
        envelope::put(&mut headers, envelope::DEAD_STREAM, topology::ALARMS);
        // It was never a message of that stream.
        envelope::put(&mut headers, envelope::DEAD_SEQUENCE, "0");
        envelope::put(&mut headers, envelope::DEAD_CONSUMER, topology::ALARMS_CONSUMER);
        envelope::put(&mut headers, envelope::DEAD_DELIVERIES, &alarm.attempts.to_string());
        self.publish(Outgoing {
            stream: topology::DEAD,
            subject: self.subjects().dead(topology::ALARMS, topology::ALARMS_CONSUMER),
            message_id: Some(format!(
                "{}.{}.{}.{}.{}",
                topology::ALARMS,
                alarm.kind,
                alarm.subject_id,
                alarm.due_at.unix_timestamp_nanos(),
                alarm.version
            )),
            headers,
            body: serde_json::to_vec(&body).map_err(Error::Json)?.into(),
        })
        .await
    }
}
