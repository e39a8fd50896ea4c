-- Who may publish a shard, and until when by the database's clock. `epoch` rises with every change of owner.
CREATE TABLE outbox_lease (
  shard       TINYINT UNSIGNED NOT NULL PRIMARY KEY,
  owner       VARCHAR(64)      CHARACTER SET ascii COLLATE ascii_bin NULL,
  epoch       BIGINT           NOT NULL DEFAULT 0,
  lease_until DATETIME(6)      NOT NULL,
  redrive_gen BIGINT           NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
