-- The LoopCoin ledger (§5). Amounts are whole hundredths. What happened (`ledger_transfer`, `ledger_entry`) never
-- changes; what stands now (balances, lots, closing balances) follows from it by triggers.

-- The currency's properties and from when they hold. What happens at a moment follows the version then in force.
CREATE TABLE ledger_terms (
    valid_from_ms INTEGER PRIMARY KEY,
    currency_code TEXT NOT NULL,
    backed_by TEXT NOT NULL,
    exchange_rate TEXT NOT NULL,
    local_bonus TEXT NOT NULL,
    expiry_months INTEGER NOT NULL CHECK (expiry_months BETWEEN 1 AND 12),
    decay_rate TEXT NOT NULL,
    max_issuance_minor INTEGER CHECK (max_issuance_minor >= 0),
    reserve_ratio TEXT NOT NULL,
    expiry_policy TEXT NOT NULL CHECK (expiry_policy IN ('decay', 'forfeit'))
) STRICT;

-- The ledger's own time: a clock that is set back does not set the books back.
CREATE TABLE ledger_time (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE ledger_account (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    currency TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('holder', 'fund', 'issuance', 'reserve', 'clearing')),
    -- Whoever signs with it may pay from the account; PEM.
    public_key TEXT,
    opened_at_ms INTEGER NOT NULL,
    balance_minor INTEGER NOT NULL DEFAULT 0,
    -- The part of the balance that is reserved for what is pending.
    held_minor INTEGER NOT NULL DEFAULT 0 CHECK (held_minor >= 0),
    UNIQUE (id, currency),
    CHECK (balance_minor >= held_minor OR role IN ('issuance', 'clearing'))
) STRICT;
CREATE INDEX ledger_account_by_role ON ledger_account (role, currency);

CREATE TABLE ledger_transfer (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('payment', 'settlement', 'bonus', 'issuance', 'redemption', 'backing', 'decay',
        'forfeit')),
    -- `pending` moves nothing yet; `post`, `void` and `expire` end the pending transfer that `pending` names.
    phase TEXT NOT NULL CHECK (phase IN ('posted', 'pending', 'post', 'void', 'expire')),
    pending INTEGER REFERENCES ledger_transfer (number),
    payer INTEGER NOT NULL REFERENCES ledger_account (number),
    payee INTEGER NOT NULL REFERENCES ledger_account (number) CHECK (payee <> payer),
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    at_ms INTEGER NOT NULL,
    -- What stands and falls together has one group.
    link TEXT,
    -- SHA-256 of the order's content, by which a repeat is told from another order under the same id.
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    -- The order as it was received, where there was one.
    document BLOB,
    CHECK ((phase IN ('post', 'void', 'expire')) = (pending IS NOT NULL))
) STRICT;
-- A pending transfer ends once.
CREATE UNIQUE INDEX ledger_transfer_ended ON ledger_transfer (pending) WHERE pending IS NOT NULL;
CREATE INDEX ledger_transfer_by_link ON ledger_transfer (link) WHERE link IS NOT NULL;

-- The two sides of what was posted, by issue day; accounts without lots have day -1.
CREATE TABLE ledger_entry (
    account INTEGER NOT NULL REFERENCES ledger_account (number),
    transfer INTEGER NOT NULL REFERENCES ledger_transfer (number),
    issue_day INTEGER NOT NULL CHECK (issue_day >= -1),
    amount_minor INTEGER NOT NULL CHECK (amount_minor <> 0),
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (account, transfer, issue_day)
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_entry_by_time ON ledger_entry (account, at_ms, amount_minor);

CREATE TABLE ledger_lot (
    account INTEGER NOT NULL REFERENCES ledger_account (number),
    issue_day INTEGER NOT NULL CHECK (issue_day >= 0),
    amount_minor INTEGER NOT NULL CHECK (amount_minor >= held_minor),
    held_minor INTEGER NOT NULL DEFAULT 0 CHECK (held_minor >= 0),
    -- Every boundary before this moment is charged.
    due_ms INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, issue_day)
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_lot_due ON ledger_lot (due_ms) WHERE amount_minor > held_minor;

-- What is pending, and how it ended.
CREATE TABLE ledger_hold (
    transfer INTEGER PRIMARY KEY REFERENCES ledger_transfer (number),
    payer INTEGER NOT NULL REFERENCES ledger_account (number),
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'posted', 'voided', 'expired')),
    -- NULL: it ends by a decision alone.
    expires_at_ms INTEGER
) STRICT;
CREATE INDEX ledger_hold_pending ON ledger_hold (payer) WHERE state = 'pending';
CREATE INDEX ledger_hold_expiring ON ledger_hold (expires_at_ms) WHERE state = 'pending' AND expires_at_ms IS NOT NULL;

CREATE TABLE ledger_hold_lot (
    hold INTEGER NOT NULL REFERENCES ledger_hold (transfer),
    issue_day INTEGER NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    PRIMARY KEY (hold, issue_day)
) STRICT, WITHOUT ROWID;

-- The balance at the end of each UTC day on which something was dated: a past balance is one of these and the entries
-- of one day.
CREATE TABLE ledger_closing (
    account INTEGER NOT NULL REFERENCES ledger_account (number),
    day INTEGER NOT NULL,
    balance_minor INTEGER NOT NULL,
    PRIMARY KEY (account, day)
) STRICT, WITHOUT ROWID;

-- What a transaction settles, keyed by the seller's node and the transaction's id.
CREATE TABLE ledger_settlement (
    seller_node TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('held', 'frozen', 'posted', 'voided')),
    buyer_node TEXT NOT NULL,
    subject TEXT NOT NULL,
    payer TEXT NOT NULL,
    total_minor INTEGER NOT NULL CHECK (total_minor >= 0),
    -- The five lines of §7.4 by name, as JSON.
    lines TEXT NOT NULL,
    link TEXT NOT NULL UNIQUE,
    -- What the payer got out of the bonus fund, and what the rate would have given.
    bonus_minor INTEGER NOT NULL DEFAULT 0,
    bonus_due_minor INTEGER NOT NULL DEFAULT 0 CHECK (bonus_minor <= bonus_due_minor),
    held_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,
    PRIMARY KEY (seller_node, transaction_id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER ledger_entry_moves AFTER INSERT ON ledger_entry BEGIN
    UPDATE ledger_account SET balance_minor = balance_minor + NEW.amount_minor WHERE number = NEW.account;
    INSERT INTO ledger_closing (account, day, balance_minor)
        SELECT NEW.account, NEW.at_ms / 86400000, NEW.amount_minor + coalesce((
            SELECT balance_minor FROM ledger_closing
            WHERE account = NEW.account AND day <= NEW.at_ms / 86400000 ORDER BY day DESC LIMIT 1), 0)
        WHERE true
        ON CONFLICT DO UPDATE SET balance_minor = excluded.balance_minor;
    -- What is dated back moves the days that follow it.
    UPDATE ledger_closing SET balance_minor = balance_minor + NEW.amount_minor
        WHERE account = NEW.account AND day > NEW.at_ms / 86400000;
END;
CREATE TRIGGER ledger_entry_moves_lot AFTER INSERT ON ledger_entry WHEN NEW.issue_day >= 0 BEGIN
    INSERT INTO ledger_lot (account, issue_day, amount_minor) VALUES (NEW.account, NEW.issue_day, 0)
        ON CONFLICT DO NOTHING;
    UPDATE ledger_lot SET amount_minor = amount_minor + NEW.amount_minor
        WHERE account = NEW.account AND issue_day = NEW.issue_day;
    DELETE FROM ledger_lot WHERE account = NEW.account AND issue_day = NEW.issue_day AND amount_minor = 0;
END;

CREATE TRIGGER ledger_terms_stay BEFORE UPDATE ON ledger_terms BEGIN SELECT raise(ABORT, 'terms stay'); END;
CREATE TRIGGER ledger_terms_last BEFORE DELETE ON ledger_terms BEGIN SELECT raise(ABORT, 'terms stay'); END;
CREATE TRIGGER ledger_transfer_stays BEFORE UPDATE ON ledger_transfer
    BEGIN SELECT raise(ABORT, 'a transfer stays as it is'); END;
CREATE TRIGGER ledger_transfer_lasts BEFORE DELETE ON ledger_transfer
    BEGIN SELECT raise(ABORT, 'a transfer stays as it is'); END;
CREATE TRIGGER ledger_entry_stays BEFORE UPDATE ON ledger_entry
    BEGIN SELECT raise(ABORT, 'an entry stays as it is'); END;
CREATE TRIGGER ledger_entry_lasts BEFORE DELETE ON ledger_entry
    BEGIN SELECT raise(ABORT, 'an entry stays as it is'); END;
CREATE TRIGGER ledger_time_goes_on BEFORE UPDATE ON ledger_time WHEN NEW.at_ms < OLD.at_ms
    BEGIN SELECT raise(ABORT, 'the ledger''s time goes on'); END;
CREATE TRIGGER ledger_hold_ends_once BEFORE UPDATE OF state ON ledger_hold WHEN OLD.state <> 'pending'
    BEGIN SELECT raise(ABORT, 'a pending transfer ends once'); END;

-- A token that may pay from one account and see it.
ALTER TABLE api_token ADD COLUMN account TEXT;
