-- What other nodes published at /api/v1/signals (§6.1): the newest configurations of each, the next month's beside
-- this month's, so that no moment is without one.
CREATE TABLE signal_configuration (
    node_id TEXT NOT NULL,
    valid_from_ms INTEGER NOT NULL,
    valid_until_ms INTEGER NOT NULL,
    -- Category to basis points, as JSON.
    signals TEXT NOT NULL,
    fetched_at_ms INTEGER NOT NULL,
    PRIMARY KEY (node_id, valid_from_ms)
) STRICT;
