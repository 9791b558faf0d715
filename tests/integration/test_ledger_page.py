"""What the page about the ledger tells to type leads to two cities' settled books."""

import re
from collections.abc import Iterator

import pytest

from tests.typed_commands import command_blocks, page, typed

LEDGER = page("docs/ledger.md")
SECTION = "A sale between two cities, typed"


@pytest.fixture(scope="module")
def transcript(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What all blocks of the section print, typed one after the other."""
    with typed("".join(command_blocks(LEDGER, SECTION)), tmp_path_factory.mktemp("cities")) as printed:
        yield printed


def balances(transcript: str, node: str) -> dict[tuple[str, str], str]:
    """The last balance printed of each account of a node, by its name and currency."""
    rows = re.findall(rf"^(\S+)@{node}\t(\S+)\t(-?[0-9.]+)\t", transcript, re.MULTILINE)
    return {(account, currency): balance for account, currency, balance in rows}


def test_the_money_is_held_in_the_one_currency_and_comes_in_the_other(transcript: str) -> None:
    """§3.3: no signals are set, so 60 LC and 355 km at 0.02 LC. Two LC-VIE are worth what one LC-MUC is."""
    assert re.search(r"^payment\tprepared\ntotal\t67\.11$", transcript, re.MULTILINE)
    assert re.search(r"^held\t134\.22$", transcript, re.MULTILINE)


def test_both_books_are_settled(transcript: str) -> None:
    munich, vienna = balances(transcript, "munich.loop"), balances(transcript, "vienna.loop")
    assert munich["business:brewery", "LC-MUC"] == "60.00"
    assert munich["node:transport", "LC-MUC"] == "7.11"
    assert vienna["business:dairy", "LC-VIE"] == "365.78"
    assert munich["node:clearing.vienna.loop", "LC-MUC"] == vienna["node:clearing.munich.loop", "LC-VIE"] == "0.00"
    assert (munich["node:reserve", "EUR"], vienna["node:reserve", "EUR"]) == ("67.11", "182.89")
    assert re.search(r"^agrees\tyes$", transcript, re.MULTILINE)


def test_no_other_section_tells_to_type_anything() -> None:
    """Whatever else is added is to be tried here too."""
    titles = re.findall(r"^## (.+)$", LEDGER, re.MULTILINE)
    assert [title for title in titles if command_blocks(LEDGER, title)] == [SECTION]
