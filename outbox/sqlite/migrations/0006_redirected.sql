-- Where the mail went instead of to its recipients, in mode redirect; empty: to them, or this was before it was kept.
ALTER TABLE attempts ADD COLUMN redirected TEXT NOT NULL DEFAULT '';
