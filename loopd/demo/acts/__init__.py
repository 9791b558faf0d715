"""The acts, a file for those that belong together."""
