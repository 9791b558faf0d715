"""What is published of a vote, pure: the proposal, the LoopVote, and the record from which anybody can recompute it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

import rfc8785

from loopd.crypto.keys import NodeKey, encode_signature
from loopd.protocol.timestamps import format_timestamp
from loopd.signals.governance import State, Tally, Vote
from loopd.signals.rules import Approval, SignalConfiguration, configuration_json, signal_json

RECORD_FORMAT: Final = "loopd-signal-vote-v1"
_SIGNED: Final = b"loopd-signal-vote-v1\n"
_SHARE: Final = Decimal("0.0001")
_HELD = frozenset({State.OPEN, State.CLOSED, State.COUNTED, State.PASSED, State.FAILED, State.ANNULLED})
_OUTCOMES: Final[Mapping[State, str]] = {State.PASSED: "passed", State.FAILED: "failed", State.ANNULLED: "failed"}


def is_held(vote: Vote) -> bool:
    """Whether there is a vote to publish: its window has opened."""
    return vote.state in _HELD


def share(part: int, whole: int) -> Decimal:
    """A share as a LoopSignalConfig states it: to four decimals, 0 of nothing."""
    return Decimal(0) if whole == 0 else (Decimal(part) / whole).quantize(_SHARE, ROUND_HALF_EVEN).normalize()


def approval_of(vote_id: str, tally: Tally) -> Approval:
    """What a configuration says of the vote that set it (§6.1)."""
    turnout = share(tally.voted, tally.eligible)
    return Approval(vote_id, turnout, share(tally.votes_for, tally.votes_for + tally.votes_against))


def rules_json(vote: Vote) -> dict[str, Any] | None:
    """The rules as they were frozen; None before the window opens."""
    terms = vote.terms
    if terms is None:
        return None
    return {
        "method": vote.method.value,
        "total_eligible": terms.eligible,
        "quorum": str(terms.quorum),
        "threshold": str(terms.threshold),
        "appeals_s": terms.appeals_ms // 1000,
    }


def proposal_json(vote: Vote, node_id: str, context_url: str) -> dict[str, Any]:
    """The SignalProposal (§12.2), with its id, its state and its rules beside."""
    changes = []
    for change in vote.changes:
        stated: dict[str, Any] = {
            "category": change.category,
            "current": signal_json(change.current),
            "proposed": signal_json(change.proposed),
        }
        if change.reason is not None:
            stated["reason"] = change.reason
        changes.append(stated)
    return {
        **_head("SignalProposal", node_id, context_url),
        "changes": changes,
        "voting_opens": format_timestamp(vote.opens_ms),
        "voting_closes": format_timestamp(vote.closes_stated_ms),
        "vote_id": vote.vote_id,
        "method": vote.method.value,
        "status": vote.state.value,
        "rules": rules_json(vote),
        "reason": vote.reason,
    }


def vote_json(vote: Vote, node_id: str, context_url: str) -> dict[str, Any]:
    """The LoopVote (§6.3). Until a result is there it counts nothing: what is known of a running vote sways it."""
    terms, tally = vote.frozen(), vote.tally
    counted = Tally(terms.eligible, 0, 0, 0) if tally is None else tally
    proposals = []
    for change in vote.changes:
        stated: dict[str, Any] = {
            "category": change.category,
            "current_value": signal_json(change.current),
            "proposed_value": signal_json(change.proposed),
        }
        if change.reason is not None:
            stated["rationale"] = change.reason
        proposals.append(stated)
    return {
        **_head("LoopVote", node_id, context_url),
        "vote_id": vote.vote_id,
        "proposals": proposals,
        "voting_period": {
            "start": format_timestamp(vote.opens_ms),
            "end": format_timestamp(vote.closes_stated_ms),
        },
        "results": {
            "total_eligible": counted.eligible,
            "total_voted": counted.voted,
            "votes_for": counted.votes_for,
            "votes_against": counted.votes_against,
            "status": _OUTCOMES.get(vote.state, "pending"),
        },
        "rules": rules_json(vote),
        "state": vote.state.value,
        "attestation": vote.attestation,
        "reason": vote.reason,
        "certified_at": None if vote.decided_at_ms is None else format_timestamp(vote.decided_at_ms),
    }


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a record says beside the vote: what was in force, what came of it, and the anonymous ballots.

    `period_starts` are the configurations from whose values the limit of 0.10 is measured. Ballots and turnout are
    None for an attested result.
    """

    before: SignalConfiguration
    period_starts: Sequence[SignalConfiguration]
    after: SignalConfiguration | None
    ballots: Sequence[tuple[str, str]] | None
    turnout: Sequence[str] | None


def signed_record(vote: Vote, around: Circumstances, node_id: str, context_url: str, key: NodeKey) -> dict[str, Any]:
    """The record of a decided vote and this node's signature over its RFC 8785 form."""
    record: dict[str, Any] = {
        "format": RECORD_FORMAT,
        "node": node_id,
        "public_key": key.public.to_pem(),
        "closed_at": format_timestamp(vote.closes_ms),
        "vote": vote_json(vote, node_id, context_url),
        "before": configuration_json(around.before, context_url),
        "period_starts": [configuration_json(start, context_url) for start in around.period_starts],
        "configuration": None if around.after is None else configuration_json(around.after, context_url),
    }
    if around.ballots is not None and around.turnout is not None:
        record["ballots"] = [list(ballot) for ballot in around.ballots]
        record["turnout"] = list(around.turnout)
    return {"record": record, "signature": encode_signature(key.sign(signed_bytes(record)))}


def signed_bytes(record: Mapping[str, Any]) -> bytes:
    """What the signature of a record is over. ValueError for what RFC 8785 has no form for."""
    try:
        return _SIGNED + rfc8785.dumps(_as_numbers(record))
    except rfc8785.CanonicalizationError as error:
        raise ValueError(str(error)) from None


def _as_numbers(value: Any) -> Any:
    # RFC 8785 writes a number as a double does; four decimals come back from one as they went in.
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return {key: _as_numbers(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_numbers(item) for item in value]
    return value


def _head(entity: str, node_id: str, context_url: str) -> dict[str, Any]:
    return {"@context": context_url, "@type": entity, "schema_version": "0.2.0", "node": node_id}
