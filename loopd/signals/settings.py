"""The `[signals]` section."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, field_validator

from loopd.protocol.vocabulary import SIGNAL_KEYS
from loopd.room_settings import RoomSettings


class SignalsSettings(RoomSettings):
    """The city's LoopSignals (§6) and how those of others are kept."""

    values: dict[str, Annotated[Decimal, Field(ge=0, le=1, decimal_places=4)]] = Field(
        default_factory=dict,
        description="The signal for each material category, and `default` for those without one: 0 to 1, at most four "
        "decimals. A higher value keeps a material in the city; it is charged on export and on import alike.",
    )
    period: Literal["month"] = Field(
        default="month",
        description="The voting period, and with it how long a published configuration is valid: the UTC month.",
    )
    refresh_s: int = Field(
        default=300,
        ge=1,
        le=86_400,
        description="How often a peer's published signals are fetched again. Long, and LoopCost is computed from old "
        "votes; short, and every peer is asked for what changes once a month.",
    )

    @field_validator("values", mode="after")
    @classmethod
    def _known_categories(cls, values: dict[str, Decimal]) -> dict[str, Decimal]:
        unknown = sorted(set(values) - SIGNAL_KEYS)
        if unknown:
            raise ValueError(f"no such material category: {', '.join(unknown)}")
        return values
