"""What happened at this node, in order: one log for lists, streams and webhooks. It knows no module."""
