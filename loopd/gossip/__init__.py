"""The gossip engine, sans I/O: what to do with a message, and how a peer's health moves."""
