"""The network between the cities: it loses, repeats, reorders, and is cut. Nobody hears a clock that is far off."""

import random
from itertools import combinations
from typing import Final

from tests.ledger_sim.city import City
from tests.ledger_sim.mail import Mail
from tests.ledger_sim.words import Post

# A node does not listen to another one whose clock differs by more.
SKEW_MAX_MS: Final = 300_000


class Network:
    """The messages on their way, by whom they go to."""

    def __init__(self, cities: dict[str, City]) -> None:
        self.post = Post()
        self.waiting: dict[str, list[Mail]] = {name: [] for name in cities}
        self.cut: set[frozenset[str]] = set()
        self._cities = cities

    def add(self, mail: Mail) -> None:
        """A message was sent."""
        self.waiting[mail.receiver].append(mail)

    def drop_expired(self, chance: random.Random) -> None:
        """What its sender no longer sends is gone, but for copies that wait somewhere on the way."""
        for name, mails in self.waiting.items():
            self.waiting[name] = [mail for mail in mails if not self._is_gone(mail, chance)]

    def _is_gone(self, mail: Mail, chance: random.Random) -> bool:
        return self._cities[mail.sender].clock.now_ms() >= mail.sent.expires_ms and chance.random() < 0.7

    def forget(self, mail: Mail) -> None:
        """A message does not come again."""
        self.waiting[mail.receiver] = [each for each in self.waiting[mail.receiver] if each is not mail]

    def some_for(self, city: str, chance: random.Random) -> Mail | None:
        """Any message that can reach a city now."""
        reaching = self.reaching(city)
        return chance.choice(reaching) if reaching else None

    def reaching(self, city: str) -> list[Mail]:
        """All that can reach a city now."""
        return [mail for mail in self.waiting[city] if self._passes(mail)]

    def lose(self, chance: random.Random) -> bool:
        """A message is lost; whether there was one."""
        waiting = [mail for mails in self.waiting.values() for mail in mails]
        if waiting:
            self.forget(chance.choice(waiting))
        return bool(waiting)

    def cut_or_mend(self, chance: random.Random) -> None:
        """A link breaks; mostly one that is broken is mended instead."""
        broken = [pair for pair in combinations(self._cities, 2) if frozenset(pair) in self.cut]
        mends = broken and chance.random() < 0.7
        self.cut ^= {frozenset(chance.choice(broken) if mends else chance.sample(list(self._cities), 2))}

    def _passes(self, mail: Mail) -> bool:
        if frozenset((mail.sender, mail.receiver)) in self.cut:
            return False
        clocks = self._cities[mail.sender].clock, self._cities[mail.receiver].clock
        return abs(clocks[0].now_ms() - clocks[1].now_ms()) <= SKEW_MAX_MS
