-- Event ids a consumer has taken. Kept longer than the topic keeps its records.
CREATE TABLE inbox (
  consumer    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  event_id    BINARY(16)  NOT NULL,
  received_at DATETIME(6) NOT NULL,
  PRIMARY KEY (consumer, event_id),
  KEY received_at (received_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
