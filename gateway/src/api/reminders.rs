//! `/v1/reminders`: be told at a time, again and again, or when something happens.

use bowerbird_nats::{
    Page, ReminderId,
    reminder::{
        CancelReminder, CompleteReminder, CreateReminder, GetReminder, ListReminders, Reminder, ReminderChanges, SkipReminder,
        SnoozeReminder, Status, UpdateReminder,
    },
};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Path, Query},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    actors::Actors,
    api::{Area, version},
    caller::Caller,
    payload::StrictJson,
    refused::Refused,
};

pub(crate) struct RemindersApi {
    pub(crate) actors: Actors,
}

/// Until when a reminder is put off: one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, skip_serializing_if_is_none)]
pub(crate) struct Snooze {
    /// Until this.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    #[oai(nullable)]
    until: Option<OffsetDateTime>,
    /// For so many seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[oai(nullable, validator(minimum(value = "1")))]
    seconds: Option<u32>,
}

#[derive(ApiResponse)]
pub(crate) enum Created {
    /// It is made.
    #[oai(status = 201)]
    Created(
        StrictJson<Reminder>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

#[derive(ApiResponse)]
pub(crate) enum Canceled {
    /// It is canceled.
    #[oai(status = 204)]
    Done,
}

#[OpenApi(tag = "Area::Reminders")]
impl RemindersApi {
    /// Make a reminder
    ///
    /// For an instant (`due_at`), for a time on the clocks of a place (`local_time`, `time_zone`), or for when something
    /// happens (`on_event`). With a time and an event it fires at whichever comes first, once.
    #[oai(path = "/v1/reminders", method = "post", operation_id = "create_reminder")]
    async fn create(
        &self,
        caller: Caller,
        /// Repeats with the same key and body have the effect of one, and the same answer.
        #[oai(name = "Idempotency-Key", validator(max_length = 255, pattern = "^[!-~]+$"))]
        idempotency_key: Header<Option<String>>,
        body: StrictJson<CreateReminder>,
    ) -> Result<Created, Refused> {
        let origin = caller.origin.with_idempotency_key(idempotency_key.0);
        let reminder = self.actors.ask(&body.0, &origin).await?;
        let location = format!("/v1/reminders/{}", reminder.id);
        Ok(Created::Created(StrictJson(reminder), location))
    }

    /// List reminders
    ///
    /// Newest first.
    #[oai(path = "/v1/reminders", method = "get", operation_id = "list_reminders")]
    #[expect(clippy::too_many_arguments, reason = "one for each filter")]
    async fn list(
        &self,
        caller: Caller,
        /// Only those in this status. When not given, all but the canceled.
        status: Query<Option<Status>>,
        /// Only those about the file or the download with this id.
        about: Query<Option<Uuid>>,
        /// Only those that fire next before this.
        due_before: Query<Option<OffsetDateTime>>,
        /// Only those that fire next at this or after it.
        due_after: Query<Option<OffsetDateTime>>,
        /// Only those whose title or note contains this, in any case.
        #[oai(validator(max_length = 200))]
        q: Query<Option<String>>,
        /// Items of the page; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Page<Reminder>>, Refused> {
        let list = ListReminders {
            status: status.0,
            about: about.0,
            due_before: due_before.0,
            due_after: due_after.0,
            q: q.0,
            limit: limit.0,
            cursor: cursor.0,
        };
        Ok(StrictJson(self.actors.ask(&list, &caller.origin).await?))
    }

    /// Get a reminder
    #[oai(path = "/v1/reminders/:id", method = "get", operation_id = "get_reminder")]
    async fn get(
        &self,
        caller: Caller,
        /// The reminder.
        id: Path<ReminderId>,
    ) -> Result<StrictJson<Reminder>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetReminder { id: id.0 }, &caller.origin).await?))
    }

    /// Change a reminder
    ///
    /// What is not given stays; `clear` takes things away. A new time, zone or rule schedules it anew and ends a
    /// snooze. One that has fired takes no new time: put it off instead.
    #[oai(path = "/v1/reminders/:id", method = "patch", operation_id = "update_reminder")]
    async fn update(
        &self,
        caller: Caller,
        /// The reminder.
        id: Path<ReminderId>,
        /// Only if the reminder still has this `version`, in quotes: `"3"`.
        #[oai(name = "If-Match", validator(max_length = 32))]
        if_match: Header<Option<String>>,
        body: StrictJson<ReminderChanges>,
    ) -> Result<StrictJson<Reminder>, Refused> {
        let update = UpdateReminder { id: id.0, if_version: version(if_match.0.as_deref())?, changes: body.0 };
        Ok(StrictJson(self.actors.ask(&update, &caller.origin).await?))
    }

    /// Cancel a reminder
    ///
    /// It can still be looked at for a time, as `canceled`. One that has fired and does not repeat cannot be canceled.
    #[oai(path = "/v1/reminders/:id", method = "delete", operation_id = "cancel_reminder")]
    async fn cancel(
        &self,
        caller: Caller,
        /// The reminder.
        id: Path<ReminderId>,
    ) -> Result<Canceled, Refused> {
        self.actors.ask(&CancelReminder { id: id.0 }, &caller.origin).await?;
        Ok(Canceled::Done)
    }

    /// Put a reminder off
    ///
    /// One that is ahead, or that has fired. It fires then; one that repeats goes on after that.
    #[oai(path = "/v1/reminders/:id/snooze", method = "post", operation_id = "snooze_reminder")]
    async fn snooze(
        &self,
        caller: Caller,
        /// The reminder.
        id: Path<ReminderId>,
        body: StrictJson<Snooze>,
    ) -> Result<StrictJson<Reminder>, Refused> {
        let snooze = SnoozeReminder { id: id.0, until: body.0.until, seconds: body.0.seconds };
        Ok(StrictJson(self.actors.ask(&snooze, &caller.origin).await?))
    }

    /// Skip the next firing of a reminder that repeats
    #[oai(path = "/v1/reminders/:id/skip", method = "post", operation_id = "skip_reminder")]
    async fn skip(
        &self,
        caller: Caller,
        /// The reminder.
        id: Path<ReminderId>,
    ) -> Result<StrictJson<Reminder>, Refused> {
        Ok(StrictJson(self.actors.ask(&SkipReminder { id: id.0 }, &caller.origin).await?))
    }

    /// Be done with a reminder
    ///
    /// It fires no more, and repeats no more.
    #[oai(path = "/v1/reminders/:id/complete", method = "post", operation_id = "complete_reminder")]
    async fn complete(
        &self,
        caller: Caller,
        /// The reminder.
        id: Path<ReminderId>,
    ) -> Result<StrictJson<Reminder>, Refused> {
        Ok(StrictJson(self.actors.ask(&CompleteReminder { id: id.0 }, &caller.origin).await?))
    }
}
