import sys
from decimal import Decimal

import pytest

from loopd.cli.output import cell, flatten, json_bytes, print_json, print_table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        (True, "yes"),
        (Decimal("1.10"), "1.10"),
        (["a", 1], "a, 1"),
        ({"lat": 48.1, "lon": 11.6}, '{"lat":48.1,"lon":11.6}'),
        ("a\nb\tc\x1b[31m\u202e", "a�b�c�[31m�"),
    ],
)
def test_a_cell_is_one_harmless_line(value: object, text: str) -> None:
    assert cell(value) == text


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("id", "name"), [["1", "[bold]Munich[/bold]"]], "Nothing.")
    print_table(("id", "name"), [], "Nothing.")
    print_table(("id", "last_seen", "nothing"), [["2", "2026-11-21T05:02:30.361Z", None]], "Nothing.")
    print_json({"a": Decimal("1.10")})
    out = capsys.readouterr().out
    assert "[bold]Munich[/bold]" in out
    assert "\t" not in out
    assert "Nothing.\n" in out
    assert "2026-11-21 05:02Z" in out
    assert "last seen" in out
    assert "nothing" not in out
    assert '"a": 1.10' in out


def test_json_keeps_digits() -> None:
    assert json_bytes({"a": Decimal("0.10"), "b": Decimal("1E+2")}) == b'{"a":0.10,"b":100}'
    with pytest.raises(TypeError):
        json_bytes(object())


def test_nested_objects_become_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": []}) == {"a.b": 1, "a.c": {}, "d": []}
