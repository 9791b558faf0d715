"""LoopSignals (§6): the node's own, published, and those of other nodes, cached."""
