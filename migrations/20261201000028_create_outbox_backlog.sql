-- One row: what waits in the outbox, counted by one api for all of them. `measurer` counts and may go on until
-- `measuring_until`; after that any api may take over. `counted_*` is what a count that has not ended has found so far.
-- A measurement is as of `measured_at`, when it began. All times are the database's.
CREATE TABLE outbox_backlog (
  id              TINYINT UNSIGNED NOT NULL PRIMARY KEY,
  measurer        BINARY(16)       NULL,
  measuring_until DATETIME(6)      NOT NULL,
  next_at         DATETIME(6)      NOT NULL,
  counted_rows    BIGINT UNSIGNED  NULL,
  counted_bytes   BIGINT UNSIGNED  NULL,
  measured_at     DATETIME(6)      NULL,
  took_us         BIGINT UNSIGNED  NOT NULL DEFAULT 0,
  row_count       BIGINT UNSIGNED  NOT NULL DEFAULT 0,
  payload_bytes   BIGINT UNSIGNED  NOT NULL DEFAULT 0,
  oldest_at       DATETIME(6)      NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
