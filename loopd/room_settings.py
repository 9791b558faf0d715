"""The base of every room's settings: immutable, strict, and closed to unknown keys."""

from pydantic import BaseModel, ConfigDict


class RoomSettings(BaseModel):
    """One section of `loopd.toml`. A room declares its own subclass in its `settings.py`.

    Every field is a `pydantic.Field` with a default where one is sensible, its bounds (`ge`, `le`, ...) and a
    `description` that says in one or two sentences what it does and what goes wrong when it is set badly. The example
    configuration and the operator's guide are generated from these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
