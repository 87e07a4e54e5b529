-- The table that its rule was on; empty: none, or this was before it was kept.
ALTER TABLE gaps ADD COLUMN on_table TEXT NOT NULL DEFAULT '';
-- What a replay that was broken off goes on with: with --again, what was sent once more before is sent yet again.
ALTER TABLE replays ADD COLUMN yet_again INTEGER NOT NULL DEFAULT 0;
