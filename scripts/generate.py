"""Rewrites the files that are generated from the code. `make generate` runs it; a test holds each of them current."""

from pathlib import Path

from loopd.settings.example import example_toml
from scripts.reference.ceilings import threat_model_page
from scripts.reference.commands import commands_page
from scripts.reference.routes import routes_page
from scripts.reference.settings import settings_page
from scripts.reference.states import states_page

ROOT = Path(__file__).resolve().parent.parent
GENERATED = {
    "config/loopd.example.toml": example_toml,
    "docs/api.md": routes_page,
    "docs/commands.md": commands_page,
    "docs/settings.md": settings_page,
    "docs/states.md": states_page,
    "docs/threat-model.md": threat_model_page,
}


def main() -> None:
    """Write every generated file."""
    for name, make in GENERATED.items():
        (ROOT / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
