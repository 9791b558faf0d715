"""`loopd demo`: three cities on this machine, from the start of their nodes to a sale that is paid (§12.1)."""

import asyncio
import io
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from loopd.cli.failure import Failure
from loopd.cli.options import json_option
from loopd.cli.output import print_fields, print_json
from loopd.demo.act import Act, Facts
from loopd.demo.cast import MATERIAL_ID, MUNICH, VIENNA
from loopd.demo.failure import DemoFailed
from loopd.demo.nodes import USUAL_PORTS, Nodes, free_ports
from loopd.demo.scenario import Audience, Scenario
from loopd.demo.show import Show
from loopd.demo.stage import Recorded, Stage, end

DEFAULT_DIRECTORY: Final = Path("demo-data")
_END_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Suggestions = Sequence[tuple[str, Sequence[str]]]


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the nodes' data goes. Without it: a temporary directory that is removed, ./demo-data with --keep.",
)
@click.option("--keep", is_flag=True, help="Leave the nodes running, on ports 8443 to 8445 where those are free.")
@click.option("--stop", is_flag=True, help="End the nodes that --keep left running.")
@json_option
def demo(directory: Path | None, keep: bool, stop: bool, as_json: bool) -> None:
    """Three cities federate on this machine: a batch is announced, bid for and selected, another one sold and paid.

    Starts three nodes as processes on free ports of 127.0.0.1, plays the flow of §12.1 over their HTTP API, shows each
    step and at last both cities' books, and ends the nodes. With --json the steps are printed as one document at the
    end.
    """
    if keep and stop:
        raise click.UsageError("--keep and --stop exclude each other")
    root = (DEFAULT_DIRECTORY if directory is None else directory).absolute()
    try:
        if stop:
            _stop(Stage(root), as_json)
        elif keep or directory is not None:
            _play(Stage(root), as_json, keep=keep)
        else:
            with _temporary_directory() as temporary:
                _play(Stage(temporary), as_json, temporary=True)
    except DemoFailed as failure:
        raise Failure(str(failure)) from None


@contextmanager
def _temporary_directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="loopd-demo-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _play(stage: Stage, as_json: bool, *, keep: bool = False, temporary: bool = False) -> None:
    began_s = time.monotonic()
    with stage.reserved():
        _refuse_while_running(stage)
        nodes = Nodes(stage, free_ports(USUAL_PORTS if keep else ()))
        show = _show(as_json)
        if show is not None:
            show.opening()
        try:
            steps = asyncio.run(_until_ended(nodes, keep, show or _Nobody()))
        finally:
            if show is not None:
                show.pause()
    if show is not None:
        show.closing(_what_next(nodes) if keep else _keep_next(stage, temporary))
    if as_json:
        document: Facts = {"steps": steps, "took_s": round(time.monotonic() - began_s, 3), "kept": keep}
        if not temporary:
            document |= {"directory": str(stage.root), "ca": str(nodes.authority_file)}
        print_json(document)


def _show(as_json: bool) -> Show | None:
    """Where the steps are shown: with --json on standard error, and only to people."""
    if as_json and not sys.stderr.isatty():
        return None
    stream = sys.stderr if as_json else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        # A terminal that cannot show a dash or an arrow still shows the rest.
        stream.reconfigure(errors="replace")
    return Show(stream)


class _Nobody(Audience):
    def begins(self, act: Act) -> None:
        pass

    def happened(self, act: Act, facts: Facts) -> None:
        pass


async def _until_ended(nodes: Nodes, keep: bool, audience: Audience) -> list[Facts]:
    """Play; whatever happens, end the nodes, unless they are to stay and all went well."""
    loop = asyncio.get_running_loop()
    playing = asyncio.create_task(Scenario(nodes, audience).play(), name="demo")
    for number in _END_SIGNALS:
        # The first one ends the play; none interrupts the clearing up after it.
        loop.add_signal_handler(number, playing.cancel)
    stay = False
    try:
        steps = await playing
        stay = keep
    except asyncio.CancelledError:
        raise DemoFailed("interrupted; the nodes have been ended") from None
    finally:
        if not stay:
            await nodes.stop()
    return steps


def _refuse_while_running(stage: Stage) -> None:
    running = stage.running()
    if running:
        names = ", ".join(f"{node.node_id} (process {node.pid})" for node in running)
        raise DemoFailed(f"the demo's nodes run already in {stage.root}: {names}\n`{_stop_line(stage.root)}` ends them")


def _stop(stage: Stage, as_json: bool) -> None:
    ended: list[Recorded] = []
    if stage.root.is_dir():
        with stage.reserved():
            ended = stage.running()
            asyncio.run(end(ended))
    if as_json:
        print_json({"directory": str(stage.root), "stopped": [{"node": n.node_id, "pid": n.pid} for n in ended]})
    elif ended:
        print_fields({node.node_id: f"ended (process {node.pid})" for node in ended})
    else:
        click.echo(f"Nothing to stop: no nodes of `loopd demo` run in {stage.root}.")


def _keep_next(stage: Stage, temporary: bool) -> Suggestions:
    data = "their data is gone" if temporary else f"their data and logs are in {_short_path(stage.root)}"
    sentence = f"The nodes have been ended, and {data}. To leave them running and look around:"
    return [(sentence, [f"{_loopd()} demo --keep"])]


def _what_next(nodes: Nodes) -> Suggestions:
    munich, vienna = nodes.of(MUNICH), nodes.of(VIENNA)
    root = _short_path(munich.directory.parent)
    curl = f"curl --cacert {shlex.quote(_short_path(nodes.authority_file))}"
    directory = shlex.quote(_short_path(munich.directory))
    processes = [
        f"{recorded.node_id}  {recorded.address}  process {recorded.pid}  {_short_path(Path(recorded.directory))}"
        for recorded in nodes.recorded()
    ]
    return [
        (f"The nodes stay. Their data and logs are in {root}.", processes),
        (
            "Ask them:",
            [
                f"{curl} {munich.address}/api/v1/material/{MATERIAL_ID}",
                f"{curl} {munich.address}/api/v1/material/{MATERIAL_ID}/offers",
                f"{curl} {vienna.address}/api/v1/federation/announcements",
            ],
        ),
        (
            "As their operator:",
            [
                f"{_loopd()} status {directory}",
                f"{_loopd()} offer list {directory} {MATERIAL_ID}",
                f"{_loopd()} ledger trial-balance {directory}",
                f"{_loopd()} ledger export {directory}",
            ],
        ),
        ("Every route, in a browser (it will warn of the development certificate):", [f"{munich.address}/docs"]),
        ("End them:", [_stop_line(munich.directory.parent)]),
    ]


def _stop_line(root: Path) -> str:
    named = "" if root == DEFAULT_DIRECTORY.absolute() else f" --dir {shlex.quote(_short_path(root))}"
    return f"{_loopd()} demo --stop{named}"


def _loopd() -> str:
    """How this command can be typed again: by its name if the shell finds it, else by its path."""
    program = Path(sys.argv[0])
    if program.name != "loopd":
        return f"{shlex.quote(_short_path(Path(sys.executable)))} -m loopd"
    found = shutil.which("loopd")
    if found is not None and Path(found).resolve() == program.resolve():
        return "loopd"
    return shlex.quote(_short_path(program))


def _short_path(path: Path) -> str:
    """The path from here, where that is shorter."""
    absolute = path.absolute()
    return min(str(absolute), os.path.relpath(absolute), key=len)
