-- Up to where the database was last seen to stream what the rules watch; 0: not kept yet.
ALTER TABLE sources ADD COLUMN verified INTEGER NOT NULL DEFAULT 0;
-- What tells the table of a gap from another one of its name; 0: nobody knows.
ALTER TABLE gaps ADD COLUMN table_oid INTEGER NOT NULL DEFAULT 0;
-- The operations that its rule was on, as a JSON list; NULL: of all rules, or this was before it was kept.
ALTER TABLE gaps ADD COLUMN ops TEXT;
-- The command that mends a gap names it, and is made of what else is known of it.
ALTER TABLE gaps DROP COLUMN mend;
