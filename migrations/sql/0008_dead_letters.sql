-- Dead letters: where they came from, and where they lie in their stream. No version wrote any before this one.

ALTER TABLE dead_letters
    ADD COLUMN message_key     text        NOT NULL CONSTRAINT dead_letters_message_key UNIQUE,
    ADD COLUMN stream          text        NOT NULL,
    ADD COLUMN deliveries      bigint      NOT NULL,
    ADD COLUMN buried_sequence bigint      NOT NULL,
    ADD COLUMN buried_at       timestamptz NOT NULL;
COMMENT ON COLUMN dead_letters.message_key IS 'The same however often the same refusal is told, so that it is one row.';
COMMENT ON COLUMN dead_letters.stream IS 'The stream that it was taken from.';
COMMENT ON COLUMN dead_letters.headers IS 'Its headers without credentials, as pairs of name and value in their order.';
COMMENT ON COLUMN dead_letters.deliveries IS 'How often it had been delivered.';
COMMENT ON COLUMN dead_letters.buried_sequence IS 'Its sequence in the stream DEAD.';
COMMENT ON COLUMN dead_letters.buried_at IS 'When it was stored there: a stream that was wiped gives its sequences to others.';
COMMENT ON COLUMN dead_letters.replayed_at IS 'When it was last sent back to its consumer; NULL if it was not.';
CREATE INDEX dead_letters_waiting ON dead_letters (consumer) WHERE replayed_at IS NULL;
