-- What the stream brought. Rows are in the order of commits, by their ids. Data are last, so that nothing else is read through them.
CREATE TABLE journal (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    source       INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    first_lsn    INTEGER NOT NULL,
    last_lsn     INTEGER NOT NULL,
    first_time   INTEGER NOT NULL,
    last_time    INTEGER NOT NULL,
    transactions INTEGER NOT NULL,
    changes      INTEGER NOT NULL,
    bytes        INTEGER NOT NULL, -- that its data take
    tx           INTEGER,          -- the data are the parts of this transaction
    data         BLOB
) STRICT;
-- Where a position is.
CREATE INDEX journal_lsn ON journal (source, epoch, last_lsn);
-- Which parts are still wanted.
CREATE INDEX journal_tx ON journal (tx) WHERE tx IS NOT NULL;

-- The journal of transactions that were spilled. They are provisional until the commit puts a row into the journal, and are
-- deleted, a few at a time, when their transaction is neither provisional nor in the journal.
CREATE TABLE journal_parts (
    tx      INTEGER NOT NULL, -- transactions.id
    part    INTEGER NOT NULL, -- from 1 on
    ordinal INTEGER NOT NULL,
    changes INTEGER NOT NULL,
    data    BLOB    NOT NULL,
    PRIMARY KEY (tx, part)
) STRICT;

-- How many bytes the journal takes, so that nobody has to count them.
ALTER TABLE sources ADD COLUMN journal_bytes INTEGER NOT NULL DEFAULT 0;

ALTER TABLE transactions DROP COLUMN aborted; -- what savepoints take back is deleted
