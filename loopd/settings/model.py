"""All sections together, and the three that belong to no single room."""

from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from loopd.api.settings import ApiSettings
from loopd.database.settings import DatabaseSettings
from loopd.events.settings import WebhookSettings
from loopd.exchange.settings import ExchangeSettings
from loopd.federation.settings import FederationSettings
from loopd.ledger.settings import LedgerSettings
from loopd.observe.settings import LogSettings
from loopd.protocol.ids import NODE_ID_MAX_CHARACTERS
from loopd.room_settings import RoomSettings
from loopd.signals.settings import SignalsSettings

API_PATH = "/api/v1"


class NodeSettings(RoomSettings):
    """Who this node is, as every other node sees it (NodeInfo, §8.1)."""

    id: str = Field(
        max_length=NODE_ID_MAX_CHARACTERS,
        pattern=r"^[a-z0-9\-]+\.loop$",
        description="The node's name in the federation: small letters, digits and hyphens, then `.loop`. Others pin "
        "it to this node's key, so it is never changed.",
        examples=["munich.loop"],
    )
    name: str = Field(
        min_length=1,
        max_length=200,
        description="What people call the node.",
        examples=["Munich"],
    )
    city: str = Field(
        min_length=2,
        max_length=80,
        description="The city that it serves. Only materials whose `current_city` this is are announced.",
        examples=["Munich"],
    )
    country: str = Field(
        pattern=r"^[A-Z]{2}$",
        description="The country, two capital letters (ISO 3166-1).",
        examples=["DE"],
    )
    lat: float = Field(
        ge=-90,
        le=90,
        description="Latitude of the city in degrees, north positive. Distances, and with them LoopCost, start here.",
        examples=[48.1351],
    )
    lon: float = Field(
        ge=-180,
        le=180,
        description="Longitude of the city in degrees, east positive.",
        examples=[11.5820],
    )
    endpoint: str = Field(
        max_length=500,
        description="The address at which other nodes reach this one: https, ending in /api/v1. The certificate "
        "must be for its host.",
        examples=["https://loop.munich.example/api/v1"],
    )
    context_host: Literal["local-loop-io.github.io", "localloop.urbnia.com"] = Field(
        default="local-loop-io.github.io",
        description="The host in the JSON-LD context address of what this node writes. The protocol has moved; "
        "documents of both hosts are read.",
    )
    contact_email: str | None = Field(
        default=None,
        max_length=254,
        pattern=r"^[^@\s]+@[^@\s]+$",
        description="The office's address, published in NodeInfo. An office's, not a person's.",
    )
    contact_website: str | None = Field(
        default=None,
        max_length=500,
        pattern=r"^https?://\S+$",
        description="The office's website, published in NodeInfo.",
    )

    @field_validator("endpoint")
    @classmethod
    def _reachable_endpoint(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            well_formed = parts.hostname is not None and parts.port != 0
        except ValueError:
            well_formed = False
        if not well_formed or parts.scheme != "https" or parts.username is not None or not value.isascii():
            raise ValueError("must be an https:// address with a host, without user name")
        if not parts.path.endswith(API_PATH) or "?" in value or "#" in value:
            raise ValueError(f"must end in {API_PATH}")
        return value

    @property
    def endpoint_host(self) -> str:
        """The host that the certificate must cover; an IPv6 address comes without brackets."""
        return urlsplit(self.endpoint).hostname or ""


class TlsSettings(RoomSettings):
    """The listener's certificate and who else is trusted. Only TLS 1.3 is spoken."""

    certificate: Path = Field(
        default=Path("tls-cert.pem"),
        validate_default=False,  # a Path already, which strict JSON would refuse
        description="The certificate with its chain, PEM. Relative paths start at this file's directory.",
    )
    key: Path = Field(
        default=Path("tls-key.pem"),
        validate_default=False,  # a Path already, which strict JSON would refuse
        description="Its private key, PEM, not encrypted, readable by the daemon's user alone.",
    )
    ca_file: Path | None = Field(
        default=None,
        description="Authorities trusted beside the system's when other nodes are called, PEM. For cities that run "
        "their own.",
    )


class DaemonSettings(RoomSettings):
    """The process."""

    shutdown_timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=60,
        description="How long running requests may take to finish after SIGTERM. The service manager must wait longer.",
    )
    development: bool = Field(
        default=False,
        description="For nodes on one machine: private addresses may be called, no peers are learned from peers, one "
        "ring of announcement. Never where strangers can reach the node.",
    )


class Settings(RoomSettings):
    """The settings of one node, resolved: defaults, file, environment."""

    node: NodeSettings
    api: ApiSettings = Field(default_factory=ApiSettings)
    tls: TlsSettings = Field(default_factory=TlsSettings)
    federation: FederationSettings = Field(default_factory=FederationSettings)
    exchange: ExchangeSettings = Field(default_factory=ExchangeSettings)
    signals: SignalsSettings = Field(default_factory=SignalsSettings)
    webhooks: WebhookSettings = Field(default_factory=WebhookSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    daemon: DaemonSettings = Field(default_factory=DaemonSettings)

    def resolved_paths(self, directory: Path) -> "Settings":
        """The same settings with every relative path taken from `directory`."""
        changes: dict[str, Any] = {}
        for section in type(self).model_fields:
            values: RoomSettings = getattr(self, section)
            paths = {key: directory / value for key, value in values if isinstance(value, Path)}
            if paths:
                changes[section] = values.model_copy(update=paths)
        return self.model_copy(update=changes)


def contradictions(settings: Settings) -> list[tuple[str, str, str]]:
    """Values that are allowed alone but not together: (section, key, what is wrong)."""
    found = []
    if settings.federation.admission == "open" and not settings.daemon.development:
        found.append(
            ("federation", "admission", "must not be open unless daemon.development is true: anybody would be a peer")
        )
    return found
