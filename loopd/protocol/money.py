"""LoopCoin amounts: integer hundredths inside (`_minor`), JSON numbers of at most two decimals outside (§5)."""

from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact

from loopd.protocol.limits import AMOUNT_MAX_LC

MINOR_PER_LC = 100
_CENT = Decimal("0.01")
_EXACT = Context(prec=40, traps=[Inexact])


def parse_amount(value: Decimal | int) -> int:
    """Hundredths of an LC from a JSON number. ValueError for a negative, endless, too large or finer amount."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("an amount is a JSON number")
    amount = Decimal(value)
    if not amount.is_finite():
        raise ValueError("an amount is finite")
    if amount < 0:
        raise ValueError("an amount is not negative")
    if amount > AMOUNT_MAX_LC:
        raise ValueError(f"an amount is at most {AMOUNT_MAX_LC:f} LC")
    try:
        # Decimal's default arithmetic would first round a long number, and lose the digits that forbid it.
        return int(_EXACT.to_integral_exact(_EXACT.scaleb(amount, 2)))
    except Inexact:
        raise ValueError("an amount has at most two decimals") from None


def amount_json(amount_minor: int) -> Decimal:
    """The amount in LC with two decimals, as it is written into JSON: 10400 is `104.00`."""
    return Decimal(amount_minor).scaleb(-2)


def format_amount(amount_minor: int) -> str:
    """The amount for people: `1,204.50`."""
    return f"{amount_json(amount_minor):,.2f}"


def round_half_even(amount_lc: Decimal) -> int:
    """An exact amount in LC rounded half-even to hundredths; what a LoopCost component is rounded by (§7)."""
    return int(amount_lc.quantize(_CENT, rounding=ROUND_HALF_EVEN).scaleb(2))
