-- What is to be told to an account at a time, or when something happens.

CREATE TABLE reminders (
    id                 uuid        PRIMARY KEY,
    account_id         uuid        NOT NULL REFERENCES accounts (id),
    title              text        NOT NULL CONSTRAINT reminders_title_length CHECK (char_length(title) BETWEEN 1 AND 200),
    note               text        CONSTRAINT reminders_note_length CHECK (char_length(note) <= 4000),
    channels           text[]      NOT NULL CONSTRAINT reminders_channels_known
                                   CHECK (channels <@ ARRAY['inbox', 'email', 'webhook'] AND cardinality(channels) BETWEEN 1 AND 3),
    about_kind         text        CONSTRAINT reminders_about_known CHECK (about_kind IN ('file', 'download')),
    about_id           uuid,

    due_at             timestamptz,
    start_local        timestamp,
    time_zone          text        CONSTRAINT reminders_time_zone_length CHECK (octet_length(time_zone) BETWEEN 1 AND 64),
    rrule              text        CONSTRAINT reminders_rrule_length CHECK (octet_length(rrule) BETWEEN 1 AND 500),
    exdates            text[]      NOT NULL DEFAULT '{}' CONSTRAINT reminders_exdates_number CHECK (cardinality(exdates) <= 200),
    last_local         timestamp,
    ends_at            timestamptz,

    on_event_type      text,
    on_event_id        uuid,
    on_event_after     bigint,
    unless_event_type  text,
    unless_event_id    uuid,
    unless_event_after bigint,

    status             text        NOT NULL CONSTRAINT reminders_status_known
                                   CHECK (status IN ('scheduled', 'fired', 'missed', 'completed', 'canceled')),
    next_fire_at       timestamptz,
    next_local         timestamp,
    snoozed_until      timestamptz,
    floor_at           timestamptz NOT NULL,
    handled_local      timestamp,
    zone_rules         text,
    last_fired_at      timestamptz,
    fired              bigint      NOT NULL DEFAULT 0,
    version            bigint      NOT NULL DEFAULT 1,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    ended_at           timestamptz,

    CONSTRAINT reminders_about_is_whole CHECK ((about_kind IS NULL) = (about_id IS NULL)),
    CONSTRAINT reminders_on_event_is_whole CHECK ((on_event_type IS NULL) = (on_event_id IS NULL)),
    CONSTRAINT reminders_unless_event_is_whole CHECK ((unless_event_type IS NULL) = (unless_event_id IS NULL)),
    CONSTRAINT reminders_local_has_zone CHECK (start_local IS NULL OR time_zone IS NOT NULL),
    CONSTRAINT reminders_rule_has_start CHECK (rrule IS NULL OR start_local IS NOT NULL),
    CONSTRAINT reminders_ended_has_time CHECK ((status = 'scheduled') = (ended_at IS NULL)),
    CONSTRAINT reminders_ended_waits_for_nothing CHECK (status = 'scheduled' OR (next_fire_at IS NULL AND on_event_after IS NULL)),
    CONSTRAINT reminders_scheduled_waits CHECK (status <> 'scheduled' OR next_fire_at IS NOT NULL OR on_event_after IS NOT NULL)
);
COMMENT ON TABLE  reminders IS 'What is to be told to an account at a time, once or again and again, or when something happens. The alarm of one that waits for a time is in alarms.';
COMMENT ON COLUMN reminders.id IS 'UUIDv7; lists are in its order.';
COMMENT ON COLUMN reminders.account_id IS 'Whose.';
COMMENT ON COLUMN reminders.title IS 'What to tell.';
COMMENT ON COLUMN reminders.note IS 'More about it.';
COMMENT ON COLUMN reminders.channels IS 'How to tell: inbox, email, webhook.';
COMMENT ON COLUMN reminders.about_kind IS 'Kind of the thing that it is about: file or download.';
COMMENT ON COLUMN reminders.about_id IS 'That thing, which may be gone by now.';
COMMENT ON COLUMN reminders.due_at IS 'The instant that it is for, if its owner gave one.';
COMMENT ON COLUMN reminders.start_local IS 'The local time that it is for, or that it repeats from: as its owner gave it, or due_at on the clocks of time_zone for one that repeats.';
COMMENT ON COLUMN reminders.time_zone IS 'IANA name of the zone whose clocks it follows.';
COMMENT ON COLUMN reminders.rrule IS 'How it repeats: RFC 5545, as its owner gave it.';
COMMENT ON COLUMN reminders.exdates IS 'Local days (2026-12-25) and times (2026-12-25T08:00:00) at which it does not.';
COMMENT ON COLUMN reminders.last_local IS 'Its last occurrence, if the rule has a COUNT: counted once instead of again and again.';
COMMENT ON COLUMN reminders.ends_at IS 'It does not repeat after this.';
COMMENT ON COLUMN reminders.on_event_type IS 'It fires when this happens.';
COMMENT ON COLUMN reminders.on_event_id IS 'What that must happen to.';
COMMENT ON COLUMN reminders.on_event_after IS 'Only events of that thing after this one count: its last when the reminder was made. NULL when the event is waited for no more.';
COMMENT ON COLUMN reminders.unless_event_type IS 'It is canceled when this happens first.';
COMMENT ON COLUMN reminders.unless_event_id IS 'What that must happen to.';
COMMENT ON COLUMN reminders.unless_event_after IS 'As on_event_after.';
COMMENT ON COLUMN reminders.status IS 'scheduled, fired, missed, completed or canceled.';
COMMENT ON COLUMN reminders.next_fire_at IS 'When it fires next, if time decides; always the due_at of its alarm.';
COMMENT ON COLUMN reminders.next_local IS 'Which occurrence that is; NULL for a snooze.';
COMMENT ON COLUMN reminders.snoozed_until IS 'Until when it was put off.';
COMMENT ON COLUMN reminders.floor_at IS 'Every occurrence up to this instant is dealt with.';
COMMENT ON COLUMN reminders.handled_local IS 'The last occurrence that was dealt with, by its local time: by this it is known when the rules of its zone change.';
COMMENT ON COLUMN reminders.zone_rules IS 'Version of the time zone rules by which next_fire_at was found (2026e); NULL where no zone matters.';
COMMENT ON COLUMN reminders.last_fired_at IS 'When it last fired.';
COMMENT ON COLUMN reminders.fired IS 'How often it has fired.';
COMMENT ON COLUMN reminders.version IS 'Grows with every change that its owner makes.';
COMMENT ON COLUMN reminders.created_at IS 'When it was made.';
COMMENT ON COLUMN reminders.updated_at IS 'When it was last changed, by whomever.';
COMMENT ON COLUMN reminders.ended_at IS 'When it ended; NULL while it is scheduled.';
-- Lists, newest first.
CREATE INDEX reminders_of_account ON reminders (account_id, id DESC);
-- How many an account has ahead.
CREATE INDEX reminders_ahead ON reminders (account_id) WHERE status = 'scheduled';
-- Who waits for an event of a thing.
CREATE INDEX reminders_on_event ON reminders (on_event_id) WHERE on_event_after IS NOT NULL;
CREATE INDEX reminders_unless_event ON reminders (unless_event_id) WHERE status = 'scheduled' AND unless_event_after IS NOT NULL;
-- What later time zone rules may move.
CREATE INDEX reminders_by_zone_rules ON reminders (zone_rules, id) WHERE status = 'scheduled' AND zone_rules IS NOT NULL;
CREATE INDEX reminders_ended ON reminders (ended_at) WHERE ended_at IS NOT NULL;
