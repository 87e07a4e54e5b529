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
