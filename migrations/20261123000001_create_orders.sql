-- Our copy of what returns need to know of the shop's orders; the shop owns them.
CREATE TABLE orders (
  id              BIGINT        NOT NULL PRIMARY KEY,
  customer_id     BIGINT        NOT NULL,
  total           DECIMAL(19,4) NOT NULL,
  currency        CHAR(3)       CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  status          VARCHAR(20)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  delivered_at    DATETIME(6)   NULL,
  refunded_amount DECIMAL(19,4) NOT NULL DEFAULT 0,
  KEY customer (customer_id, id),
  CONSTRAINT orders_refunded_within_total CHECK (refunded_amount >= 0 AND refunded_amount <= total)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
