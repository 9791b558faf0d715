"""The lifecycle a second time, small and written from its rules: what a seller's node must agree with after each step.

It knows quantities in whole grams and nothing of tables, transactions or time.
"""

from dataclasses import dataclass, field


class Refused(Exception):
    """The status and the reason with which a request must be refused."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.answer = (status, reason)


NEXT = {
    "offer": {"open": {"reserved", "withdrawn"}, "reserved": {"open", "withdrawn"}, "withdrawn": set()},
    "match": {"proposed": {"accepted", "rejected"}, "accepted": {"expired"}, "rejected": set(), "expired": set()},
    "transfer": {
        "scheduled": {"in_transit", "cancelled"},
        "in_transit": {"completed", "cancelled"},
        "completed": set(),
        "cancelled": set(),
    },
}


@dataclass
class ModelOffer:
    grams: int
    status: str = "open"


@dataclass
class ModelMatch:
    offer: str
    status: str


@dataclass
class ModelTransfer:
    match: str
    status: str = "scheduled"


@dataclass
class Model:
    """One batch and what was promised of it."""

    registered: int
    state: str = "available"
    offers: dict[str, ModelOffer] = field(default_factory=dict)
    matches: dict[str, ModelMatch] = field(default_factory=dict)
    transfers: dict[str, ModelTransfer] = field(default_factory=dict)
    sales: dict[str, tuple[str, str]] = field(default_factory=dict)

    # What follows from the rest

    def transferred(self) -> int:
        done = [transfer.match for transfer in self.transfers.values() if transfer.status == "completed"]
        return sum(self.offers[self.matches[match].offer].grams for match in done)

    def reserved(self) -> int:
        done = {transfer.match for transfer in self.transfers.values() if transfer.status == "completed"}
        return sum(
            self.offers[match.offer].grams
            for name, match in self.matches.items()
            if match.status in ("proposed", "accepted") and name not in done
        )

    def left(self) -> int:
        return self.registered - self.transferred() - self.reserved()

    # What is asked of it

    def make_offer(self, name: str, grams: int) -> None:
        if self.state != "available":
            raise Refused(400, "not_available")
        if grams > self.left():
            raise Refused(400, "quantity_above_available")
        self.offers[name] = ModelOffer(grams)

    def make_match(self, name: str, offer: str, status: str) -> None:
        found = self.offers[offer]
        if found.status == "reserved":
            raise Refused(409, "already_matched")
        if found.status != "open":
            raise Refused(400, "offer_not_open")
        if self.state != "available":
            raise Refused(409, "not_available")
        if found.grams > self.left():
            raise Refused(409, "quantity_above_available")
        found.status = "reserved"
        self.matches[name] = ModelMatch(offer, status)
        self._settle()

    def make_transfer(self, name: str, match: str) -> None:
        if self.matches[match].status != "accepted":
            raise Refused(400, "match_not_accepted")
        if self._standing(match) is not None:
            raise Refused(409, "already_transferred")
        self.transfers[name] = ModelTransfer(match)
        self._follow(match, "confirmed")

    def make_sale(self, name: str, match: str) -> None:
        if self.matches[match].status != "accepted":
            raise Refused(400, "match_not_accepted")
        if any(of == match and status != "cancelled" for of, status in self.sales.values()):
            raise Refused(409, "already_sold")
        self.sales[name] = (match, "pending")
        standing = self._standing(match)
        if standing is not None:
            steps = {"scheduled": "confirmed", "in_transit": "in_transit", "completed": "delivered"}
            self._follow(match, steps[standing.status])

    def move(self, entity: str, name: str, status: str) -> None:
        entry = {"offer": self.offers, "match": self.matches, "transfer": self.transfers}[entity][name]
        following = NEXT[entity][entry.status]
        if status not in following:
            raise Refused(409, "transition" if following else "terminal")
        if entity == "offer":
            self._withdraw(name, status)
        elif entity == "match" and status != "accepted":
            self._end(name)
        else:
            entry.status = status
            self._moved(entity, entry, status)
        self._settle()

    def set_state(self, state: str) -> None:
        allowed = {"available": {"reserved", "withdrawn"}, "reserved": {"available", "withdrawn"}, "withdrawn": set()}
        if state not in allowed[self.state]:
            raise Refused(409, "transition" if allowed[self.state] else "terminal")
        if state == "withdrawn" or (state == "available" and self.left() == 0):
            reserving = [name for name in self.matches if self._reserves(name)]
            if any(self._standing(name) is not None for name in reserving):
                raise Refused(409, "in_transfer")
            for name in reserving:
                self._end(name)
        if state == "withdrawn":
            for offer in self.offers.values():
                if offer.status == "open":
                    offer.status = "withdrawn"
        self.state = state

    # How it follows

    def _moved(self, entity: str, entry: ModelOffer | ModelMatch | ModelTransfer, status: str) -> None:
        if not isinstance(entry, ModelTransfer):
            return
        if status == "in_transit":
            self._follow(entry.match, "in_transit")
        if status == "completed":
            self.offers[self.matches[entry.match].offer].status = "withdrawn"
            self._follow(entry.match, "delivered")
            if self.transferred() == self.registered:
                self.state = "withdrawn"

    def _withdraw(self, name: str, status: str) -> None:
        if status != "withdrawn":
            raise Refused(409, "by_match")
        for match, entry in self.matches.items():
            if entry.offer == name and self._reserves(match):
                if self._standing(match) is not None:
                    raise Refused(409, "in_transfer")
                self._end(match)
        self.offers[name].status = "withdrawn"

    def _end(self, name: str) -> None:
        standing, match = self._standing(name), self.matches[name]
        if standing is not None:
            raise Refused(409, "fulfilled" if standing.status == "completed" else "in_transfer")
        nothing_was_left = self.left() == 0
        match.status = "rejected" if match.status == "proposed" else "expired"
        self.offers[match.offer].status = "open"
        if nothing_was_left and self.state == "reserved":
            self.state = "available"
        for sale, (of, status) in self.sales.items():
            if of == name and status not in ("completed", "cancelled", "disputed"):
                self.sales[sale] = (of, "cancelled")

    def _settle(self) -> None:
        if self.left() == 0 and self.state == "available":
            self.state = "reserved"

    def _reserves(self, name: str) -> bool:
        standing = self._standing(name)
        done = standing is not None and standing.status == "completed"
        return self.matches[name].status in ("proposed", "accepted") and not done

    def _standing(self, match: str) -> ModelTransfer | None:
        found = [each for each in self.transfers.values() if each.match == match and each.status != "cancelled"]
        return found[0] if found else None

    def _follow(self, match: str, status: str) -> None:
        way = ["pending", "confirmed", "in_transit", "delivered", "completed"]
        for sale, (of, current) in self.sales.items():
            if of == match and current in way and way.index(current) < way.index(status):
                self.sales[sale] = (of, status)
