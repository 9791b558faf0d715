"""Who plays: three cities with their signals and currencies, the batches, what is bid and who pays (§12.1)."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from loopd.protocol.contexts import context_url
from loopd.protocol.timestamps import format_timestamp

CATEGORY: Final = "organic-food"
MATERIAL_ID: Final = "MAT-DE-MUC-2025-FOOD-B847F3"
FARM: Final = "munich-farm"
FARM_PRICE: Final = Decimal(50)

_AVAILABLE_FOR_MS: Final = 3 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class City:
    """A city and its node. `signal` is what it begins with for CATEGORY, from 0 to 1."""

    node_id: str
    name: str
    country: str
    lat: float
    lon: float
    signal: Decimal
    currency_code: str

    @property
    def directory_name(self) -> str:
        """What its node's directory is called."""
        return self.node_id.removesuffix(".loop")


@dataclass(frozen=True, slots=True)
class CityBid:
    """What a city offers: the price in LC for the whole batch, and the transport's length, which it states."""

    city: City
    base_price: Decimal
    distance_km: int


@dataclass(frozen=True, slots=True)
class OpeningRing:
    """How far an announcement goes from that many seconds after the registration on."""

    radius_km: int
    after_s: int


MUNICH: Final = City("munich.loop", "Munich", "DE", 48.1351, 11.5820, Decimal("0.30"), "LC-MUC")
VIENNA: Final = City("vienna.loop", "Vienna", "AT", 48.2082, 16.3738, Decimal("0.20"), "LC-VIE")
BERLIN: Final = City("berlin.loop", "Berlin", "DE", 52.5200, 13.4050, Decimal("0.12"), "LC-BER")
CITIES: Final = (MUNICH, VIENNA, BERLIN)

# A chain: Berlin is no peer of Munich, so whatever they have to do with each other goes by way of Vienna at first.
HANDSHAKES: Final = ((MUNICH, VIENNA), (VIENNA, BERLIN))

# Vienna is 355 km from Munich, Berlin 504. Hours, as in the settings' default, would be long to watch.
RINGS: Final = (OpeningRing(50, 0), OpeningRing(400, 3), OpeningRing(1000, 6))
LISTENERS: Final = (VIENNA, BERLIN)

# §12.1 gives 104 for Vienna with all its parts, and for Berlin the sum alone: 103 is reached with these.
CITY_BIDS: Final = (CityBid(VIENNA, Decimal(60), 400), CityBid(BERLIN, Decimal(60), 590))

# What Munich's citizens decide before anything is sold: the signal that §12.1 has.
VOTED_SIGNAL: Final = Decimal("0.40")
VOTE_RESULT: Final = {
    "total_eligible": 150_000,
    "total_voted": 52_500,
    "votes_for": 35_700,
    "votes_against": 16_800,
    "attestation": "Result of the municipal vote",
}

# The first batch stays in Munich, as in §12.1; this one leaves it.
NEXT_MATERIAL_ID: Final = "MAT-DE-MUC-2025-FOOD-B847F4"
TRANSFER_ID: Final = "TRANSFER-B847F4"
# Vienna's bid for the first batch, made again for the next one.
PURCHASE: Final = CITY_BIDS[0]

BACKED_BY: Final = "EUR"
SELLER_ACCOUNT: Final = "business:brewery@munich.loop"
BUYER_ACCOUNT: Final = "business:dairy@vienna.loop"
# What is issued to the buyer, and taken into its city's reserve for it.
ISSUED_LC: Final = 500
# What the bank calls the payment with which Vienna's city pays Munich's.
PAYMENT_REFERENCE: Final = "SEPA 0042"
# How much each city lets a peer owe it.
CREDIT_LIMIT_LC: Final = 5000


def partners(city: City) -> list[City]:
    """The cities that a city shakes hands with, and settles with."""
    return [other for pair in HANDSHAKES for other in pair if city in pair and other is not city]


def spent_grain(now_ms: int, material_id: str = MATERIAL_ID) -> dict[str, Any]:
    """The MaterialDNA of §12.1 with all that §4 requires, available from now on for the three days it has there.

    It says to which account its seller is paid.
    """
    return {
        "@context": context_url(),
        "@type": "MaterialDNA",
        "schema_version": "0.2.0",
        "id": material_id,
        "category": CATEGORY,
        "quantity": {"value": 500, "unit": "kg"},
        "quality": Decimal("0.90"),
        "origin_city": MUNICH.name,
        "current_city": MUNICH.name,
        "location": {"lat": Decimal("48.1372"), "lon": Decimal("11.5755"), "address": "Augustiner Brewery"},
        "available_from": format_timestamp(now_ms),
        "expires": format_timestamp(now_ms + _AVAILABLE_FOR_MS),
        "metadata": {"source": "brewing", "notes": "Spent grain, still warm.", "seller_account": SELLER_ACCOUNT},
    }


def handover(now_ms: int, match_id: str) -> dict[str, Any]:
    """The Transfer of the next batch to the city that bought it."""
    return {
        "@context": context_url(),
        "@type": "Transfer",
        "schema_version": "0.2.0",
        "id": TRANSFER_ID,
        "material_id": NEXT_MATERIAL_ID,
        "match_id": match_id,
        "status": "scheduled",
        "handoff_at": format_timestamp(now_ms),
        "route": {"from_city": MUNICH.name, "to_city": PURCHASE.city.name, "mode": "rail"},
    }


def signal_proposal(opens_ms: int, closes_ms: int) -> dict[str, Any]:
    """Munich's SignalProposal, after §12.2."""
    change = {"category": CATEGORY, "current": MUNICH.signal, "proposed": VOTED_SIGNAL, "reason": "Feed our own farms"}
    return {
        "@context": context_url(),
        "@type": "SignalProposal",
        "schema_version": "0.2.0",
        "node": MUNICH.node_id,
        "changes": [change],
        "voting_opens": format_timestamp(opens_ms),
        "voting_closes": format_timestamp(closes_ms),
        "eligible": VOTE_RESULT["total_eligible"],
    }
