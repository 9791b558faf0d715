"""The `[signals]` section."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, field_validator

from loopd.protocol.vocabulary import SIGNAL_KEYS
from loopd.room_settings import RoomSettings
from loopd.signals.governance import read_fraction


class SignalsSettings(RoomSettings):
    """The city's LoopSignals (§6) and how those of others are kept."""

    values: dict[str, Annotated[Decimal, Field(ge=0, le=1, decimal_places=4)]] = Field(
        default_factory=dict,
        description="The signal for each material category, and `default` for those without one: 0 to 1, at most four "
        "decimals. A higher value keeps a material in the city; it is charged on export and on import alike. They hold "
        "until the first proposal is made; from then on only votes change them.",
    )
    period: Literal["month"] = Field(
        default="month",
        description="The voting period, and with it how long a published configuration is valid: the UTC month.",
    )
    eligible: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="How many people may vote, where a proposal does not say so itself. It is frozen when the window "
        "opens, and a result for another number is refused.",
    )
    quorum: str = Field(
        default="0",
        description="The share of the eligible that must vote for a result to count, as an exact fraction. Frozen and "
        "published when a window opens.",
        examples=["1/5"],
    )
    threshold: str = Field(
        default="1/2",
        description="The share of the votes for and against that those for it must exceed, as an exact fraction; a tie "
        "fails. Frozen and published when a window opens.",
        examples=["2/3"],
    )
    ballots: bool = Field(
        default=False,
        description="Whether this node may take ballots itself. A municipal vote whose result is entered is the normal "
        "way; docs/signals.md says what ballots on a node do not protect against.",
    )
    appeals_s: int = Field(
        default=604_800,
        ge=0,
        le=31_622_400,
        description="How long after a count of ballots it can be annulled before it may be certified. Frozen and "
        "published when a window opens.",
    )
    refresh_s: int = Field(
        default=300,
        ge=1,
        le=86_400,
        description="How often a peer's published signals are fetched again. Long, and LoopCost is computed from old "
        "votes; short, and every peer is asked for what changes once a month.",
    )

    @field_validator("quorum", "threshold", mode="after")
    @classmethod
    def _exact_fraction(cls, text: str) -> str:
        read_fraction(text)
        return text

    @field_validator("values", mode="after")
    @classmethod
    def _known_categories(cls, values: dict[str, Decimal]) -> dict[str, Decimal]:
        unknown = sorted(set(values) - SIGNAL_KEYS)
        if unknown:
            raise ValueError(f"no such material category: {', '.join(unknown)}")
        return values
