"""The `[federation]` section."""

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from loopd.gossip.probing import PRESETS, Preset
from loopd.gossip.rings import Ring, check_plan
from loopd.gossip.topology import Band, Mix, Share
from loopd.room_settings import RoomSettings

UNBOUNDED_WORD = "none"
RINGS_MAX = 8


def _unbounded(value: Any) -> Any:
    return None if value == UNBOUNDED_WORD else value


MixText = Annotated[str, Field(pattern=r"^[0-9]{1,2}-[0-9]{1,2}$")]


def _share(text: str) -> Share:
    least, most = text.split("-")
    return Share(int(least), int(most))


class RingSettings(RoomSettings):
    """One ring of announcement: how far it reaches, and how long after the first announcement it opens."""

    radius_km: Annotated[Annotated[float, Field(gt=0, le=20_016)] | None, BeforeValidator(_unbounded)] = Field(
        description="In kilometres along the great circle."
    )
    after_s: int = Field(ge=0, le=366 * 24 * 3600, description="Seconds after the first announcement.")

    @property
    def ring(self) -> Ring:
        """The same as the engine has it."""
        return Ring(self.radius_km, self.after_s * 1000)


DEFAULT_RINGS = (
    RingSettings(radius_km=50, after_s=0),
    RingSettings(radius_km=200, after_s=6 * 3600),
    RingSettings(radius_km=1000, after_s=24 * 3600),
    RingSettings(radius_km=None, after_s=72 * 3600),
)


class FederationSettings(RoomSettings):
    """How this node meets others, and how far its announcements go (§9)."""

    announce: Literal["auto", "manual"] = Field(
        default="auto",
        description="Whether a registered record is announced at once, or only when somebody asks for it.",
    )
    radius_km: Annotated[float, Field(gt=0, le=20_016)] | None = Field(
        default=1000.0,
        description="How far from this city an announcement travels at once, in kilometres along the great circle, "
        "where no rings are wanted: it counts where it is set and `rings` is not, and in development mode. No city "
        "outside hears of what is announced.",
    )
    rings: tuple[RingSettings, ...] = Field(
        default=DEFAULT_RINGS,
        validate_default=False,  # settings already, which strict JSON would refuse
        description="What is available is announced nearby first, and farther away the longer nobody has selected "
        'it: each ring opens so many seconds after the first announcement; a radius of "none" has no bound. The first '
        "opens at once, each later one is wider. In the environment as JSON.",
    )
    announcement_validity_s: int = Field(
        default=604_800,
        ge=60,
        le=604_800,
        description="How long an announcement is valid. What is still available is announced again at half that.",
    )
    admission: Literal["manual", "verified", "open"] = Field(
        default="manual",
        description="Who becomes a peer by asking: nobody before the operator approves, whoever proves its endpoint "
        "(not its name), or anybody. `open` is for development.",
    )
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(),
        description="Private networks in which other cities' nodes may be called, for cities that share one. "
        "Loopback, private and link-local addresses are never called otherwise.",
    )
    links: Literal["auto", "off"] = Field(
        default="auto",
        description="Whether one lasting connection is kept with each peer that can: what one lacks comes without its "
        "waiting, and most announcements as an id alone. Without one, every copy is a request of its own.",
    )
    health_preset: Literal["local", "lan", "wan"] = Field(
        default="wan",
        description="How patient this node is before it calls a peer unreachable: for peers on one machine, in one "
        "building, or between cities. Too impatient, and peers that pause count as gone; too patient, and what they "
        "should have been sent waits. In development mode local, where it is not set.",
    )
    probe_interval_s: Annotated[float, Field(gt=0.05, le=3600)] | None = Field(
        default=None,
        description="How often a healthy peer is asked whether it is there; also how late an absence is noticed. As "
        "`health_preset` has it, where it is not set: 1 s local, 2 s lan, 5 s wan.",
    )
    request_timeout_s: float = Field(
        default=10.0,
        gt=0.1,
        le=120,
        description="How long a request to another node may take. Too short, and slow honest peers look dead.",
    )
    max_peers: int = Field(
        default=64,
        ge=1,
        le=1000,
        description="How many peers are admitted; who asks beyond that is refused. The mix of §9.4 needs ten: "
        "where peers are learned, as many places, at most half of all, are kept for those that this node chooses.",
    )
    learn_peers: bool = Field(
        default=True,
        description="Whether this node looks for peers by itself, among the nodes that its peers list, and asks those "
        "that its mix of peers lacks. The other side decides as its own admission says. In development mode only where "
        "it is set.",
    )
    learn_interval_s: float = Field(
        default=60.0,
        ge=0.2,
        le=3600,
        description="How often is looked whether the mix of peers lacks something. A peer's list is read at most every "
        "tenth time.",
    )
    nearby_peers: MixText = Field(
        default="3-5",
        description="How many peers nearer than 200 km this node chooses for itself, least and most (§9.4).",
    )
    regional_peers: MixText = Field(
        default="2-3",
        description="The same for peers 200 to 1000 km away.",
    )
    distant_peers: MixText = Field(
        default="1-2",
        description="The same for peers farther away.",
    )
    max_pending_peers: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="How many nodes may wait for the operator's approval, each for 30 days; who asks "
        "beyond that is refused.",
    )
    max_messages: int = Field(
        default=100_000,
        ge=100,
        le=5_000_000,
        description="How many valid announcements are held. New ones of one origin, or by one "
        "peer, that would leave the others no room are answered 503 `floods_over_share`; all, when it is full.",
    )

    @field_validator("rings")
    @classmethod
    def _widening(cls, rings: tuple[RingSettings, ...]) -> tuple[RingSettings, ...]:
        if len(rings) > RINGS_MAX:
            raise ValueError(f"at most {RINGS_MAX} rings")
        check_plan([settings.ring for settings in rings])
        return rings

    @field_validator("nearby_peers", "regional_peers", "distant_peers")
    @classmethod
    def _least_and_most(cls, text: str) -> str:
        share = _share(text)
        if not 1 <= share.least <= share.most:
            raise ValueError("the least number is at least 1, and not above the most")
        return text

    @property
    def mix(self) -> Mix:
        """The mix of peers that is wanted."""
        texts = {Band.NEARBY: self.nearby_peers, Band.REGIONAL: self.regional_peers, Band.DISTANT: self.distant_peers}
        return {band: _share(text) for band, text in texts.items()}

    def preset(self, *, development: bool) -> Preset:
        """The numbers of failure detection: as they were set; else those for one machine in development mode."""
        name = self.health_preset
        if development and "health_preset" not in self.model_fields_set:
            name = "local"
        if self.probe_interval_s is None:
            return PRESETS[name]
        return replace(PRESETS[name], interval_ms=round(self.probe_interval_s * 1000))

    def learns_peers(self, *, development: bool) -> bool:
        """Whether peers are learned from peers: as it was set; else not in development mode."""
        return self.learn_peers and ("learn_peers" in self.model_fields_set or not development)

    def ring_plan(self, *, development: bool) -> tuple[Ring, ...]:
        """The rings in use: those that were set; else the one of a radius that was set, or of development mode."""
        if "rings" not in self.model_fields_set and (development or "radius_km" in self.model_fields_set):
            return (Ring(self.radius_km, 0),)
        return tuple(settings.ring for settings in self.rings)
