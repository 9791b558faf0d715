"""The settlement between two nodes' ledgers: one decision, and clearing accounts that mirror each other."""
