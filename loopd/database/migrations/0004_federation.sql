-- Every other node this one knows: peers, those it asked to be one, and origins that a peer introduced (§9.1).
CREATE TABLE node (
    node_id TEXT PRIMARY KEY,
    standing TEXT NOT NULL CHECK (standing IN ('peer', 'pending', 'introduced', 'suspended')),
    auth TEXT NOT NULL CHECK (auth IN ('signed', 'unsigned-lab')),
    added_by TEXT NOT NULL CHECK (added_by IN ('operator', 'handshake', 'introduction')),
    name TEXT,
    endpoint TEXT NOT NULL,
    -- An endpoint that the operator gave may lie in a private network.
    endpoint_by_operator INTEGER NOT NULL DEFAULT 0,
    public_key BLOB,
    -- Where the key came from: a handshake or the operator overrides an introduction.
    key_source TEXT CHECK (key_source IN ('operator', 'handshake', 'introduction')),
    introduced_by TEXT,
    lat REAL,
    lon REAL,
    features TEXT NOT NULL DEFAULT '[]',
    -- Timestamp of the newest handshake; one that is not newer changes nothing.
    handshake_at_ms INTEGER NOT NULL DEFAULT 0,
    -- This node still has to shake hands: it approved, or asked and was not answered with yes.
    handshake_owed INTEGER NOT NULL DEFAULT 0,
    added_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX node_by_standing ON node (standing);

-- Handshakes that wait for the operator. They change nothing that is known of a node before he approves.
CREATE TABLE handshake_claim (
    node_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    public_key BLOB,
    features TEXT NOT NULL,
    handshake_at_ms INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL
) STRICT;

-- A peer's health and back-off: a restart neither forgets an absence nor hurries a retry.
CREATE TABLE peer_health (
    node_id TEXT PRIMARY KEY REFERENCES node (node_id) ON DELETE CASCADE,
    health TEXT NOT NULL
) STRICT;

-- Announcements that were received or made: what is seen, what is relayed, and the bytes that were signed.
CREATE TABLE message (
    message_number INTEGER PRIMARY KEY,
    message_id BLOB NOT NULL UNIQUE,
    origin TEXT NOT NULL,
    origin_timestamp TEXT NOT NULL,
    origin_signature TEXT,
    body BLOB NOT NULL,
    subject TEXT NOT NULL,
    subject_kind TEXT NOT NULL,
    anchored INTEGER NOT NULL,
    radius_km REAL,
    origin_lat REAL,
    origin_lon REAL,
    valid_until_ms INTEGER NOT NULL,
    -- The best copy received: its TTL and hop value; the body's own for what this node made.
    best_ttl INTEGER NOT NULL,
    hop_value BLOB,
    received_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX message_by_origin ON message (origin, message_number);
CREATE INDEX message_by_end ON message (valid_until_ms);

-- How many messages there are, so that the ceiling costs no scan.
CREATE TABLE message_count (messages INTEGER NOT NULL) STRICT;
INSERT INTO message_count (messages) VALUES (0);
CREATE TRIGGER message_counted AFTER INSERT ON message BEGIN
    UPDATE message_count SET messages = messages + 1;
END;
CREATE TRIGGER message_uncounted AFTER DELETE ON message BEGIN
    UPDATE message_count SET messages = messages - 1;
END;

-- The newest state of each subject of each origin; what a node heard.
CREATE TABLE heard (
    origin TEXT NOT NULL,
    subject TEXT NOT NULL,
    subject_kind TEXT NOT NULL,
    message_id BLOB NOT NULL,
    revision INTEGER NOT NULL,
    issued_at_ms INTEGER NOT NULL,
    available INTEGER NOT NULL,
    category TEXT,
    quantity TEXT,
    unit TEXT,
    lat REAL,
    lon REAL,
    via TEXT NOT NULL,
    verified INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL,
    -- Rises with every delivery: the order of the list, whatever the clock does.
    heard_number INTEGER NOT NULL UNIQUE,
    valid_until_ms INTEGER NOT NULL,
    PRIMARY KEY (origin, subject)
) STRICT;
CREATE INDEX heard_by_subject ON heard (subject);
CREATE INDEX heard_by_end ON heard (valid_until_ms);

-- This node's own announcements: the last revision of each subject, and when it is announced again.
CREATE TABLE own_announcement (
    subject TEXT PRIMARY KEY,
    subject_kind TEXT NOT NULL,
    revision INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    available INTEGER NOT NULL,
    valid_until_ms INTEGER NOT NULL,
    -- The widest radius used so far; a withdrawal goes at least as far. NULL is unbounded.
    widest_radius_km REAL,
    renew_at_ms INTEGER
) STRICT;
CREATE INDEX own_announcement_to_renew ON own_announcement (renew_at_ms) WHERE renew_at_ms IS NOT NULL;

-- One log of what is to be sent, and cursors in it for each node. An entry is a copy of a message for all peers
-- (message_id set), or a request for one (target set).
CREATE TABLE outbox (
    entry INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id BLOB,
    came_from TEXT,
    ttl INTEGER,
    hop_value BLOB,
    target TEXT,
    path TEXT,
    body BLOB,
    reference TEXT,
    expires_at_ms INTEGER NOT NULL,
    CHECK ((message_id IS NULL) <> (target IS NULL))
) STRICT;
CREATE INDEX outbox_by_end ON outbox (expires_at_ms);
CREATE INDEX outbox_by_message ON outbox (message_id, entry) WHERE message_id IS NOT NULL;
CREATE INDEX outbox_by_target ON outbox (target, entry) WHERE target IS NOT NULL;

CREATE TABLE outbox_cursor (
    node_id TEXT PRIMARY KEY REFERENCES node (node_id) ON DELETE CASCADE,
    -- Everything up to these entries is done with for this node: of the floods, and of the requests for it alone.
    flood_entry INTEGER NOT NULL DEFAULT 0,
    request_entry INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Entries that one peer cannot take now while it takes others: tried again beside the log.
CREATE TABLE outbox_aside (
    node_id TEXT NOT NULL REFERENCES node (node_id) ON DELETE CASCADE,
    entry INTEGER NOT NULL REFERENCES outbox (entry) ON DELETE CASCADE,
    attempts INTEGER NOT NULL,
    next_attempt_at_ms INTEGER NOT NULL,
    PRIMARY KEY (node_id, entry)
) STRICT;

-- Node requests accepted in the last ten minutes: a repeat is answered as the first was (§9.2).
CREATE TABLE node_request (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,
    forget_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX node_request_by_end ON node_request (forget_at_ms);

-- Messages that wait because two peers introduce different keys for their origin.
CREATE TABLE held_message (
    message_id BLOB PRIMARY KEY,
    origin TEXT NOT NULL,
    sender TEXT NOT NULL,
    origin_timestamp TEXT NOT NULL,
    origin_signature TEXT NOT NULL,
    ttl INTEGER NOT NULL,
    hop_value BLOB,
    body BLOB NOT NULL,
    held_at_ms INTEGER NOT NULL,
    valid_until_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX held_message_by_origin ON held_message (origin);
