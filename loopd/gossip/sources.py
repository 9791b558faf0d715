"""Who brings an origin's messages first: learned from when each peer's offers arrive, whether with a body or without.

One peer for each origin is the source: it is asked to send bodies unasked, everybody else ids first (the eager tree of
Plumtree). Another takes its place when it is earlier by more than chance.
"""

from dataclasses import dataclass, field
from typing import Final

from loopd.gossip.remembered import Remembered
from loopd.protocol.limits import SPREAD_ORIGINS_REMEMBERED

# The weights of a new sample in mean and deviation, those of RFC 6298.
_MEAN_WEIGHT: Final = 1 / 8
_DEVIATION_WEIGHT: Final = 1 / 4
# Another peer becomes the source after so many samples, and only if it is so much earlier: a change costs one body.
_SAMPLES_TO_CHANGE: Final = 4
_EARLIER_BY: Final = 0.7
_EARLIER_BY_MS: Final = 2.0


@dataclass(slots=True)
class Estimate:
    """A smoothed time in ms with its mean deviation, as RFC 6298 does it."""

    mean_ms: float = 0.0
    deviation_ms: float = 0.0
    samples: int = 0

    def add(self, sample_ms: float) -> None:
        self.samples += 1
        if self.samples == 1:
            self.mean_ms, self.deviation_ms = sample_ms, sample_ms / 2
            return
        error_ms = abs(sample_ms - self.mean_ms)
        # The first few count in full, so that a first odd one is soon outvoted.
        self.mean_ms += (sample_ms - self.mean_ms) * max(_MEAN_WEIGHT, 1 / self.samples)
        self.deviation_ms += (error_ms - self.deviation_ms) * _DEVIATION_WEIGHT

    def above(self, deviations: float) -> float:
        """The mean plus so many deviations."""
        return self.mean_ms + deviations * self.deviation_ms


@dataclass(slots=True)
class _OriginSources:
    source: str | None = None
    lags: dict[str, Estimate] = field(default_factory=dict)


class Sources:
    """The source of each origin, and how late each peer is with an origin's messages after the first to offer them."""

    def __init__(self) -> None:
        self._origins: Remembered[str, _OriginSources] = Remembered(SPREAD_ORIGINS_REMEMBERED)

    def note(self, origin: str, peer: str, lag_ms: float) -> None:
        """The peer's offer came so long after the first one for the message."""
        self._of(origin).lags.setdefault(peer, Estimate()).add(lag_ms)

    def choose(self, origin: str, peer: str) -> bool:
        """Whether this peer, which just made an offer, is to send this origin's bodies unasked from now on."""
        known = self._of(origin)
        if known.source is None or known.source not in known.lags or self._is_better(known, peer):
            known.source = peer
        return known.source == peer

    def source(self, origin: str) -> tuple[str, Estimate] | None:
        """The peer that is to send this origin's bodies unasked, and how late it is."""
        known = self._origins.get(origin)
        if known is None or known.source is None or known.source not in known.lags:
            return None
        return known.source, known.lags[known.source]

    def forget(self, peer: str) -> None:
        """The peer's link is gone: it brings nothing for now."""
        for known in self._origins.values():
            known.lags.pop(peer, None)

    def _of(self, origin: str) -> _OriginSources:
        known = self._origins.get(origin)
        if known is None:
            known = self._origins[origin] = _OriginSources()
        return known

    @staticmethod
    def _is_better(known: _OriginSources, peer: str) -> bool:
        now, then = known.lags.get(known.source or ""), known.lags.get(peer)
        if now is None or then is None or then.samples < _SAMPLES_TO_CHANGE:
            return False
        return then.mean_ms + _EARLIER_BY_MS < now.mean_ms * _EARLIER_BY + _EARLIER_BY_MS * (1 - _EARLIER_BY)
