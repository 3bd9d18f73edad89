-- What accounts are told, where, and when they want to be left alone; and the e-mails that go out for it.

CREATE TABLE notification_settings (
    account_id  uuid        PRIMARY KEY REFERENCES accounts (id),
    events      jsonb       NOT NULL CONSTRAINT notification_settings_events_object CHECK (jsonb_typeof(events) = 'object'),
    email       boolean     NOT NULL DEFAULT true,
    quiet_hours jsonb       CONSTRAINT notification_settings_quiet_hours_object CHECK (jsonb_typeof(quiet_hours) = 'object'),
    digest      jsonb       CONSTRAINT notification_settings_digest_object CHECK (jsonb_typeof(digest) = 'object'),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  notification_settings IS 'What an account is told, and how. An account without a row has the defaults of the running version.';
COMMENT ON COLUMN notification_settings.account_id IS 'Whose.';
COMMENT ON COLUMN notification_settings.events IS 'Channels by type of event: {"download.completed": ["inbox", "email"]}. What is not named is not told.';
COMMENT ON COLUMN notification_settings.email IS 'Whether e-mail is wanted at all; the link in each e-mail turns it off.';
COMMENT ON COLUMN notification_settings.quiet_hours IS 'When no e-mail is sent: {"from": "22:00", "until": "07:00", "time_zone": "Europe/Berlin"}; NULL for never.';
COMMENT ON COLUMN notification_settings.digest IS 'When gathered e-mails are sent: {"at": "08:00", "weekdays": ["monday"], "time_zone": "Europe/Berlin"}; NULL for one e-mail each.';
COMMENT ON COLUMN notification_settings.updated_at IS 'When they were last changed.';

CREATE TABLE notifications (
    id          uuid        PRIMARY KEY,
    account_id  uuid        NOT NULL REFERENCES accounts (id),
    event_id    uuid        NOT NULL,
    event_type  text        NOT NULL,
    entity_id   uuid        NOT NULL,
    title       text        NOT NULL CONSTRAINT notifications_title_length CHECK (char_length(title) BETWEEN 1 AND 300),
    body        text        CONSTRAINT notifications_body_length CHECK (char_length(body) BETWEEN 1 AND 4000),
    in_inbox    boolean     NOT NULL,
    email_id    uuid,
    occurred_at timestamptz NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    read_at     timestamptz
);
COMMENT ON TABLE  notifications IS 'What accounts were told. Kept for a time, and only the newest of each account.';
COMMENT ON COLUMN notifications.id IS 'UUIDv7; lists are in its order.';
COMMENT ON COLUMN notifications.account_id IS 'Whose.';
COMMENT ON COLUMN notifications.event_id IS 'The event that it tells of.';
COMMENT ON COLUMN notifications.event_type IS 'What happened: download.completed.';
COMMENT ON COLUMN notifications.entity_id IS 'The thing that it happened to.';
COMMENT ON COLUMN notifications.title IS 'One line, for people.';
COMMENT ON COLUMN notifications.body IS 'More of it, if there is more.';
COMMENT ON COLUMN notifications.in_inbox IS 'Whether its owner sees it in the list; false for what was only sent by e-mail.';
COMMENT ON COLUMN notifications.email_id IS 'The e-mail that it is in, if any. No foreign key: e-mails go earlier.';
COMMENT ON COLUMN notifications.occurred_at IS 'When the event happened.';
COMMENT ON COLUMN notifications.created_at IS 'When it was told.';
COMMENT ON COLUMN notifications.read_at IS 'When its owner read it; NULL until then.';
CREATE INDEX notifications_inbox ON notifications (account_id, id DESC) WHERE in_inbox;
CREATE INDEX notifications_unread ON notifications (account_id, id DESC) WHERE in_inbox AND read_at IS NULL;
CREATE INDEX notifications_of_account ON notifications (account_id, id DESC);
CREATE INDEX notifications_of_email ON notifications (email_id, id) WHERE email_id IS NOT NULL;
CREATE INDEX notifications_by_age ON notifications (created_at);

-- The rows are the queue. One row is one e-mail, however many notifications are in it.
CREATE TABLE emails (
    id          uuid        PRIMARY KEY,
    account_id  uuid        NOT NULL REFERENCES accounts (id),
    kind        text        NOT NULL CONSTRAINT emails_kind_known CHECK (kind IN ('notifications', 'verification')),
    address     text        CONSTRAINT emails_address_length CHECK (octet_length(address) <= 254),
    status      text        NOT NULL CONSTRAINT emails_status_known CHECK (status IN ('gathering', 'due', 'sending', 'waiting', 'sent', 'failed')),
    attempt     integer     NOT NULL DEFAULT 0,
    lease_until timestamptz,
    last_error  text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    due_at      timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT emails_sending_has_lease CHECK ((status = 'sending') = (lease_until IS NOT NULL)),
    CONSTRAINT emails_finished_has_time CHECK ((status IN ('sent', 'failed')) = (finished_at IS NOT NULL)),
    CONSTRAINT emails_verification_has_address CHECK ((kind = 'verification') = (address IS NOT NULL))
);
COMMENT ON TABLE  emails IS 'E-mails that are to be sent, or were.';
COMMENT ON COLUMN emails.id IS 'UUIDv7; also in its Message-ID, so that one that went out twice is seen to be the same.';
COMMENT ON COLUMN emails.account_id IS 'To whom.';
COMMENT ON COLUMN emails.kind IS 'notifications or verification.';
COMMENT ON COLUMN emails.address IS 'Where a verification goes. Notifications go to the address that the account has verified when they are sent.';
COMMENT ON COLUMN emails.status IS 'gathering (more may be added until its alarm), due, sending, waiting (tried, until its alarm), sent or failed.';
COMMENT ON COLUMN emails.attempt IS 'Tries so far.';
COMMENT ON COLUMN emails.lease_until IS 'When the process that sends it counts as lost.';
COMMENT ON COLUMN emails.last_error IS 'Why the last try failed.';
COMMENT ON COLUMN emails.created_at IS 'When it was begun.';
COMMENT ON COLUMN emails.due_at IS 'When it is, or was, to be sent.';
COMMENT ON COLUMN emails.finished_at IS 'When it was sent or given up.';
CREATE UNIQUE INDEX emails_gathering ON emails (account_id) WHERE status = 'gathering';
CREATE INDEX emails_due ON emails (due_at, id) WHERE status = 'due';
CREATE INDEX emails_sending ON emails (lease_until) WHERE status = 'sending';
CREATE INDEX emails_of_account ON emails (account_id, created_at);
CREATE INDEX emails_verifications ON emails (address, created_at) WHERE kind = 'verification';
CREATE INDEX emails_finished ON emails (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE email_verifications (
    account_id   uuid        PRIMARY KEY REFERENCES accounts (id),
    email_id     uuid        NOT NULL,
    address      text        NOT NULL CONSTRAINT email_verifications_address_length CHECK (octet_length(address) <= 254),
    token_hash   bytea       NOT NULL CONSTRAINT email_verifications_hash_length CHECK (octet_length(token_hash) = 32),
    requested_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz
);
COMMENT ON TABLE  email_verifications IS 'The newest proof that was asked of an account that it reads its address; a new one voids the one before.';
COMMENT ON COLUMN email_verifications.account_id IS 'Whose.';
COMMENT ON COLUMN email_verifications.email_id IS 'The e-mail that carries the token.';
COMMENT ON COLUMN email_verifications.address IS 'The address that it proves, and no other.';
COMMENT ON COLUMN email_verifications.token_hash IS 'SHA-256 of the token, which is 256 bits that only the master key can make.';
COMMENT ON COLUMN email_verifications.requested_at IS 'When it was asked for.';
COMMENT ON COLUMN email_verifications.expires_at IS 'Until when it is good.';
COMMENT ON COLUMN email_verifications.used_at IS 'When it was used; it is good once.';
CREATE UNIQUE INDEX email_verifications_by_token ON email_verifications (token_hash);
