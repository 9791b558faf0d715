"""Dialling and listening, nothing else: HTTP client, dial guard, TLS."""
