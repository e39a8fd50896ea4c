-- Bearer tokens that must no longer be honored although they have not expired.
CREATE TABLE revoked_tokens (
  kind       VARCHAR(32)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  token      VARCHAR(191) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  revoked_at DATETIME(6)  NOT NULL,
  expires_at DATETIME(6)  NULL,
  revoked_by VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  reason     TEXT         NOT NULL,
  PRIMARY KEY (kind, token),
  KEY expires_at (expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
