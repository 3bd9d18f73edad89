//! What an event counts for. Used when events come in and when a day is counted anew, so that both give the same.

use std::collections::BTreeMap;

use bowerbird_nats::{
    AccountId, EventId,
    download::Changed,
    event::{DOWNLOAD_COMPLETED, Event, EventType, FILE_AVAILABLE, FILE_PURGED},
    file::{Available, Purged},
};
use serde::de::DeserializeOwned;
use time::{Date, UtcOffset};

/// What one event counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) event_id: EventId,
    pub(super) account_id: Option<AccountId>,
    /// The day of UTC that it happened on.
    pub(super) day: Date,
    pub(super) event_type: EventType,
    pub(super) bytes: i64,
}

/// How often something happened, and to how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) events: i64,
    pub(super) bytes: i64,
}

impl Count {
    /// One more.
    fn add(&mut self, bytes: i64) {
        self.events += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Counts of many events, in the order in which rows are locked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) accounts: BTreeMap<(AccountId, Date, EventType), Count>,
    pub(super) system: BTreeMap<(Date, EventType), Count>,
}

impl Counted {
    /// What this event counts for. Every type counts, also one that this version does not know; the error is why an event
    /// whose size is not told as its type says cannot be counted.
    pub(super) fn of(event: &Event) -> Result<Counted, String> {
        let bytes = if event.event_type == DOWNLOAD_COMPLETED {
            let download = read::<Changed>(event)?.download;
            download.size_bytes.unwrap_or(download.received_bytes)
        } else if event.event_type == FILE_AVAILABLE {
            read::<Available>(event)?.file.size_bytes
        } else if event.event_type == FILE_PURGED {
            read::<Purged>(event)?.size_bytes
        } else {
            0
        };
        if bytes < 0 {
            return Err(format!("{} tells a size below zero", event.event_type));
        }
        Ok(Counted {
            event_id: event.id,
            account_id: event.account_id,
            day: event.time.to_offset(UtcOffset::UTC).date(),
            event_type: event.event_type.clone(),
            bytes,
        })
    }
}

fn read<T: DeserializeOwned>(event: &Event) -> Result<T, String> {
    event.data_as().map_err(|error| format!("the body is not that of {}: {error}", event.event_type))
}

impl Sums {
    /// One more event.
    pub(super) fn add(&mut self, counted: &Counted) {
        let Counted { account_id, day, event_type, bytes, .. } = counted;
        if let Some(account_id) = account_id {
            self.accounts.entry((*account_id, *day, event_type.clone())).or_default().add(*bytes);
        }
        self.system.entry((*day, event_type.clone())).or_default().add(*bytes);
    }
}

#[cfg(test)]
mod tests {
    use bowerbird_lifecycle::IdSource;
    use bowerbird_nats::event::SESSION_OPENED;
    use serde_json::json;
    use time::macros::{date, datetime};

    use super::*;

    fn event(event_type: EventType, data: serde_json::Value) -> Event {
        Event {
            id: EventId(IdSource.next()),
            event_type,
            account_id: None,
            entity_id: IdSource.next(),
            entity_sequence: 1,
            time: datetime!(2026-02-03 23:30:00 -01:00),
            data,
            traceparent: None,
        }
    }

    #[test]
    fn an_event_counts_on_its_day_of_utc_and_its_bytes_where_it_has_some() {
        let purged = event(FILE_PURGED, json!({ "file_id": IdSource.next(), "size_bytes": 7 }));
        let counted = Counted::of(&purged).unwrap();
        assert_eq!((counted.day, counted.bytes), (date!(2026 - 02 - 04), 7));
        let unknown = Counted::of(&event("future.happened".parse().unwrap(), json!(null))).unwrap();
        assert_eq!(unknown.bytes, 0);
        assert_eq!(Counted::of(&event(SESSION_OPENED, json!("anything"))).unwrap().bytes, 0);
    }

    #[test]
    fn an_event_that_does_not_tell_its_size_is_refused_with_the_reason() {
        let reason = Counted::of(&event(FILE_PURGED, json!({ "file_id": IdSource.next() }))).unwrap_err();
        assert!(reason.contains("file.purged") && reason.contains("size_bytes"), "{reason}");
        assert!(Counted::of(&event(FILE_PURGED, json!({ "file_id": IdSource.next(), "size_bytes": -1 }))).is_err());
    }

    #[test]
    fn sums_are_kept_by_account_and_for_all() {
        let mut sums = Sums::default();
        let counted = Counted::of(&event(FILE_PURGED, json!({ "file_id": IdSource.next(), "size_bytes": 7 }))).unwrap();
        let account = AccountId(IdSource.next());
        sums.add(&counted);
        sums.add(&Counted { account_id: Some(account), ..counted.clone() });
        let key = (counted.day, FILE_PURGED);
        assert_eq!(sums.system[&key], Count { events: 2, bytes: 14 });
        assert_eq!(sums.accounts.len(), 1);
        assert_eq!(sums.accounts[&(account, key.0, key.1)], Count { events: 1, bytes: 7 });
    }
}
