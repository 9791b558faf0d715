-- Offers, matches, transfers and transactions (§4.6, §7). This node is the seller, and alone writes them; what other
-- nodes write is mirrored elsewhere. What the statuses may do is held here as well as in protocol/lifecycle.py.
CREATE TABLE offer (
    -- Rises with every Offer: the order of the lists.
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    received BLOB NOT NULL,
    compacted BLOB,
    subject TEXT NOT NULL REFERENCES record (subject_id),
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('material', 'product')),
    quantity TEXT NOT NULL,
    unit TEXT NOT NULL,
    base_quantity TEXT NOT NULL CHECK (length(base_quantity) = 32 AND base_quantity > '0000000000000000000.000000000000'),
    available_until_ms INTEGER NOT NULL,
    -- The node on the other side, from the first Match that names one on, or from its transaction.
    counterpart TEXT,
    status TEXT NOT NULL CHECK (status IN ('open', 'reserved', 'withdrawn')),
    version INTEGER NOT NULL CHECK (version >= 1),
    reason TEXT,
    created_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX offer_by_subject ON offer (subject, number);
CREATE INDEX offer_by_status ON offer (status, number);
CREATE INDEX offer_to_end ON offer (available_until_ms) WHERE status = 'open';

CREATE TABLE loop_match (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    received BLOB NOT NULL,
    compacted BLOB,
    offer_id TEXT NOT NULL REFERENCES offer (id),
    subject TEXT NOT NULL REFERENCES record (subject_id),
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('material', 'product')),
    to_city TEXT NOT NULL,
    -- When it ends unless a Transfer was made of it.
    valid_until_ms INTEGER NOT NULL,
    counterpart TEXT,
    status TEXT NOT NULL CHECK (status IN ('proposed', 'accepted', 'rejected', 'expired')),
    version INTEGER NOT NULL CHECK (version >= 1),
    reason TEXT,
    created_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL
) STRICT;
-- One active Match for an Offer.
CREATE UNIQUE INDEX loop_match_active ON loop_match (offer_id) WHERE status IN ('proposed', 'accepted');
CREATE INDEX loop_match_by_subject ON loop_match (subject, number);
CREATE INDEX loop_match_by_status ON loop_match (status, number);
CREATE INDEX loop_match_to_end ON loop_match (valid_until_ms) WHERE status IN ('proposed', 'accepted');

CREATE TABLE transfer (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    received BLOB NOT NULL,
    compacted BLOB,
    match_id TEXT NOT NULL REFERENCES loop_match (id),
    subject TEXT NOT NULL REFERENCES record (subject_id),
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('material', 'product')),
    received_at_ms INTEGER,
    -- The record of the part that was transferred; none where it was the whole.
    child TEXT REFERENCES record (subject_id),
    counterpart TEXT,
    status TEXT NOT NULL CHECK (status IN ('scheduled', 'in_transit', 'completed', 'cancelled')),
    version INTEGER NOT NULL CHECK (version >= 1),
    reason TEXT,
    created_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    CHECK ((status = 'completed') = (received_at_ms IS NOT NULL))
) STRICT;
-- One Transfer that is not cancelled for a Match.
CREATE UNIQUE INDEX transfer_standing ON transfer (match_id) WHERE status <> 'cancelled';
CREATE INDEX transfer_by_subject ON transfer (subject, number);
CREATE INDEX transfer_by_status ON transfer (status, number);

CREATE TABLE material_transaction (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    received BLOB NOT NULL,
    compacted BLOB,
    match_id TEXT NOT NULL REFERENCES loop_match (id),
    subject TEXT NOT NULL REFERENCES record (subject_id),
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('material', 'product')),
    quantity TEXT NOT NULL,
    unit TEXT NOT NULL,
    seller TEXT NOT NULL,
    buyer TEXT NOT NULL,
    seller_account TEXT,
    buyer_account TEXT,
    base_minor INTEGER NOT NULL CHECK (base_minor >= 0),
    export_minor INTEGER NOT NULL CHECK (export_minor >= 0),
    import_minor INTEGER NOT NULL CHECK (import_minor >= 0),
    distance_minor INTEGER NOT NULL CHECK (distance_minor >= 0),
    -- What the last change told beside the status: where it is, when it comes (a JSON object).
    details BLOB,
    counterpart TEXT,
    status TEXT NOT NULL CHECK
        (status IN ('pending', 'confirmed', 'in_transit', 'delivered', 'completed', 'cancelled', 'disputed')),
    version INTEGER NOT NULL CHECK (version >= 1),
    reason TEXT,
    created_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL
) STRICT;
-- One transaction that is not cancelled for a Match.
CREATE UNIQUE INDEX material_transaction_standing ON material_transaction (match_id) WHERE status <> 'cancelled';
CREATE INDEX material_transaction_by_subject ON material_transaction (subject, number);
CREATE INDEX material_transaction_by_status ON material_transaction (status, number);

-- Each version of each of them, for good.
CREATE TABLE exchange_change (
    number INTEGER PRIMARY KEY,
    entity TEXT NOT NULL CHECK (entity IN ('offer', 'match', 'transfer', 'transaction')),
    id TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    status TEXT NOT NULL,
    reason TEXT,
    -- The node at whose wish it changed.
    changed_by TEXT NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    document BLOB NOT NULL,
    UNIQUE (entity, id, version)
) STRICT;
CREATE TRIGGER exchange_change_stays
BEFORE UPDATE ON exchange_change
BEGIN
    SELECT RAISE(ABORT, 'history does not change');
END;
CREATE TRIGGER exchange_change_is_kept
BEFORE DELETE ON exchange_change
BEGIN
    SELECT RAISE(ABORT, 'history does not change');
END;

-- A Match needs an open Offer, a Transfer an accepted Match.
CREATE TRIGGER loop_match_needs_an_open_offer
BEFORE INSERT ON loop_match
WHEN (SELECT status FROM offer WHERE id = NEW.offer_id) IS NOT 'open'
BEGIN
    SELECT RAISE(ABORT, 'the offer is not open');
END;
CREATE TRIGGER transfer_needs_an_accepted_match
BEFORE INSERT ON transfer
WHEN (SELECT status FROM loop_match WHERE id = NEW.match_id) IS NOT 'accepted'
BEGIN
    SELECT RAISE(ABORT, 'the match is not accepted');
END;
-- A Match with a Transfer does not end, and an Offer with a Match is not open.
CREATE TRIGGER loop_match_with_transfer_stays
BEFORE UPDATE OF status ON loop_match
WHEN NEW.status IN ('rejected', 'expired')
    AND EXISTS (SELECT 1 FROM transfer WHERE match_id = NEW.id AND status <> 'cancelled')
BEGIN
    SELECT RAISE(ABORT, 'the match has a transfer');
END;
CREATE TRIGGER offer_with_match_is_not_open
BEFORE UPDATE OF status ON offer
WHEN NEW.status = 'open'
    AND EXISTS (SELECT 1 FROM loop_match WHERE offer_id = NEW.id AND status IN ('proposed', 'accepted'))
BEGIN
    SELECT RAISE(ABORT, 'the offer has an active match');
END;

-- What may follow what; each change has the next version, and what was received stays. In the same status a deal may get
-- its other side, which only the transaction names.
CREATE TRIGGER offer_moves
BEFORE UPDATE OF id, received, compacted, subject, base_quantity, status, version ON offer
WHEN NEW.version <> OLD.version + 1 OR (NEW.id, NEW.received, NEW.subject, NEW.base_quantity)
        <> (OLD.id, OLD.received, OLD.subject, OLD.base_quantity)
    OR NOT (NEW.status = OLD.status AND NEW.counterpart IS NOT OLD.counterpart)
        AND (OLD.status, NEW.status) NOT IN (VALUES
        ('open', 'reserved'), ('open', 'withdrawn'), ('reserved', 'withdrawn'), ('reserved', 'open'))
BEGIN
    SELECT RAISE(ABORT, 'an offer does not change like this');
END;
CREATE TRIGGER loop_match_moves
BEFORE UPDATE OF id, received, compacted, offer_id, subject, status, version ON loop_match
WHEN NEW.version <> OLD.version + 1 OR (NEW.id, NEW.received, NEW.offer_id, NEW.subject)
        <> (OLD.id, OLD.received, OLD.offer_id, OLD.subject)
    OR NOT (NEW.status = OLD.status AND NEW.counterpart IS NOT OLD.counterpart)
        AND (OLD.status, NEW.status) NOT IN (VALUES
        ('proposed', 'accepted'), ('proposed', 'rejected'), ('accepted', 'expired'))
BEGIN
    SELECT RAISE(ABORT, 'a match does not change like this');
END;
CREATE TRIGGER transfer_moves
BEFORE UPDATE OF id, received, compacted, match_id, subject, status, version ON transfer
WHEN NEW.version <> OLD.version + 1 OR (NEW.id, NEW.received, NEW.match_id, NEW.subject)
        <> (OLD.id, OLD.received, OLD.match_id, OLD.subject)
    OR NOT (NEW.status = OLD.status AND NEW.counterpart IS NOT OLD.counterpart)
        AND (OLD.status, NEW.status) NOT IN (VALUES
        ('scheduled', 'in_transit'), ('scheduled', 'cancelled'), ('in_transit', 'completed'), ('in_transit', 'cancelled'))
BEGIN
    SELECT RAISE(ABORT, 'a transfer does not change like this');
END;
CREATE TRIGGER material_transaction_moves
BEFORE UPDATE OF id, received, compacted, match_id, subject, status, version ON material_transaction
WHEN NEW.version <> OLD.version + 1 OR (NEW.id, NEW.received, NEW.match_id, NEW.subject)
        <> (OLD.id, OLD.received, OLD.match_id, OLD.subject)
    OR (OLD.status, NEW.status) NOT IN (VALUES
        ('pending', 'confirmed'), ('confirmed', 'in_transit'), ('in_transit', 'delivered'), ('delivered', 'completed'),
        ('pending', 'cancelled'), ('confirmed', 'cancelled'), ('in_transit', 'cancelled'), ('delivered', 'cancelled'),
        ('pending', 'disputed'), ('confirmed', 'disputed'), ('in_transit', 'disputed'), ('delivered', 'disputed'))
BEGIN
    SELECT RAISE(ABORT, 'a transaction does not change like this');
END;

-- Several selections may stand for a subject now, each for a part of it, until its Match is released.
ALTER TABLE selection ADD COLUMN match_id TEXT REFERENCES loop_match (id);
DROP INDEX selection_standing;
CREATE INDEX selection_standing ON selection (subject) WHERE released_at_ms IS NULL;
CREATE INDEX selection_by_match ON selection (match_id) WHERE match_id IS NOT NULL;
-- The account that a bidder pays from.
ALTER TABLE bid ADD COLUMN buyer_account TEXT;

-- When the node selects by itself, for each subject that somebody bids for.
CREATE TABLE selection_due (
    subject TEXT PRIMARY KEY,
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('material', 'product')),
    due_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX selection_due_by_time ON selection_due (due_at_ms);

-- A bid of this node can be withdrawn.
CREATE TABLE made_bid_next (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    offer_id TEXT NOT NULL UNIQUE,
    subject TEXT NOT NULL,
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('material', 'product')),
    owner TEXT NOT NULL,
    base_minor INTEGER NOT NULL CHECK (base_minor >= 0),
    export_minor INTEGER NOT NULL,
    import_minor INTEGER NOT NULL,
    distance_minor INTEGER NOT NULL,
    stale_signals INTEGER NOT NULL,
    quantity TEXT,
    unit TEXT,
    distance_km TEXT,
    made_at_ms INTEGER NOT NULL,
    valid_until_ms INTEGER NOT NULL,
    state TEXT NOT NULL CHECK
        (state IN ('queued', 'accepted', 'refused', 'replaced', 'withdrawn', 'expired', 'selected', 'declined')),
    reason TEXT,
    version INTEGER NOT NULL DEFAULT 0,
    changed_at_ms INTEGER NOT NULL,
    buyer_account TEXT,
    CHECK ((quantity IS NULL) = (unit IS NULL))
) STRICT;
INSERT INTO made_bid_next (number, offer_id, subject, subject_kind, owner, base_minor, export_minor, import_minor,
    distance_minor, stale_signals, quantity, unit, distance_km, made_at_ms, valid_until_ms, state, reason, version,
    changed_at_ms)
SELECT number, offer_id, subject, subject_kind, owner, base_minor, export_minor, import_minor, distance_minor,
    stale_signals, quantity, unit, distance_km, made_at_ms, valid_until_ms, state, reason, version, changed_at_ms
FROM made_bid;
DROP TABLE made_bid;
ALTER TABLE made_bid_next RENAME TO made_bid;
CREATE UNIQUE INDEX made_bid_live ON made_bid (subject, owner) WHERE state IN ('queued', 'accepted');
