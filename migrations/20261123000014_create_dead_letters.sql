-- Kafka records that could not be read, byte for byte, with the reason. `record_time` is Kafka's, in ms.
CREATE TABLE dead_letters (
  id           BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
  topic        VARCHAR(249) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  partition_id INT          NOT NULL,
  offset_id    BIGINT       NOT NULL,
  record_time  BIGINT       NOT NULL,
  msg_key      MEDIUMBLOB   NULL,
  payload      MEDIUMBLOB   NULL,
  headers      MEDIUMBLOB   NOT NULL,
  reason       VARCHAR(255) NOT NULL,
  received_at  DATETIME(6)  NOT NULL,
  UNIQUE KEY record (topic, partition_id, offset_id, record_time)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
