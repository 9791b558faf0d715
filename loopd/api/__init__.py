"""The HTTP API: one file a noun, one error envelope, one table of routes."""
