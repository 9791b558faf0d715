"""The append-only audit log (§10.5), chained by hash."""
