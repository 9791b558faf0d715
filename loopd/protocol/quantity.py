"""Quantities with their units, compared inside one dimension: kilograms with tonnes, never with litres."""

from dataclasses import dataclass
from decimal import Decimal, localcontext
from enum import StrEnum

from loopd.protocol.limits import QUANTITY_MAX, QUANTITY_MAX_FRACTION_DIGITS


class Dimension(StrEnum):
    """What a unit measures; quantities are comparable only inside one."""

    MASS = "mass"
    VOLUME = "volume"
    PIECES = "pieces"
    BUNDLES = "bundles"


# Each unit's dimension, and how many of the dimension's base unit (kg, l, piece, bundle) one of it is.
UNIT_SCALE: dict[str, tuple[Dimension, Decimal]] = {
    "kg": (Dimension.MASS, Decimal(1)),
    "g": (Dimension.MASS, Decimal("0.001")),
    "t": (Dimension.MASS, Decimal(1000)),
    "l": (Dimension.VOLUME, Decimal(1)),
    "ml": (Dimension.VOLUME, Decimal("0.001")),
    "m3": (Dimension.VOLUME, Decimal(1000)),
    "piece": (Dimension.PIECES, Decimal(1)),
    "bundle": (Dimension.BUNDLES, Decimal(1)),
}


def units_of(dimension: Dimension) -> list[str]:
    """The units that measure a dimension."""
    return [unit for unit, (measured, _) in UNIT_SCALE.items() if measured is dimension]


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact amount of something in its unit."""

    value: Decimal
    unit: str

    @property
    def dimension(self) -> Dimension:
        return UNIT_SCALE[self.unit][0]

    def in_base(self) -> Decimal:
        """The value in the dimension's base unit, exactly."""
        with localcontext() as context:
            context.prec = 60
            return self.value * UNIT_SCALE[self.unit][1]

    def to_unit(self, unit: str) -> "Quantity":
        """The same quantity in another unit of its dimension. ValueError across dimensions."""
        dimension, scale = UNIT_SCALE[unit]
        if dimension is not self.dimension:
            raise ValueError(f"{self.unit} cannot be expressed in {unit}")
        with localcontext() as context:
            context.prec = 60
            return Quantity(self.in_base() / scale, unit)

    def plus(self, other: "Quantity") -> "Quantity":
        """Both together, exactly, in this one's unit. ValueError across dimensions."""
        with localcontext() as context:
            context.prec = 60
            return Quantity(plain(self.value + other.to_unit(self.unit).value), self.unit)

    def minus(self, other: "Quantity") -> "Quantity":
        """What is left without the other, exactly, in this one's unit. ValueError across dimensions."""
        with localcontext() as context:
            context.prec = 60
            return Quantity(plain(self.value - other.to_unit(self.unit).value), self.unit)

    def is_more_than(self, other: "Quantity") -> bool:
        """Whether this is more than the other. ValueError across dimensions."""
        if self.dimension is not other.dimension:
            raise ValueError(f"{self.unit} cannot be compared with {other.unit}")
        return self.in_base() > other.in_base()


def plain(value: Decimal) -> Decimal:
    """The same number without trailing zeros and without an exponent: 300, not 300.000 and not 3E+2."""
    with localcontext() as context:
        context.prec = 60
        shortest = value.normalize()
        return shortest.quantize(Decimal(1)) if shortest == shortest.to_integral_value() else shortest


def quantity_in(base_value: Decimal, unit: str) -> Quantity:
    """A quantity that is known in its dimension's base unit, in another unit of that dimension."""
    with localcontext() as context:
        context.prec = 60
        return Quantity(plain(base_value / UNIT_SCALE[unit][1]), unit)


def parse_quantity(value: Decimal | int, unit: str) -> Quantity:
    """A quantity as a document states it. ValueError where it is negative, too large, too fine or of no known unit."""
    if unit not in UNIT_SCALE:
        raise ValueError(f"the unit is one of {', '.join(UNIT_SCALE)}")
    amount = Decimal(value)
    if not amount.is_finite() or amount < 0 or amount > QUANTITY_MAX:
        raise ValueError(f"a quantity lies between 0 and {QUANTITY_MAX:f}")
    # Counted in the digits themselves: Decimal's own arithmetic would first round a long number.
    _, digits, exponent = amount.as_tuple()
    too_fine = -exponent - QUANTITY_MAX_FRACTION_DIGITS if isinstance(exponent, int) else 0
    if too_fine > 0 and any(digits[-too_fine:]):
        raise ValueError(f"a quantity has at most {QUANTITY_MAX_FRACTION_DIGITS} decimals")
    return Quantity(amount.copy_abs(), unit)  # there is no minus zero of anything
