-- For auditors: every filter of GET /events walks one of these in the order of its pages, however large the table. The
-- actor's id leads its index because it says more than its type. What one return or order has is few enough to be sorted.
-- Together they cost a filing 9 to 14 us and 145 bytes (two cores, in memory, 64 rows a statement).
ALTER TABLE return_events
  ADD KEY created (created_at, id),
  ADD KEY type_created (event_type, created_at, id),
  ADD KEY actor_type_created (actor_type, created_at, id),
  ADD KEY actor_created (actor_id, created_at, id),
  ALGORITHM = INPLACE, LOCK = NONE
