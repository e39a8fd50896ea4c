-- With `trace_id`: the trace context of the change. Work that no message and no request starts goes on under it, and
-- keeps its decision whether spans are recorded. NULL in rows from before. Not hashed: it proves nothing.
ALTER TABLE return_events
  ADD COLUMN span_id     CHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
  ADD COLUMN trace_flags TINYINT UNSIGNED NULL,
  ALGORITHM = INSTANT
