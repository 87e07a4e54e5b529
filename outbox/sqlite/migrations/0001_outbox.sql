-- The outbox. Times are microseconds since 1970, LSNs are 64-bit offsets, states are the numbers of outbox/state.go.
--
-- Keys only grow, so that an insert appends to each b-tree: no index here begins with a hash or with anything that users
-- name. An index costs every commit a page; each one below says what it is for.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY, -- 'id': the store's own identity
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sources (
    id         INTEGER PRIMARY KEY AUTOINCREMENT, -- 0 is the clock and has no row
    system_id  TEXT    NOT NULL,
    database   TEXT    NOT NULL,
    slot       TEXT    NOT NULL,
    epoch      INTEGER NOT NULL,
    state      INTEGER NOT NULL,
    checkpoint INTEGER NOT NULL,
    armed      TEXT    NOT NULL,
    UNIQUE (system_id, database, slot)
) STRICT;

CREATE TABLE rules (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- Versions of rules and shapes of tables. Few, so that the hash may be an index.
CREATE TABLE texts (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    text BLOB NOT NULL
) STRICT;

-- A transaction with matches, or a tick of the clock. While its commit has not been read, lsn, end_lsn and time are NULL and
-- its matches are seen by nobody; the commit adopts them all by this one row.
CREATE TABLE transactions (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    source  INTEGER NOT NULL,
    epoch   INTEGER NOT NULL,
    lsn     INTEGER,
    end_lsn INTEGER,
    xid     INTEGER NOT NULL,
    time    INTEGER,
    muted   TEXT    NOT NULL DEFAULT '',
    aborted BLOB -- the raw numbers of changes that savepoints took back, as ranges
) STRICT;
CREATE UNIQUE INDEX transactions_committed ON transactions (source, epoch, lsn) WHERE lsn IS NOT NULL;
CREATE UNIQUE INDEX transactions_provisional ON transactions (source, epoch, xid) WHERE lsn IS NULL;

CREATE TABLE matches (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    tx             INTEGER NOT NULL REFERENCES transactions,
    ordinal        INTEGER NOT NULL,
    rule           INTEGER NOT NULL REFERENCES rules,
    version        INTEGER NOT NULL REFERENCES texts,
    shape          INTEGER REFERENCES texts,
    op             TEXT    NOT NULL,
    state          INTEGER NOT NULL,
    reason         TEXT    NOT NULL,
    due            INTEGER NOT NULL,
    expires        INTEGER,
    priority       INTEGER NOT NULL,
    key            TEXT    NOT NULL,
    hold_uncertain INTEGER NOT NULL,
    silent         INTEGER NOT NULL, -- made while nothing was let out
    released       INTEGER NOT NULL DEFAULT 0,
    attempts       INTEGER NOT NULL DEFAULT 0,
    created        INTEGER NOT NULL,
    change         BLOB    NOT NULL,
    blanked        BLOB, -- the change without its sensitive values, until it takes the change's place
    UNIQUE (tx, ordinal, rule)
) STRICT;
-- What is due next. Covers the scan for it: tx tells what is provisional.
CREATE INDEX matches_due ON matches (priority, due, tx) WHERE state = 0;
-- Counts and lists by state.
CREATE INDEX matches_state ON matches (state) WHERE state <> 0;
-- What is still to be blanked.
CREATE INDEX matches_blank ON matches (expires) WHERE blanked IS NOT NULL;

CREATE TABLE messages (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    match       INTEGER NOT NULL REFERENCES matches,
    address     TEXT    NOT NULL,
    address_key BLOB    NOT NULL,
    resend      INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    reply       TEXT    NOT NULL DEFAULT '',
    due         INTEGER NOT NULL,
    priority    INTEGER NOT NULL,
    released    INTEGER NOT NULL DEFAULT 0,
    attempts    INTEGER NOT NULL DEFAULT 0,
    lease       INTEGER,
    created     INTEGER NOT NULL,
    finished    INTEGER,
    recipient   BLOB,
    cc          TEXT, -- a JSON list
    message_id  TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    body        BLOB, -- last, so that nothing else is read through it
    UNIQUE (match, address_key, resend)
) STRICT;
CREATE INDEX messages_due ON messages (priority, due, match) WHERE state = 0;
CREATE INDEX messages_state ON messages (state) WHERE state <> 0;

CREATE TABLE attempts (
    message  INTEGER NOT NULL REFERENCES messages,
    number   INTEGER NOT NULL,
    relay    TEXT    NOT NULL,
    started  INTEGER NOT NULL,
    took     INTEGER NOT NULL, -- microseconds
    code     INTEGER NOT NULL,
    enhanced TEXT    NOT NULL,
    text     TEXT    NOT NULL,
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE gaps (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    source   INTEGER NOT NULL,
    epoch    INTEGER NOT NULL,
    rule     INTEGER REFERENCES rules, -- NULL: all rules
    from_lsn INTEGER NOT NULL,
    to_lsn   INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    lost     INTEGER NOT NULL,
    reason   TEXT    NOT NULL,
    mend     TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    closed   INTEGER
) STRICT;
CREATE UNIQUE INDEX gaps_open ON gaps (source, epoch, coalesce(rule, 0), reason) WHERE closed IS NULL;
