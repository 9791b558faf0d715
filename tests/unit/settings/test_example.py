import re
from pathlib import Path

import pytest

from loopd.settings import parse_settings
from loopd.settings.describe import all_settings, shape_of
from loopd.settings.example import example_toml, toml_value

EXAMPLE = Path(__file__).parents[3] / "config" / "loopd.example.toml"


def test_the_example_is_current() -> None:
    assert EXAMPLE.read_text(encoding="utf-8") == example_toml(), "make generate rewrites it"


def test_the_example_is_a_valid_file() -> None:
    assert parse_settings(example_toml(), "example", {}).node.id == "munich.loop"


def test_what_the_example_shows_as_default_is_the_default() -> None:
    as_written = parse_settings(example_toml(), "example", {})
    spelled_out, count = re.subn(r"^#(?=\w+ = )", "", example_toml(), flags=re.MULTILINE)
    assert parse_settings(spelled_out, "example", {}) == as_written
    assert count == sum(not setting.required for setting in all_settings().values())


@pytest.mark.parametrize("setting", all_settings().values(), ids=lambda setting: setting.name)
def test_every_setting_is_described_and_required_ones_have_an_example(setting) -> None:  # type: ignore[no-untyped-def]
    assert setting.description.endswith(".")
    assert setting.shape.allowed
    assert not setting.required or setting.example is not None


def test_values_that_toml_cannot_hold_are_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        toml_value(object())
    with pytest.raises(TypeError, match="complex"):
        shape_of(complex)
    with pytest.raises(TypeError, match="one way only"):
        shape_of(int | str)
