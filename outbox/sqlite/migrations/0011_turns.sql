-- Rules take turns, so what is due is looked up by rule. A message has that of its match. OR ROLLBACK: an error ends the migration
-- anyway, and SQLite need not keep in memory what each row was.
ALTER TABLE messages ADD COLUMN rule INTEGER NOT NULL DEFAULT 0;
UPDATE OR ROLLBACK messages SET rule = (SELECT x.rule FROM matches x WHERE x.id = match);
DROP INDEX matches_due;
CREATE INDEX matches_due ON matches (priority, rule, due, tx) WHERE state = 0;
DROP INDEX messages_due;
CREATE INDEX messages_due ON messages (priority, rule, due, match) WHERE state = 0;
