-- Calls that go on without their client, and what has come of them.
CREATE TABLE task (
    id TEXT PRIMARY KEY,
    content TEXT NOT NULL,
    saved_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;
