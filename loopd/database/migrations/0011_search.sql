-- Search (§8.1): places, texts, and the catalogue of what other cities announced.

-- The rest of what an announcement says; NULL where it left it out.
ALTER TABLE heard ADD COLUMN state TEXT;
ALTER TABLE heard ADD COLUMN available_from_ms INTEGER;
ALTER TABLE heard ADD COLUMN expires_ms INTEGER;

-- What can be found: records of this node, and what the catalogue holds of others. An entry goes when it can never be
-- had again, withdrawn or past its end, so that what is over costs a search nothing.
CREATE TABLE search_entry (
    -- Never given twice: a search that is read page by page ends at the number that was the last when it began.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The record of this node; NULL for what was announced.
    record_number INTEGER UNIQUE REFERENCES record (number),
    -- Scope, kind and category as one number.
    section INTEGER NOT NULL,
    available INTEGER NOT NULL,
    condition TEXT,
    -- In the padded form of `record`; NULL where an announcement left it out.
    dimension TEXT,
    base_quantity TEXT,
    left_base_quantity TEXT,
    available_from_ms INTEGER,
    expires_ms INTEGER,
    -- When the entry goes: what was announced ends with its announcement, if not before.
    ends_ms INTEGER,
    -- The place, and the same as a point on the unit sphere; NULL where nobody said it.
    lat REAL,
    lon REAL,
    x REAL,
    y REAL,
    z REAL,
    -- The place is that of the node, for none was stated.
    at_home INTEGER NOT NULL,
    -- What the owner asks for all that was registered, in hundredths of an LC.
    asking_minor INTEGER,
    -- How long its document is.
    size_bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX search_entry_by_section ON search_entry (section, number);
CREATE INDEX search_entry_by_end ON search_entry (ends_ms) WHERE ends_ms IS NOT NULL;

-- Section and place in one tree. A section is half a number thick: were it a mere point, boxes of one section would have
-- no volume, by which the tree keeps neighbours together.
CREATE VIRTUAL TABLE search_place USING rtree (
    number, section_low, section_high, x_low, x_high, y_low, y_high, z_low, z_high
);

-- The words of a record: what it is called, who made it, what is noted of it.
CREATE VIRTUAL TABLE search_text USING fts5 (
    name, manufacturer, notes, tokenize = 'unicode61 remove_diacritics 2'
);

-- Whoever changes a record changes what is found of it. What is withdrawn has ended before all time, and goes as that.
CREATE TRIGGER search_follows_record AFTER UPDATE OF state, left_base_quantity ON record BEGIN
    UPDATE search_entry SET available = (NEW.state = 'available'), left_base_quantity = NEW.left_base_quantity,
        ends_ms = iif(NEW.state = 'withdrawn', -9223372036854775808, ends_ms)
    WHERE record_number = NEW.number;
END;

-- What other cities announced and still offer, one entry for each subject of each of them.
CREATE TABLE catalogue_entry (
    number INTEGER PRIMARY KEY REFERENCES search_entry (number) ON DELETE CASCADE,
    origin TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    message_id BLOB NOT NULL,
    category TEXT,
    quantity TEXT,
    unit TEXT,
    valid_until_ms INTEGER NOT NULL,
    verified INTEGER NOT NULL,
    UNIQUE (origin, subject_id)
) STRICT;
CREATE INDEX catalogue_entry_by_end ON catalogue_entry (origin, valid_until_ms);

-- How many entries each city has, so that the one with the most makes room; and how many there are.
CREATE TABLE catalogue_origin (
    origin TEXT PRIMARY KEY,
    entries INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX catalogue_origin_by_entries ON catalogue_origin (entries);
CREATE TABLE catalogue_count (entries INTEGER NOT NULL) STRICT;
INSERT INTO catalogue_count (entries) VALUES (0);
CREATE TRIGGER catalogue_entry_counted AFTER INSERT ON catalogue_entry BEGIN
    UPDATE catalogue_count SET entries = entries + 1;
    INSERT INTO catalogue_origin (origin, entries) VALUES (NEW.origin, 1)
    ON CONFLICT (origin) DO UPDATE SET entries = entries + 1;
END;
CREATE TRIGGER catalogue_entry_uncounted AFTER DELETE ON catalogue_entry BEGIN
    UPDATE catalogue_count SET entries = entries - 1;
    UPDATE catalogue_origin SET entries = entries - 1 WHERE origin = OLD.origin;
    DELETE FROM catalogue_origin WHERE origin = OLD.origin AND entries = 0;
END;

-- Records that are to be entered when the node starts: those from before there was an index, and those that lie where
-- the node was before it moved.
CREATE TABLE search_backlog (record_number INTEGER PRIMARY KEY REFERENCES record (number)) STRICT;
INSERT INTO search_backlog (record_number) SELECT number FROM record WHERE state <> 'withdrawn';
CREATE TABLE search_home (lat REAL NOT NULL, lon REAL NOT NULL) STRICT;
