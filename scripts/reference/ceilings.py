"""The table of ceilings in docs/threat-model.md, read from `loopd/protocol/limits.py` with what is said there."""

from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

from loopd.protocol import limits

BEGIN, END = "<!-- ceilings:begin -->\n", "<!-- ceilings:end -->\n"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "threat-model.md"

_UNITS = {
    "_BYTES": ((1024 * 1024, "MiB"), (1024, "KiB"), (1, "bytes")),
    "_MS": ((86_400_000, "days"), (3_600_000, "h"), (1000, "s"), (1, "ms")),
    "_S": ((86_400, "days"), (3600, "h"), (1, "s")),
    "_KM": ((1, "km"),),
    "_LC": ((1, "LC"),),
}


def threat_model_page() -> str:
    """The page as it is, with the table made anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + ceilings_table() + END + after


def ceilings_table() -> str:
    """One row for each comment, in the order of the file."""
    rows = ["| ceiling | what for, and what happens beyond |", "|---|---|"]
    for why, group in groupby(_declared(), key=lambda ceiling: ceiling[1]):
        ceilings = (f"`{name}` {_shown(name, getattr(limits, name))}" for name, _ in group)
        rows.append(f"| {'<br>'.join(ceilings)} | {why} |")
    return "\n".join(rows) + "\n"


def _declared() -> list[tuple[str, str]]:
    """Each constant with the comment that stands over it, or over the group that it belongs to."""
    source = Path(limits.__file__).read_text(encoding="utf-8")
    found: list[tuple[str, str]] = []
    comment: list[str] = []
    in_comment = False
    for line in source.splitlines():
        if line.startswith("#"):
            comment = [*comment, line[2:]] if in_comment else [line[2:]]
        elif line and line[0].isupper() and " = " in line:
            found.append((line.partition(" = ")[0], " ".join(comment)))
        elif not line:
            comment = []
        in_comment = line.startswith("#")
    return found


def _shown(name: str, value: Any) -> str:
    for suffix, units in _UNITS.items():
        if name.endswith((suffix, f"{suffix}_MIN", f"{suffix}_MAX")):
            size, unit = next(
                (size, unit) for size, unit in units if value % size == 0 and (unit != "days" or value > size)
            )
            return f"{_number(value / size if isinstance(value, Decimal) else value // size)} {unit}"
    return _number(value)


def _number(value: Any) -> str:
    whole = int(value)
    if whole >= 10**12:
        power = len(str(whole)) - 1
        return f"10^{power}" if whole == 10**power else f"2^{whole.bit_length()} − 1"
    return f"{whole:,}"
