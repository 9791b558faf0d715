"""Rewrites the files that are generated from the code. `make generate` runs it; a test holds each of them current."""

from pathlib import Path

from loopd.settings.example import example_toml

ROOT = Path(__file__).resolve().parent.parent
GENERATED = {"config/loopd.example.toml": example_toml}


def main() -> None:
    """Write every generated file."""
    for name, make in GENERATED.items():
        (ROOT / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
