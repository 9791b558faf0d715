"""What circulates and what stands behind it, from running balances."""

from collections.abc import Mapping
from dataclasses import dataclass

from loopd.database.rows import RowSource
from loopd.ledger import tables
from loopd.ledger.accounts import Role
from loopd.ledger.arithmetic import is_covered
from loopd.ledger.refusals import Fault, refused
from loopd.ledger.terms import Terms


@dataclass(frozen=True, slots=True)
class Figures:
    """The currency's state in hundredths, the reserve in those of the backing.

    `supply_minor` is what circulates here; what is pending from peers counts already. `claims_minor` is what peers owe,
    each up to its credit limit, less what they are owed.
    """

    supply_minor: int
    reserve_minor: int
    claims_minor: int

    def changed(self, supply_minor: int = 0, reserve_minor: int = 0, claims_minor: int = 0) -> "Figures":
        """The figures after so much more of each."""
        return Figures(
            self.supply_minor + supply_minor, self.reserve_minor + reserve_minor, self.claims_minor + claims_minor
        )

    def check(self, terms: Terms) -> None:
        """Refusal `over_cap` or `under_reserve` where the terms do not allow so much to circulate."""
        if terms.max_issuance_minor is not None and self.supply_minor > terms.max_issuance_minor:
            raise refused(Fault.OVER_CAP)
        self.check_cover(terms)

    def check_cover(self, terms: Terms) -> None:
        """Refusal `under_reserve` where the reserve does not suffice for what circulates."""
        covered = is_covered(
            self.reserve_minor, terms.exchange_rate, self.claims_minor, self.supply_minor, terms.reserve_ratio
        )
        if not covered:
            raise refused(Fault.UNDER_RESERVE)


def read_figures(source: RowSource, terms: Terms, limits_minor: Mapping[str, int]) -> Figures:
    """The figures now. `limits_minor` is each clearing account's credit limit by its id."""
    issuance = tables.accounts_of_role(source, Role.ISSUANCE, terms.currency_code)
    clearing = tables.accounts_of_role(source, Role.CLEARING, terms.currency_code)
    reserve = tables.accounts_of_role(source, Role.RESERVE, terms.backed_by)
    claims_minor = sum(min(-account.available_minor, limits_minor.get(account.id, 0)) for account in clearing)
    return Figures(
        -sum(account.balance_minor for account in issuance) - sum(account.available_minor for account in clearing),
        sum(account.balance_minor for account in reserve),
        claims_minor,
    )
