-- What is to happen later: the one durable timer under everything that waits.

-- The row is the truth: whoever wants to be woken writes it in the transaction that decides it. Small rows, because there
-- are many of them, and they come and go: dead ones are cleared away early, as claiming reads the head of the index.
CREATE TABLE alarms (
    kind       text        NOT NULL CONSTRAINT alarms_kind_form CHECK (kind ~ '^[a-z_]{1,32}$'),
    subject_id uuid        NOT NULL,
    due_at     timestamptz NOT NULL,
    wake_at    timestamptz NOT NULL,
    version    bigint      NOT NULL DEFAULT 1,
    attempt    integer     NOT NULL DEFAULT 0,
    last_error text,
    refused_at timestamptz,
    PRIMARY KEY (kind, subject_id)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE  alarms IS 'Who is to be woken, and when. Deleted in the transaction of what the waking does.';
COMMENT ON COLUMN alarms.kind IS 'Whose: the area that is woken.';
COMMENT ON COLUMN alarms.subject_id IS 'What about. One alarm of a kind for each.';
COMMENT ON COLUMN alarms.due_at IS 'When, as it was asked for.';
COMMENT ON COLUMN alarms.wake_at IS 'When it is looked at next: due_at, or later after a failure.';
COMMENT ON COLUMN alarms.version IS 'How often it was armed since it last woke: 1, and one more each time it is moved.';
COMMENT ON COLUMN alarms.attempt IS 'Times that waking failed since it was armed.';
COMMENT ON COLUMN alarms.last_error IS 'Why it failed the last time.';
COMMENT ON COLUMN alarms.refused_at IS 'When it was given up, with a dead letter; it stays to be armed again. NULL while it is armed.';
-- Claiming and the time of the next are the first entries of a kind. By kind first: what this version does not know lies
-- in nobody's way.
CREATE INDEX alarms_due ON alarms (kind, wake_at) WHERE refused_at IS NULL;

CREATE TABLE alarm_buckets (
    fires_at timestamptz PRIMARY KEY,
    armed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  alarm_buckets IS 'Seconds for which JetStream holds a schedule. Lost rows and lost schedules are made again.';
COMMENT ON COLUMN alarm_buckets.fires_at IS 'A whole second: what is due up to then, after the second before.';
COMMENT ON COLUMN alarm_buckets.armed_at IS 'When JetStream acknowledged its schedule.';

-- What waits already.
INSERT INTO alarms (kind, subject_id, due_at, wake_at)
SELECT 'download', id, at, at
FROM downloads CROSS JOIN LATERAL (SELECT CASE WHEN status = 'scheduled' THEN start_at ELSE not_before END) AS t (at)
WHERE status IN ('scheduled', 'queued') AND at IS NOT NULL;
