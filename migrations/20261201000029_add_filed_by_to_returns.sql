-- The admin who filed the return for its customer; NULL if the customer did. This admin decides nothing about the return.
-- Programs of before leave it NULL, which is right: with them no admin could file.
ALTER TABLE returns
  ADD COLUMN filed_by BIGINT NULL,
  ALGORITHM = INSTANT
