-- Bids on what this node hosts (MaterialOffer, §8.2), of other nodes and of this city's own businesses. Amounts are
-- hundredths of an LC, quantities and distances exact decimal text.
CREATE TABLE bid (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL,
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('material', 'product')),
    bidder TEXT NOT NULL,
    local INTEGER NOT NULL,
    verified INTEGER NOT NULL,
    base_minor INTEGER NOT NULL CHECK (base_minor >= 0),
    quantity TEXT,
    unit TEXT,
    distance_km TEXT,
    claimed_minor INTEGER,
    -- The bidder's own name for the bid, and when it made it: a retry is known, a late older bid does not win.
    offer_id TEXT,
    issued_at_ms INTEGER,
    document_digest BLOB,
    received_at_ms INTEGER NOT NULL,
    valid_until_ms INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'selected', 'declined', 'replaced', 'withdrawn', 'expired')),
    -- The owner's reckoning at the selection that ended the bid, so that its reason can be shown later.
    selection INTEGER REFERENCES selection (number),
    final_rank INTEGER,
    final_reason TEXT,
    export_minor INTEGER,
    import_minor INTEGER,
    distance_minor INTEGER,
    stale_signals INTEGER,
    CHECK ((quantity IS NULL) = (unit IS NULL))
) STRICT;
-- One live bid for each subject and buyer; also the order in which a subject's bids are read.
CREATE UNIQUE INDEX bid_live ON bid (subject, bidder) WHERE state = 'live';
CREATE UNIQUE INDEX bid_by_offer ON bid (bidder, offer_id) WHERE offer_id IS NOT NULL;
CREATE INDEX bid_by_bidder ON bid (subject, bidder, number);
CREATE INDEX bid_by_selection ON bid (selection) WHERE selection IS NOT NULL;

-- The owner's decisions. One stands for each subject; it is released when the subject was made available again.
CREATE TABLE selection (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL,
    bid INTEGER NOT NULL UNIQUE REFERENCES bid (number),
    reason TEXT NOT NULL CHECK (reason IN ('lowest_loop_cost', 'by_hand')),
    selected_at_ms INTEGER NOT NULL,
    released_at_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX selection_standing ON selection (subject) WHERE released_at_ms IS NULL;

-- This node's own bids at other cities, as it sent them, with what it knows of their fate.
CREATE TABLE made_bid (
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
        (state IN ('queued', 'accepted', 'refused', 'replaced', 'expired', 'selected', 'declined')),
    reason TEXT,
    -- The newest version of its fate that the owner told.
    version INTEGER NOT NULL DEFAULT 0,
    changed_at_ms INTEGER NOT NULL,
    CHECK ((quantity IS NULL) = (unit IS NULL))
) STRICT;
CREATE UNIQUE INDEX made_bid_live ON made_bid (subject, owner) WHERE state IN ('queued', 'accepted');
