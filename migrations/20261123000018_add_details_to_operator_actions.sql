-- `actor_id` is what the operator typed; `db_account` is whom MySQL let in (USER()), which nobody can type.
-- `details` names what was touched, so that a row that is gone can still be told.
ALTER TABLE operator_actions
  ADD COLUMN shard      TINYINT UNSIGNED NULL,
  ADD COLUMN db_account VARCHAR(288)     CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  ADD COLUMN details    JSON             NULL,
  ADD KEY event_id (event_id)
