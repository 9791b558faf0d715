"""What the README tells a newcomer to type does what it says."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.nodes import free_port

ROOT = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
README = FENCED.sub("", (ROOT / "README.md").read_text(encoding="utf-8"))
# What the blocks use of curl, for a machine that has none.
CURL = """\
import argparse, ssl, time, urllib.error, urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("--silent", action="store_true")
parser.add_argument("--retry", type=int, default=0)
parser.add_argument("--retry-connrefused", action="store_true")
parser.add_argument("--cacert")
parser.add_argument("urls", nargs="+")
wanted = parser.parse_args()
context = ssl.create_default_context(cafile=wanted.cacert)
for url in wanted.urls:
    for left in range(wanted.retry, -1, -1):
        try:
            print(urllib.request.urlopen(url, context=context).read().decode(), end="", flush=True)
            break
        except urllib.error.URLError:
            if left == 0:
                raise
            time.sleep(1)
"""
MATERIAL = "MAT-DE-MUC-2026-FOOD-B847F3"
TIMEOUT_S = 120


def command_blocks(section: str) -> list[str]:
    """The indented blocks below a heading of the README, without their indentation."""
    text = README.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    return ["".join(line[4:] for line in block.splitlines(keepends=True)) for block in blocks]


@pytest.fixture(scope="module")
def transcript(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the five minutes print, typed as they stand, on other ports and with this checkout's program."""
    directory = tmp_path_factory.mktemp("newcomer")
    (directory / "docs").symlink_to(ROOT / "docs")
    (block,) = command_blocks("Five minutes to a federation")
    script = block.replace(".venv/bin/loopd", f"{shlex.quote(sys.executable)} -m loopd")
    for port in ("8443", "8444"):
        assert port in script
        script = script.replace(port, str(free_port()))
    if shutil.which("curl") is None:
        (directory / "curl.py").write_text(CURL)
        script = script.replace("curl --silent", f"{shlex.quote(sys.executable)} curl.py --silent")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shell = subprocess.Popen(
        ["bash", "-e", "-c", script],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = shell.communicate(timeout=TIMEOUT_S)
        assert shell.returncode == 0, printed
        yield printed
    finally:
        # The script's last line has ended the nodes, if it came so far.
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)


def test_the_five_minutes_lead_from_two_directories_to_a_selected_offer(transcript: str) -> None:
    assert re.search(r"^status\s+accepted$", transcript, re.MULTILINE)
    assert f'"subject":"{MATERIAL}"' in transcript
    assert '"via":"munich.loop"' in transcript
    assert "selected: vienna.loop (lowest_loop_cost)" in transcript


def test_the_loop_cost_shown_is_that_of_the_great_circle(transcript: str) -> None:
    """§3.3: no signals are set, so 60 LC and 355 km at 0.02 LC."""
    assert re.search(r"^loop cost\s+67\.11$", transcript, re.MULTILINE)


def test_both_commands_are_in_the_makefile() -> None:
    (block,) = command_blocks("Two commands")
    targets = re.findall(r"^make (\S+)", block, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == ["run", "test"]
    for target in targets:
        assert re.search(rf"^{target}: .*##", makefile, re.MULTILINE)


def test_no_other_section_tells_to_type_anything() -> None:
    """Whatever else is added is to be tried here too."""
    titles = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert [title for title in titles if command_blocks(title)] == ["Two commands", "Five minutes to a federation"]
