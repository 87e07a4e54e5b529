-- How many processes in a row have ended, or not come to an end yet, with the match or message in hand. Rows with one come
-- and go all the time and are in no index; those with more are few.
ALTER TABLE matches ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;
CREATE INDEX matches_begun ON matches (begun) WHERE begun > 1;
CREATE INDEX messages_begun ON messages (begun) WHERE begun > 1;

-- The rule could not be tried on the change. Of what failed before this was kept nobody knows: it is tried again, which gives
-- the verdict that it had.
ALTER TABLE matches ADD COLUMN undecided INTEGER NOT NULL DEFAULT 0;
UPDATE matches SET undecided = 1 WHERE state = 8;
