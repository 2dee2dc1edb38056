-- Conversations with models. Ids, times, counts and models are in clear; what was said is sealed where a key
-- is configured. All times are microseconds since 1970, all money is billionths of a US dollar.
CREATE TABLE conversation (
    number         INTEGER PRIMARY KEY,
    id             TEXT NOT NULL UNIQUE,
    tenant         TEXT NOT NULL,
    -- A digest; see src/store/conversations/owner.rs.
    owner          TEXT NOT NULL,
    -- active, archived, deleting
    state          TEXT NOT NULL,
    -- private, tenant
    visibility     TEXT NOT NULL,
    version        INTEGER NOT NULL,
    model          TEXT,
    -- The newest message of the main line, by its seq.
    head           INTEGER,
    -- How many messages there are, which is also the seq of the last.
    messages       INTEGER NOT NULL,
    tokens         INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    retention_days INTEGER,
    created        INTEGER NOT NULL,
    updated        INTEGER NOT NULL,
    expires        INTEGER NOT NULL,
    -- By which key the conversation's own is wrapped; none of both: everything is in clear.
    kek            TEXT,
    dek            BLOB,
    -- Title, tags and settings, as JSON.
    face           BLOB NOT NULL,
    prompt         BLOB
) STRICT;

CREATE INDEX conversation_updated ON conversation (owner, updated, number);
CREATE INDEX conversation_created ON conversation (owner, created, number);
CREATE INDEX conversation_expires ON conversation (expires);
CREATE INDEX conversation_kek ON conversation (kek);

CREATE TABLE message (
    number        INTEGER PRIMARY KEY,
    id            TEXT NOT NULL UNIQUE,
    conversation  INTEGER NOT NULL REFERENCES conversation ON DELETE CASCADE,
    -- From 1, without gaps.
    seq           INTEGER NOT NULL,
    -- What it answers or follows: its seq, its id, and how many messages lead to this one.
    parent        INTEGER,
    parent_id     TEXT,
    depth         INTEGER NOT NULL,
    turn          TEXT,
    -- user, assistant
    role          TEXT NOT NULL,
    body          BLOB NOT NULL,
    extras        BLOB,
    tokens        INTEGER NOT NULL,
    reported      INTEGER NOT NULL,
    created       INTEGER NOT NULL,
    superseded_by TEXT,
    UNIQUE (conversation, seq)
) STRICT;

-- Words of messages in clear. It keeps no text; what is deleted from it leaves nothing behind.
CREATE VIRTUAL TABLE message_text USING fts5 (owner, body, content = '');
INSERT INTO message_text (message_text, rank) VALUES ('secure-delete', 1);

CREATE TABLE turn (
    number            INTEGER PRIMARY KEY,
    id                TEXT NOT NULL UNIQUE,
    conversation      INTEGER NOT NULL REFERENCES conversation ON DELETE CASCADE,
    owner             TEXT NOT NULL,
    -- pending, running, completed, incomplete, failed
    state             TEXT NOT NULL,
    -- Not on the main line: such turns run beside each other.
    branch            INTEGER NOT NULL,
    -- Its messages, by their seq.
    question          INTEGER NOT NULL,
    answer            INTEGER,
    requested         TEXT NOT NULL,
    used              TEXT,
    provider          TEXT,
    generation        TEXT,
    partial           BLOB,
    finish_reason     TEXT,
    incomplete_reason TEXT,
    error             TEXT,
    result            BLOB,
    -- Digests of the idempotency key and of what was asked for.
    key               BLOB,
    fingerprint       BLOB,
    -- The lease: who comes with an earlier epoch changes nothing.
    epoch             INTEGER NOT NULL,
    until             INTEGER NOT NULL,
    estimate          INTEGER NOT NULL,
    -- When its real cost is to be asked for.
    settle            INTEGER,
    tries             INTEGER NOT NULL DEFAULT 0,
    created           INTEGER NOT NULL,
    finished          INTEGER
) STRICT;

CREATE UNIQUE INDEX turn_key ON turn (owner, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX turn_main ON turn (conversation) WHERE state IN ('pending', 'running') AND branch = 0;
CREATE INDEX turn_active ON turn (owner, until) WHERE state IN ('pending', 'running');
CREATE INDEX turn_until ON turn (until) WHERE state IN ('pending', 'running');
CREATE INDEX turn_settle ON turn (settle) WHERE settle IS NOT NULL;
CREATE INDEX turn_kept_key ON turn (created) WHERE key IS NOT NULL;
CREATE INDEX turn_conversation ON turn (conversation, number);

CREATE TABLE summary (
    number       INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversation ON DELETE CASCADE,
    -- The last message it covers.
    upto         TEXT NOT NULL,
    model        TEXT NOT NULL,
    body         BLOB NOT NULL,
    tokens       INTEGER NOT NULL,
    source       TEXT NOT NULL,
    created      INTEGER NOT NULL
) STRICT;

CREATE INDEX summary_conversation ON summary (conversation, number);

-- What is attached to messages, each file once for an owner and under a key of its own.
CREATE TABLE blob (
    number INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    owner  TEXT NOT NULL,
    -- A digest of the bytes that only this store makes.
    name   TEXT NOT NULL,
    mime   TEXT NOT NULL,
    length INTEGER NOT NULL,
    kek    TEXT,
    dek    BLOB,
    body   BLOB NOT NULL,
    UNIQUE (owner, name)
) STRICT;

CREATE TABLE attachment (
    conversation INTEGER NOT NULL REFERENCES conversation ON DELETE CASCADE,
    blob         INTEGER NOT NULL REFERENCES blob ON DELETE CASCADE,
    PRIMARY KEY (conversation, blob)
) STRICT, WITHOUT ROWID;

CREATE INDEX attachment_blob ON attachment (blob);

-- What calls have cost. Rows are added; only the names of what was deleted are taken out of them.
CREATE TABLE ledger (
    number       INTEGER PRIMARY KEY,
    at           INTEGER NOT NULL,
    tenant       TEXT NOT NULL,
    owner        TEXT NOT NULL,
    tool         TEXT NOT NULL,
    conversation TEXT,
    turn         TEXT,
    generation   TEXT,
    model        TEXT NOT NULL,
    provider     TEXT,
    -- 1, or 0 where a row corrects another.
    requests     INTEGER NOT NULL,
    prompt       INTEGER NOT NULL,
    completion   INTEGER NOT NULL,
    reasoning    INTEGER NOT NULL,
    cached       INTEGER NOT NULL,
    cost         INTEGER NOT NULL,
    -- The part of the cost that is only estimated; a correction takes it back.
    estimated    INTEGER NOT NULL,
    -- reported, reconciled, estimated
    source       TEXT NOT NULL,
    simulated    INTEGER NOT NULL,
    run          TEXT
) STRICT;

CREATE INDEX ledger_owner ON ledger (owner, at, cost);
CREATE INDEX ledger_tenant ON ledger (tenant, at, cost);
CREATE INDEX ledger_generation ON ledger (owner, generation) WHERE generation IS NOT NULL;
CREATE INDEX ledger_conversation ON ledger (conversation) WHERE conversation IS NOT NULL;

-- Amounts that are set aside from a day's budget until a call has ended.
CREATE TABLE reservation (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    owner  TEXT NOT NULL,
    -- Since 1970.
    day    INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    until  INTEGER NOT NULL
) STRICT;

CREATE INDEX reservation_day ON reservation (tenant, day);

CREATE TABLE benchmark (
    number  INTEGER PRIMARY KEY,
    id      TEXT NOT NULL UNIQUE,
    tenant  TEXT NOT NULL,
    owner   TEXT NOT NULL,
    created INTEGER NOT NULL,
    -- JSON.
    models  TEXT NOT NULL,
    kek     TEXT,
    dek     BLOB,
    body    BLOB NOT NULL
) STRICT;

CREATE INDEX benchmark_owner ON benchmark (owner, created, number);
