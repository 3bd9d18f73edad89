//! What an account chose to be told, and how: the defaults, what may be chosen, and which channels an event goes to.

use std::collections::BTreeMap;

use bowerbird_nats::{
    Problem,
    event::Event,
    notification::{ChangeSettings, Channel, Digest, QuietHours, is_selectable},
};
use serde_json::Value;
use time::OffsetDateTime;

use super::wall_clock;
use crate::downloads::check::Faults;

/// What is told unless its owner chose otherwise: ends of what runs unattended.
const DEFAULTS: &[(&str, &[Channel])] = &[
    ("download.completed", &[Channel::Inbox]),
    ("download.failed", &[Channel::Inbox]),
    ("reminder.missed", &[Channel::Inbox]),
    ("webhook.disabled", &[Channel::Inbox, Channel::Email]),
];

/// Says for itself where it goes.
const REMINDER_FIRED: &str = "reminder.fired";
/// Goes to the inbox, whatever was chosen, if it says what its owner was not told.
const WEBHOOK_FAILED: &str = "webhook.failed";

/// What an account chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choices {
    /// Channels by type of event.
    pub(crate) events: BTreeMap<String, Vec<Channel>>,
    /// Whether e-mail is wanted at all.
    pub(crate) email: bool,
    /// When none is sent.
    pub(crate) quiet_hours: Option<QuietHours>,
    /// When gathered ones are sent.
    pub(crate) digest: Option<Digest>,
}

impl Default for Choices {
    fn default() -> Self {
        let events = DEFAULTS
            .iter()
            .filter(|(event_type, _)| is_selectable(event_type))
            .map(|(event_type, channels)| ((*event_type).to_owned(), channels.to_vec()))
            .collect();
        Choices { events, email: true, quiet_hours: None, digest: None }
    }
}

/// Where one event goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// To the inbox.
    pub(crate) inbox: bool,
    /// By e-mail, if e-mail reaches the account.
    pub(crate) email: bool,
    /// To the account's webhooks, which is not done here.
    pub(crate) webhook: bool,
}

impl Choices {
    /// What a caller wants, if all of it may be chosen.
    pub(crate) fn checked(change: ChangeSettings) -> Result<Self, Problem> {
        let ChangeSettings { mut events, email, quiet_hours, digest } = change;
        let mut faults = Faults::default();
        for (event_type, channels) in &mut events {
            if !is_selectable(event_type) {
                let shown: String = event_type.chars().take(64).collect();
                faults.add(format!("events.{shown}"), "is no type of event that can be chosen; docs/bus.md lists them");
            }
            channels.sort_unstable();
            channels.dedup();
        }
        if let Some(quiet) = &quiet_hours {
            time(&mut faults, "quiet_hours.from", &quiet.from);
            time(&mut faults, "quiet_hours.until", &quiet.until);
            zone(&mut faults, "quiet_hours.time_zone", &quiet.time_zone);
            faults.unless(quiet.from != quiet.until, "quiet_hours.until", "must not be the same as from");
        }
        let digest = digest.map(|mut digest| {
            time(&mut faults, "digest.at", &digest.at);
            zone(&mut faults, "digest.time_zone", &digest.time_zone);
            digest.weekdays.sort_unstable();
            digest.weekdays.dedup();
            digest
        });
        faults.into_result()?;
        Ok(Choices { events, email, quiet_hours, digest })
    }

    /// What is stored. What a newer version stored and this one does not know is passed over: an account that cannot be
    /// read must not keep others from being told.
    pub(crate) fn stored(events: &Value, email: bool, quiet_hours: Option<Value>, digest: Option<Value>) -> Self {
        let channels = |value: &Value| -> Vec<Channel> {
            value.as_array().into_iter().flatten().filter_map(|channel| serde_json::from_value(channel.clone()).ok()).collect()
        };
        Choices {
            events: events
                .as_object()
                .into_iter()
                .flatten()
                .map(|(event_type, value)| (event_type.clone(), channels(value)))
                .collect(),
            email,
            quiet_hours: quiet_hours.and_then(|value| serde_json::from_value(value).ok()),
            digest: digest.and_then(|value| serde_json::from_value(value).ok()),
        }
    }

    /// Where this event goes. A reminder that fires says so itself.
    pub(crate) fn route(&self, event: &Event) -> Route {
        if event.event_type.as_str() == REMINDER_FIRED {
            let told = |channel: &str| {
                event.data["channels"].as_array().into_iter().flatten().any(|value| value.as_str() == Some(channel))
            };
            return Route {
                inbox: told(Channel::Inbox.as_str()),
                email: told(Channel::Email.as_str()),
                webhook: told("webhook"),
            };
        }
        let channels = self.events.get(event.event_type.as_str()).map_or(&[][..], Vec::as_slice);
        let untold = event.event_type.as_str() == WEBHOOK_FAILED && event.data["reminder"].is_object();
        Route { inbox: untold || channels.contains(&Channel::Inbox), email: channels.contains(&Channel::Email), webhook: false }
    }

    /// Whether its owner chose when it is told: a reminder that fires.
    pub(crate) fn is_urgent(event: &Event) -> bool {
        event.event_type.as_str() == REMINDER_FIRED
    }

    /// When an e-mail about this event is sent, if not now. A reminder is not held back: its owner chose when.
    pub(crate) fn held_until(&self, event: &Event, now: OffsetDateTime) -> Option<OffsetDateTime> {
        if event.event_type.as_str() == REMINDER_FIRED {
            return None;
        }
        self.held_at(now)
    }

    /// When an e-mail that is not about a reminder is sent, if not now.
    pub(crate) fn held_at(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        match &self.digest {
            Some(digest) => wall_clock::next_digest(now, digest),
            None => self.quiet_hours.as_ref().and_then(|quiet| wall_clock::quiet_until(now, quiet)),
        }
    }
}

fn time(faults: &mut Faults, field: &str, text: &str) {
    faults.unless(wall_clock::is_time(text), field, "must be a time of day such as 07:00");
}

fn zone(faults: &mut Faults, field: &str, text: &str) {
    faults.unless(wall_clock::is_zone(text), field, "must be an IANA time zone such as Europe/Berlin");
}

#[cfg(test)]
mod tests {
    use bowerbird_nats::{EventId, notification::Weekday};
    use serde_json::json;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    fn event(event_type: &str, data: Value) -> Event {
        Event {
            id: EventId(Uuid::from_u128(1)),
            event_type: event_type.parse().unwrap(),
            account_id: None,
            entity_id: Uuid::from_u128(2),
            entity_sequence: 1,
            time: OffsetDateTime::UNIX_EPOCH,
            data,
            traceparent: None,
        }
    }

    fn change(events: &[(&str, &[Channel])]) -> ChangeSettings {
        let events = events.iter().map(|(name, channels)| ((*name).to_owned(), channels.to_vec())).collect();
        ChangeSettings { events, email: true, quiet_hours: None, digest: None }
    }

    #[test]
    fn every_field_at_fault_is_named() {
        let mut wrong = change(&[("download.eaten", &[Channel::Inbox]), ("reminder.fired", &[Channel::Inbox])]);
        wrong.quiet_hours = Some(QuietHours { from: "7".into(), until: "7".into(), time_zone: "Mars".into() });
        wrong.digest = Some(Digest { at: "25:00".into(), weekdays: vec![], time_zone: String::new() });
        let problem = Choices::checked(wrong).unwrap_err();
        let fields: Vec<&str> = problem.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "events.download.eaten",
                "events.reminder.fired",
                "quiet_hours.from",
                "quiet_hours.until",
                "quiet_hours.time_zone",
                "quiet_hours.until",
                "digest.at",
                "digest.time_zone"
            ]
        );
    }

    #[test]
    fn an_event_goes_where_its_owner_chose_and_a_reminder_where_it_says_itself() {
        let choices = Choices::checked(change(&[
            ("download.failed", &[Channel::Email, Channel::Inbox, Channel::Email]),
            ("file.available", &[]),
        ]))
        .unwrap();
        assert_eq!(choices.route(&event("download.failed", json!({}))), Route { inbox: true, email: true, webhook: false });
        assert_eq!(choices.route(&event("file.available", json!({}))), Route::default());
        assert_eq!(choices.route(&event("download.completed", json!({}))), Route::default());
        assert_eq!(
            Choices::default().route(&event("download.completed", json!({}))),
            Route { inbox: true, email: false, webhook: false }
        );
        let fired = |channels: Value| choices.route(&event("reminder.fired", json!({ "channels": channels })));
        assert_eq!(fired(json!(["email", "webhook"])), Route { inbox: false, email: true, webhook: true });
        assert_eq!(fired(json!(["inbox"])), Route { inbox: true, email: false, webhook: false });
        assert_eq!(fired(json!("inbox")), Route::default());
    }

    #[test]
    fn what_a_newer_version_stored_is_passed_over() {
        let stored = json!({"download.failed": ["inbox", "pigeon"], "cake.baked": ["inbox"], "odd": 3});
        let choices = Choices::stored(&stored, true, Some(json!({"from": 1})), None);
        assert_eq!(choices.route(&event("download.failed", json!({}))), Route { inbox: true, email: false, webhook: false });
        assert_eq!(choices.quiet_hours, None);
    }

    #[test]
    fn a_digest_goes_before_quiet_hours_and_a_reminder_before_both() {
        let now = datetime!(2026-11-20 23:00 UTC);
        let mut choices = Choices {
            quiet_hours: Some(QuietHours { from: "22:00".into(), until: "07:00".into(), time_zone: "UTC".into() }),
            ..Choices::default()
        };
        let (failed, fired) = (event("download.failed", json!({})), event("reminder.fired", json!({})));
        assert_eq!(choices.held_until(&failed, now), Some(datetime!(2026-11-21 07:00 UTC)));
        choices.digest = Some(Digest { at: "18:00".into(), weekdays: vec![Weekday::Sunday], time_zone: "UTC".into() });
        assert_eq!(choices.held_until(&failed, now), Some(datetime!(2026-11-22 18:00 UTC)));
        assert_eq!(choices.held_until(&fired, now), None);
        assert_eq!(Choices::default().held_until(&failed, now), None);
    }
}
