-- What the daemon wants to remember of a source from one run to the next. Apart from the sources: their rows change with every batch.
CREATE TABLE notes (
    id     INTEGER PRIMARY KEY,
    source INTEGER NOT NULL REFERENCES sources,
    name   TEXT    NOT NULL,
    text   BLOB    NOT NULL,
    UNIQUE (source, name)
) STRICT;
