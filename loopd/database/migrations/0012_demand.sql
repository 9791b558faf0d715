-- Routing (§7): when what is known of the destinations changes, a node's place or its signals, this number rises.
CREATE TABLE destinations_version (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO destinations_version VALUES (1, 1);

CREATE TRIGGER destination_added AFTER INSERT ON node BEGIN
    UPDATE destinations_version SET version = version + 1;
END;
CREATE TRIGGER destination_removed AFTER DELETE ON node BEGIN
    UPDATE destinations_version SET version = version + 1;
END;
CREATE TRIGGER destination_changed AFTER UPDATE OF standing, lat, lon ON node
WHEN old.standing <> new.standing OR old.lat IS NOT new.lat OR old.lon IS NOT new.lon BEGIN
    UPDATE destinations_version SET version = version + 1;
END;
CREATE TRIGGER destination_signals_added AFTER INSERT ON signal_configuration BEGIN
    UPDATE destinations_version SET version = version + 1;
END;
CREATE TRIGGER destination_signals_removed AFTER DELETE ON signal_configuration BEGIN
    UPDATE destinations_version SET version = version + 1;
END;
-- What is fetched again is mostly the same.
CREATE TRIGGER destination_signals_changed AFTER UPDATE OF signals, valid_until_ms ON signal_configuration
WHEN old.signals <> new.signals OR old.valid_until_ms <> new.valid_until_ms BEGIN
    UPDATE destinations_version SET version = version + 1;
END;

-- Demand (wanted): what this city looks for, and what its peers said that they do.
CREATE TABLE demand (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    demand_id TEXT NOT NULL,
    -- The node that wants it: this one, or the peer that announced it.
    node TEXT NOT NULL,
    own INTEGER NOT NULL,
    verified INTEGER NOT NULL,
    -- The business of this city that it is for; never announced.
    wanted_by TEXT,
    kind TEXT NOT NULL CHECK (kind IN ('material', 'product')),
    -- A category, or the beginning of some and `*`.
    pattern TEXT NOT NULL,
    quantity TEXT NOT NULL,
    unit TEXT NOT NULL,
    dimension TEXT NOT NULL,
    base_quantity TEXT NOT NULL CHECK (length(base_quantity) = 32),
    max_price_minor INTEGER CHECK (max_price_minor >= 0),
    -- Around the place; NULL is everywhere. Exact decimal text.
    radius_km TEXT,
    lat REAL,
    lon REAL,
    -- Between these latitudes lies all that the radius reaches.
    south REAL NOT NULL,
    north REAL NOT NULL,
    issued_at_ms INTEGER NOT NULL,
    valid_until_ms INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'fulfilled', 'withdrawn', 'expired')),
    version INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    -- Own demand: rises with each change, for what peers were told.
    change_number INTEGER UNIQUE,
    UNIQUE (node, demand_id),
    CHECK (own = (change_number IS NOT NULL)),
    CHECK ((lat IS NULL) = (lon IS NULL)),
    CHECK (radius_km IS NULL OR lat IS NOT NULL)
) STRICT;
CREATE INDEX demand_open ON demand (kind, pattern, dimension, number) WHERE state = 'open';
-- The same questions the other way round: what can be had of a category, here and as it was heard.
CREATE INDEX record_offered ON record (kind, category, dimension, left_base_quantity) WHERE state = 'available';
CREATE INDEX heard_offered ON heard (subject_kind, category, heard_number) WHERE available = 1;
CREATE INDEX demand_by_end ON demand (valid_until_ms) WHERE state = 'open';
CREATE INDEX demand_closed ON demand (changed_at_ms) WHERE state <> 'open';
CREATE INDEX demand_by_owner ON demand (own, number);
CREATE INDEX demand_by_node ON demand (node, state, number);

-- Up to which change of this city's demand a peer was told.
CREATE TABLE demand_cursor (
    node_id TEXT PRIMARY KEY REFERENCES node (node_id) ON DELETE CASCADE,
    change_number INTEGER NOT NULL
) STRICT;
-- A peer that begins anew, with an empty database perhaps, is told all of it again, as it is of announcements.
CREATE TRIGGER demand_told_again AFTER UPDATE OF flood_entry ON outbox_cursor WHEN new.flood_entry = 0 BEGIN
    DELETE FROM demand_cursor WHERE node_id = new.node_id;
END;

-- A node that is removed looks for nothing here any more.
CREATE TRIGGER demand_of_removed AFTER DELETE ON node BEGIN
    DELETE FROM demand WHERE node = old.node_id AND own = 0;
END;

-- Which supply fits which demand, and whether it can still be had. One of the two is always this city's.
CREATE TABLE demand_match (
    demand INTEGER NOT NULL REFERENCES demand (number) ON DELETE CASCADE,
    -- Where the supply is.
    node TEXT NOT NULL,
    subject TEXT NOT NULL,
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('material', 'product')),
    available INTEGER NOT NULL,
    ends_ms INTEGER,
    matched_at_ms INTEGER NOT NULL,
    PRIMARY KEY (demand, node, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX demand_match_by_subject ON demand_match (subject, node);
