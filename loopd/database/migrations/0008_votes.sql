-- What this node's community decided (§6): only what a vote changed, and the first from the settings. Between them the
-- same values are issued again each month.
CREATE TABLE own_signal_configuration (
    valid_from_ms INTEGER PRIMARY KEY,
    valid_until_ms INTEGER NOT NULL CHECK (valid_until_ms > valid_from_ms),
    -- Category to basis points, as JSON.
    signals TEXT NOT NULL,
    vote_id TEXT UNIQUE,
    turnout TEXT,
    approval TEXT
) STRICT;

-- Proposals and their votes. Everything up to `attestation` is published.
CREATE TABLE signal_vote (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    vote_id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN
        ('scheduled', 'open', 'closed', 'counted', 'passed', 'failed', 'refused', 'withdrawn', 'annulled')),
    method TEXT NOT NULL CHECK (method IN ('attested', 'ballots')),
    -- [{category, current, proposed, reason}], the values in basis points.
    changes TEXT NOT NULL,
    opens_ms INTEGER NOT NULL,
    -- As stated, which says to what month it belongs, and when it is: a second 59 is included.
    closes_stated_ms INTEGER NOT NULL,
    closes_ms INTEGER NOT NULL CHECK (closes_ms > opens_ms),
    -- The rules, frozen when the window opens.
    eligible INTEGER CHECK (eligible >= 0),
    quorum TEXT,
    threshold TEXT,
    appeals_ms INTEGER,
    voted INTEGER CHECK (voted BETWEEN 0 AND eligible),
    votes_for INTEGER CHECK (votes_for >= 0),
    votes_against INTEGER CHECK (votes_against >= 0),
    attestation TEXT,
    reason TEXT,
    counted_at_ms INTEGER,
    decided_at_ms INTEGER,
    effective_from_ms INTEGER REFERENCES own_signal_configuration (valid_from_ms),
    CHECK (votes_for + votes_against <= voted)
) STRICT;
CREATE INDEX signal_vote_undecided ON signal_vote (state) WHERE state IN ('scheduled', 'open', 'closed', 'counted');

-- One undecided proposal for a category at a time.
CREATE TABLE undecided_category (
    category TEXT PRIMARY KEY,
    vote INTEGER NOT NULL REFERENCES signal_vote (number)
) STRICT, WITHOUT ROWID;
CREATE INDEX undecided_category_by_vote ON undecided_category (vote);

-- Ballots on the node. Tables without row numbers, keyed by hashes and random bytes: nothing tells an order or a time,
-- and nothing in a ballot refers to a voter.
CREATE TABLE vote_roll (
    vote INTEGER NOT NULL REFERENCES signal_vote (number),
    -- A hash that the city salted, with a salt that this node never sees.
    voter BLOB NOT NULL CHECK (length(voter) = 32),
    credential BLOB NOT NULL CHECK (length(credential) = 32),
    PRIMARY KEY (vote, credential),
    UNIQUE (vote, voter)
) STRICT, WITHOUT ROWID;

-- Who voted. The key is what a second ballot fails on.
CREATE TABLE vote_turnout (
    vote INTEGER NOT NULL,
    credential BLOB NOT NULL,
    PRIMARY KEY (vote, credential),
    FOREIGN KEY (vote, credential) REFERENCES vote_roll (vote, credential)
) STRICT, WITHOUT ROWID;

-- How was voted.
CREATE TABLE ballot (
    vote INTEGER NOT NULL REFERENCES signal_vote (number),
    ballot BLOB NOT NULL CHECK (length(ballot) = 16),
    choice TEXT NOT NULL CHECK (choice IN ('for', 'against', 'abstain')),
    PRIMARY KEY (vote, ballot)
) STRICT, WITHOUT ROWID;

-- What is odd about the signals that other nodes publish: told to the operator, and nothing else follows from it.
CREATE TABLE signal_remark (
    node_id TEXT NOT NULL,
    valid_from_ms INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('jump', 'went_back', 'contradiction')),
    categories TEXT NOT NULL,
    noticed_at_ms INTEGER NOT NULL,
    PRIMARY KEY (node_id, valid_from_ms, kind)
) STRICT, WITHOUT ROWID;
