-- By peer the newest run that it proposed and this node did not sign: no copy of it that comes late is signed any more.
CREATE TABLE netting_unsigned (
    peer TEXT PRIMARY KEY,
    run INTEGER NOT NULL CHECK (run >= 1),
    reason TEXT NOT NULL,
    place TEXT
) STRICT, WITHOUT ROWID;
CREATE TRIGGER netting_unsigned_rises BEFORE UPDATE ON netting_unsigned WHEN NEW.run <= OLD.run
    BEGIN SELECT raise(ABORT, 'a run is decided once'); END;
