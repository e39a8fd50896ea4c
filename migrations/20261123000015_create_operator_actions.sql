-- What a person did to the pipeline, and why.
CREATE TABLE operator_actions (
  id         BIGINT      NOT NULL AUTO_INCREMENT PRIMARY KEY,
  actor_type VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  actor_id   VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  verb       VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  event_id   BINARY(16)  NULL,
  return_id  BIGINT      NULL,
  reason     TEXT        NOT NULL,
  created_at DATETIME(6) NOT NULL,
  KEY return_id (return_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
