-- Inserted by writers, deleted by the relay, never updated. No status, attempts or unique event id:
-- every other state has a side table, so that this one stays small and quick.
-- KEY (id) is there because InnoDB wants the AUTO_INCREMENT column to lead an index.
CREATE TABLE outbox (
  shard        TINYINT UNSIGNED NOT NULL,
  id           BIGINT           NOT NULL AUTO_INCREMENT,
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
  PRIMARY KEY (shard, id),
  KEY id (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
