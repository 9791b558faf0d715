-- What happened, in the order of commits, for lists, streams and webhooks. Ids are never given twice.
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    -- A small JSON object.
    data BLOB NOT NULL
) STRICT;
CREATE INDEX event_by_kind ON event (kind, id);

-- Up to which id the log has forgotten events of a kind: a reader that asks for older ones is told that some are gone.
CREATE TABLE event_pruned (
    kind TEXT PRIMARY KEY,
    through_id INTEGER NOT NULL
) STRICT;

-- Endpoints that are told of events by signed requests, each in order and at its own pace.
CREATE TABLE webhook (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    url TEXT NOT NULL,
    -- Names of kinds with blanks between: `material.*`, `bid.told`, `*`.
    kinds TEXT NOT NULL,
    -- A signature needs the secret itself, not its hash.
    secret BLOB NOT NULL,
    former_secret BLOB,
    former_until_ms INTEGER NOT NULL DEFAULT 0,
    created_at_ms INTEGER NOT NULL,
    -- The last event that was delivered, and the last forgotten one that the endpoint was told of.
    cursor INTEGER NOT NULL,
    gap_told_through INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    failing_since_ms INTEGER,
    next_attempt_at_ms INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    last_success_at_ms INTEGER,
    disabled_reason TEXT CHECK (disabled_reason IN ('gone', 'gave_up')),
    disabled_at_ms INTEGER,
    CHECK ((disabled_reason IS NULL) = (disabled_at_ms IS NULL))
) STRICT;
