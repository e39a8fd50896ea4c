-- Pages of a customer's returns come newest first: read in that order, a page costs the same however many there are. The
-- name stays; nothing forced this index before.
ALTER TABLE returns
  DROP KEY customer,
  ADD KEY customer (customer_id, created_at, id),
  ALGORITHM = INPLACE, LOCK = NONE
