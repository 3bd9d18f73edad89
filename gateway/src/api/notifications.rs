//! `/v1/notifications` and `/v1/notification-settings`: what an account is told, and how.

use bowerbird_nats::{
    Page,
    id::NotificationId,
    notification::{
        ChangeSettings, GetSettings, ListNotifications, Notification, ReadAllNotifications, ReadNotification, Settings,
    },
};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Path, Query},
};

use crate::{actors::Actors, api::Area, caller::Caller, payload::StrictJson, refused::Refused};

pub(crate) struct NotificationsApi {
    pub(crate) actors: Actors,
}

#[derive(ApiResponse)]
pub(crate) enum AllRead {
    /// Nothing is unread any more.
    #[oai(status = 204)]
    Done,
}

#[OpenApi(tag = "Area::Notifications")]
impl NotificationsApi {
    /// List notifications
    ///
    /// Newest first. They are kept for a time, and only so many of each account.
    #[oai(path = "/v1/notifications", method = "get", operation_id = "list_notifications")]
    async fn list(
        &self,
        caller: Caller,
        /// `true`: only those that were not read; `false`: only those that were.
        unread: Query<Option<bool>>,
        /// Items of the page; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Page<Notification>>, Refused> {
        let list = ListNotifications { unread: unread.0, limit: limit.0, cursor: cursor.0 };
        Ok(StrictJson(self.actors.ask(&list, &caller.origin).await?))
    }

    /// Say that a notification was read
    ///
    /// Harmless when it was before.
    #[oai(path = "/v1/notifications/:id/read", method = "post", operation_id = "read_notification")]
    async fn read(
        &self,
        caller: Caller,
        /// The notification.
        id: Path<NotificationId>,
    ) -> Result<StrictJson<Notification>, Refused> {
        Ok(StrictJson(self.actors.ask(&ReadNotification { id: id.0 }, &caller.origin).await?))
    }

    /// Say that all notifications were read
    ///
    /// All that are there when it is asked.
    #[oai(path = "/v1/notifications/read-all", method = "post", operation_id = "read_all_notifications")]
    async fn read_all(&self, caller: Caller) -> Result<AllRead, Refused> {
        self.actors.ask(&ReadAllNotifications {}, &caller.origin).await?;
        Ok(AllRead::Done)
    }

    /// What the caller is told, and how
    #[oai(path = "/v1/notification-settings", method = "get", operation_id = "get_notification_settings")]
    async fn get_settings(&self, caller: Caller) -> Result<StrictJson<Settings>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetSettings {}, &caller.origin).await?))
    }

    /// Replace what the caller is told, and how
    ///
    /// A type of event that is not named is not told. The inbox is written at once; quiet hours and the digest hold back
    /// e-mail.
    #[oai(path = "/v1/notification-settings", method = "put", operation_id = "change_notification_settings")]
    async fn change_settings(
        &self,
        caller: Caller,
        settings: StrictJson<ChangeSettings>,
    ) -> Result<StrictJson<Settings>, Refused> {
        Ok(StrictJson(self.actors.ask(&settings.0, &caller.origin).await?))
    }
}
