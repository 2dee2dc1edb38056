-- Who did what, and what came of it: a row for each call and each decision about one.
CREATE TABLE audit (
    -- Grows with time, and no number is used twice, so that a reader knows what is new.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Microseconds since 1970.
    at INTEGER NOT NULL,
    request TEXT,
    who TEXT,
    issuer TEXT,
    client TEXT,
    endpoint TEXT,
    method TEXT,
    backend TEXT,
    target TEXT,
    outcome TEXT NOT NULL,
    code INTEGER,
    took INTEGER,
    cached INTEGER NOT NULL,
    count INTEGER,
    -- JSON.
    usage TEXT,
    arguments TEXT
) STRICT;

CREATE INDEX audit_at ON audit (at);
