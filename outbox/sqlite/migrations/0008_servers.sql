-- The server that a source's checkpoint lies on, as it was last seen: see outbox.Server. 0 and empty: before this was kept.
ALTER TABLE sources ADD COLUMN timeline INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sources ADD COLUMN publications TEXT NOT NULL DEFAULT '';
ALTER TABLE sources ADD COLUMN restart INTEGER NOT NULL DEFAULT 0;
