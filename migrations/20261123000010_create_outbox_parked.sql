-- Records that cannot be sent and, while they wait, the later records of the same order.
CREATE TABLE outbox_parked (
  shard        TINYINT UNSIGNED NOT NULL,
  id           BIGINT           NOT NULL,
  event_id     BINARY(16)       NOT NULL,
  aggregate_id BIGINT           NOT NULL,
  seq          INT              NOT NULL,
  event_type   VARCHAR(64)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  topic        VARCHAR(249)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  msg_key      VARCHAR(64)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  payload      MEDIUMBLOB       NOT NULL,
  traceparent  VARCHAR(55)      CHARACTER SET ascii COLLATE ascii_bin NULL,
  tracestate   VARCHAR(512)     CHARACTER SET ascii COLLATE ascii_bin NULL,
  created_at   DATETIME(6)      NOT NULL,
  first_error  TEXT             NOT NULL,
  attempts     INT              NOT NULL,
  parked_at    DATETIME(6)      NOT NULL,
  PRIMARY KEY (shard, id),
  KEY msg_key (msg_key)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
