-- What of a record is still to be had: registered, less what was transferred and what is reserved; and what was
-- transferred for good. Both in the padded form of `base_quantity`, so that texts compare as the quantities do.
ALTER TABLE record ADD COLUMN left_base_quantity TEXT
    CHECK (length(left_base_quantity) = 32 AND left_base_quantity >= '0' AND left_base_quantity <= base_quantity);
ALTER TABLE record ADD COLUMN transferred_base_quantity TEXT NOT NULL DEFAULT '0000000000000000000.000000000000'
    CHECK (length(transferred_base_quantity) = 32 AND transferred_base_quantity <= base_quantity);
UPDATE record SET left_base_quantity = base_quantity;

-- Where it came from: events of its chain of custody as this node adds them (JSON: {events}), and of what it is a part.
ALTER TABLE record ADD COLUMN custody BLOB;
ALTER TABLE record ADD COLUMN parent TEXT REFERENCES record (subject_id);
