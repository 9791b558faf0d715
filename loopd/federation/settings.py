"""The `[federation]` section."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import Field

from loopd.room_settings import RoomSettings


class FederationSettings(RoomSettings):
    """How this node meets others, and how far its announcements go (§9)."""

    announce: Literal["auto", "manual"] = Field(
        default="auto",
        description="Whether a registered record is announced at once, or only when somebody asks for it.",
    )
    radius_km: Annotated[float, Field(gt=0, le=20_016)] | None = Field(
        default=1000.0,
        description="How far from this city an announcement travels, in kilometres along the great circle. "
        "No city outside hears of what is announced.",
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
    probe_interval_s: float = Field(
        default=10.0,
        gt=0.05,
        le=3600,
        description="How often a healthy peer is asked whether it is there. Also how late an absence is noticed.",
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
        description="How many peers are admitted; who asks beyond that is refused. The mix of §9.4 needs ten.",
    )
    max_pending_peers: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="How many nodes may wait for the operator's approval; who asks beyond that is refused.",
    )
    max_messages: int = Field(
        default=100_000,
        ge=100,
        le=5_000_000,
        description="How many valid announcements are held. Beyond it new ones are answered 503 until old ones end.",
    )
