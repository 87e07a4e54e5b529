-- Addresses that no mail goes to. A row stays when it is lifted, with who did it and why. Found by the hash of an address: they are few,
-- and come one by one.
CREATE TABLE suppressions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    key        BLOB    NOT NULL, -- outbox.AddressKey
    address    TEXT    NOT NULL,
    cause      INTEGER NOT NULL, -- outbox.Cause
    detail     TEXT    NOT NULL,
    who        TEXT    NOT NULL, -- empty: postman
    since      INTEGER NOT NULL,
    lifted     INTEGER,
    lifted_by  TEXT    NOT NULL DEFAULT '',
    lifted_why TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX suppressions_key ON suppressions (key) WHERE lifted IS NULL;

-- The key that signs what comes back from outside, such as envelope senders.
INSERT INTO meta (key, value) VALUES ('secret', lower(hex(randomblob(32))));

-- What came back of messages: reports, complaints. The same report twice is one, by its hash.
CREATE TABLE bounces (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    event   BLOB    NOT NULL UNIQUE,
    message INTEGER REFERENCES messages, -- NULL: of none that is known
    key     BLOB    NOT NULL, -- outbox.AddressKey
    address TEXT    NOT NULL, -- empty: the report does not say
    kind    INTEGER NOT NULL, -- outbox.BounceKind
    status  TEXT    NOT NULL,
    text    TEXT    NOT NULL,
    source  TEXT    NOT NULL, -- who told
    at      INTEGER NOT NULL
) STRICT;
CREATE INDEX bounces_message ON bounces (message);
CREATE INDEX bounces_address ON bounces (key, at);
