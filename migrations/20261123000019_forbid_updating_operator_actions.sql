CREATE TRIGGER operator_actions_no_update BEFORE UPDATE ON operator_actions
FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'operator_actions is append-only'
