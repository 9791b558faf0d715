-- Settlements with other nodes, by the payer's node and the settlement's id; kept for good.
CREATE TABLE clearing_settlement (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    payer_node TEXT NOT NULL,
    id TEXT NOT NULL,
    payee_node TEXT NOT NULL,
    -- Which side of it this node is.
    side TEXT NOT NULL CHECK (side IN ('payer', 'payee')),
    state TEXT NOT NULL CHECK (state IN ('requested', 'refused', 'held', 'prepared', 'posted', 'voided')),
    -- NULL where this node never heard of what it is asked about.
    transaction_id TEXT,
    -- At the payer's: a dispute keeps it from ending, a post is wanted already, the other side knows the decision.
    frozen INTEGER NOT NULL DEFAULT 0 CHECK (frozen IN (0, 1)),
    wanted INTEGER NOT NULL DEFAULT 0 CHECK (wanted IN (0, 1)),
    acknowledged INTEGER NOT NULL DEFAULT 0 CHECK (acknowledged IN (0, 1)),
    -- At the payee's: what it asks for.
    ask TEXT CHECK (ask IN ('post', 'void', 'freeze')),
    reason TEXT,
    -- The own bid that the payer's node holds the money for; of one bid once.
    bid TEXT,
    -- SettlementRequest and SettlementPrepare as they were sent: rates and amounts stay as they are there.
    request BLOB,
    prepare BLOB,
    -- What crosses from one clearing account to the other, in each currency.
    payer_minor INTEGER NOT NULL DEFAULT 0 CHECK (payer_minor >= 0),
    payee_minor INTEGER NOT NULL DEFAULT 0 CHECK (payee_minor >= 0),
    opened_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    reminders INTEGER NOT NULL DEFAULT 0,
    -- When the other side is told or asked again; NULL: there is nothing to.
    remind_at_ms INTEGER,
    UNIQUE (payer_node, id)
) STRICT;
CREATE UNIQUE INDEX clearing_settlement_by_transaction ON clearing_settlement (payee_node, transaction_id)
    WHERE transaction_id IS NOT NULL;
CREATE UNIQUE INDEX clearing_settlement_by_bid ON clearing_settlement (payee_node, bid)
    WHERE bid IS NOT NULL AND state <> 'voided';
CREATE INDEX clearing_settlement_due ON clearing_settlement (remind_at_ms) WHERE remind_at_ms IS NOT NULL;

CREATE TRIGGER clearing_settlement_decided BEFORE UPDATE OF state ON clearing_settlement
    WHEN OLD.state IN ('posted', 'voided') AND NEW.state <> OLD.state
    BEGIN SELECT raise(ABORT, 'a decision is final'); END;
CREATE TRIGGER clearing_settlement_lasts BEFORE DELETE ON clearing_settlement
    BEGIN SELECT raise(ABORT, 'a settlement is kept for good'); END;
