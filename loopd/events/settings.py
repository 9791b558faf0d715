"""The `[webhooks]` section."""

from ipaddress import IPv4Network, IPv6Network

from pydantic import Field

from loopd.room_settings import RoomSettings


class WebhookSettings(RoomSettings):
    """Where events may be sent by webhook, and how long an endpoint that fails is tried."""

    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(),
        description="Private networks in which webhooks' endpoints may lie, as `10.1.2.0/24`. All others that are not "
        "public are refused, so that a webhook does not reach into the city's network by mistake or by malice.",
    )
    first_retry_s: float = Field(
        default=5.0,
        ge=0.1,
        le=3600,
        description="How soon a delivery that failed is tried again. Each further wait is twice as long, up to an "
        "hour.",
    )
    give_up_after_s: int = Field(
        default=259_200,
        ge=60,
        le=2_592_000,
        description="How long an endpoint may take no delivery before its webhook is disabled. Beyond 30 days the "
        "events themselves are forgotten.",
    )
