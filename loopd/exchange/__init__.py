"""Offers between nodes: bids, their ranking by LoopCost, and the owner's selection (§3.3)."""
