-- When the provider first reported the attempt as paid, and when it is asked again whether the payment still stands.
-- `recheck_at` is NULL for attempts that are not looked at again: those that did not pay, that people marked as paid, that
-- were paid more than 30 days ago, or before this column.
ALTER TABLE refunds ADD COLUMN succeeded_at DATETIME(6) NULL, ADD COLUMN recheck_at DATETIME(6) NULL, ALGORITHM = INSTANT
