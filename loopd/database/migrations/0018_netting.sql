-- Runs in which two nodes sign what they owe each other, and the payments from reserve to reserve that discharge it.
CREATE TABLE netting_run (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    peer TEXT NOT NULL,
    -- Its number among the runs with that peer, which the proposing node gives.
    run INTEGER NOT NULL CHECK (run >= 1),
    state TEXT NOT NULL CHECK (state IN ('proposed', 'agreed', 'refused')),
    method TEXT NOT NULL CHECK (method IN ('clearing', 'gross', 'netting')),
    period TEXT NOT NULL CHECK (period IN ('immediate', 'hourly', 'daily', 'weekly')),
    -- The InterNodeSettlement; once agreed with both signatures.
    document BLOB NOT NULL,
    reason TEXT,
    closed_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    reminders INTEGER NOT NULL DEFAULT 0,
    remind_at_ms INTEGER,
    UNIQUE (peer, run)
) STRICT;
-- The next run waits for the other side's word on this one.
CREATE UNIQUE INDEX netting_run_proposed ON netting_run (peer) WHERE state = 'proposed';
CREATE INDEX netting_run_due ON netting_run (remind_at_ms) WHERE remind_at_ms IS NOT NULL;

-- A settlement is in one run, and in one alone; only a refused run gives it back.
ALTER TABLE clearing_settlement ADD COLUMN netting_run INTEGER REFERENCES netting_run (number);
CREATE INDEX clearing_settlement_by_run ON clearing_settlement (netting_run) WHERE netting_run IS NOT NULL;
CREATE INDEX clearing_settlement_unlisted ON clearing_settlement
    (CASE side WHEN 'payer' THEN payee_node ELSE payer_node END, changed_at_ms, number)
    WHERE netting_run IS NULL AND state = 'posted';

CREATE TABLE netting_discharge (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    peer TEXT NOT NULL,
    -- Which side of it this node is: the debtor gives the id, the creditor says whether the money came.
    side TEXT NOT NULL CHECK (side IN ('debtor', 'creditor')),
    id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('announced', 'confirmed', 'denied')),
    -- The runs that it discharges, by their numbers with the peer, as JSON.
    runs TEXT NOT NULL,
    -- What names the payment outside: a bank's reference.
    reference TEXT NOT NULL,
    -- What is paid, in hundredths of the backing, and by how much the own clearing account falls.
    backing_minor INTEGER NOT NULL CHECK (backing_minor >= 0),
    falls_minor INTEGER NOT NULL,
    reason TEXT,
    opened_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    reminders INTEGER NOT NULL DEFAULT 0,
    remind_at_ms INTEGER,
    UNIQUE (peer, side, id)
) STRICT;
CREATE INDEX netting_discharge_of_peer ON netting_discharge (peer, number);
CREATE INDEX netting_discharge_due ON netting_discharge (remind_at_ms) WHERE remind_at_ms IS NOT NULL;

-- What an agreed run makes one city owe the other.
CREATE TABLE netting_claim (
    run INTEGER NOT NULL REFERENCES netting_run (number),
    debtor TEXT NOT NULL,
    creditor TEXT NOT NULL CHECK (creditor <> debtor),
    backing_minor INTEGER NOT NULL CHECK (backing_minor >= 0),
    falls_minor INTEGER NOT NULL,
    -- The payment that discharges it, unless that was denied.
    discharge INTEGER REFERENCES netting_discharge (number),
    PRIMARY KEY (run, debtor)
) STRICT, WITHOUT ROWID;
CREATE INDEX netting_claim_open ON netting_claim (run) WHERE discharge IS NULL;
CREATE INDEX netting_claim_by_discharge ON netting_claim (discharge) WHERE discharge IS NOT NULL;

CREATE TRIGGER netting_run_decided BEFORE UPDATE OF state, document ON netting_run WHEN OLD.state <> 'proposed'
    BEGIN SELECT raise(ABORT, 'a run that is decided stays'); END;
CREATE TRIGGER netting_run_lasts BEFORE DELETE ON netting_run
    BEGIN SELECT raise(ABORT, 'a run is kept for good'); END;
CREATE TRIGGER netting_listed BEFORE UPDATE OF netting_run ON clearing_settlement
    WHEN OLD.netting_run IS NOT NULL
    AND (SELECT state FROM netting_run WHERE number = OLD.netting_run) <> 'refused'
    BEGIN SELECT raise(ABORT, 'a settlement is in one run'); END;
CREATE TRIGGER netting_discharge_decided BEFORE UPDATE OF state ON netting_discharge WHEN OLD.state <> 'announced'
    BEGIN SELECT raise(ABORT, 'a discharge is decided once'); END;
CREATE TRIGGER netting_discharge_lasts BEFORE DELETE ON netting_discharge
    BEGIN SELECT raise(ABORT, 'a discharge is kept for good'); END;
CREATE TRIGGER netting_claim_stays BEFORE UPDATE OF backing_minor, falls_minor, debtor, creditor ON netting_claim
    BEGIN SELECT raise(ABORT, 'a claim stays'); END;
CREATE TRIGGER netting_claim_discharged BEFORE UPDATE OF discharge ON netting_claim
    WHEN OLD.discharge IS NOT NULL
    AND (SELECT state FROM netting_discharge WHERE number = OLD.discharge) <> 'denied'
    BEGIN SELECT raise(ABORT, 'a claim is discharged once'); END;
CREATE TRIGGER netting_claim_lasts BEFORE DELETE ON netting_claim
    BEGIN SELECT raise(ABORT, 'a claim is kept for good'); END;
