-- Nodes that this one chose itself: dialled because another named them, or approved by the operator (no teller).
CREATE TABLE chosen_peer (
    node_id TEXT PRIMARY KEY REFERENCES node (node_id) ON DELETE CASCADE,
    teller TEXT,
    chosen_at_ms INTEGER NOT NULL
) STRICT;
