-- Access: API tokens, and the answers that Idempotency-Key gives again.

CREATE TABLE api_token (
    id INTEGER PRIMARY KEY,
    -- SHA-256 of the token; the token itself is shown once and kept nowhere.
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    scopes TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    last_used_at_ms INTEGER
) STRICT;

CREATE TABLE idempotent_answer (
    id INTEGER PRIMARY KEY,
    principal TEXT NOT NULL,
    key TEXT NOT NULL,
    -- Counts one principal's keys, so that the oldest beyond the ceiling are found without counting rows.
    sequence INTEGER NOT NULL,
    request_digest BLOB NOT NULL CHECK (length(request_digest) = 32),
    created_at_ms INTEGER NOT NULL,
    status INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (principal, key),
    UNIQUE (principal, sequence)
) STRICT;

CREATE INDEX idempotent_answer_by_age ON idempotent_answer (created_at_ms);
