"""A peer's reputation: points for what no honest peer does, which fade, and what follows from many of them.

Only what is certain to come from the peer itself counts, after its own signature held: nobody can make another one
look bad. Being slow, away, or wrong about the time is no offence. See docs/gossip.md, Defence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Offence(StrEnum):
    """What counts against a peer."""

    FORGED_HOP = "forged_hop"  # a TTL that its copy cannot have, or that its hop value does not prove
    BAD_ORIGIN_SIGNATURE = "bad_origin_signature"  # passed on what it should have verified
    WRONG_ORIGIN = "wrong_origin"  # spoke in another node's name, without that one's signature
    JUNK = "junk"  # a document, a frame or a signature over a link that is none
    CONTRADICTION = "contradiction"  # told two contents under one id, or of one version
    OVER_SHARE = "over_share"  # sent on although its queue was full, or beyond its requests a minute


# Points for one offence. Two forged TTLs may be a fault, five in an hour are none.
POINTS: Final[Mapping[Offence, float]] = {
    Offence.FORGED_HOP: 20.0,
    Offence.WRONG_ORIGIN: 10.0,
    # Few: nodes that hold an origin to different keys disagree honestly.
    Offence.BAD_ORIGIN_SIGNATURE: 5.0,
    # Few: a newer version of the protocol may know words that this one does not.
    Offence.JUNK: 5.0,
    # Few: a node that was restored from a backup counts its versions again.
    Offence.CONTRADICTION: 1.0,
    Offence.OVER_SHARE: 0.5,
}

# The reason of a refusal, where it says that its sender did wrong. What is not here is no offence: clocks, keys that
# are not known yet, overload.
OFFENCE_OF_REASON: Final[Mapping[str, Offence]] = {
    "bad_hop": Offence.FORGED_HOP,
    "origin_mismatch": Offence.WRONG_ORIGIN,
    "bad_origin_signature": Offence.BAD_ORIGIN_SIGNATURE,
    "bad_statement": Offence.BAD_ORIGIN_SIGNATURE,
    "other_content": Offence.CONTRADICTION,
    "over_share": Offence.OVER_SHARE,
    "protocol_error": Offence.JUNK,
    # Over a link alone: by HTTP anybody can put a node's name on what that one never signed.
    "bad_link_signature": Offence.JUNK,
    **dict.fromkeys(
        (
            "not_json",
            "duplicate_key",
            "not_finite",
            "nul_character",
            "lone_surrogate",
            "nesting_too_deep",
            "number_out_of_range",
            "bad_json_ld",
            "schema",
            "personal_data",
        ),
        Offence.JUNK,
    ),
}

GREYLIST_POINTS: Final = 50.0
BAN_POINTS: Final = 100.0
# Who is banned is let in again, greylisted, below the greylist's mark; who is greylisted is clear below half of it.
CLEAR_POINTS: Final = GREYLIST_POINTS / 2
# Points halve in this time.
HALF_LIFE_MS: Final = 3_600_000
# So that no ban outlasts log2(800 / 50) = 4 half-lives.
POINTS_MAX: Final = 800.0
# A flood beyond one's share is refused as it comes, and costs its sender alone: it greylists, and never bans.
OVER_SHARE_POINTS_MAX: Final = BAN_POINTS - 1


class Conduct(StrEnum):
    """What follows from a peer's points."""

    CLEAR = "clear"
    GREYLISTED = "greylisted"  # its announcements are taken when nobody else's wait
    BANNED = "banned"  # nothing is taken from it


@dataclass(frozen=True, slots=True)
class Reputation:
    """A peer's points as of a moment (milliseconds since the epoch), and its conduct then."""

    points: float = 0.0
    as_of_ms: int = 0
    conduct: Conduct = Conduct.CLEAR

    def at(self, now_ms: int) -> "Reputation":
        """The same, faded until now. A clock that was set back fades nothing."""
        faded = self.points * 0.5 ** (max(now_ms - self.as_of_ms, 0) / HALF_LIFE_MS)
        return Reputation(faded, now_ms, _following(self.conduct, faded))

    def after(self, offence: Offence, now_ms: int) -> "Reputation":
        """The reputation once the peer did that."""
        faded = self.at(now_ms)
        ceiling = POINTS_MAX if offence is not Offence.OVER_SHARE else max(OVER_SHARE_POINTS_MAX, faded.points)
        points = min(faded.points + POINTS[offence], ceiling)
        return replace(faded, points=points, conduct=_following(faded.conduct, points))


def _following(conduct: Conduct, points: float) -> Conduct:
    """The conduct that goes with the points; a mark is left lower than it was reached, so that nobody flutters."""
    if points >= BAN_POINTS or (conduct is Conduct.BANNED and points >= GREYLIST_POINTS):
        return Conduct.BANNED
    if points >= GREYLIST_POINTS or (conduct is not Conduct.CLEAR and points >= CLEAR_POINTS):
        return Conduct.GREYLISTED
    return Conduct.CLEAR
