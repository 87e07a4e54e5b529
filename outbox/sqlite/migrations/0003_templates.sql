-- Of which sources the mail was made: the hash that package templates gives. NULL: it was not made yet, or before this was kept.
ALTER TABLE messages ADD COLUMN template BLOB;

-- When the text first came with a match. NULL: before this was kept.
ALTER TABLE texts ADD COLUMN since INTEGER;
