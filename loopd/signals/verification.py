"""Recomputing a vote's outcome from its published record, offline and without trust in who published it, pure.

What the record shows is that it is consistent: that rules, ballots, tally, outcome and configuration follow from each
other, and that the node with the key signed them. It cannot show that the ballots are those that people cast, nor that
an attested result is the municipality's.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loopd.crypto.keys import PublicKey, decode_signature
from loopd.protocol.errors import Invalid
from loopd.protocol.schemas import schema_errors
from loopd.protocol.timestamps import parse_timestamp
from loopd.signals.ballots import BALLOT_KEY_BYTES, HASH_BYTES, Choice
from loopd.signals.governance import (
    Change,
    Method,
    Tally,
    Terms,
    beyond_limit,
    changed,
    differing,
    read_changes,
    read_fraction,
    read_tally,
    status_of,
    touched,
)
from loopd.signals.publication import RECORD_FORMAT, approval_of, signed_bytes
from loopd.signals.rules import basis_points_of, end_of, month_of, read_configuration


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked; `problem` is None where it holds."""

    check: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a record: who signed it, whether it is attested only, the outcome as recomputed, every check."""

    node: str
    fingerprint: str
    attested: bool
    outcome: str
    tally: Tally
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        return all(finding.problem is None for finding in self.findings)


def verify_record(published: Any) -> Verdict:
    """Check everything that a record claims. Invalid `not_a_record` where it cannot even be read as one."""
    try:
        return _verify(published["record"], published["signature"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, Invalid) as error:
        raise Invalid("not_a_record", f"This is no record of a vote: {error}") from error


class _Claims:
    """The parts of a record, read. Whatever is missing or of another kind raises."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        if record["format"] != RECORD_FORMAT:
            raise ValueError(f"its format is not {RECORD_FORMAT}")
        self.record = record
        self.node: str = record["node"]
        self.key = PublicKey.from_pem(record["public_key"])
        self.vote: Mapping[str, Any] = record["vote"]
        rules = self.vote["rules"]
        self.method = Method(rules["method"])
        self.terms = Terms(
            rules["total_eligible"],
            read_fraction(rules["quorum"]),
            read_fraction(rules["threshold"]),
            rules["appeals_s"] * 1000,
        )
        self.changes: tuple[Change, ...] = read_changes(
            {"category": stated["category"], "current": stated["current_value"], "proposed": stated["proposed_value"]}
            for stated in self.vote["proposals"]
        )
        results = dict(self.vote["results"])
        self.status: str = results.pop("status")
        self.tally = read_tally(results, self.terms)
        self.before = read_configuration(record["before"])
        self.starts = [read_configuration(start) for start in record["period_starts"]]
        configuration = record["configuration"]
        self.after = None if configuration is None else read_configuration(configuration)
        self.stated_end_ms = parse_timestamp(self.vote["voting_period"]["end"])
        self.certified_ms = parse_timestamp(self.vote["certified_at"])


def _verify(record: Mapping[str, Any], signature: str) -> Verdict:
    claims = _Claims(record)
    checks: list[tuple[str, Callable[[], str | None]]] = [
        ("the node's signature", lambda: _signature_problem(claims, signature)),
        ("the documents fit their schemas", lambda: _schema_problem(claims)),
        ("the window and its times", lambda: _time_problem(claims)),
        ("the ballots and the tally", lambda: _ballots_problem(claims)),
        ("the outcome", lambda: _outcome_problem(claims)),
        ("what was in force", lambda: _before_problem(claims)),
        ("the limit of 0.10 in a month", lambda: _limit_problem(claims)),
        ("the configuration that came of it", lambda: _configuration_problem(claims)),
    ]
    findings = tuple(Finding(name, check()) for name, check in checks)
    attested = claims.method is Method.ATTESTED
    outcome = status_of(claims.tally, claims.terms)
    return Verdict(claims.node, claims.key.fingerprint, attested, outcome, claims.tally, findings)


def _signature_problem(claims: _Claims, signature: str) -> str | None:
    holds = claims.key.verify(signed_bytes(claims.record), decode_signature(signature))
    return None if holds else "it is not over this record, or not by this key"


def _schema_problem(claims: _Claims) -> str | None:
    record = claims.record
    documents = [("LoopVote", claims.vote), ("LoopSignalConfig", record["before"])]
    documents += [("LoopSignalConfig", start) for start in record["period_starts"]]
    if record["configuration"] is not None:
        documents.append(("LoopSignalConfig", record["configuration"]))
    for name, document in documents:
        if violations := schema_errors(name, dict(document)):
            return f"{name}{violations[0].pointer}: {violations[0].message}"
        if document["node"] != claims.node:
            return f"a {name} is of another node"
    return None


def _time_problem(claims: _Claims) -> str | None:
    closed_ms = parse_timestamp(claims.record["closed_at"])
    if closed_ms != end_of(claims.stated_end_ms):
        return "it was not closed when it was to close"
    if parse_timestamp(claims.vote["voting_period"]["start"]) >= closed_ms:
        return "it closed before it opened"
    early = claims.certified_ms < closed_ms + claims.terms.appeals_ms
    return "it was certified before appeals were over" if early else None


def _ballots_problem(claims: _Claims) -> str | None:
    if claims.method is Method.ATTESTED:
        return "ballots in an attested result" if "ballots" in claims.record else None
    ballots, turnout = claims.record["ballots"], claims.record["turnout"]
    keys = [bytes.fromhex(key) for key, _ in ballots]
    if keys != sorted(set(keys)) or any(len(key) != BALLOT_KEY_BYTES for key in keys):
        return "the ballots' keys repeat, or their order could tell something"
    voters = [bytes.fromhex(credential) for credential in turnout]
    if voters != sorted(set(voters)) or any(len(voter) != HASH_BYTES for voter in voters):
        return "the credentials that voted repeat, or their order could tell something"
    if len(voters) != len(keys):
        return f"{len(voters)} voted, and there are {len(keys)} ballots"
    counted = Counter(Choice(choice) for _, choice in ballots)
    expected = Tally(claims.terms.eligible, len(keys), counted[Choice.FOR], counted[Choice.AGAINST])
    return None if expected == claims.tally else f"counting the ballots gives {expected}"


def _outcome_problem(claims: _Claims) -> str | None:
    expected = status_of(claims.tally, claims.terms)
    if expected != claims.status:
        return f"by the tally and the rules it is {expected}"
    if (claims.after is not None) != (expected == "passed"):
        return "there is a new configuration if and only if it passed"
    return None


def _before_problem(claims: _Claims) -> str | None:
    if claims.after is None:
        return None
    wrong = differing(claims.changes, claims.before.signals)
    return f"other values were in force for {', '.join(wrong)}" if wrong else None


def _limit_problem(claims: _Claims) -> str | None:
    if claims.after is None:
        return None
    moved = touched(claims.changes, claims.before.signals)
    moments = (claims.stated_end_ms, claims.after.valid_from_ms)
    if len(claims.starts) != len(moments):
        return "the values at the start of the two months are not there"
    for start, moment_ms in zip(claims.starts, moments, strict=True):
        if not start.valid_from_ms <= month_of(moment_ms)[0] < start.valid_until_ms:
            return "the values it is measured from are of another month"
        if excess := [name for name in beyond_limit(start.signals, claims.after.signals) if name in moved]:
            return f"exceeded for {', '.join(excess)}"
    return None


def _configuration_problem(claims: _Claims) -> str | None:
    after = claims.after
    if after is None:
        return None
    if after.signals != changed(claims.before.signals, claims.changes):
        return "its values are not those before with the changes made"
    if after.valid_from_ms < claims.certified_ms:
        return "it begins before it was certified"
    if after.valid_until_ms != month_of(after.valid_from_ms)[1]:
        return "it does not end with its month"
    return _approval_problem(claims)


def _approval_problem(claims: _Claims) -> str | None:
    stated = claims.record["configuration"]["approved_by"]
    expected = approval_of(claims.vote["vote_id"], claims.tally)
    if stated["vote_id"] != expected.vote_id:
        return "it names another vote"
    for name, share in (("turnout", expected.turnout), ("approval", expected.approval)):
        if basis_points_of(stated[name]) != basis_points_of(share):
            return f"its {name} is not {share}"
    return None
