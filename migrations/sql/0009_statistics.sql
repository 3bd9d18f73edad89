-- Statistics: every event counted once, by the day of UTC that it happened on.

CREATE TABLE statistics (
    account_id uuid   NOT NULL,
    day        date   NOT NULL,
    event_type text   NOT NULL,
    events     bigint NOT NULL,
    bytes      bigint NOT NULL,
    PRIMARY KEY (account_id, day, event_type)
);
COMMENT ON TABLE  statistics IS 'What happened to the things of each account, by day. Counted from events as they come, together with their rows in processed_events.';
COMMENT ON COLUMN statistics.account_id IS 'Whose.';
COMMENT ON COLUMN statistics.day IS 'The day of UTC that the events happened on.';
COMMENT ON COLUMN statistics.event_type IS 'What happened: download.completed.';
COMMENT ON COLUMN statistics.events IS 'How often.';
COMMENT ON COLUMN statistics.bytes IS 'Bytes that these events are about; 0 where none are.';

CREATE TABLE system_statistics (
    day        date   NOT NULL,
    event_type text   NOT NULL,
    events     bigint NOT NULL,
    bytes      bigint NOT NULL,
    PRIMARY KEY (day, event_type)
);
COMMENT ON TABLE  system_statistics IS 'The same of all accounts together, and of what concerns no account.';
COMMENT ON COLUMN system_statistics.day IS 'The day of UTC that the events happened on.';
COMMENT ON COLUMN system_statistics.event_type IS 'What happened: download.completed.';
COMMENT ON COLUMN system_statistics.events IS 'How often.';
COMMENT ON COLUMN system_statistics.bytes IS 'Bytes that these events are about; 0 where none are.';

CREATE TABLE statistics_closed_days (
    day       date        PRIMARY KEY,
    closed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  statistics_closed_days IS 'Days whose events were dropped. Their statistics are all that is left of them: counted once more before, and not touched since.';
COMMENT ON COLUMN statistics_closed_days.day IS 'The day.';
COMMENT ON COLUMN statistics_closed_days.closed_at IS 'When it was closed.';
