"""The LoopCoin ledger of one city (§5): double entry, lots that age, holds, and what a transaction settles."""
