"""What the README tells a newcomer to type does what it says."""

import re
from collections.abc import Iterator

import pytest

from tests.typed_commands import ROOT, command_blocks, page, typed

README = page("README.md")
MATERIAL = "MAT-DE-MUC-2026-FOOD-B847F3"


@pytest.fixture(scope="module")
def transcript(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the five minutes print."""
    (block,) = command_blocks(README, "Five minutes to a federation")
    with typed(block, tmp_path_factory.mktemp("newcomer")) as printed:
        yield printed


def test_the_five_minutes_lead_from_two_directories_to_a_selected_offer(transcript: str) -> None:
    assert re.search(r"^status\s+accepted$", transcript, re.MULTILINE)
    assert f'"subject":"{MATERIAL}"' in transcript
    assert '"via":"munich.loop"' in transcript
    assert "selected: vienna.loop (lowest_loop_cost)" in transcript


def test_the_loop_cost_shown_is_that_of_the_great_circle(transcript: str) -> None:
    """§3.3: no signals are set, so 60 LC and 355 km at 0.02 LC."""
    assert re.search(r"^loop cost\s+67\.11$", transcript, re.MULTILINE)


def test_both_commands_are_in_the_makefile() -> None:
    (block,) = command_blocks(README, "Two commands")
    targets = re.findall(r"^make (\S+)", block, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == ["run", "test"]
    for target in targets:
        assert re.search(rf"^{target}: .*##", makefile, re.MULTILINE)


def test_no_other_section_tells_to_type_anything() -> None:
    """Whatever else is added is to be tried here too."""
    titles = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert [title for title in titles if command_blocks(README, title)] == [
        "Two commands",
        "Five minutes to a federation",
    ]
