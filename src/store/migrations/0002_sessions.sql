-- Sessions of clients older than 2026-07-28, which go on after a restart of the gateway.
CREATE TABLE session (
    id TEXT PRIMARY KEY,
    content TEXT NOT NULL,
    saved_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;
