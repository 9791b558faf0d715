"""A city's settings: drawn, and as its model reads them."""

import random
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from loopd.ledger.settings import LedgerSettings
from tests.ledger_sim.money import Terms
from tests.ledger_sim.netting import METHODS, PERIODS
from tests.ledger_sim.town import Rules

_RATES: Final = ("1", "1", "2", "0.8", "1.3", "0.333333333")


def drawn_settings(chance: random.Random, peers: Iterable[str]) -> dict[str, Any]:
    """Everything that a city may change while it has accounts."""
    return {
        "expiry_months": chance.choice((1, 2, 3, 6)),
        "decay_rate": Decimal(chance.choice(("0.05", "0.1", "0.2", "0.003", "0"))),
        "expiry_policy": chance.choice(("decay", "decay", "decay", "forfeit")),
        "local_bonus": Decimal(chance.choice(("0.05", "0", "0.333"))),
        "exchange_rate": Decimal("0" if chance.random() < 0.05 else chance.choice(_RATES)),
        "reserve_ratio": Decimal(chance.choice(("1", "1", "0.5", "0"))),
        "max_issuance": chance.choice((None, None, 10_000, 60_000)),
        "redemption": chance.random() < 0.8,
        "residual": chance.choice(("clearing-residual", "community-fund", "transport")),
        "credit_limits": {
            peer: Decimal(chance.choice((50, 1_000, 5_000, 50_000))) for peer in peers if chance.random() < 0.95
        },
    }


def drawn_way(chance: random.Random) -> tuple[str, str]:
    """By what method two cities settle, and how often."""
    return chance.choice(METHODS), chance.choices(PERIODS, (4, 4, 2, 1))[0]


def terms_of(settings: LedgerSettings) -> Terms:
    """The currency."""
    return Terms(
        settings.expiry_months,
        Fraction(settings.decay_rate),
        settings.expiry_policy == "forfeit",
        Fraction(settings.local_bonus),
        Fraction(settings.exchange_rate),
        None if settings.max_issuance is None else settings.max_issuance * 100,
        Fraction(settings.reserve_ratio),
    )


def rules_of(settings: LedgerSettings) -> Rules:
    """What holds besides."""
    limits = {peer: int(limit * 100) for peer, limit in settings.credit_limits.items()}
    ways = {peer: (method, settings.settlement_periods[peer]) for peer, method in settings.settlement_methods.items()}
    return Rules(settings.redemption, settings.residual, limits, ways)
