-- Webhooks: where accounts want their events sent to, the messages for them, and the log of tries.

CREATE TABLE webhooks (
    id                  uuid        PRIMARY KEY,
    account_id          uuid        NOT NULL REFERENCES accounts (id),
    url_sealed          bytea       NOT NULL,
    event_types         text[]      NOT NULL CONSTRAINT webhooks_types_few CHECK (cardinality(event_types) <= 50),
    description         text        CONSTRAINT webhooks_description_length CHECK (char_length(description) BETWEEN 1 AND 200),
    status              text        NOT NULL CONSTRAINT webhooks_status_known CHECK (status IN ('enabled', 'disabled')),
    disabled_reason     text        CONSTRAINT webhooks_reason_known CHECK (disabled_reason IN ('owner', 'gone', 'failing')),
    disabled_at         timestamptz,
    enabled_at          timestamptz NOT NULL DEFAULT now(),
    secret_sealed       bytea       NOT NULL,
    old_secret_sealed   bytea,
    old_secret_until    timestamptz,
    failing_since       timestamptz,
    last_success_at     timestamptz,
    paused_until        timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    deleted_at          timestamptz,
    CONSTRAINT webhooks_disabled_has_reason CHECK ((status = 'disabled') = (disabled_reason IS NOT NULL AND disabled_at IS NOT NULL)),
    CONSTRAINT webhooks_old_secret_has_end CHECK ((old_secret_sealed IS NULL) = (old_secret_until IS NULL)),
    CONSTRAINT webhooks_deleted_is_disabled CHECK (deleted_at IS NULL OR status = 'disabled')
);
COMMENT ON TABLE  webhooks IS 'Where accounts want their events sent to.';
COMMENT ON COLUMN webhooks.id IS 'UUIDv7; lists are in its order.';
COMMENT ON COLUMN webhooks.account_id IS 'Whose.';
COMMENT ON COLUMN webhooks.url_sealed IS 'Where to. AES-256-GCM under a key derived from the master key, bound to the id: such URLs often hold a secret.';
COMMENT ON COLUMN webhooks.event_types IS 'What is sent: types (download.completed) and areas (download.*); empty for every event of the account.';
COMMENT ON COLUMN webhooks.description IS 'What its owner wrote about it.';
COMMENT ON COLUMN webhooks.status IS 'enabled or disabled.';
COMMENT ON COLUMN webhooks.disabled_reason IS 'owner (asked for it), gone (the receiver answered 410) or failing (nothing but failures for days).';
COMMENT ON COLUMN webhooks.disabled_at IS 'When it was disabled.';
COMMENT ON COLUMN webhooks.enabled_at IS 'When it was made or last enabled: events before that are not sent.';
COMMENT ON COLUMN webhooks.secret_sealed IS 'The 32 bytes that messages are signed with, encrypted as the URL is.';
COMMENT ON COLUMN webhooks.old_secret_sealed IS 'Those before the last rotation.';
COMMENT ON COLUMN webhooks.old_secret_until IS 'Until when messages are signed with those as well.';
COMMENT ON COLUMN webhooks.failing_since IS 'When the first of the tries failed that have all failed since; NULL after one that did not.';
COMMENT ON COLUMN webhooks.last_success_at IS 'When a message last was received, to the minute.';
COMMENT ON COLUMN webhooks.paused_until IS 'The receiver asked to be left alone until then; an alarm takes this away again.';
COMMENT ON COLUMN webhooks.created_at IS 'When it was made.';
COMMENT ON COLUMN webhooks.updated_at IS 'When its owner last changed it.';
COMMENT ON COLUMN webhooks.deleted_at IS 'When its owner took it away: from then on nobody sees it, and a sweep deletes it with its deliveries.';
CREATE INDEX webhooks_of_account ON webhooks (account_id, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX webhooks_deleted ON webhooks (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE webhook_deliveries (
    id              uuid        PRIMARY KEY,
    webhook_id      uuid        NOT NULL REFERENCES webhooks (id),
    event_id        uuid,
    event_type      text        NOT NULL,
    body            text        NOT NULL,
    status          text        NOT NULL CONSTRAINT webhook_deliveries_status_known
                                CHECK (status IN ('waiting', 'queued', 'sending', 'succeeded', 'failed')),
    attempt         integer     NOT NULL DEFAULT 0,
    attempts_made   integer     NOT NULL DEFAULT 0,
    lost            integer     NOT NULL DEFAULT 0,
    queued_at       timestamptz NOT NULL DEFAULT now(),
    next_attempt_at timestamptz,
    worker          uuid,
    fence           bigint      NOT NULL DEFAULT 0,
    lease_until     timestamptz,
    response_status integer,
    error_code      text,
    error_detail    text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    CONSTRAINT webhook_deliveries_one_of_event UNIQUE (event_id, webhook_id),
    CONSTRAINT webhook_deliveries_waiting_has_time CHECK ((status = 'waiting') = (next_attempt_at IS NOT NULL)),
    CONSTRAINT webhook_deliveries_sending_has_lease CHECK ((status = 'sending') = (worker IS NOT NULL AND lease_until IS NOT NULL)),
    CONSTRAINT webhook_deliveries_ended_has_time CHECK ((status IN ('succeeded', 'failed')) = (finished_at IS NOT NULL))
);
COMMENT ON TABLE  webhook_deliveries IS 'Messages, each for one webhook. The rows are the queue.';
COMMENT ON COLUMN webhook_deliveries.id IS 'UUIDv7; lists are in its order, and it is the header webhook-id of every try.';
COMMENT ON COLUMN webhook_deliveries.webhook_id IS 'For which webhook.';
COMMENT ON COLUMN webhook_deliveries.event_id IS 'The event that it tells of; NULL for a test.';
COMMENT ON COLUMN webhook_deliveries.event_type IS 'The type of that event, or webhook.test.';
COMMENT ON COLUMN webhook_deliveries.body IS 'The body, written once: every try sends and signs exactly these bytes.';
COMMENT ON COLUMN webhook_deliveries.status IS 'waiting (for its alarm), queued (for a slot), sending, succeeded or failed.';
COMMENT ON COLUMN webhook_deliveries.attempt IS 'Tries since it was made or last sent again by hand: its place in the schedule.';
COMMENT ON COLUMN webhook_deliveries.attempts_made IS 'All tries.';
COMMENT ON COLUMN webhook_deliveries.lost IS 'Workers in a row that were lost while they sent it.';
COMMENT ON COLUMN webhook_deliveries.queued_at IS 'Since when it waits for a slot.';
COMMENT ON COLUMN webhook_deliveries.next_attempt_at IS 'When its alarm is due.';
COMMENT ON COLUMN webhook_deliveries.worker IS 'The node that sends it.';
COMMENT ON COLUMN webhook_deliveries.fence IS 'Grows with every claim; what a worker writes names the one it got.';
COMMENT ON COLUMN webhook_deliveries.lease_until IS 'When its worker counts as lost.';
COMMENT ON COLUMN webhook_deliveries.response_status IS 'What the receiver answered last, if it did.';
COMMENT ON COLUMN webhook_deliveries.error_code IS 'Why the last try failed or no other is made, for programs.';
COMMENT ON COLUMN webhook_deliveries.error_detail IS 'The same, for people.';
COMMENT ON COLUMN webhook_deliveries.created_at IS 'When it was made.';
COMMENT ON COLUMN webhook_deliveries.finished_at IS 'When it succeeded or was given up.';
CREATE INDEX webhook_deliveries_of_webhook ON webhook_deliveries (webhook_id, id DESC);
CREATE INDEX webhook_deliveries_queued ON webhook_deliveries (webhook_id, queued_at, id) WHERE status = 'queued';
CREATE INDEX webhook_deliveries_sending ON webhook_deliveries (webhook_id, lease_until) WHERE status = 'sending';
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (webhook_id) WHERE status IN ('waiting', 'queued', 'sending');
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE webhook_attempts (
    delivery_id     uuid        NOT NULL REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
    number          integer     NOT NULL,
    started_at      timestamptz NOT NULL,
    duration_ms     integer     NOT NULL,
    response_status integer,
    response_body   bytea       CONSTRAINT webhook_attempts_body_short CHECK (octet_length(response_body) <= 1024),
    error_code      text,
    error_detail    text,
    PRIMARY KEY (delivery_id, number)
);
COMMENT ON TABLE  webhook_attempts IS 'Tries to hand a message over; of each message the last twenty.';
COMMENT ON COLUMN webhook_attempts.delivery_id IS 'Which message.';
COMMENT ON COLUMN webhook_attempts.number IS '1 for the first.';
COMMENT ON COLUMN webhook_attempts.started_at IS 'When it began.';
COMMENT ON COLUMN webhook_attempts.duration_ms IS 'Milliseconds that it took.';
COMMENT ON COLUMN webhook_attempts.response_status IS 'What the receiver answered, if it did.';
COMMENT ON COLUMN webhook_attempts.response_body IS 'The first 1024 bytes of its answer, as they came.';
COMMENT ON COLUMN webhook_attempts.error_code IS 'Why it failed, for programs; NULL when it did not.';
COMMENT ON COLUMN webhook_attempts.error_detail IS 'The same, for people.';
