-- The scan for new returns and the gauge of the oldest one walk past none that wait for a person's review. The name stays:
-- programs of before force this index by its name, and still may.
ALTER TABLE returns
  DROP KEY status_updated,
  ADD KEY status_updated (status, review_required, updated_at, id),
  ALGORITHM = INPLACE, LOCK = NONE
