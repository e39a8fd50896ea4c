-- When an open attempt would be looked up, had no notification of the provider brought that forward. A look-up before this time
-- counts for nothing, and the planned one follows. NULL for all others.
ALTER TABLE refunds ADD COLUMN planned_check_at DATETIME(6) NULL, ALGORITHM = INSTANT
