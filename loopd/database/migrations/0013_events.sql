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
