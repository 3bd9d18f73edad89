-- Indexes for what was read whole, and when a receiver failed last.

-- A day that is counted anew is cleared first, of all accounts.
CREATE INDEX statistics_by_day ON statistics (day);
-- Deliveries that failed are what owners look for; most succeed.
CREATE INDEX webhook_deliveries_failed ON webhook_deliveries (webhook_id, id DESC) WHERE status = 'failed';

ALTER TABLE webhooks ADD COLUMN last_failure_at timestamptz;
COMMENT ON COLUMN webhooks.last_failure_at IS 'When a try last failed, to the minute. After a day without any, failing_since begins anew.';
