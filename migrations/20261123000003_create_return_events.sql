-- The audit trail: append-only, gap-free in seq, each row hashed over the one before it.
-- `event_data` is TEXT, not JSON, because the hash covers the stored bytes.
CREATE TABLE return_events (
  id         BIGINT      NOT NULL AUTO_INCREMENT PRIMARY KEY,
  return_id  BIGINT      NOT NULL,
  seq        INT         NOT NULL,
  event_id   BINARY(16)  NOT NULL,
  event_type VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  event_data TEXT        NOT NULL,
  actor_type VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  actor_id   VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  request_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
  trace_id   CHAR(32)    CHARACTER SET ascii COLLATE ascii_bin NULL,
  created_at DATETIME(6) NOT NULL,
  prev_hash  CHAR(64)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  hash       CHAR(64)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  UNIQUE KEY return_seq (return_id, seq),
  CONSTRAINT return_events_return FOREIGN KEY (return_id) REFERENCES returns (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
