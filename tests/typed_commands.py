"""What a page tells to type: the indented blocks below a heading, and a shell that types them."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.nodes import free_port

ROOT = Path(__file__).resolve().parents[1]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
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
TIMEOUT_S = 120


def page(name: str) -> str:
    """A page of this checkout, such as `docs/ledger.md`, without what stands in fences: that is shown, not typed."""
    return FENCED.sub("", (ROOT / name).read_text(encoding="utf-8"))


def command_blocks(text: str, section: str) -> list[str]:
    """The indented blocks below a heading of a page, without their indentation."""
    text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    return ["".join(line[4:] for line in block.splitlines(keepends=True)) for block in blocks]


@contextmanager
def typed(block: str, directory: Path) -> Iterator[str]:
    """What a block prints, typed as it stands in a new directory, on other ports and with this checkout's program."""
    (directory / "docs").symlink_to(ROOT / "docs")
    script = block.replace(".venv/bin/loopd", f"{shlex.quote(sys.executable)} -m loopd")
    for port in ("8443", "8444"):
        assert port in script
        script = script.replace(port, str(free_port()))
    if shutil.which("curl") is None:
        (directory / "curl.py").write_text(CURL)
        script = script.replace("curl --silent", f"{shlex.quote(sys.executable)} curl.py --silent")
    shell = subprocess.Popen(
        ["bash", "-e", "-c", script],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
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
