-- What happened, what is to be told of it, what was heard already, and what was asked already.

-- Facts are written once and never changed, so a day of them can be dropped as a whole.
CREATE TABLE events (
    recorded_at     timestamptz NOT NULL,
    id              uuid        NOT NULL,
    event_type      text        NOT NULL,
    account_id      uuid,
    entity_id       uuid        NOT NULL,
    entity_sequence bigint      NOT NULL,
    data            jsonb       NOT NULL,
    traceparent     text,
    PRIMARY KEY (recorded_at, id)
) PARTITION BY RANGE (recorded_at);
COMMENT ON TABLE  events IS 'Facts, by day. Kept longer than the stream keeps them, so that the stream can be made again.';
COMMENT ON COLUMN events.recorded_at IS 'When it happened, by the database; later than any earlier event of the same thing.';
COMMENT ON COLUMN events.id IS 'UUIDv7; `ce-id` and `Nats-Msg-Id`.';
COMMENT ON COLUMN events.event_type IS 'What happened: download.completed.';
COMMENT ON COLUMN events.account_id IS 'Whose; NULL when no account is concerned.';
COMMENT ON COLUMN events.entity_id IS 'The thing that it happened to.';
COMMENT ON COLUMN events.entity_sequence IS 'Its place in the life of that thing: 1, 2, 3 …';
COMMENT ON COLUMN events.data IS 'The body, as its type says.';
COMMENT ON COLUMN events.traceparent IS 'Trace that it belongs to (W3C Trace Context).';
CREATE INDEX events_of_entity ON events (entity_id, entity_sequence);
-- The outbox makes a partition for each day ahead of time. What comes in on a day without one is not lost, it lies here.
CREATE TABLE events_default PARTITION OF events DEFAULT;
COMMENT ON TABLE events_default IS 'Events of days that had no partition when they happened.';

CREATE TABLE event_sequences (
    entity_id        uuid        PRIMARY KEY,
    last_sequence    bigint      NOT NULL,
    last_recorded_at timestamptz NOT NULL
);
COMMENT ON TABLE  event_sequences IS 'How many events a thing has had. Its row is locked by whoever writes the next, so the order of the sequence is the order of the commits.';
COMMENT ON COLUMN event_sequences.entity_id IS 'The thing.';
COMMENT ON COLUMN event_sequences.last_sequence IS 'Sequence of its last event.';
COMMENT ON COLUMN event_sequences.last_recorded_at IS 'Time of its last event.';

-- The rows are the queue: written with the event, deleted when JetStream has acknowledged it. A table of its own, because
-- it stays small whatever the events grow to, and because facts that never change need no second version of their row.
CREATE TABLE outbox (
    event_id    uuid        PRIMARY KEY,
    recorded_at timestamptz NOT NULL,
    shard       smallint    NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE  outbox IS 'Events that are not published yet.';
COMMENT ON COLUMN outbox.event_id IS 'The event.';
COMMENT ON COLUMN outbox.recorded_at IS 'Its time, which is part of its key and the order of publishing.';
COMMENT ON COLUMN outbox.shard IS 'From the thing that it happened to: one relay at a time works on a shard, so the order within a thing holds.';
CREATE INDEX outbox_in_order ON outbox (shard, recorded_at);

CREATE TABLE stream_marks (
    stream            text        PRIMARY KEY,
    stream_created_at timestamptz NOT NULL,
    last_sequence     bigint      NOT NULL,
    checked_at        timestamptz NOT NULL
);
COMMENT ON TABLE  stream_marks IS 'What a stream looked like when it was last seen, to notice that it was lost and made again.';
COMMENT ON COLUMN stream_marks.stream IS 'Its name.';
COMMENT ON COLUMN stream_marks.stream_created_at IS 'When JetStream made it.';
COMMENT ON COLUMN stream_marks.last_sequence IS 'Sequence of its last message.';
COMMENT ON COLUMN stream_marks.checked_at IS 'When that was seen.';

CREATE TABLE processed_events (
    consumer     text        NOT NULL,
    event_id     uuid        NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
COMMENT ON TABLE  processed_events IS 'Events whose effect is done, written in the transaction of the effect; a second delivery finds its row and does nothing.';
COMMENT ON COLUMN processed_events.consumer IS 'Whose effect.';
COMMENT ON COLUMN processed_events.event_id IS 'Of which event.';
COMMENT ON COLUMN processed_events.processed_at IS 'When; rows go when no replay can reach back to them.';
CREATE INDEX processed_events_by_age ON processed_events (processed_at);

CREATE TABLE dead_letters (
    id          uuid        PRIMARY KEY,
    consumer    text        NOT NULL,
    subject     text        NOT NULL,
    headers     jsonb       NOT NULL,
    payload     bytea       NOT NULL,
    reason      text        NOT NULL,
    refused_at  timestamptz NOT NULL DEFAULT now(),
    replayed_at timestamptz
);
COMMENT ON TABLE  dead_letters IS 'Messages that were refused, for an operator to look at, send again or delete.';
COMMENT ON COLUMN dead_letters.id IS 'UUIDv7.';
COMMENT ON COLUMN dead_letters.consumer IS 'Who refused it.';
COMMENT ON COLUMN dead_letters.subject IS 'Where it was sent to.';
COMMENT ON COLUMN dead_letters.headers IS 'Its headers, without credentials.';
COMMENT ON COLUMN dead_letters.payload IS 'Its body.';
COMMENT ON COLUMN dead_letters.reason IS 'Why it was refused: a sentence.';
COMMENT ON COLUMN dead_letters.refused_at IS 'When.';
COMMENT ON COLUMN dead_letters.replayed_at IS 'When it was sent again; NULL if it was not.';
CREATE INDEX dead_letters_by_age ON dead_letters (refused_at);

CREATE TABLE idempotency_keys (
    scope        uuid        NOT NULL,
    operation    text        NOT NULL,
    key          text        NOT NULL CONSTRAINT idempotency_keys_key_length CHECK (octet_length(key) BETWEEN 1 AND 255),
    fingerprint  text        NOT NULL,
    reply        text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, operation, key)
);
COMMENT ON TABLE  idempotency_keys IS 'Requests that were done, with their answers: the same key again gets the same answer. Written in the transaction of the work.';
COMMENT ON COLUMN idempotency_keys.scope IS 'Account that asked; the nil UUID for strangers.';
COMMENT ON COLUMN idempotency_keys.operation IS 'What was asked: download.create.';
COMMENT ON COLUMN idempotency_keys.key IS 'The key, as the caller chose it.';
COMMENT ON COLUMN idempotency_keys.fingerprint IS 'Digest of operation and body: another body under the same key is refused.';
COMMENT ON COLUMN idempotency_keys.reply IS 'The answer, as JSON text. NULL only inside the transaction that does the work.';
COMMENT ON COLUMN idempotency_keys.created_at IS 'When; rows go after a day.';
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
