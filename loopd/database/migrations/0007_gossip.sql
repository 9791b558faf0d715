-- Rings (§9.3): when a subject was first offered, in which ring it is now, and when the next one opens.
ALTER TABLE own_announcement ADD COLUMN offered_since_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE own_announcement ADD COLUMN ring INTEGER NOT NULL DEFAULT 0;
ALTER TABLE own_announcement ADD COLUMN widen_at_ms INTEGER;
CREATE INDEX own_announcement_to_widen ON own_announcement (widen_at_ms) WHERE widen_at_ms IS NOT NULL;
UPDATE own_announcement SET offered_since_ms =
    coalesce((SELECT received_at_ms FROM message m WHERE m.message_id = own_announcement.message_id), 0);

-- What was decided on a message, for each copy that came and for each peer that it was, or was not, sent to. The same
-- decision again is counted. The oldest rows make room: a row's number only rises.
CREATE TABLE decision (
    number INTEGER PRIMARY KEY,
    message_id BLOB NOT NULL,
    -- 'in': a copy that this peer sent; 'out': a copy meant for it.
    direction TEXT NOT NULL CHECK (direction IN ('in', 'out')),
    peer TEXT NOT NULL,
    -- The copy's TTL; 0 where it showed none.
    ttl INTEGER NOT NULL,
    reason TEXT NOT NULL,
    -- The HTTP status with which the peer answered; 0 where nothing was sent.
    status INTEGER NOT NULL DEFAULT 0,
    first_at_ms INTEGER NOT NULL,
    last_at_ms INTEGER NOT NULL,
    times INTEGER NOT NULL DEFAULT 1,
    UNIQUE (message_id, direction, peer, ttl, reason)
) STRICT;

-- Points against a peer as of a moment, and what followed from them: a restart forgives nothing.
CREATE TABLE peer_reputation (
    node_id TEXT PRIMARY KEY REFERENCES node (node_id) ON DELETE CASCADE,
    points REAL NOT NULL,
    as_of_ms INTEGER NOT NULL,
    conduct TEXT NOT NULL CHECK (conduct IN ('clear', 'greylisted', 'banned'))
) STRICT;

-- Rotations and revocations of keys, this node's and others', in the order in which they were taken: kept, so that a
-- node that was away for long, or becomes a peer late, can follow.
CREATE TABLE key_statement (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    statement_id BLOB NOT NULL UNIQUE,
    node_id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('rotation', 'revocation')),
    sequence INTEGER NOT NULL,
    body BLOB NOT NULL,
    came_from TEXT,
    received_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX key_statement_by_node ON key_statement (node_id, sequence);

-- Up to which statement a peer was told.
CREATE TABLE key_statement_cursor (
    node_id TEXT PRIMARY KEY REFERENCES node (node_id) ON DELETE CASCADE,
    number INTEGER NOT NULL
) STRICT;

-- Keys that a node replaced: each verifies what was signed before, as long as any of that can be valid.
CREATE TABLE former_key (
    node_id TEXT NOT NULL,
    public_key BLOB NOT NULL,
    replaced_at_ms INTEGER NOT NULL,
    PRIMARY KEY (node_id, public_key)
) STRICT;

-- Keys that nothing verifies any more. Never forgotten.
CREATE TABLE revoked_key (
    public_key BLOB PRIMARY KEY,
    node_id TEXT NOT NULL,
    revoked_at_ms INTEGER NOT NULL
) STRICT;

-- Whether a message's signature holds for others than this node; one that does not is never offered to a peer.
ALTER TABLE message ADD COLUMN relayable INTEGER NOT NULL DEFAULT 1;

-- How many messages each origin has here and each peer brought, so that a share costs no scan. What this node announces
-- itself nobody brought.
ALTER TABLE message ADD COLUMN came_from TEXT;
CREATE TABLE message_share (
    role TEXT NOT NULL CHECK (role IN ('origin', 'sender')),
    node_id TEXT NOT NULL,
    messages INTEGER NOT NULL,
    PRIMARY KEY (role, node_id)
) STRICT, WITHOUT ROWID;
INSERT INTO message_share (role, node_id, messages) SELECT 'origin', origin, count(*) FROM message GROUP BY origin;
CREATE TRIGGER message_share_counted AFTER INSERT ON message BEGIN
    INSERT INTO message_share (role, node_id, messages) VALUES ('origin', NEW.origin, 1)
        ON CONFLICT (role, node_id) DO UPDATE SET messages = messages + 1;
    INSERT INTO message_share (role, node_id, messages) SELECT 'sender', NEW.came_from, 1 WHERE NEW.came_from IS NOT NULL
        ON CONFLICT (role, node_id) DO UPDATE SET messages = messages + 1;
END;
CREATE TRIGGER message_share_uncounted AFTER DELETE ON message BEGIN
    UPDATE message_share SET messages = messages - 1
        WHERE (role = 'origin' AND node_id = OLD.origin) OR (role = 'sender' AND node_id = OLD.came_from);
    DELETE FROM message_share
        WHERE ((role = 'origin' AND node_id = OLD.origin) OR (role = 'sender' AND node_id = OLD.came_from))
        AND messages = 0;
END;
