-- Pages of the operators' actions come newest first under each filter; the few about one return are sorted.
ALTER TABLE operator_actions
  ADD KEY created (created_at, id),
  ADD KEY actor_created (actor_id, created_at, id),
  ADD KEY verb_created (verb, created_at, id),
  ALGORITHM = INPLACE, LOCK = NONE
