-- Keys that were given out to callers, as digests: whoever has this file cannot call with it.
CREATE TABLE caller_key (
    name TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    -- Lists of texts, as JSON.
    groups TEXT NOT NULL,
    scopes TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    -- Null where it does not expire.
    expires_at INTEGER
) STRICT;
