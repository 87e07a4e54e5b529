-- What operators had decided again from the journal. Times are as everywhere; rules is a JSON list, NULL: all of them.
CREATE TABLE replays (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    source     INTEGER NOT NULL REFERENCES sources,
    from_epoch INTEGER NOT NULL,
    from_lsn   INTEGER NOT NULL,
    to_epoch   INTEGER NOT NULL,
    to_lsn     INTEGER NOT NULL,
    rules      TEXT,
    muted      INTEGER NOT NULL,
    resend     INTEGER NOT NULL,
    who        TEXT    NOT NULL,
    why        TEXT    NOT NULL,
    added      INTEGER NOT NULL DEFAULT 0,
    again      INTEGER NOT NULL DEFAULT 0,
    resent     INTEGER NOT NULL DEFAULT 0,
    begun      INTEGER NOT NULL,
    ended      INTEGER -- NULL: it was broken off, or is under way
) STRICT;

-- Which replay made it, or had it decided again, or sent again, last.
ALTER TABLE matches ADD COLUMN replay INTEGER;
ALTER TABLE messages ADD COLUMN replay INTEGER;
-- Which replay made up for it.
ALTER TABLE gaps ADD COLUMN replay INTEGER;

-- When a piece was committed.
CREATE INDEX journal_time ON journal (source, epoch, last_time);

-- From where on the journal has all that was committed in an epoch. What was committed before was pruned, or never was in it.
CREATE TABLE journal_since (
    source INTEGER NOT NULL REFERENCES sources,
    epoch  INTEGER NOT NULL,
    lsn    INTEGER NOT NULL,
    time   INTEGER NOT NULL,
    PRIMARY KEY (source, epoch)
) STRICT, WITHOUT ROWID;
INSERT INTO journal_since SELECT source, epoch, min(first_lsn), min(first_time) FROM journal GROUP BY source, epoch;
INSERT INTO journal_since SELECT id, epoch, checkpoint, CAST(unixepoch('subsec') * 1000000 AS INTEGER) FROM sources WHERE state = 1 ON CONFLICT DO NOTHING;
