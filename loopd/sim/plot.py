"""A run as a picture: how fast the ball is filled, and what each message cost, beside plain flooding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from loopd.sim.figures import Played

_WIDTH: Final = 380.0
_HEIGHT: Final = 220.0
_TICKS: Final = 4
# More points than this make no finer a curve on paper.
_POINTS_MAX: Final = 400


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a panel, as SVG points."""

    name: str
    colour: str
    points: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: its curves and the marks of its axes (place in px, text)."""

    title: str
    x_label: str
    curves: list[Curve]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def svg(runs: Sequence[tuple[str, str, Played]]) -> str:
    """The picture of runs given as name, colour and run."""
    latest_ms = max((played.latencies_ms[-1] for _, _, played in runs if played.latencies_ms), default=1.0)
    filled = Panel(
        "Share of the deliveries",
        "ms after the origin's commit",
        [Curve(name, colour, _filling(played.latencies_ms, latest_ms)) for name, colour, played in runs],
        _ticks(latest_ms, _WIDTH),
        [(_HEIGHT - place, f"{share:.0%}") for place, share in _marks(1.0, _HEIGHT)],
    )
    most = max((max(played.copies) for _, _, played in runs if played.copies), default=1.0)
    longest = max(len(played.copies) for _, _, played in runs)
    cost = Panel(
        "Bodies sent for each delivery",
        "message",
        [Curve(name, colour, _series(played.copies, longest, most)) for name, colour, played in runs],
        _ticks(float(longest), _WIDTH),
        [(_HEIGHT - place, f"{value:.1f}") for place, value in _marks(most, _HEIGHT)],
    )
    environment = Environment(
        loader=PackageLoader("loopd.sim"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("run.svg.jinja")
    scenario = runs[0][2].scenario
    return template.render(panels=[filled, cost], scenario=scenario, width=_WIDTH, height=_HEIGHT)


def _filling(latencies_ms: Sequence[float], latest_ms: float) -> str:
    count = len(latencies_ms)
    step = max(1, count // _POINTS_MAX)
    places = [*range(0, count, step), count - 1] if count else []
    return _points([(latencies_ms[place] / latest_ms, (place + 1) / count) for place in places])


def _series(values: Sequence[float], longest: int, most: float) -> str:
    return _points([((place + 1) / longest, value / most) for place, value in enumerate(values)])


def _points(shares: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x * _WIDTH:.1f},{(1 - y) * _HEIGHT:.1f}" for x, y in shares)


def _marks(most: float, length: float) -> list[tuple[float, float]]:
    return [(length * part / _TICKS, most * part / _TICKS) for part in range(_TICKS + 1)]


def _ticks(most: float, length: float) -> list[tuple[float, str]]:
    return [(place, f"{value:.0f}") for place, value in _marks(most, length)]
