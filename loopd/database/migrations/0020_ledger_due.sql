-- What is due on an account is looked up before anything else happens on it, among however many lots and holds it has.
CREATE INDEX ledger_lot_due_on_account ON ledger_lot (account, due_ms);
CREATE INDEX ledger_hold_expiring_on_account ON ledger_hold (payer, expires_at_ms)
    WHERE state = 'pending' AND expires_at_ms IS NOT NULL;
