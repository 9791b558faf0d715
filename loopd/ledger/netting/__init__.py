"""Netting: both cities sign which payments lie behind a clearing balance, and reserve pays it."""
