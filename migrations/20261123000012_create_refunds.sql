-- One row per attempt to pay a return back; it drives everything that follows the claim.
CREATE TABLE refunds (
  return_id       BIGINT        NOT NULL,
  attempt         INT           NOT NULL,
  idempotency_key VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  amount          DECIMAL(19,4) NOT NULL,
  currency        CHAR(3)       CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  state           VARCHAR(16)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  owner           BINARY(16)    NULL,
  call_deadline   DATETIME(6)   NULL,
  first_sent_at   DATETIME(6)   NULL,
  next_check_at   DATETIME(6)   NOT NULL,
  checks          INT           NOT NULL DEFAULT 0,
  gateway         VARCHAR(32)   CHARACTER SET ascii COLLATE ascii_bin NULL,
  gateway_ref     VARCHAR(128)  CHARACTER SET ascii COLLATE ascii_bin NULL,
  last_error      VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL,
  created_at      DATETIME(6)   NOT NULL,
  updated_at      DATETIME(6)   NOT NULL,
  PRIMARY KEY (return_id, attempt),
  UNIQUE KEY idempotency_key (idempotency_key),
  KEY due (state, next_check_at),
  CONSTRAINT refunds_return FOREIGN KEY (return_id) REFERENCES returns (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
