-- The 201 answers of the last 24 hours, by who asked and under which Idempotency-Key.
CREATE TABLE idempotency (
  actor       VARCHAR(80)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  idem_key    VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  fingerprint BINARY(32)   NOT NULL,
  status      SMALLINT     NOT NULL,
  body        BLOB         NOT NULL,
  created_at  DATETIME(6)  NOT NULL,
  PRIMARY KEY (actor, idem_key),
  KEY created (created_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
