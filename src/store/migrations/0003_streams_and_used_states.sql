-- Streams of those sessions that somebody may still come back for: the session's own, which is
-- number 0, and those of requests.
CREATE TABLE stream (
    session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    -- The JSON-RPC id of the request.
    request BLOB,
    done INTEGER NOT NULL,
    -- Up to which event somebody has read.
    read INTEGER NOT NULL,
    PRIMARY KEY (session, number)
) STRICT, WITHOUT ROWID;

-- Their messages.
CREATE TABLE event (
    session TEXT NOT NULL,
    stream INTEGER NOT NULL,
    number INTEGER NOT NULL,
    message BLOB NOT NULL,
    PRIMARY KEY (session, stream, number),
    FOREIGN KEY (session, stream) REFERENCES stream (session, number) ON DELETE CASCADE
) STRICT;

-- Sealed states of calls that take several rounds: those that have been used and have not
-- expired, so that none is taken twice.
CREATE TABLE used_state (
    nonce BLOB PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
