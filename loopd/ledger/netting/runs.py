"""How two nodes come to sign a run: the one with the smaller id proposes it, the other signs or says why not."""

from collections.abc import Sequence

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.ledger.clearing import tables as clearing_tables
from loopd.ledger.clearing.messages import read_prepare, read_request
from loopd.ledger.clearing.tables import Clearance
from loopd.ledger.netting import tables
from loopd.ledger.netting.discharges import Discharges
from loopd.ledger.netting.documents import (
    Proposal,
    RunName,
    SettledSale,
    difference,
    is_signed,
    read_proposal,
    read_refusal,
    refusal_json,
    run_json,
    signed,
)
from loopd.ledger.netting.ports import NodeKeys
from loopd.ledger.netting.rules import (
    Claim,
    Method,
    Period,
    RunState,
    claims_of,
    closes_at,
    may_propose_again,
    proposes,
)
from loopd.ledger.netting.tables import Run, Unsigned
from loopd.ledger.netting.telling import NettingTelling
from loopd.ledger.service import Ledger
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Invalid
from loopd.protocol.json_text import dump_json, read_json
from loopd.protocol.limits import NETTING_PAYMENTS_MAX, REQUEST_CLOCK_TOLERANCE_MS


class Unfit(Exception):
    """A run that this node does not sign. `place` points into the document."""

    def __init__(self, reason: str, place: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place


class Runs:
    """Both sides of the runs with every peer."""

    def __init__(
        self, ledger: Ledger, clock: Clock, keys: NodeKeys, discharges: Discharges, telling: NettingTelling
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._keys = keys
        self._discharges = discharges
        self._telling = telling

    def method(self, peer: str) -> Method:
        """How this node settles with a peer."""
        return Method(self._ledger.settings.settlement_methods.get(peer, Method.CLEARING))

    def period(self, peer: str) -> Period:
        """How often."""
        return Period(self._ledger.settings.settlement_periods.get(peer, Period.DAILY))

    # At the node that proposes

    def is_due(self, source: RowSource, peer: str, now_ms: int) -> bool:
        """Whether a run with a peer is to be proposed."""
        home, period = self._ledger.node.node_id, self.period(peer)
        if not proposes(home, peer) or not tables.unlisted(source, peer, closes_at(period, now_ms), 1):
            return False
        last = tables.last_run(source, peer)
        if last is None or last.state is RunState.AGREED:
            return True
        return last.state is RunState.REFUSED and may_propose_again(period, last.changed_at_ms, now_ms)

    def propose_due(self, tx: Tx, peer: str) -> None:
        """Propose what a run is due of."""
        now_ms = self._clock.now_ms()
        if self.is_due(tx, peer, now_ms):
            until_ms = closes_at(self.period(peer), now_ms)
            self._propose(tx, peer, tables.unlisted(tx, peer, until_ms, NETTING_PAYMENTS_MAX))

    def propose_now(self, tx: Tx, peer: str) -> Run:
        """Propose all that both books hold, whether the period is over or not.

        Conflict (409) `peer_proposes`, `run_undecided`, `nothing_to_settle`.
        """
        if not proposes(self._ledger.node.node_id, peer):
            raise Conflict("peer_proposes", "Runs are proposed by the node whose id is smaller.")
        last = tables.last_run(tx, peer)
        if last is not None and last.state is RunState.PROPOSED:
            raise Conflict("run_undecided", "The peer has not signed the run before yet.", {"run": last.run})
        waiting = tables.unlisted(tx, peer, self._clock.now_ms() + 1, NETTING_PAYMENTS_MAX)
        if not waiting:
            raise Conflict("nothing_to_settle", "No payment that both cities have posted waits for a run.")
        return self._propose(tx, peer, waiting)

    def signed_by_peer(self, tx: Tx, document: Document) -> None:
        """The other node has signed what this one proposed.

        Conflict (409) `unknown_run`, `other_content`, `bad_signature`, `already_refused`.
        """
        proposal, _ = read_proposal(document.value)
        run = self._require(tx, proposal.name.to_node, proposal.name.run)
        place = difference(read_json(run.document), document.value)
        if place is not None:
            raise Conflict("other_content", "That is not the run that was proposed.", {"pointer": place})
        if run.state is RunState.REFUSED:
            raise Conflict("already_refused", "The run was refused before.")
        if not is_signed(document.value, run.peer, self._keys.keys_of(tx, run.peer)):
            raise Conflict("bad_signature", "The signature is not that of the other node's key over this run.")
        if run.state is RunState.PROPOSED:
            sales = [_sale_of(each) for each in tables.listed_in(tx, run.number)]
            claims = claims_of(proposal.method, proposal.name.nodes, [each.payment for each in sales])
            self._agree(tx, run, document.received, claims)

    def refused_by_peer(self, tx: Tx, document: Document) -> None:
        """The other node does not sign. Conflict (409) `unknown_run`, `already_agreed`."""
        name, reason = read_refusal(document.value)
        run = self._require(tx, name.to_node, name.run)
        if run.state is RunState.AGREED:
            raise Conflict("already_agreed", "The run was signed before.")
        if run.state is RunState.PROPOSED:
            tables.decide_run(tx, run, RunState.REFUSED, run.document, reason, self._clock.now_ms())
            tables.give_back(tx, run.number)
            self._telling.record_run(tx, tables.run_by_number(tx, run.number))

    def remind(self, tx: Tx, run: Run) -> None:
        """Nothing was heard for a while: propose the same again."""
        if run.state is RunState.PROPOSED:
            self._tell_proposal(tx, run)

    # At the other node

    def proposed(self, tx: Tx, document: Document) -> None:
        """Sign what the peer proposes, or say why not; either is durable before it is told, and final.

        Invalid (400) `not_a_run`, `not_proposer`.
        """
        proposal, ids = read_proposal(document.value)
        peer = proposal.name.from_node
        if not proposes(peer, self._ledger.node.node_id):
            raise Invalid("not_proposer", "Runs are proposed by the node whose id is smaller.")
        known = tables.find_run(tx, peer, proposal.name.run)
        if known is not None and difference(read_json(known.document), document.value) is None:
            self._telling.answer(tx, peer, known.document)
            return
        try:
            self._check_new(tx, proposal.name)
            sales, numbers = self._fitting(tx, proposal, ids, document)
        except Unfit as unfit:
            tables.note_unsigned(tx, peer, Unsigned(proposal.name.run, unfit.reason, unfit.place))
            url = self._ledger.node.context_url
            self._telling.answer(tx, peer, dump_json(refusal_json(proposal.name, unfit.reason, unfit.place, url)))
            self._telling.refused(tx, proposal.name, unfit.reason, unfit.place)
            return
        both = dump_json(signed(document.value, self._ledger.node.node_id, self._keys.own()))
        run = tables.insert_run(tx, peer, proposal, document.received, self._clock.now_ms())
        tables.list_in(tx, run.number, numbers)
        self._agree(tx, run, both, claims_of(proposal.method, proposal.name.nodes, [sale.payment for sale in sales]))
        self._telling.answer(tx, peer, both)

    def _check_new(self, tx: Tx, name: RunName) -> None:
        """Unfit `other_run` for a number that is used up; for a copy of what was not signed, as it was then.

        Its payments may be in another run by now: who proposed it has heard that it is off, or will.
        """
        last, unsigned = tables.last_run(tx, name.from_node), tables.find_unsigned(tx, name.from_node)
        if unsigned is not None and name.run == unsigned.run:
            raise Unfit(unsigned.reason, unsigned.place)
        if name.run <= max(0 if last is None else last.run, 0 if unsigned is None else unsigned.run):
            raise Unfit("other_run", "/run")

    def _fitting(
        self, tx: Tx, proposal: Proposal, ids: Sequence[str], document: Document
    ) -> tuple[list[SettledSale], list[int]]:
        """The payments of a run that this node would have made the same, with their own numbers. Unfit if it is none.

        `other_method`, `other_period`, `bad_time`, `no_payments`, `too_many_payments`, `unknown_payment`,
        `not_posted`, `in_another_run`, `other_content`, `bad_signature`.
        """
        peer = proposal.name.from_node
        if proposal.method is not self.method(peer):
            raise Unfit("other_method", "/settlement_method")
        if proposal.period is not self.period(peer):
            raise Unfit("other_period", "/settlement_period")
        if proposal.closed_at_ms > self._clock.now_ms() + REQUEST_CLOCK_TOLERANCE_MS:
            raise Unfit("bad_time", "/closed_at")
        listed = self._listed(tx, peer, ids)
        sales = [_sale_of(each) for each in listed]
        claims = claims_of(proposal.method, proposal.name.nodes, [sale.payment for sale in sales])
        place = difference(run_json(proposal, sales, claims, document.value["@context"]), document.value)
        if place is not None:
            raise Unfit("other_content", place)
        if not is_signed(document.value, peer, self._keys.keys_of(tx, peer)):
            raise Unfit("bad_signature", "/signatures")
        return sales, [each.number for each in listed]

    def _listed(self, tx: Tx, peer: str, ids: Sequence[str]) -> list[Clearance]:
        if not ids:
            raise Unfit("no_payments", "/transfers")
        if len(ids) > NETTING_PAYMENTS_MAX:
            raise Unfit("too_many_payments", "/transfers")
        found: list[Clearance] = []
        for index, settlement_id in enumerate(ids):
            place = f"/transfers/{index}/id"
            known = clearing_tables.find_between(tx, (self._ledger.node.node_id, peer), settlement_id)
            if known is None:
                raise Unfit("unknown_payment", place)
            if known.state != "posted":
                raise Unfit("not_posted", place)
            if tables.run_of(tx, known.number) is not None or any(each.number == known.number for each in found):
                raise Unfit("in_another_run", place)
            found.append(known)
        return found

    # At both

    def _propose(self, tx: Tx, peer: str, waiting: Sequence[Clearance]) -> Run:
        now_ms, last, home = self._clock.now_ms(), tables.last_run(tx, peer), self._ledger.node.node_id
        number = 1 if last is None else last.run + 1
        proposal = Proposal(RunName(home, peer, number), self.method(peer), self.period(peer), now_ms)
        sales = [_sale_of(each) for each in waiting]
        claims = claims_of(proposal.method, proposal.name.nodes, [sale.payment for sale in sales])
        document = signed(run_json(proposal, sales, claims, self._ledger.node.context_url), home, self._keys.own())
        run = tables.insert_run(tx, peer, proposal, dump_json(document), now_ms)
        tables.list_in(tx, run.number, [each.number for each in waiting])
        self._telling.record_run(tx, run)
        self._tell_proposal(tx, run)
        return tables.run_by_number(tx, run.number)

    def _agree(self, tx: Tx, run: Run, document: bytes, claims: Sequence[Claim]) -> None:
        """Both have signed: from now on each city owes what the claims say."""
        tables.decide_run(tx, run, RunState.AGREED, document, None, self._clock.now_ms())
        tables.insert_claims(tx, run.number, claims, self._ledger.node.node_id)
        agreed = tables.run_by_number(tx, run.number)
        self._telling.record_run(tx, agreed)
        self._discharges.settle_even(tx, agreed)

    def _tell_proposal(self, tx: Tx, run: Run) -> None:
        at_ms = self._telling.say(tx, run.peer, f"run:{run.number}", run.document, run.reminders)
        tables.remind_of_run(tx, run.number, at_ms, run.reminders + 1)

    def _require(self, tx: Tx, peer: str, number: int) -> Run:
        run = tables.find_run(tx, peer, number)
        if run is None:
            raise Conflict("unknown_run", "No such run was proposed.")
        return run


def _sale_of(clearance: Clearance) -> SettledSale:
    if clearance.request is None or clearance.prepare is None:
        raise RuntimeError(f"settlement {clearance.number} is posted, and was never prepared")
    return SettledSale(read_request(read_json(clearance.request)), read_prepare(read_json(clearance.prepare)))
