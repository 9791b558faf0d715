import re
import sys
from collections.abc import Callable
from decimal import Decimal

import pytest

from loopd.cli.output import cell, flatten, json_bytes, print_fields, print_gap, print_json, print_table

ACCOUNTS = (
    ("node:clearing.munich.loop@vienna.loop", "LC-VIE", Decimal("1182.20"), None),
    ("business:dairy@vienna.loop", "LC-VIE", Decimal("-0.22"), True),
)
COLUMNS = ("id", "currency", "balance", "has_key")
STYLE = re.compile(r"\x1b\[[0-9;]*m")


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


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[int], list[str]]:
    """Prints the accounts on a terminal of so many columns, and gives its lines then."""

    def print_on(columns: int) -> list[str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        print_table(COLUMNS, ACCOUNTS, "Nothing.")
        return [line.rstrip() for line in STYLE.sub("", capsys.readouterr().out).splitlines()]

    return print_on


def test_numbers_stand_below_each_other(terminal: Callable[[int], list[str]]) -> None:
    assert terminal(80) == [
        "id                                     currency  balance  has key",
        "node:clearing.munich.loop@vienna.loop  LC-VIE    1182.20  -",
        "business:dairy@vienna.loop             LC-VIE      -0.22  yes",
    ]


def test_one_column_is_folded_where_the_table_is_a_little_too_wide(terminal: Callable[[int], list[str]]) -> None:
    assert terminal(60) == [
        "id                                currency  balance  has key",
        "node:clearing.munich.loop@vienna  LC-VIE    1182.20  -",
        ".loop",
        "business:dairy@vienna.loop        LC-VIE      -0.22  yes",
    ]


def test_rows_are_printed_one_by_one_where_no_table_has_room(terminal: Callable[[int], list[str]]) -> None:
    assert terminal(50) == [
        "id:       node:clearing.munich.loop@vienna.loop",
        "currency: LC-VIE",
        "balance:  1182.20",
        "",
        "id:       business:dairy@vienna.loop",
        "currency: LC-VIE",
        "balance:  -0.22",
        "has key:  yes",
    ]


@pytest.mark.parametrize(
    ("on_terminal", "printed"), [(True, "to pay: 1\nid:     -\n\n"), (False, "to_pay\t1\nid\t-\n")]
)
def test_fields_are_named_for_people_on_a_terminal_and_as_they_are_in_a_pipe(
    on_terminal: bool, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: on_terminal)
    print_fields({"to_pay": 1, "id": None})
    print_gap()
    assert capsys.readouterr().out == printed


def test_json_keeps_digits() -> None:
    assert json_bytes({"a": Decimal("0.10"), "b": Decimal("1E+2")}) == b'{"a":0.10,"b":100}'
    with pytest.raises(TypeError):
        json_bytes(object())


def test_nested_objects_become_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": []}) == {"a.b": 1, "a.c": {}, "d": []}
