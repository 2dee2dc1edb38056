-- What backends learned of the models behind them by asking them, as JSON: nothing of what was said.
CREATE TABLE learned (
    backend TEXT NOT NULL,
    model   TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (backend, model)
) STRICT, WITHOUT ROWID;

-- What leads to a message, and how much it is, without its text.
CREATE INDEX message_path ON message (conversation, seq, parent, tokens, role);
