"""The life of a proposal: proposed, open, closed, counted, certified; and the configuration that comes of it."""

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.crypto.keys import NodeKey
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from loopd.protocol.limits import SIGNAL_VOTE_LATE_MS, SIGNAL_VOTE_MAX_MS, VOTE_ID_MAX_CHARACTERS, VOTE_ROLL_MAX
from loopd.protocol.timestamps import format_timestamp, parse_utc_timestamp
from loopd.signals import ballot_tables, tables, vote_tables
from loopd.signals.ballots import BALLOT_KEY_BYTES, Choice, Receipt, RollEntry, credential_hash, make_receipt
from loopd.signals.governance import (
    Event,
    Method,
    State,
    Tally,
    Terms,
    Vote,
    beyond_limit,
    changed,
    differing,
    follow,
    has_passed,
    read_changes,
    read_fraction,
    read_tally,
    refused,
    touched,
)
from loopd.signals.periods import configuration_at, effective_from, period_start
from loopd.signals.publication import Circumstances, approval_of, proposal_json, signed_record, vote_json
from loopd.signals.rules import SignalConfiguration, configuration_json, end_of, month_of, own_configuration
from loopd.signals.settings import SignalsSettings

# Passes a LoopSignalConfig on, in the transaction that makes it; nobody need be told once it has ended.
Tell = Callable[[Tx, dict[str, Any], int], None]


class Voting:
    """Votes on this node's signals. What it decides, `Signals` reads from the same tables.

    `key` gives the node's key, which may be another one tomorrow; `tell` passes a new configuration on to peers.
    """

    def __init__(
        self,
        node_id: str,
        context_url: str,
        key: Callable[[], NodeKey],
        settings: SignalsSettings,
        audit: AuditLog,
        clock: Clock,
        tell: Tell,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._node_id = node_id
        self._context_url = context_url
        self._key = key
        self._settings = settings
        self._audit = audit
        self._clock = clock
        self._tell = tell
        self._random_bytes = random_bytes
        # Set when ballots were closed, and at the start, when that may have been the last thing that was done: the
        # database's log of changes still tells which ballot came with which voter, until it is emptied.
        self.log_tells_order = True

    # Reading

    def require(self, source: RowSource, vote_id: str) -> Vote:
        """The vote of an id; NotFound `unknown_vote`."""
        vote = vote_tables.find(source, vote_id)
        if vote is None:
            raise NotFound("unknown_vote", "There is no vote of this id.")
        return vote

    def newest(self, source: RowSource, limit: int) -> list[Vote]:
        """The proposals, the newest first."""
        return vote_tables.newest(source, limit)

    def proposal_view(self, vote: Vote) -> dict[str, Any]:
        """The SignalProposal as it stands."""
        return proposal_json(vote, self._node_id, self._context_url)

    def vote_view(self, vote: Vote) -> dict[str, Any]:
        """The LoopVote as it stands. Conflict `wrong_state` before the window opens."""
        return vote_json(vote, self._node_id, self._context_url)

    def record(self, source: RowSource, vote_id: str) -> dict[str, Any]:
        """The signed record of a decided vote. NotFound `unknown_vote`, Conflict `wrong_state`."""
        vote = self.require(source, vote_id)
        if vote.state not in (State.PASSED, State.FAILED) or vote.decided_at_ms is None:
            raise Conflict("wrong_state", "A vote is recorded once it is certified.", {"state": vote.state.value})
        stored = tables.own_configurations(source, self._node_id)
        moment_ms = vote.decided_at_ms if vote.effective_from_ms is None else vote.effective_from_ms
        after = None if vote.effective_from_ms is None else configuration_at(stored, moment_ms)
        earlier = [entry for entry in stored if entry.valid_from_ms < moment_ms] or stored
        around = Circumstances(
            before=configuration_at(earlier, moment_ms) or earlier[0],
            period_starts=[period_start(earlier, vote.closes_stated_ms), period_start(earlier, moment_ms)],
            after=after,
            ballots=ballot_tables.ballots(source, vote.number) if vote.method is Method.BALLOTS else None,
            turnout=ballot_tables.turnout(source, vote.number) if vote.method is Method.BALLOTS else None,
        )
        return signed_record(vote, around, self._node_id, self._context_url, self._key())

    # Proposing

    def propose(self, tx: Tx, document: Document) -> Vote:
        """Take a SignalProposal; `vote_id`, `eligible` and `method` beside its fields are read too.

        Invalid with the place: the reasons of `read_changes`, `bad_time`, `bad_vote_id`, `bad_eligible`, `bad_method`,
        `other_node`. Conflict `category_undecided`, `vote_id_taken`. Forbidden `ballots_off`.
        """
        value, now_ms = document.value, self._clock.now_ms()
        if value["node"] != self._node_id:
            raise refused("other_node", "/node", f"this node is {self._node_id}")
        changes = read_changes(value["changes"])
        opens_ms, closes_stated_ms = _window(value, now_ms)
        vote = Vote(
            number=0,
            vote_id=_vote_id(value, vote_tables.count(tx) + 1, closes_stated_ms),
            state=State.SCHEDULED,
            method=self._method(value),
            changes=changes,
            opens_ms=opens_ms,
            closes_stated_ms=closes_stated_ms,
            closes_ms=end_of(closes_stated_ms),
            eligible=self._eligible(value),
        )
        if vote_tables.find(tx, vote.vote_id) is not None:
            raise Conflict("vote_id_taken", "There is a vote of this id.", {"vote_id": vote.vote_id})
        stored = self._begin_history(tx, now_ms)
        in_force = configuration_at(stored, now_ms) or stored[0]
        categories = touched(changes, in_force.signals)
        taken = {category: other for category, other in vote_tables.claimed(tx).items() if category in categories}
        if taken:
            message = "There is one undecided proposal for a category at a time."
            raise Conflict("category_undecided", message, {"votes": taken})
        vote = replace(vote, number=vote_tables.add(tx, vote))
        vote_tables.claim(tx, vote.number, categories)
        self._record_event(tx, vote, "proposed")
        return vote

    def withdraw(self, tx: Tx, vote_id: str) -> Vote:
        """Take a proposal back before its window opens."""
        return self._end(tx, self.require(tx, vote_id), Event.WITHDRAWN, None)

    def annul(self, tx: Tx, vote_id: str, reason: str) -> Vote:
        """End a vote without an outcome, as after an appeal that was upheld; the reason is published."""
        return self._end(tx, self.require(tx, vote_id), Event.ANNULLED, reason)

    # Time

    def is_due(self, source: RowSource, now_ms: int) -> bool:
        """Whether there is anything for `tick` to do."""
        return any(vote.due_ms is not None and vote.due_ms <= now_ms for vote in vote_tables.undecided(source))

    def tick(self, tx: Tx, now_ms: int) -> None:
        """Open and close what is due, each at its own time, however late this is called."""
        while due := [vote for vote in vote_tables.undecided(tx) if vote.due_ms is not None and vote.due_ms <= now_ms]:
            vote = min(due, key=lambda vote: (vote.due_ms or 0, vote.number))
            if vote.state is State.SCHEDULED:
                self._open(tx, vote)
            else:
                self._close(tx, vote)

    def _open(self, tx: Tx, vote: Vote) -> None:
        stored = tables.own_configurations(tx, self._node_id)
        in_force = configuration_at(stored, vote.opens_ms) or stored[0]
        eligible = ballot_tables.roll_size(tx, vote.number) if vote.method is Method.BALLOTS else vote.eligible
        after = changed(in_force.signals, vote.changes)
        # A month that has not begun will begin with what is in force now, for nothing else can change it meanwhile.
        same_month = month_of(vote.closes_stated_ms) == month_of(vote.opens_ms)
        measure = period_start(stored, vote.opens_ms) if same_month else in_force
        if differing(vote.changes, in_force.signals):
            self._end(tx, vote, Event.UNFIT, "current_differs")
        elif beyond_limit(measure.signals, after):
            self._end(tx, vote, Event.UNFIT, "period_limit")
        elif not eligible:
            self._end(tx, vote, Event.UNFIT, "nobody_eligible")
        else:
            settings = self._settings
            terms = Terms(
                eligible,
                read_fraction(settings.quorum),
                read_fraction(settings.threshold),
                settings.appeals_s * 1000 if vote.method is Method.BALLOTS else 0,
            )
            vote = replace(vote, state=follow(vote.state, Event.OPENS), terms=terms)
            vote_tables.save(tx, vote)
            self._record_event(tx, vote, "opened")

    def _close(self, tx: Tx, vote: Vote) -> None:
        vote = replace(vote, state=follow(vote.state, Event.CLOSES))
        vote_tables.save(tx, vote)
        self._record_event(tx, vote, "closed")
        if vote.method is Method.BALLOTS:
            counted = ballot_tables.count(tx, vote.number)
            tally = Tally(vote.frozen().eligible, counted.total(), counted[Choice.FOR], counted[Choice.AGAINST])
            if tally.voted != len(ballot_tables.turnout(tx, vote.number)):
                raise RuntimeError(f"{vote.vote_id}: there are not as many ballots as voters")
            ballot_tables.forget_order(tx, vote.number)
            self.log_tells_order = True
            self._count(tx, vote, tally, vote.closes_ms)

    # Results

    def enter_result(self, tx: Tx, vote_id: str, stated: Mapping[str, Any]) -> Vote:
        """Keep the municipality's result, which an officer attests.

        Invalid `impossible_tally` with the place; Conflict `wrong_state`, and `counted_here` where ballots are taken.
        """
        self.tick(tx, self._clock.now_ms())
        vote = self.require(tx, vote_id)
        if vote.method is Method.BALLOTS:
            raise Conflict("counted_here", "This vote's ballots are counted by the node.")
        follow(vote.state, Event.RESULT)
        tally = read_tally(stated, vote.frozen())
        vote = replace(vote, attestation=stated["attestation"])
        return self._count(tx, vote, tally, self._clock.now_ms())

    def certify(self, tx: Tx, vote_id: str) -> Vote:
        """Make the outcome final; where it passed, the new configuration begins now.

        Conflict `wrong_state`; `appeals_open` before their time is over; `period_limit` where a category would differ
        by more than 0.10 from the start of this month, with the time from which it can be certified.
        """
        vote, now_ms = self.require(tx, vote_id), self._clock.now_ms()
        terms, tally = vote.terms, vote.tally
        if vote.state is not State.COUNTED or terms is None or tally is None or vote.counted_at_ms is None:
            follow(vote.state, Event.CERTIFIED_FAILED)
            raise RuntimeError(f"{vote.vote_id} was counted without a tally")
        if terms.appeals_ms and now_ms < vote.counted_at_ms + terms.appeals_ms:
            until = format_timestamp(vote.counted_at_ms + terms.appeals_ms)
            raise Conflict("appeals_open", f"The count can be appealed against until {until}.", {"not_before": until})
        vote = replace(vote, decided_at_ms=now_ms)
        if not has_passed(tally, terms):
            return self._end(tx, vote, Event.CERTIFIED_FAILED, None)
        configuration = self._next_configuration(tx, vote, tally, now_ms)
        tables.save_own(tx, configuration)
        self._audit.append(
            tx,
            AuditKind.SIGNAL_CHANGE,
            vote.vote_id,
            {
                "event": "signals_issued",
                "signals": dict(sorted(configuration.signals.items())),
                "valid_from": format_timestamp(configuration.valid_from_ms),
            },
        )
        self._tell(tx, configuration_json(configuration, self._context_url), configuration.valid_until_ms)
        vote = replace(vote, effective_from_ms=configuration.valid_from_ms)
        return self._end(tx, vote, Event.CERTIFIED_PASSED, None)

    def _next_configuration(self, tx: Tx, vote: Vote, tally: Tally, now_ms: int) -> SignalConfiguration:
        stored = tables.own_configurations(tx, self._node_id)
        begins_ms = effective_from(stored, now_ms)
        in_force = configuration_at(stored, begins_ms) or stored[0]
        signals = changed(in_force.signals, vote.changes)
        moved = touched(vote.changes, in_force.signals)
        # The limit holds for the month of the vote, and for the one in which it takes effect.
        for moment_ms in (vote.closes_stated_ms, begins_ms):
            before = period_start(stored, moment_ms).signals
            if excess := [category for category in beyond_limit(before, signals) if category in moved]:
                next_month = format_timestamp(month_of(begins_ms)[1])
                message = f"With this {', '.join(excess)} would change by more than 0.10 in a month."
                raise Conflict("period_limit", message, {"categories": excess, "not_before": next_month})
        approval = approval_of(vote.vote_id, tally)
        return SignalConfiguration(self._node_id, signals, begins_ms, month_of(begins_ms)[1], approval)

    def _count(self, tx: Tx, vote: Vote, tally: Tally, counted_at_ms: int) -> Vote:
        vote = replace(vote, state=follow(vote.state, Event.RESULT), tally=tally, counted_at_ms=counted_at_ms)
        vote_tables.save(tx, vote)
        counts = {"voted": tally.voted, "for": tally.votes_for, "against": tally.votes_against}
        self._record_event(tx, vote, "counted", counts)
        return vote

    def _end(self, tx: Tx, vote: Vote, event: Event, reason: str | None) -> Vote:
        vote = replace(vote, state=follow(vote.state, event), reason=reason)
        if vote.decided_at_ms is None:
            vote = replace(vote, decided_at_ms=self._clock.now_ms())
        vote_tables.save(tx, vote)
        vote_tables.release(tx, vote.number)
        self._record_event(tx, vote, vote.state.value)
        return vote

    # Ballots

    def enrol(self, tx: Tx, vote_id: str, entries: Iterable[RollEntry]) -> int:
        """Add voters to the roll of a vote whose window is not open yet; how many there are then.

        Conflict `counted_elsewhere`, `wrong_state`, `already_on_roll`, `roll_full`.
        """
        vote = self.require(tx, vote_id)
        if vote.method is not Method.BALLOTS:
            raise Conflict("counted_elsewhere", "This vote takes no ballots here.")
        if vote.state is not State.SCHEDULED or vote.opens_ms <= self._clock.now_ms():
            message = "The roll is closed when the window opens."
            raise Conflict("wrong_state", message, {"state": vote.state.value})
        try:
            ballot_tables.enrol(tx, vote.number, entries)
        except sqlite3.IntegrityError:
            raise Conflict("already_on_roll", "A voter or a credential is on the roll already.") from None
        size = ballot_tables.roll_size(tx, vote.number)
        if size > VOTE_ROLL_MAX:
            raise Conflict("roll_full", f"A roll has at most {VOTE_ROLL_MAX:,} voters.")
        return size

    def cast(self, tx: Tx, vote_id: str, credential: str, choice: Choice) -> Receipt:
        """Record a ballot and give the receipt, which says that, and not what.

        Conflict `window_closed`, `already_voted` (with the receipt). Forbidden `unknown_credential`.
        """
        now_ms = self._clock.now_ms()
        self.tick(tx, now_ms)
        vote = self.require(tx, vote_id)
        if vote.method is not Method.BALLOTS:
            raise Conflict("counted_elsewhere", "This vote takes no ballots here.")
        if vote.state is not State.OPEN or not vote.opens_ms <= now_ms < vote.closes_ms:
            raise Conflict("window_closed", "The window is not open.", {"state": vote.state.value})
        hashed = credential_hash(vote_id, credential)
        if not ballot_tables.is_on_roll(tx, vote.number, hashed):
            raise Forbidden("unknown_credential", "This credential was not given out for this vote.")
        receipt = make_receipt(self._key(), self._node_id, vote_id, hashed)
        try:
            ballot_tables.cast(tx, vote.number, hashed, self._random_bytes(BALLOT_KEY_BYTES), choice)
        except sqlite3.IntegrityError:
            details = {"receipt": {"credential": receipt.credential, "signature": receipt.signature}}
            raise Conflict("already_voted", "A ballot was recorded for this credential.", details) from None
        return receipt

    # Parts

    def _begin_history(self, tx: Tx, now_ms: int) -> list[SignalConfiguration]:
        """The stored configurations; before the first proposal there are none, and the settings' values begin them."""
        stored = tables.own_configurations(tx, self._node_id)
        if stored:
            return stored
        first = own_configuration(self._node_id, self._settings.values, now_ms)
        tables.save_own(tx, first)
        self._audit.append(
            tx,
            AuditKind.SIGNAL_CHANGE,
            self._node_id,
            {"event": "signals_begun", "signals": dict(sorted(first.signals.items()))},
        )
        return [first]

    def _method(self, value: Mapping[str, Any]) -> Method:
        stated = value.get("method", Method.ATTESTED.value)
        if stated not in [method.value for method in Method]:
            raise refused("bad_method", "/method", "attested or ballots")
        if stated == Method.BALLOTS and not self._settings.ballots:
            raise Forbidden("ballots_off", "This node takes no ballots: signals.ballots is false.")
        return Method(stated)

    def _eligible(self, value: Mapping[str, Any]) -> int | None:
        eligible = value.get("eligible", self._settings.eligible)
        if value.get("method") == Method.BALLOTS:
            return None
        if not isinstance(eligible, int) or isinstance(eligible, bool) or not 1 <= eligible <= 1_000_000_000:
            raise refused("bad_eligible", "/eligible", "how many may vote: a number, or signals.eligible")
        return eligible

    def _record_event(self, tx: Tx, vote: Vote, event: str, facts: Mapping[str, Any] | None = None) -> None:
        payload = {"event": f"vote_{event}", "state": vote.state.value, **(facts or {})}
        if vote.reason is not None:
            payload["reason"] = vote.reason
        self._audit.append(tx, AuditKind.SIGNAL_CHANGE, vote.vote_id, payload)


def _window(value: Mapping[str, Any], now_ms: int) -> tuple[int, int]:
    moments = []
    for name in ("voting_opens", "voting_closes"):
        try:
            moments.append(parse_utc_timestamp(value[name]))
        except ValueError:
            raise refused("bad_time", f"/{name}", "a time lies in the years 1 to 9999 of UTC") from None
    opens_ms, closes_ms = moments
    if opens_ms < now_ms - SIGNAL_VOTE_LATE_MS:
        raise refused("bad_time", "/voting_opens", "a window does not open in the past")
    if opens_ms > now_ms + SIGNAL_VOTE_MAX_MS:
        raise refused("bad_time", "/voting_opens", "a window opens within a year")
    if not max(opens_ms, now_ms) < closes_ms <= opens_ms + SIGNAL_VOTE_MAX_MS:
        raise refused("bad_time", "/voting_closes", "a window closes after now and its opening, within a year")
    return opens_ms, closes_ms


def _vote_id(value: Mapping[str, Any], number: int, closes_ms: int) -> str:
    vote_id = value.get("vote_id")
    if vote_id is None:
        return f"{format_timestamp(closes_ms)[:7]}-vote-{number}"
    plain = isinstance(vote_id, str) and vote_id.isascii() and vote_id.replace("-", "").replace(".", "").isalnum()
    if not plain or len(vote_id) > VOTE_ID_MAX_CHARACTERS:
        raise Invalid("bad_vote_id", f"vote_id is 1 to {VOTE_ID_MAX_CHARACTERS} letters, digits, dots and hyphens.")
    return str(vote_id)
