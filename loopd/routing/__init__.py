"""Where something should go: LoopCost to every known node, demand, and the best assignment of many to many."""
