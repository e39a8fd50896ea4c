-- Live relays, also those that own nothing yet: the denominator of the fair share.
CREATE TABLE outbox_relay (
  id      VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  seen_at DATETIME(6) NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
