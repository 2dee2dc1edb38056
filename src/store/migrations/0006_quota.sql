-- What each caller has used on a day (UTC, counted from 1970); dollars in billionths.
CREATE TABLE quota (
    day INTEGER NOT NULL,
    caller TEXT NOT NULL,
    calls INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    nano_usd INTEGER NOT NULL,
    PRIMARY KEY (day, caller)
) STRICT;
