-- Materials and products (§4): what was received, what is searched by, and what this node lays over it.
CREATE TABLE record (
    -- Rises with every registration: the order of the lists, whatever the clock does.
    number INTEGER PRIMARY KEY,
    subject_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('material', 'product')),
    -- The bytes as they were sent; where they came in another JSON-LD form, `compacted` is the plain one.
    received BLOB NOT NULL,
    compacted BLOB,
    registered_at_ms INTEGER NOT NULL,

    -- Taken from the document.
    category TEXT NOT NULL,
    condition TEXT,
    quantity TEXT NOT NULL,
    unit TEXT NOT NULL,
    dimension TEXT NOT NULL,
    -- The quantity in its dimension's base unit: 10^15 t with nine decimals needs 31 digits, more than an integer or a
    -- REAL holds exactly. Padded to one width, the texts sort as the numbers do, so an index serves `at least so much`.
    base_quantity TEXT NOT NULL CHECK (length(base_quantity) = 32),
    lat REAL,
    lon REAL,
    available_from_ms INTEGER NOT NULL,
    expires_ms INTEGER,

    -- Laid over the document by this node.
    current_city TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('available', 'reserved', 'withdrawn')),
    state_changed_at_ms INTEGER NOT NULL,

    CHECK ((lat IS NULL) = (lon IS NULL)),
    CHECK ((kind = 'product') = (condition IS NOT NULL))
) STRICT;
CREATE INDEX record_by_kind ON record (kind, number);
CREATE INDEX record_by_category ON record (kind, category, number);
-- What is offered now. Places have no index here: two columns of a B-tree do not answer `within so many kilometres`.
CREATE INDEX record_available ON record (kind, expires_ms) WHERE state = 'available';

CREATE TRIGGER record_keeps_what_was_received
BEFORE UPDATE OF number, subject_id, kind, received, compacted, registered_at_ms ON record
BEGIN
    SELECT RAISE(ABORT, 'what was received does not change');
END;

-- Every change of a record's state: by a MaterialStatusUpdate (with its id and text), or by this node itself.
CREATE TABLE record_state_change (
    number INTEGER PRIMARY KEY,
    record_number INTEGER NOT NULL REFERENCES record (number),
    state TEXT NOT NULL CHECK (state IN ('available', 'reserved', 'withdrawn')),
    changed_at_ms INTEGER NOT NULL,
    cause TEXT,
    update_id TEXT UNIQUE,
    received BLOB,
    compacted BLOB,
    CHECK ((update_id IS NULL) = (received IS NULL))
) STRICT;
CREATE INDEX record_state_change_by_record ON record_state_change (record_number, number);
