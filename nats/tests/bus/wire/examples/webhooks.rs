//! Examples of webhooks.

use bowerbird_nats::{
    EventId, Page, WebhookDeliveryId, WebhookId, event,
    operation::Done,
    webhook::{
        self, Attempt, CreateWebhook, DeleteWebhook, Delivery, DeliveryStatus, DisabledReason, GetWebhook, GetWebhookDelivery,
        ListWebhookDeliveries, ListWebhooks, RetryWebhookDelivery, RotateWebhookSecret, TestWebhook, UpdateWebhook, Webhook,
    },
};

use super::{AT, Examples, uuid};

fn a_webhook() -> Webhook {
    Webhook {
        id: WebhookId(uuid(6)),
        url: "https://example.org/hooks/bowerbird".into(),
        event_types: vec!["download.*".into(), "file.available".into()],
        description: Some("the media server".into()),
        status: webhook::Status::Enabled,
        disabled_reason: None,
        disabled_at: None,
        secret: None,
        old_secret_until: None,
        last_success_at: Some(AT),
        failing_since: None,
        created_at: AT,
        updated_at: AT,
    }
}

fn a_delivery() -> Delivery {
    Delivery {
        id: WebhookDeliveryId(uuid(7)),
        webhook_id: WebhookId(uuid(6)),
        event_id: Some(EventId(uuid(8))),
        event_type: "download.completed".into(),
        status: DeliveryStatus::Pending,
        attempts_made: 1,
        next_attempt_at: Some(AT),
        response_status: Some(503),
        error: Some(webhook::Failure {
            code: webhook::ErrorCode::HttpStatus,
            detail: "the receiver answered 503 Service Unavailable".into(),
        }),
        created_at: AT,
        finished_at: None,
        body: None,
        attempts: Vec::new(),
    }
}

pub(super) fn add(examples: &mut Examples) {
    let (id, webhook_id, delivery_id) = (WebhookId(uuid(6)), WebhookId(uuid(6)), WebhookDeliveryId(uuid(7)));
    let secret = Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
    let create =
        CreateWebhook { url: a_webhook().url, event_types: a_webhook().event_types, description: a_webhook().description };
    examples.operation(&create, &Webhook { secret: secret.clone(), last_success_at: None, ..a_webhook() });
    examples.operation(&GetWebhook { id }, &a_webhook());
    let list = ListWebhooks { limit: Some(50), cursor: Some("b3BhcXVl".into()) };
    examples.operation(&list, &Page { items: vec![a_webhook()], next_cursor: None });
    let update = UpdateWebhook {
        id,
        url: Some("https://example.org/other".into()),
        event_types: Some(vec![]),
        description: Some(String::new()),
        status: Some(webhook::Status::Disabled),
    };
    let disabled = Webhook {
        url: "https://example.org/other".into(),
        event_types: vec![],
        description: None,
        status: webhook::Status::Disabled,
        disabled_reason: Some(DisabledReason::Owner),
        disabled_at: Some(AT),
        ..a_webhook()
    };
    examples.operation(&update, &disabled);
    examples.operation(&DeleteWebhook { id }, &Done {});
    let body = webhook::Message { kind: webhook::TEST.into(), timestamp: AT, data: serde_json::json!({ "webhook_id": id }) };
    let attempt = Attempt {
        number: 1,
        started_at: AT,
        duration_ms: 87,
        response_status: Some(200),
        response_body: Some("thank you".into()),
        error: None,
    };
    let tested = Delivery {
        event_id: None,
        event_type: webhook::TEST.into(),
        status: DeliveryStatus::Succeeded,
        next_attempt_at: None,
        response_status: Some(200),
        error: None,
        finished_at: Some(AT),
        body: Some(serde_json::to_string(&body).unwrap()),
        attempts: vec![attempt.clone()],
        ..a_delivery()
    };
    examples.operation(&TestWebhook { id }, &tested);
    examples.operation(&RotateWebhookSecret { id }, &Webhook { secret, old_secret_until: Some(AT), ..a_webhook() });
    let list = ListWebhookDeliveries {
        webhook_id,
        status: Some(DeliveryStatus::Pending),
        limit: Some(50),
        cursor: Some("b3BhcXVl".into()),
    };
    examples.operation(&list, &Page { items: vec![a_delivery()], next_cursor: Some("b3BhcXVl".into()) });
    let logged = Attempt { response_status: Some(503), response_body: None, error: a_delivery().error, ..attempt };
    let looked_at = Delivery { body: tested.body, attempts: vec![logged], ..a_delivery() };
    examples.operation(&GetWebhookDelivery { webhook_id, id: delivery_id }, &looked_at);
    examples.operation(&RetryWebhookDelivery { webhook_id, id: delivery_id }, &a_delivery());
    let told = webhook::Disabled {
        webhook_id,
        origin: "https://example.org".into(),
        description: Some("the media server".into()),
        reason: DisabledReason::Failing,
        failing_since: Some(AT),
    };
    examples.event(&event::WEBHOOK_DISABLED, &told);
    let given_up = webhook::Failed {
        webhook_id,
        delivery_id,
        event_id: EventId(uuid(4)),
        event_type: "reminder.fired".into(),
        error: webhook::Failure {
            code: webhook::ErrorCode::HttpStatus,
            detail: "the receiver answered 503 Service Unavailable".into(),
        },
        reminder: Some(webhook::Untold { title: "Water the plants".into(), note: None }),
    };
    examples.event(&event::WEBHOOK_FAILED, &given_up);
    examples.add("webhook".into(), &body);
}
