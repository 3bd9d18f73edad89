//! `/v1/webhooks`: where the account's events are sent to, and what became of each message.

use bowerbird_nats::{
    Page, WebhookDeliveryId, WebhookId,
    webhook::{
        CreateWebhook, DeleteWebhook, Delivery, DeliveryStatus, GetWebhook, GetWebhookDelivery, ListWebhookDeliveries,
        ListWebhooks, RetryWebhookDelivery, RotateWebhookSecret, Status, TestWebhook, UpdateWebhook, Webhook,
    },
};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Path, Query},
};
use serde::{Deserialize, Serialize};

use crate::{actors::Actors, api::Area, caller::Caller, payload::StrictJson, refused::Refused};

pub(crate) struct WebhooksApi {
    pub(crate) actors: Actors,
}

/// What may be changed of a webhook; what is not given stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, skip_serializing_if_is_none)]
pub(crate) struct WebhookChanges {
    /// Where to from now on, also what waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[oai(nullable, validator(min_length = 1, max_length = 4096))]
    url: Option<String>,
    /// What is sent from now on, at most 50 types and areas; an empty list for every event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[oai(nullable, validator(max_items = 50))]
    event_types: Option<Vec<String>>,
    /// What it is, for people; empty to take it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[oai(nullable, validator(max_length = 200))]
    description: Option<String>,
    /// `disabled` ends what waits; `enabled` begins with the events that come from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[oai(nullable)]
    status: Option<Status>,
}

#[derive(ApiResponse)]
pub(crate) enum Created {
    /// Made; this is the one time that its secret is shown.
    #[oai(status = 201)]
    Created(
        StrictJson<Webhook>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

#[derive(ApiResponse)]
pub(crate) enum Accepted {
    /// Accepted; look at the delivery to see how it goes.
    #[oai(status = 202)]
    Accepted(
        StrictJson<Delivery>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

#[derive(ApiResponse)]
pub(crate) enum Deleted {
    /// It is gone.
    #[oai(status = 204)]
    Done,
}

#[OpenApi(tag = "Area::Webhooks")]
impl WebhooksApi {
    /// Have events sent somewhere
    ///
    /// Messages are signed as Standard Webhooks says, with the secret that this answer shows, and only this one.
    #[oai(path = "/v1/webhooks", method = "post", operation_id = "create_webhook")]
    async fn create(
        &self,
        caller: Caller,
        /// Repeats with the same key and body have the effect of one, and the same answer.
        #[oai(name = "Idempotency-Key", validator(max_length = 255, pattern = "^[!-~]+$"))]
        idempotency_key: Header<Option<String>>,
        body: StrictJson<CreateWebhook>,
    ) -> Result<Created, Refused> {
        let origin = caller.origin.with_idempotency_key(idempotency_key.0);
        let webhook = self.actors.ask(&body.0, &origin).await?;
        let location = format!("/v1/webhooks/{}", webhook.id);
        Ok(Created::Created(StrictJson(webhook), location))
    }

    /// List webhooks
    ///
    /// Newest first.
    #[oai(path = "/v1/webhooks", method = "get", operation_id = "list_webhooks")]
    async fn list(
        &self,
        caller: Caller,
        /// Items of the page; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Page<Webhook>>, Refused> {
        let list = ListWebhooks { limit: limit.0, cursor: cursor.0 };
        Ok(StrictJson(self.actors.ask(&list, &caller.origin).await?))
    }

    /// Get a webhook
    #[oai(path = "/v1/webhooks/:id", method = "get", operation_id = "get_webhook")]
    async fn get(
        &self,
        caller: Caller,
        /// The webhook.
        id: Path<WebhookId>,
    ) -> Result<StrictJson<Webhook>, Refused> {
        Ok(StrictJson(self.actors.ask(&GetWebhook { id: id.0 }, &caller.origin).await?))
    }

    /// Change a webhook
    #[oai(path = "/v1/webhooks/:id", method = "patch", operation_id = "update_webhook")]
    async fn update(
        &self,
        caller: Caller,
        /// The webhook.
        id: Path<WebhookId>,
        body: StrictJson<WebhookChanges>,
    ) -> Result<StrictJson<Webhook>, Refused> {
        let WebhookChanges { url, event_types, description, status } = body.0;
        let update = UpdateWebhook { id: id.0, url, event_types, description, status };
        Ok(StrictJson(self.actors.ask(&update, &caller.origin).await?))
    }

    /// Take a webhook away
    ///
    /// With everything that waits for it and the log of its deliveries.
    #[oai(path = "/v1/webhooks/:id", method = "delete", operation_id = "delete_webhook")]
    async fn delete(
        &self,
        caller: Caller,
        /// The webhook.
        id: Path<WebhookId>,
    ) -> Result<Deleted, Refused> {
        self.actors.ask(&DeleteWebhook { id: id.0 }, &caller.origin).await?;
        Ok(Deleted::Done)
    }

    /// Send a test message
    ///
    /// Of the type `webhook.test`, now, once; answers how that went. A message that was not received is an answer too, not
    /// a problem: look at its `status`.
    #[oai(path = "/v1/webhooks/:id/test", method = "post", operation_id = "test_webhook")]
    async fn test(
        &self,
        caller: Caller,
        /// The webhook. It may be disabled.
        id: Path<WebhookId>,
    ) -> Result<StrictJson<Delivery>, Refused> {
        Ok(StrictJson(self.actors.ask(&TestWebhook { id: id.0 }, &caller.origin).await?))
    }

    /// Change the secret of a webhook
    ///
    /// This answer is the one time that the new secret is shown. Until `old_secret_until`, messages carry a signature of the
    /// old secret as well.
    #[oai(path = "/v1/webhooks/:id/rotate-secret", method = "post", operation_id = "rotate_webhook_secret")]
    async fn rotate_secret(
        &self,
        caller: Caller,
        /// The webhook.
        id: Path<WebhookId>,
        /// Repeats with the same key have the effect of one, and the same answer.
        #[oai(name = "Idempotency-Key", validator(max_length = 255, pattern = "^[!-~]+$"))]
        idempotency_key: Header<Option<String>>,
    ) -> Result<StrictJson<Webhook>, Refused> {
        let origin = caller.origin.with_idempotency_key(idempotency_key.0);
        Ok(StrictJson(self.actors.ask(&RotateWebhookSecret { id: id.0 }, &origin).await?))
    }

    /// List deliveries of a webhook
    ///
    /// Newest first, without bodies and tries.
    #[oai(path = "/v1/webhooks/:id/deliveries", method = "get", operation_id = "list_webhook_deliveries")]
    async fn deliveries(
        &self,
        caller: Caller,
        /// The webhook.
        id: Path<WebhookId>,
        /// Only those in this status.
        status: Query<Option<DeliveryStatus>>,
        /// Items of the page; 50 when not given.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u32>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<StrictJson<Page<Delivery>>, Refused> {
        let list = ListWebhookDeliveries { webhook_id: id.0, status: status.0, limit: limit.0, cursor: cursor.0 };
        Ok(StrictJson(self.actors.ask(&list, &caller.origin).await?))
    }

    /// Get a delivery
    ///
    /// With its body as it is sent, and the log of its tries.
    #[oai(path = "/v1/webhooks/:id/deliveries/:delivery_id", method = "get", operation_id = "get_webhook_delivery")]
    async fn delivery(
        &self,
        caller: Caller,
        /// The webhook.
        id: Path<WebhookId>,
        /// The delivery.
        delivery_id: Path<WebhookDeliveryId>,
    ) -> Result<StrictJson<Delivery>, Refused> {
        let get = GetWebhookDelivery { webhook_id: id.0, id: delivery_id.0 };
        Ok(StrictJson(self.actors.ask(&get, &caller.origin).await?))
    }

    /// Send a message again
    ///
    /// Now, also one that was received; its tries begin anew. Its `webhook-id` stays the same.
    #[oai(path = "/v1/webhooks/:id/deliveries/:delivery_id/retry", method = "post", operation_id = "retry_webhook_delivery")]
    async fn retry(
        &self,
        caller: Caller,
        /// The webhook. It must be enabled.
        id: Path<WebhookId>,
        /// The delivery.
        delivery_id: Path<WebhookDeliveryId>,
    ) -> Result<Accepted, Refused> {
        let retry = RetryWebhookDelivery { webhook_id: id.0, id: delivery_id.0 };
        let delivery = self.actors.ask(&retry, &caller.origin).await?;
        let location = format!("/v1/webhooks/{}/deliveries/{}", delivery.webhook_id, delivery.id);
        Ok(Accepted::Accepted(StrictJson(delivery), location))
    }
}
