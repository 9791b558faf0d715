"""The gossip engine in the world: peers and admission, keys, outbox, what was heard, relaying (§9)."""
