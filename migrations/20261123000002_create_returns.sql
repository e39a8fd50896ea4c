-- One row per return. `version` is the seq of its last event; only `shared::transition` writes here.
-- `open_order_id` makes "one open return per order" a fact of the index, not of a query.
CREATE TABLE returns (
  id              BIGINT        NOT NULL AUTO_INCREMENT PRIMARY KEY,
  order_id        BIGINT        NOT NULL,
  customer_id     BIGINT        NOT NULL,
  reason          TEXT          NOT NULL,
  reason_code     VARCHAR(32)   CHARACTER SET ascii COLLATE ascii_bin NULL,
  status          VARCHAR(20)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'initiated',
  version         INT           NOT NULL,
  review_required TINYINT(1)    NOT NULL DEFAULT 0,
  policy_version  VARCHAR(32)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  refund_amount   DECIMAL(19,4) NOT NULL,
  currency        CHAR(3)       CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  created_at      DATETIME(6)   NOT NULL,
  updated_at      DATETIME(6)   NOT NULL,
  open_order_id   BIGINT        GENERATED ALWAYS AS
    (IF(status IN ('initiated', 'approved', 'refund_pending', 'refund_failed'), order_id, NULL)) VIRTUAL,
  UNIQUE KEY one_open_return_per_order (open_order_id),
  KEY order_id (order_id, id),
  KEY customer (customer_id, id),
  KEY status_updated (status, updated_at, id),
  KEY created (created_at, id),
  KEY status_created (status, created_at, id),
  CONSTRAINT returns_order FOREIGN KEY (order_id) REFERENCES orders (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
