-- What the seller's node of a deal alone writes, and the node on the other side mirrors, version by version.

-- What this node, as the seller's, told others: every version, so that one that got lost can be asked for.
CREATE TABLE mirror_told (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    counterpart TEXT NOT NULL,
    entity TEXT NOT NULL CHECK (entity IN ('offer', 'match', 'transfer', 'transaction')),
    entity_id TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    status TEXT NOT NULL,
    newest INTEGER NOT NULL CHECK (newest IN (0, 1)),
    -- The MirrorUpdate, byte for byte as it is sent.
    body BLOB NOT NULL,
    UNIQUE (counterpart, entity, entity_id, version)
) STRICT;
-- One newest version for each entity and node; also the order in which they are compared.
CREATE UNIQUE INDEX mirror_told_newest ON mirror_told (entity, entity_id, counterpart) WHERE newest = 1;
CREATE INDEX mirror_told_in_order ON mirror_told (counterpart, number) WHERE newest = 1;

-- What other nodes told this one: the newest version of each.
CREATE TABLE mirror (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    node TEXT NOT NULL,
    entity TEXT NOT NULL CHECK (entity IN ('offer', 'match', 'transfer', 'transaction')),
    entity_id TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    follows INTEGER NOT NULL,
    status TEXT NOT NULL,
    document BLOB NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL,
    UNIQUE (node, entity, entity_id)
) STRICT;
CREATE INDEX mirror_by_entity ON mirror (entity, number);

-- Entities of which a later version is known to exist than the one that is held, until what lies between is fetched.
CREATE TABLE mirror_gap (
    node TEXT NOT NULL,
    entity TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    wanted INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at_ms INTEGER NOT NULL,
    PRIMARY KEY (node, entity, entity_id)
) STRICT;
CREATE INDEX mirror_gap_due ON mirror_gap (next_attempt_at_ms);

-- Nodes whose decisions this one mirrors: how much it holds, and how far it has compared.
CREATE TABLE mirror_partner (
    node TEXT PRIMARY KEY,
    held INTEGER NOT NULL DEFAULT 0,
    held_bytes INTEGER NOT NULL DEFAULT 0,
    compared_to INTEGER NOT NULL DEFAULT 0,
    compared_whole_at_ms INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_comparison_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX mirror_partner_due ON mirror_partner (next_comparison_at_ms);

-- What this node asked the sellers' nodes to change, and what they said.
CREATE TABLE mirror_request (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL UNIQUE,
    node TEXT NOT NULL,
    entity TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    state TEXT NOT NULL CHECK (state IN ('queued', 'granted', 'refused', 'expired')),
    answer TEXT,
    asked_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX mirror_request_of ON mirror_request (node, entity, entity_id, number);
-- One wish at a time for each entity.
CREATE UNIQUE INDEX mirror_request_queued ON mirror_request (node, entity, entity_id) WHERE state = 'queued';

-- Wishes of others that this node, as the seller's, carried out: a repeat has no second effect.
CREATE TABLE mirror_granted (
    node TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest BLOB NOT NULL,
    forget_at_ms INTEGER NOT NULL,
    PRIMARY KEY (node, request_id)
) STRICT;
CREATE INDEX mirror_granted_forget ON mirror_granted (forget_at_ms);
