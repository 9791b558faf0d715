"""`loopd demo` as a stranger runs it: in a process of its own, with three more below it."""

import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.demo.act import Act
from loopd.demo.cast import MATERIAL_ID, NEXT_MATERIAL_ID
from loopd.demo.failure import DemoFailed
from loopd.demo.nodes import Nodes, free_ports
from loopd.demo.scenario import ACTS, Scenario
from loopd.demo.stage import Recorded, Stage

LOOPD = [sys.executable, "-m", "loopd"]
README = Path(__file__).resolve().parents[2] / "README.md"
TIMEOUT_S = 90


def surroundings(temporary: Path) -> Mapping[str, str]:
    """The environment without what would colour a pipe, and with its own place for temporary files."""
    removed = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "COLUMNS")
    return {name: value for name, value in os.environ.items() if name not in removed} | {"TMPDIR": str(temporary)}


def run_demo(place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LOOPD, "demo", *options],
        cwd=place,
        env=surroundings(place),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def is_there(pid: int) -> bool:
    """Whether a process is still running: one that waits to be reaped is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def nodes_in(directory: Path) -> dict[str, int]:
    """The processes that a demonstration recorded, by node."""
    return {node.node_id: node.pid for node in Stage(directory).recorded()}


@contextmanager
def demo_at_work(directory: Path, place: Path) -> Iterator[subprocess.Popen[str]]:
    """A demonstration that has just begun to vote; whatever is left of it is killed at the end."""
    command = [*LOOPD, "demo", "--dir", str(directory)]
    pipe = subprocess.PIPE
    demo = subprocess.Popen(command, cwd=place, env=surroundings(place), stdout=pipe, stderr=pipe, text=True)
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith("3  "):
                break
        assert all(map(is_there, nodes_in(directory).values()))
        yield demo
    finally:
        demo.kill()
        demo.communicate()
        for pid in nodes_in(directory).values():
            if is_there(pid):
                os.kill(pid, signal.SIGKILL)


def test_the_flow_of_the_specification_comes_out(tmp_path: Path) -> None:
    began_s = time.monotonic()
    demo = run_demo(tmp_path, "--json")
    took_s = time.monotonic() - began_s
    assert (demo.returncode, demo.stderr) == (0, "")
    (line,) = demo.stdout.splitlines()
    document = json.loads(line, parse_float=Decimal)
    assert 0 < document["took_s"] < took_s
    steps: dict[str, Any] = {step["step"]: step for step in document["steps"]}
    assert list(steps) == [act.name for act in ACTS]
    fingerprints = {node["node"]: node["fingerprint"] for node in steps["start"]["nodes"]}
    assert len(set(fingerprints.values())) == 3
    links = [(link["from"], link["to"], link["status"]) for link in steps["handshake"]["links"]]
    assert links == [("munich.loop", "vienna.loop", "accepted"), ("vienna.loop", "berlin.loop", "accepted")]
    assert all(link["peer_fingerprint"] == fingerprints[link["to"]] for link in steps["handshake"]["links"])
    check_vote(steps["vote"])
    registered = [(each["id"], each["answer"]) for each in steps["register"]["materials"]]
    assert registered == [(MATERIAL_ID, 201), (NEXT_MATERIAL_ID, 201)]
    check_rings([steps["inner-ring"], steps["middle-ring"], steps["outer-ring"]])
    ranking = [(offer["rank"], offer["from"], offer["loop_cost"]) for offer in steps["rank"]["offers"]]
    assert ranking == [(1, "munich-farm", 50), (2, "berlin.loop", 103), (3, "vienna.loop", 104)]
    vienna = steps["rank"]["offers"][2]
    assert vienna["breakdown"] == {"base": 60, "export": 24, "import": 12, "distance": 8}
    assert vienna["claimed_loop_cost"] == 104
    assert (steps["select"]["selected"], steps["select"]["reason"]) == ("munich-farm", "lowest_loop_cost")
    assert steps["select"]["material"]["availability"] == "reserved"
    told = [(each["node"], each["status"]) for each in steps["tell"]["bidders"]]
    assert told == [("vienna.loop", "declined"), ("berlin.loop", "declined")]
    assert [each["available"] for each in steps["tell"]["heard"]] == [False, False]
    check_deal(steps["sell"], steps["deliver"])
    check_payment(steps["accounts"], steps["sell"]["payment"], steps["deliver"]["payment"])
    check_discharge(steps["discharge"])
    check_books(steps["books"])
    assert not any(is_there(node["pid"]) for node in steps["start"]["nodes"])
    assert list(tmp_path.iterdir()) == []


def check_vote(vote: dict[str, Any]) -> None:
    """The signal of §12.1 is what was voted, and the other city reckons with it."""
    assert (vote["results"]["status"], vote["signals"]) == ("passed", [Decimal("0.3"), Decimal("0.4")])
    costs = [(cost["by"], cost["breakdown"]["export"], cost["loop_cost"]) for cost in vote["costs"]]
    assert costs == [("vienna.loop", 18, 98), ("vienna.loop", 24, 104)]


def check_deal(sale: dict[str, Any], delivery: dict[str, Any]) -> None:
    """Vienna holds each part of the deal as Munich does, from the selection to the delivery."""
    assert (sale["selected"], sale["loop_cost"]) == ("vienna.loop", 104)
    for parts in (sale["parts"], delivery["under_way"], delivery["delivered"]):
        assert all(part["munich.loop"] == part["vienna.loop"] for part in parts)
    statuses = [
        {part["entity"]: part["vienna.loop"]["status"] for part in parts}
        for parts in (sale["parts"], delivery["under_way"], delivery["delivered"])
    ]
    sold = {"offer": "reserved", "match": "accepted"}
    assert statuses == [
        {**sold, "transaction": "pending"},
        {**sold, "transaction": "in_transit", "transfer": "in_transit"},
        {"offer": "withdrawn", "match": "accepted", "transaction": "completed", "transfer": "completed"},
    ]
    assert delivery["material"]["current_city"] == "Vienna"


def check_payment(opened: dict[str, Any], held: dict[str, Any], paid: dict[str, Any]) -> None:
    """§12.1's 104 are held when the bid is selected, and at delivery distributed by §7.4."""
    accounts = [(each["id"], each["balance"], each["reserve"]) for each in opened["accounts"]]
    assert accounts == [("business:brewery@munich.loop", 0, 0), ("business:dairy@vienna.loop", 500, 500)]
    stand = [tuple(each[name] for name in ("balance", "held", "available")) for each in held["accounts"]]
    assert stand == [(0, 0, 0), (500, 104, 396)]
    for payment, state in ((held, "prepared"), (paid, "posted")):
        munich, vienna = payment["sides"]
        assert (munich["node"], vienna["node"]) == ("munich.loop", "vienna.loop")
        assert (munich["state"], vienna["state"]) == (state, state)
        assert munich["id"] == vienna["id"]
        assert {each["payer_amount"] for each in (munich, vienna)} == {92}
    lines = [(each["line"], each["amount"], each["currency"]) for each in paid["lines"]]
    assert lines == [
        ("seller_receives", 36, "LC-MUC"),
        ("seller_community_fund", 24, "LC-MUC"),
        ("buyer_community_fund", 12, "LC-VIE"),
        ("transport_cost", 8, "LC-MUC"),
        ("residual", 24, "LC-MUC"),
    ]
    assert (paid["total"]["amount"], paid["total"]["currency"]) == (104, "LC-VIE")


def check_discharge(discharged: dict[str, Any]) -> None:
    """Both cities signed that Vienna owes 92, and its reserve paid them."""
    run = discharged["run"]
    assert (run["state"], run["payments"], set(run["signatures"])) == ("agreed", 1, {"munich.loop", "vienna.loop"})
    assert [(each["debtor"], each["amount"]) for each in run["claims"]] == [("vienna.loop", 92)]
    assert (discharged["discharge"]["state"], discharged["discharge"]["amount"]) == ("confirmed", 92)
    stand = [[(each["owes"], each["reserve"]) for each in discharged[when]] for when in ("before", "after")]
    assert stand == [[(-92, 0), (92, 500)], [(0, 92), (0, 408)]]


def check_books(settled: dict[str, Any]) -> None:
    """Both cities' books sum to nothing, mirror each other, and agree by the commands that compare them."""
    balances = [
        {each["id"].partition("@")[0]: each["balance"] for each in book["accounts"] if each["currency"] != "EUR"}
        for book in settled["books"]
    ]
    assert balances[0] == {
        **dict.fromkeys(("node:bonus", "node:clearing.vienna.loop"), 0),
        "business:brewery": 36,
        "node:community-fund": 24,
        "node:transport": 8,
        "node:clearing-residual": 24,
        "node:issuance": -92,
    }
    assert balances[1] == {
        **dict.fromkeys(("node:bonus", "node:transport", "node:clearing-residual", "node:clearing.berlin.loop"), 0),
        "node:clearing.munich.loop": 0,
        "business:dairy": 396,
        "node:community-fund": 12,
        "node:issuance": -408,
    }
    assert [book["sums"] for book in settled["books"]] == [{"LC-MUC": 0, "EUR": 0}, {"LC-VIE": 0, "EUR": 0}]
    assert settled["owed"] == {"munich.loop": 0, "vienna.loop": 0}
    assert all(0 < check["invariants"] == check["holding"] for check in settled["checks"])
    compared = settled["reconciliation"]
    assert (compared["agrees"], compared["compared"], compared["in_flight"]) == (True, 2, 0)


def check_rings(rings: list[dict[str, Any]]) -> None:
    """Nobody hears of the first, Vienna alone may hear of the second, both hear of the third."""
    assert [ring["radius_km"] for ring in rings] == [50, 400, 1000]
    assert 0 <= rings[0]["opened_after_ms"] < 3_000 <= rings[1]["opened_after_ms"] < rings[2]["opened_after_ms"]
    assert len({ring["message_id"] for ring in rings}) == 3
    heard = [{each["node"]: each for each in ring["heard"]} for ring in rings]
    assert heard[0] == {}
    # On a machine that takes three seconds for it, the third ring overtakes the second.
    assert set(heard[1]) <= {"vienna.loop"}
    hops = {node: (each["hop"], each["ttl"], each["via"]) for node, each in heard[2].items()}
    assert hops == {"vienna.loop": (1, 3, "munich.loop"), "berlin.loop": (2, 2, "vienna.loop")}
    assert all(each["verified"] for ring in heard for each in ring.values())
    left_out = [[(each["by"], each["node"]) for each in ring["left_out"]] for ring in rings]
    assert left_out[0] == [("munich.loop", "vienna.loop")]
    assert left_out[1] == [("vienna.loop", "berlin.loop")] or not heard[1]
    assert left_out[2] == []


def test_kept_nodes_outlive_the_demo_until_they_are_stopped(tmp_path: Path) -> None:
    directory = tmp_path / "demo-data"
    with socket.socket() as usual:
        try:
            usual.bind(("127.0.0.1", 8443))
            usual.listen()
        except OSError:
            pass  # somebody else has it: taken all the same
        try:
            kept = run_demo(tmp_path, "--keep")
            pids = nodes_in(directory)
            assert (kept.returncode, kept.stderr) == (0, "")
            assert len(pids) == 3
            assert all(map(is_there, pids.values()))
            check_plain_text(kept.stdout)
            check_excerpts(kept.stdout)
            check_suggestions(kept.stdout, tmp_path)

            again = run_demo(tmp_path, "--keep")
            assert (again.returncode, again.stdout) == (1, "")
            assert "run already" in again.stderr
            assert f"berlin.loop (process {pids['berlin.loop']})" in again.stderr
            assert nodes_in(directory) == pids

            # As it is printed, so that what people copy is what works.
            printed = kept.stdout.splitlines()
            stop = shlex.split(printed[printed.index("End them:") + 1])
            stopped = subprocess.run(stop, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
            assert len(stopped.stdout.splitlines()) == 3
            assert not any(map(is_there, pids.values()))
        finally:
            for pid in nodes_in(directory).values():
                if is_there(pid):
                    os.kill(pid, signal.SIGKILL)
    nothing = run_demo(tmp_path, "--stop")
    assert nothing.returncode == 0
    assert nothing.stdout.startswith("Nothing to stop")


def check_plain_text(output: str) -> None:
    """No codes for a terminal, nothing wider than it should be but what is to be copied whole."""
    assert "\x1b" not in output
    steps, _, suggestions = output.partition("\nDone in ")
    assert max(len(line) for line in steps.splitlines() if not line.startswith("   $")) <= 100
    assert "demo --stop" in suggestions
    for fact in ("104.00", "103.00", "50.00", "lowest_loop_cost", "declined", "-92.00", "both agree"):
        assert fact in output


def check_excerpts(output: str) -> None:
    """What the README shows of it: the headings of the rings, whose times differ, and all of the books."""
    rings, books = re.findall(r"^```text\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    headings = [line for line in rings.splitlines() if not line.startswith(" ")]
    assert len(headings) == 3
    assert all(line in output.splitlines() for line in headings)
    assert books in output


def check_suggestions(output: str, place: Path) -> None:
    """The curl lines name what is there; the port that was taken is not among them."""
    lines = [shlex.split(line) for line in output.splitlines() if line.startswith("   curl ")]
    assert len(lines) == 3
    for _, option, authority, url in lines:
        assert option == "--cacert"
        assert ":8443/" not in url
        context = ssl.create_default_context(cafile=place / authority)
        with urllib.request.urlopen(url, context=context, timeout=10) as answer:  # noqa: S310 - https, as printed
            assert MATERIAL_ID in answer.read().decode()


def test_a_node_that_dies_ends_the_demo_and_the_others(tmp_path: Path) -> None:
    directory = tmp_path / "here"
    with demo_at_work(directory, tmp_path) as demo:
        pids = nodes_in(directory)
        os.kill(pids["berlin.loop"], signal.SIGKILL)
        _, errors = demo.communicate(timeout=TIMEOUT_S)
        assert demo.returncode == 1
        first, *log = errors.splitlines()
        assert first == "loopd: berlin.loop has ended by itself (signal SIGKILL)"
        assert log[0] == "loopd: The end of berlin.loop's log:"
        assert '"event":"ready"' in log[1]
        assert not any(map(is_there, pids.values()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_interrupts_it_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    directory = tmp_path / "here"
    with demo_at_work(directory, tmp_path) as demo:
        pids = nodes_in(directory)
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=TIMEOUT_S)
        assert (demo.returncode, errors) == (1, "loopd: interrupted; the nodes have been ended\n")
        assert not any(map(is_there, pids.values()))


class Nobody:
    """An audience that does not look."""

    def begins(self, act: Act) -> None:
        pass

    def happened(self, act: Act, facts: dict[str, Any]) -> None:
        pass


async def test_a_port_that_is_taken_meanwhile_is_told_with_the_log(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        _, vienna, berlin = free_ports()
        nodes = Nodes(Stage(tmp_path), (port, vienna, berlin))
        try:
            with pytest.raises(DemoFailed) as failure:
                await Scenario(nodes, Nobody()).play()
        finally:
            await nodes.stop()
    first, heading, *log = str(failure.value).splitlines()
    assert first == "munich.loop has ended by itself (exit code 1)"
    assert heading == "The end of munich.loop's log:"
    assert str(port) in log[-1]
    assert not any(recorded.is_running() for recorded in nodes.recorded())


def test_a_record_of_other_processes_stops_none_of_them(tmp_path: Path) -> None:
    Stage(tmp_path).record([Recorded("munich.loop", os.getpid(), "https://127.0.0.1:1", str(tmp_path / "munich"))])
    result = run_demo(tmp_path, "--stop", "--dir", str(tmp_path), "--json")
    assert (result.returncode, json.loads(result.stdout)["stopped"]) == (0, [])


def test_keep_and_stop_exclude_each_other(tmp_path: Path) -> None:
    result = run_demo(tmp_path, "--keep", "--stop")
    assert result.returncode == 2
    assert list(tmp_path.iterdir()) == []
