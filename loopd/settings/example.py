"""Writes a commented `loopd.toml` from the settings' declarations: the example, and what `loopd init` leaves."""

import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from loopd.room_settings import RoomSettings
from loopd.settings.describe import NONE_WORD, Setting, sections, settings_of

Values = Mapping[str, Mapping[str, Any]]

_WIDTH = 110
_INTRODUCTION = (
    "The settings of one loopd node. A line that begins with `#` and a key shows the default; take the `#` away to "
    "change it. Every key can also be set in the environment, where it wins: federation.radius_km as "
    "LOOPD_FEDERATION__RADIUS_KM, lists as JSON or separated by commas. `loopd check-config DIR` says what is wrong, "
    "with file and line; unknown keys are wrong."
)


def example_toml() -> str:
    """The example configuration: required keys filled in, every default commented out."""
    required = {
        section: {setting.key: setting.example for setting in settings_of(section, model) if setting.required}
        for section, model in sections().items()
    }
    return render_toml(required)


def render_toml(values: Values) -> str:
    """A commented file with these values set and every other key's default commented out."""
    blocks = [_comment(_INTRODUCTION)]
    for section, model in sections().items():
        chosen = values.get(section, {})
        blocks.append("\n" + _comment(inspect.getdoc(model) or "") + f"\n[{section}]")
        blocks += [_entry(setting, chosen) for setting in settings_of(section, model)]
    return "\n\n".join(blocks) + "\n"


def _entry(setting: Setting, chosen: Mapping[str, Any]) -> str:
    necessity = " Required." if setting.required else ""
    lines = [_comment(setting.description), _comment(f"Allowed: {setting.shape.allowed}.{necessity}")]
    if setting.key in chosen:
        lines.append(f"{setting.key} = {toml_value(chosen[setting.key])}")
    else:
        lines.append(f"#{setting.key} = {toml_value(setting.default)}")
    return "\n".join(lines)


def _comment(text: str) -> str:
    return "\n".join(f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _WIDTH, break_on_hyphens=False))


def toml_value(value: Any) -> str:
    """The value as TOML writes it. TypeError for what no setting holds."""
    match value:
        case None:
            return toml_value(NONE_WORD)
        case bool():
            return "true" if value else "false"
        case int() | float() | Decimal():
            return str(value)
        case str():
            # A TOML basic string takes JSON's escapes; DEL is the one character that only TOML wants escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Path() | IPv4Network() | IPv6Network():
            return toml_value(str(value))
        case RoomSettings():
            fields = ", ".join(f"{key} = {toml_value(getattr(value, key))}" for key in type(value).model_fields)
            return f"{{ {fields} }}"
        case Mapping():
            pairs = ", ".join(f"{toml_value(key)} = {toml_value(item)}" for key, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case Sequence():
            return "[" + ", ".join(map(toml_value, value)) + "]"
        case _:
            raise TypeError(f"{type(value).__name__} has no TOML form")
