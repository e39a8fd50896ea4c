-- What the provider answers to an attempt that it refuses: how often, and its own words (status and codes, no free text).
-- `tries` counts the calls that were refused or not made, so that the pauses between them grow.
ALTER TABLE refunds
  ADD COLUMN tries INT NOT NULL DEFAULT 0,
  ADD COLUMN refusals INT NOT NULL DEFAULT 0,
  ADD COLUMN provider_answer VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NULL
