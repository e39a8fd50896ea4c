CREATE TRIGGER return_events_no_update BEFORE UPDATE ON return_events
FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'return_events is append-only'
