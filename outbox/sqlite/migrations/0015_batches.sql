-- What hold_over holds of a rule as one thing: all of a transaction, or what is too much until it has calmed down. How many matches it has is
-- not kept here: the index counts them.
CREATE TABLE batches (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    rule     INTEGER NOT NULL REFERENCES rules,
    cause    TEXT    NOT NULL, -- transaction, minute or row
    source   INTEGER NOT NULL,
    epoch    INTEGER NOT NULL,
    lsn      INTEGER NOT NULL, -- the transaction that it began with
    xid      INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    last     INTEGER NOT NULL, -- when the latest transaction committed of which it took something in
    why      TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    expires  INTEGER,
    told     INTEGER NOT NULL DEFAULT 0, -- how many it had when people were last told of it
    mailed   INTEGER,                    -- when a mail told operators of it
    action   TEXT    NOT NULL DEFAULT '', -- that was ordered: release or discard
    reason   TEXT    NOT NULL DEFAULT '', -- of the action
    ordered  INTEGER,
    finished INTEGER                     -- none of it waits any more
) STRICT;
-- What goes on, of which there is little: who takes matches in looks there, and who shows what waits.
CREATE INDEX batches_open ON batches (rule, cause) WHERE finished IS NULL;
ALTER TABLE matches ADD COLUMN batch INTEGER REFERENCES batches;
-- What waits in a batch, to be counted, and moved in steps. Matches that are not in one do not pay for it.
CREATE INDEX matches_batch ON matches (batch, state, tx) WHERE batch IS NOT NULL;
