"""Runs and discharges between cities, written from the rules alone: what both sign, and what that leaves owed.

Of a run's payments each is worth what its payee's coins were at the rate frozen then; sums are exact and rounded up.
What is owed and paid is in hundredths of the backing, what clearing accounts fall by in those of the city's currency.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from tests.ledger_sim.asks import Key
from tests.ledger_sim.deals import Deal, Dealing, Promise
from tests.ledger_sim.mail import Mail
from tests.ledger_sim.money import DAY_MS, Refused

HOUR_MS = 3_600_000
METHODS = ("clearing", "netting", "gross")
PERIODS = ("immediate", "hourly", "daily", "weekly")
# 1970-01-01 was a Thursday.
_FIRST_MONDAY_MS = 4 * DAY_MS
_LENGTHS_MS = {"hourly": HOUR_MS, "daily": DAY_MS, "weekly": 7 * DAY_MS}
_AHEAD_MS = 300_000
_DENIED_MOST = 20

# A run: the other city, and its number. A claim: the run, and who owes. A discharge: who pays, whom, and its id.
RunName = tuple[str, int]
ClaimName = tuple[str, int, str]
DischargeName = tuple[str, str, str]


@dataclass(frozen=True)
class Claim:
    """What a run makes one city owe the other, and by how much this city's clearing account falls once it is paid."""

    debtor: str
    creditor: str
    amount: int
    falls: int


@dataclass(frozen=True)
class Run:
    """A run as one city has it; moments are by that city's clock."""

    state: str
    method: str
    period: str
    closed_ms: int
    sales: frozenset[Key]
    claims: tuple[Claim, ...]
    changed_ms: int
    reason: str | None = None


@dataclass(frozen=True)
class Discharge:
    """A payment from reserve to reserve as one city has it."""

    state: str
    runs: tuple[int, ...]
    reference: str
    amount: int
    claims: tuple[ClaimName, ...]
    opened_ms: int
    reason: str | None = None


@dataclass(frozen=True)
class Proposal:
    """A run that is proposed, or, `signed`, that the other city signed too. `claims` are debtor, creditor, amount."""

    number: int
    method: str
    period: str
    closed_ms: int
    sales: frozenset[Key]
    claims: tuple[tuple[str, str, int], ...]
    signed: bool


@dataclass(frozen=True)
class NotSigned:
    """Why a run is not signed."""

    number: int
    reason: str


@dataclass(frozen=True)
class Notice:
    """A payment that its debtor announces."""

    id: str
    runs: tuple[int, ...]
    amount: int
    backing: str
    reference: str


@dataclass(frozen=True)
class Found:
    """What the creditor found in the bank."""

    id: str
    state: str
    reason: str | None


class Model(Dealing):
    """One city with all that lies between it and others."""

    def __init__(self, *args: Any, backing: str) -> None:
        super().__init__(*args, backing=backing)
        self.runs: dict[RunName, Run] = {}
        self.listed: dict[Key, RunName] = {}
        # By peer the newest run that this city did not sign.
        self.unsigned: dict[str, NotSigned] = {}
        self.discharges: dict[DischargeName, Discharge] = {}
        self.paid_by: dict[ClaimName, DischargeName] = {}

    # Runs

    def is_run_due(self, peer: str, now_ms: int) -> bool:
        """Whether the timer proposes one."""
        period, last = self.rules.ways[peer][1], self.last_run(peer)
        if self.node > peer or not self.waiting(peer, _begin(period, now_ms)):
            return False
        if last is None or last[1].state == "agreed":
            return True
        pace = "hourly" if period == "immediate" else period
        return last[1].state == "refused" and _begin(pace, now_ms) > last[1].changed_ms

    def last_run(self, peer: str) -> tuple[int, Run] | None:
        """The newest run with a peer."""
        numbers = [number for name, number in self.runs if name == peer]
        return (max(numbers), self.runs[peer, max(numbers)]) if numbers else None

    def waiting(self, peer: str, before_ms: int) -> list[Key]:
        """What both cities had posted before a moment, and no run lists."""
        return [
            key
            for key, since_ms in self.both.items()
            if since_ms < before_ms and key not in self.listed and self.peer_of(key) == peer
        ]

    def propose_due(self, peer: str) -> None:
        """The timer proposes what is due."""
        if self.is_run_due(peer, self.wall_ms):
            self._propose(peer, self.waiting(peer, _begin(self.rules.ways[peer][1], self.wall_ms)))

    def propose_now(self, peer: str) -> None:
        """The office proposes all that there is."""
        last = self.last_run(peer)
        if peer not in self.owed:
            raise Refused("unknown_peer")
        if self.node > peer:
            raise Refused("peer_proposes")
        if last is not None and last[1].state == "proposed":
            raise Refused("run_undecided")
        waiting = self.waiting(peer, self.wall_ms + 1)
        if not waiting:
            raise Refused("nothing_to_settle")
        self._propose(peer, waiting)

    def _propose(self, peer: str, sales: Iterable[Key]) -> None:
        last, listed = self.last_run(peer), frozenset(sales)
        number = 1 if last is None else last[0] + 1
        method, period = self.rules.ways[peer]
        claims = self._claims(method, peer, listed)
        run = Run("proposed", method, period, self.wall_ms, listed, claims, self.wall_ms)
        self._keep_run((peer, number), run)

    def _proposed(self, peer: str, proposal: Proposal) -> None:
        """Sign it, or not: either for good."""
        known, unsigned = self.runs.get((peer, proposal.number)), self.unsigned.get(peer)
        if known is not None or (unsigned is not None and unsigned.number >= proposal.number):
            return
        fault = self._fault_of_run(peer, proposal)
        if fault is not None:
            self.journal.put(self.unsigned, peer, NotSigned(proposal.number, fault))
            return
        claims = self._claims(proposal.method, peer, proposal.sales)
        found = tuple((each.debtor, each.creditor, each.amount) for each in claims)
        assert found == proposal.claims, f"{self.node} would sign {found}, not {proposal}"
        terms = proposal.method, proposal.period, proposal.closed_ms
        self._agree((peer, proposal.number), Run("agreed", *terms, proposal.sales, claims, self.wall_ms))

    def _fault_of_run(self, peer: str, proposal: Proposal) -> str | None:
        method, period = self.rules.ways[peer]
        if proposal.method != method:
            return "other_method /settlement_method"
        if proposal.period != period:
            return "other_period /settlement_period"
        if proposal.closed_ms > self.wall_ms + _AHEAD_MS:
            return "bad_time /closed_at"
        # What honest cities list is posted in both, and in no run that either has signed.
        for key in proposal.sales:
            known = self.outs.get(key) or self.ins[key]
            assert known.state == "posted", f"{self.node} has {key} as {known.state}, and {peer} lists it"
            assert key not in self.listed, f"{key} is in {self.listed[key]} already"
        return None

    def _signed(self, peer: str, proposal: Proposal) -> None:
        known = self.runs[peer, proposal.number]
        if known.state == "refused":
            raise Refused("already_refused")
        if known.state == "proposed":
            self._agree((peer, proposal.number), replace(known, state="agreed", changed_ms=self.wall_ms))

    def _not_signed(self, peer: str, refusal: NotSigned) -> None:
        known = self.runs[peer, refusal.number]
        if known.state == "agreed":
            raise Refused("already_agreed")
        if known.state == "proposed":
            refused = replace(known, state="refused", reason=refusal.reason, changed_ms=self.wall_ms)
            self._keep_run((peer, refusal.number), refused)

    def _agree(self, name: RunName, run: Run) -> None:
        """Both have signed; where nothing is to be paid, that discharges it."""
        self._keep_run(name, run)
        peer, number = name
        for claim in run.claims:
            if claim.amount == 0 and run.method != "clearing":
                even = (claim.debtor, claim.creditor, f"even {number}")
                claims = ((peer, number, claim.debtor),)
                self._keep_discharge(even, Discharge("confirmed", (number,), "even", 0, claims, self.wall_ms))
                self._lower(even)

    def _keep_run(self, name: RunName, run: Run) -> None:
        self.journal.put(self.runs, name, run)
        for key in run.sales:
            if run.state != "refused":
                self.journal.put(self.listed, key, name)
            else:
                self.journal.drop(self.listed, key)

    def _claims(self, method: str, peer: str, sales: Iterable[Key]) -> tuple[Claim, ...]:
        first, second = sorted((self.node, peer))
        ways = [[first], [second]] if method == "gross" else [[first, second]]
        found = []
        for payers in ways:
            owed, falls = Fraction(0), {first: 0, second: 0}
            for key in sales:
                payer, deal, promise = self._posted(key)
                if payer in payers:
                    payee = second if payer == first else first
                    owed += Fraction(promise.received) / deal.rate * (1 if payer == payers[0] else -1)
                    falls[payer] += promise.paid
                    falls[payee] -= promise.received
            debtor = payers[0] if owed >= 0 else payers[-1]
            creditor = second if debtor == first else first
            amount = -(-abs(owed).numerator // owed.denominator)
            if amount or any(falls.values()):
                found.append(Claim(debtor, creditor, amount, falls[self.node]))
        return tuple(found)

    def _posted(self, key: Key) -> tuple[str, Deal, Promise]:
        """Who paid, what for, and what."""
        known = self.outs.get(key) or self.ins[key]
        if known.deal is None or known.promise is None:
            raise ValueError(f"nothing was promised for {key}")
        return known.deal.sale.buyer_city, known.deal, known.promise

    # Discharges, at the debtor's

    def open_claims(self, peer: str) -> list[tuple[int, str, Claim]]:
        """What is neither paid nor announced with a peer: the run, its method, and the claim."""
        return [
            (number, run.method, claim)
            for (name, number), run in sorted(self.runs.items())
            if name == peer and run.state == "agreed"
            for claim in run.claims
            if (peer, number, claim.debtor) not in self.paid_by
        ]

    def payable(self, peer: str, number: int) -> list[tuple[int, Claim]]:
        """What is paid together for a run: all that is carried up to it, or what this city owes by it alone."""
        carried = self.runs[peer, number].method == "clearing"
        return [
            (run, claim)
            for run, method, claim in self.open_claims(peer)
            if (method == "clearing" and run <= number if carried else run == number and claim.debtor == self.node)
        ]

    def announce(self, peer: str, discharge: str, number: int, reference: str) -> None:
        """The office has paid at its bank: hold so much of the reserve."""
        name, run = (self.node, peer, discharge), self.runs.get((peer, number))
        known = self.discharges.get(name)
        if peer not in self.owed:
            raise Refused("unknown_peer")
        if known is not None:
            if known.reference != reference or number not in known.runs:
                raise Refused("other_content")
            return
        if run is None:
            raise Refused("unknown_run")
        if run.state != "agreed":
            raise Refused("not_agreed")
        claims = self.payable(peer, number)
        amount = _owed(self.node, [claim for _, claim in claims])
        if amount <= 0:
            raise Refused("nothing_owed")
        self._check_denied(self.node, peer)
        if self.figures["reserve"] - self.figures["reserve held"] < amount:
            raise Refused("insufficient_reserve")
        self._count("reserve held", amount)
        runs, names = tuple(run for run, _ in claims), tuple((peer, run, claim.debtor) for run, claim in claims)
        self._keep_discharge(name, Discharge("announced", runs, reference, amount, names, self.wall_ms))

    def _answered(self, peer: str, found: Found) -> None:
        name = (self.node, peer, found.id)
        known = self.discharges[name]
        if known.state == found.state:
            return
        if known.state != "announced":
            raise Refused("other_decision")
        self._count("reserve held", -known.amount)
        self._keep_discharge(name, replace(known, state=found.state, reason=found.reason))
        if found.state == "confirmed":
            self._count("reserve", -known.amount)
            self._lower(name)

    # Discharges, at the creditor's

    def _announced(self, peer: str, notice: Notice) -> None:
        name = (peer, self.node, notice.id)
        known = self.discharges.get(name)
        if known is not None:
            if (known.reference, known.runs) != (notice.reference, notice.runs):
                raise Refused("other_content")
            return
        self._check_denied(peer, self.node)
        fault = self._fault_of_notice(peer, notice)
        claims = () if fault is not None else tuple(self._named(peer, notice))
        state = "announced" if fault is None else "denied"
        kept = Discharge(state, notice.runs, notice.reference, notice.amount, claims, self.wall_ms, fault)
        self._keep_discharge(name, kept)

    def _fault_of_notice(self, peer: str, notice: Notice) -> str | None:
        if notice.backing != self.backing:
            return "other_currency"
        for number in notice.runs:
            run = self.runs.get((peer, number))
            if run is None or run.state != "agreed":
                raise Refused("unknown_run")
            if run.method != "clearing" and len(notice.runs) > 1:
                return "other_runs"
        named = self._named(peer, notice)
        if any(name in self.paid_by for name in named):
            return "in_discharge"
        owed = _owed(peer, list(named.values()))
        if owed <= 0:
            return "not_debtor"
        return None if owed == notice.amount else "other_amount"

    def _named(self, peer: str, notice: Notice) -> dict[ClaimName, Claim]:
        """The claims that an announcement means."""
        return {
            (peer, number, claim.debtor): claim
            for number in notice.runs
            for claim in self.runs[peer, number].claims
            if self.runs[peer, number].method == "clearing" or claim.debtor == peer
        }

    def confirm(self, peer: str, discharge: str) -> None:
        """The money came."""
        name, known = self._to_decide(peer, discharge)
        if known.state == "denied":
            raise Refused("already_denied")
        if known.state == "announced":
            self._count("reserve", known.amount)
            self._keep_discharge(name, replace(known, state="confirmed"))
            self._lower(name)

    def deny(self, peer: str, discharge: str, reason: str) -> None:
        """The money did not come."""
        name, known = self._to_decide(peer, discharge)
        if known.state == "confirmed":
            raise Refused("already_confirmed")
        if known.state == "announced":
            self._keep_discharge(name, replace(known, state="denied", reason=reason))

    def _to_decide(self, peer: str, discharge: str) -> tuple[DischargeName, Discharge]:
        name = (peer, self.node, discharge)
        if name not in self.discharges:
            own = (self.node, peer, discharge) in self.discharges
            raise Refused("not_creditor" if own else "unknown_discharge")
        return name, self.discharges[name]

    # Both

    def hear(self, mail: Mail) -> None:
        """What another city says, of sales, runs or discharges."""
        if mail.key is not None:
            super().hear(mail)
            return
        if mail.sender not in self.owed:
            raise Refused("not_settling")
        peer, said = mail.sender, mail.content
        if isinstance(said, Proposal):
            (self._signed if said.signed else self._proposed)(peer, said)
        elif isinstance(said, NotSigned):
            self._not_signed(peer, said)
        elif isinstance(said, Notice):
            self._announced(peer, said)
        else:
            self._answered(peer, said)

    def _keep_discharge(self, name: DischargeName, discharge: Discharge) -> None:
        self.journal.put(self.discharges, name, discharge)
        for claim in discharge.claims:
            if discharge.state != "denied":
                self.journal.put(self.paid_by, claim, name)
            elif claim in self.paid_by:
                self.journal.drop(self.paid_by, claim)

    def _lower(self, name: DischargeName) -> None:
        """The clearing account falls by what the runs put there, against what was issued."""
        claims = self.discharges[name].claims
        falls = sum(
            claim.falls
            for peer, number, debtor in claims
            for claim in self.runs[peer, number].claims
            if claim.debtor == debtor
        )
        peer = claims[0][0]
        self._owe(peer, -falls)
        self._count("redeemed" if falls > 0 else "issued", abs(falls))

    def _check_denied(self, debtor: str, creditor: str) -> None:
        denied = [
            each
            for name, each in self.discharges.items()
            if name[:2] == (debtor, creditor) and each.state == "denied" and each.opened_ms > self.wall_ms - DAY_MS
        ]
        if len(denied) >= _DENIED_MOST:
            raise Refused("too_many_denied")


def _begin(period: str, now_ms: int) -> int:
    """When the present period began; what was posted before that is settled now."""
    if period == "immediate":
        return now_ms + 1
    offset_ms = _FIRST_MONDAY_MS if period == "weekly" else 0
    return now_ms - (now_ms - offset_ms) % _LENGTHS_MS[period]


def _owed(debtor: str, claims: Sequence[Claim]) -> int:
    """What a city owes by some claims, less what it is owed."""
    return sum(claim.amount if claim.debtor == debtor else -claim.amount for claim in claims)


def owes_something(claims: Sequence[tuple[int, str, Claim]]) -> bool:
    """Whether anybody has to pay: what is carried may be even."""
    carried = [claim for _, method, claim in claims if method == "clearing"]
    return len(carried) < len(claims) or (bool(carried) and _owed(carried[0].debtor, carried) != 0)
