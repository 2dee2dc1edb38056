-- Who did what, and what came of it: a line for each call and each decision about one, in the batches in which they came.
CREATE TABLE audit (
    -- The number of its last line. Lines are numbered as they come, so that a reader knows what is new.
    upto INTEGER PRIMARY KEY,
    -- How many lines it has.
    count INTEGER NOT NULL,
    -- Microseconds since 1970, of its latest line.
    at INTEGER NOT NULL,
    -- A JSON object each.
    lines TEXT NOT NULL
) STRICT;

CREATE INDEX audit_at ON audit (at);
