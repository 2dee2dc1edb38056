-- What callers have consented to at servers, sealed: each caller's account at each backend.
CREATE TABLE account (
    backend  TEXT NOT NULL,
    caller   TEXT NOT NULL,
    sealed   BLOB NOT NULL,
    saved_at BIGINT NOT NULL DEFAULT (unixepoch()),
    PRIMARY KEY (backend, caller)
);

-- As what the gateway is registered with an authorization server, sealed.
CREATE TABLE registration (
    issuer   TEXT PRIMARY KEY,
    sealed   BLOB NOT NULL,
    saved_at BIGINT NOT NULL DEFAULT (unixepoch())
);
