-- Set while an operator holds the shard back: its owner flushes and gives it up, and nobody takes it.
ALTER TABLE outbox_lease ADD COLUMN paused_at DATETIME(6) NULL
