"""The `[ledger]` section."""

from decimal import Decimal
from typing import Annotated, Literal, TypeVar

from pydantic import Field, field_validator

from loopd.ledger.terms import ExpiryPolicy, Terms
from loopd.protocol.ids import is_node_id
from loopd.protocol.limits import LEDGER_AMOUNT_MAX_LC
from loopd.protocol.money import MINOR_PER_LC
from loopd.room_settings import RoomSettings

_Value = TypeVar("_Value")
_Rate = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=9)]


class LedgerSettings(RoomSettings):
    """The city's currency (§5.1). Without a `currency_code` the node keeps no ledger."""

    currency_code: str | None = Field(
        default=None,
        pattern=r"^LC-[A-Z]{3}$",
        description="The currency, `LC-` and three letters. It is never changed once there are accounts: their "
        "balances stand in it.",
        examples=["LC-MUC"],
    )
    backed_by: Literal["EUR", "USD", "GBP", "CHF", "SEK", "NOK", "DKK"] = Field(
        default="EUR",
        description="What the reserve is kept in. Not changed either once there are accounts.",
    )
    exchange_rate: _Rate = Field(
        default=Decimal(1),
        description="LC for one unit of the backing. 0: nothing is issued, redeemed or exchanged.",
    )
    local_bonus: Annotated[Decimal, Field(ge=0, le=Decimal("0.5"), decimal_places=9)] = Field(
        default=Decimal("0.05"),
        description="The share of a payment inside the city that its payer gets back once the transaction is "
        "delivered, out of the bonus fund. An empty fund gives none.",
    )
    expiry_months: int = Field(
        default=6,
        ge=1,
        le=12,
        description="For how many months after their issue coins keep their value.",
    )
    decay_rate: Annotated[Decimal, Field(ge=0, le=Decimal("0.2"), decimal_places=9)] = Field(
        default=Decimal("0.05"),
        description="The share that coins lose to the community fund in each month after those.",
    )
    expiry_policy: Literal["decay", "forfeit"] = Field(
        default="decay",
        description="`decay`: they lose a share each month. `forfeit`: they lose all of it when they expire.",
    )
    max_issuance: int | None = Field(
        default=None,
        ge=0,
        le=int(LEDGER_AMOUNT_MAX_LC),
        description="How many LC may circulate, what came in from other cities included. Without it only the reserve "
        "is a limit.",
    )
    reserve_ratio: _Rate = Field(
        default=Decimal(1),
        description="The least share of what circulates that the reserve must be worth. Below 1 not everybody could be "
        "paid out.",
    )
    redemption: bool = Field(
        default=False,
        description="Whether holders may pay coins back by themselves (a transfer to `node:issuance@`) and have the "
        "backing owed to them. If not, nobody takes money out of the reserve but the operator.",
    )
    credit_limits: dict[str, Annotated[Decimal, Field(ge=0, le=LEDGER_AMOUNT_MAX_LC, decimal_places=2)]] = Field(
        default_factory=dict,
        description="For each peer how much it may owe this city, in LC, its id in quotes: "
        '`{ "vienna.loop" = 5000 }`. So much of its debt counts as reserve; a peer without a limit settles nothing '
        "here.",
    )
    settlement_methods: dict[str, Literal["clearing", "gross", "netting"]] = Field(
        default_factory=dict,
        description="For each peer how the balance with it is settled; both cities must say the same. `clearing`, the "
        "default: it is carried, and one payment discharges all that is. `netting`: each run's difference is paid. "
        "`gross`: each city pays in full what its own buyers owe.",
    )
    settlement_periods: dict[str, Literal["immediate", "hourly", "daily", "weekly"]] = Field(
        default_factory=dict,
        description="For each peer how often a run of payments is signed: `immediate`, `hourly`, `daily` (the default) "
        "or `weekly`, from Monday on, in UTC. Both cities must say the same.",
    )
    residual: Literal["clearing-residual", "community-fund", "transport"] = Field(
        default="clearing-residual",
        description="Which of the node's accounts gets what §7.4 assigns to nobody: the export penalty that the buyer "
        "pays and the seller does not get.",
    )

    @field_validator("credit_limits", "settlement_methods", "settlement_periods", mode="after")
    @classmethod
    def _of_nodes(cls, by_peer: dict[str, _Value]) -> dict[str, _Value]:
        unknown = sorted(name for name in by_peer if not is_node_id(name))
        if unknown:
            raise ValueError(f"not a node's id: {', '.join(unknown)}")
        return by_peer

    def terms(self) -> Terms | None:
        """The currency's terms as configured, None where there is no ledger."""
        if self.currency_code is None:
            return None
        return Terms(
            self.currency_code,
            self.backed_by,
            self.exchange_rate,
            self.local_bonus,
            self.expiry_months,
            self.decay_rate,
            None if self.max_issuance is None else self.max_issuance * MINOR_PER_LC,
            self.reserve_ratio,
            ExpiryPolicy(self.expiry_policy),
        )
