"""The `[log]` section."""

from typing import Literal

from pydantic import Field

from loopd.room_settings import RoomSettings


class LogSettings(RoomSettings):
    """What the daemon writes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The least important kind of line that is written. `debug` names every message and is for "
        "a search, not for every day.",
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="`json` writes one object a line, `console` lines for people; `auto` is `console` on a terminal "
        "and `json` elsewhere.",
    )
