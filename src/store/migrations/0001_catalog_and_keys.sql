-- What each backend offered when it was last asked.
CREATE TABLE catalog (
    backend     TEXT PRIMARY KEY,
    -- A digest of what makes the backend this one: another command or address is another backend.
    fingerprint TEXT NOT NULL,
    content     TEXT NOT NULL,
    saved_at    BIGINT NOT NULL DEFAULT (unixepoch())
);

-- Keys the gateway made for itself.
CREATE TABLE key (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
);
