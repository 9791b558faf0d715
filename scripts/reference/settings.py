"""docs/settings.md: every key of loopd.toml."""

import inspect

from loopd.settings.describe import Setting, sections, settings_of
from loopd.settings.example import toml_value

_INTRODUCTION = """# Settings

Generated from the settings' declarations. Every key of `loopd.toml`, with the environment variable that overrides it.
`loopd check-config DIR` says what is wrong with a file, with line and allowed range, and changes nothing.
"""


def settings_page() -> str:
    """The page."""
    parts = [_INTRODUCTION]
    for section, model in sections().items():
        parts.append(f"## [{section}]\n\n{inspect.getdoc(model)}\n")
        parts += [_entry(setting) for setting in settings_of(section, model)]
    return "\n".join(parts)


def _entry(setting: Setting) -> str:
    default = "required" if setting.required else f"default `{toml_value(setting.default)}`"
    return (
        f"### `{setting.name}`\n\n{setting.description}\n\n"
        f"- {setting.shape.allowed}; {default}\n- `{setting.variable}`\n"
    )
