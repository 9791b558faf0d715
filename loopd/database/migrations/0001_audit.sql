-- The audit log (§10.5). Each entry's hash covers the one before it, so that no row can be changed, added or removed
-- in between unnoticed. The payload is covered through a salted digest: it can be erased, and the chain still holds.
CREATE TABLE audit_entry (
    sequence INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- JSON, as it was digested. NULL, like its salt, once erased.
    payload BLOB,
    salt BLOB,
    payload_digest BLOB NOT NULL CHECK (length(payload_digest) = 32),
    entry_hash BLOB NOT NULL CHECK (length(entry_hash) = 32),
    CHECK ((payload IS NULL) = (salt IS NULL))
) STRICT;

-- Also against INSERT OR REPLACE, which deletes without asking the trigger for deletions.
CREATE TRIGGER audit_entry_only_follows BEFORE INSERT ON audit_entry
WHEN NEW.sequence IS NOT 1 + coalesce((SELECT max(sequence) FROM audit_entry), 0)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only: an entry follows the last one');
END;

CREATE TRIGGER audit_entry_only_erases BEFORE UPDATE ON audit_entry
WHEN NEW.payload IS NOT NULL
    OR NEW.salt IS NOT NULL
    OR NEW.sequence IS NOT OLD.sequence
    OR NEW.at_ms IS NOT OLD.at_ms
    OR NEW.kind IS NOT OLD.kind
    OR NEW.subject IS NOT OLD.subject
    OR NEW.payload_digest IS NOT OLD.payload_digest
    OR NEW.entry_hash IS NOT OLD.entry_hash
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only: a payload can be erased, nothing else changes');
END;

CREATE TRIGGER audit_entry_never_goes BEFORE DELETE ON audit_entry
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only: no entry is deleted');
END;
