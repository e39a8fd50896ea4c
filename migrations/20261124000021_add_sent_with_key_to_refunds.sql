-- Whether what may have been sent had its idempotency key with it: only then may it be sent again with that key.
-- Attempts from before this column are looked up, never resent.
ALTER TABLE refunds ADD COLUMN sent_with_key TINYINT(1) NOT NULL DEFAULT 0
