"""The `[exchange]` section."""

from typing import Literal

from pydantic import Field

from loopd.room_settings import RoomSettings


class ExchangeSettings(RoomSettings):
    """How this city sells: how long a Match reserves, and who selects."""

    match_validity_s: int = Field(
        default=604_800,
        ge=60,
        le=31_622_400,
        description="How long a Match reserves what its Offer offers, unless it states another end or a Transfer was "
        "made of it. Then the goods are free again.",
    )
    select: Literal["by-hand", "lowest-cost"] = Field(
        default="by-hand",
        description="Who selects among the offers for a material or a product: somebody of this city, or the node, "
        "which takes the lowest LoopCost `select_after_s` after the first offer came. By hand it can be done earlier.",
    )
    select_after_s: int = Field(
        default=3_600,
        ge=1,
        le=31_622_400,
        description="How long the node waits for more offers, from the first that still stands. Only where it selects.",
    )
