"""`loopd route`, `wanted` and `plan`: what they ask the daemon, and what they print."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from loopd.directory import NodeDirectory
from tests.fake_daemon import FakeDaemon

Run = Callable[..., Result]
MATERIAL = "MAT-DE-MUC-2026-FOOD-B847F3"
ROUTE = {
    "results": [
        {
            "rank": 1,
            "node": "munich.loop",
            "loop_cost": 60.0,
            "breakdown": {"base": 60, "export": 0, "import": 0, "distance": 0},
            "distance_km": 0,
            "ring": 0,
            "stale_signals": False,
            "wanted": [],
        },
        {
            "rank": 2,
            "node": "vienna.loop",
            "loop_cost": 104.5,
            "breakdown": {"base": 60, "export": 24, "import": 12, "distance": 8.5},
            "distance_km": 425,
            "ring": 3,
            "stale_signals": True,
            "wanted": [{"id": "WNT-00000001"}],
        },
    ],
    "ladder": [{"ring": 0, "radius_km": 0, "open": True, "destinations": 1, "wanting": 0, "lowest_loop_cost": 60}],
    "signals_unknown": {"count": 1, "nodes": ["graz.loop"]},
    "location_unknown": {"count": 0, "nodes": []},
}
DEMAND = {
    "id": "WNT-00000001",
    "node": "munich.loop",
    "category": "organic-*",
    "quantity": 200,
    "unit": "kg",
    "max_price": 40.5,
    "status": "open",
    "valid_until": "2026-12-01T00:00:00Z",
    "matches": [
        {"node": "vienna.loop", "material": MATERIAL, "available": True},
        {"node": "graz.loop", "product": "PRD-DE-GRZ-1", "available": False},
    ],
}
PLAN = {
    "assignment": [
        {
            "batch": {"node": "munich.loop", "id": MATERIAL},
            "demand": {"node": "vienna.loop", "id": "WNT-00000001"},
            "quantity": 200,
            "unit": "kg",
            "loop_cost": 104.5,
            "distance_km": 425,
        }
    ],
    "served": 1,
    "loop_cost": 104.5,
    "unserved": [{"node": "graz.loop", "id": "WNT-2"}],
    "in_turn": {"served": 1, "loop_cost": 110},
    "saves": {"served": 0, "loop_cost": 5.5},
}


def test_destinations_are_listed(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /api/v1/route"] = (200, ROUTE)
    result = run("route", node.root, MATERIAL, "--price", "60.00", "--wanted", "--limit", 5)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:] == [
        "1\tmunich.loop\t60\t0\t0\t0\t60.0\t0\t0\t-\t-",
        "2\tvienna.loop\t60\t24\t12\t8.5\t104.5\t425\t3\tWNT-00000001\tstale",
    ]
    assert result.stderr == "not ranked, their signals are not known: graz.loop\n"
    question = {"material": MATERIAL, "base_price": 60.0, "wanted_only": True}
    assert daemon.requests == [("POST", "/api/v1/route?limit=5", question)]


def test_the_ladder_is_shown(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /api/v1/route"] = (200, ROUTE)
    result = run("route", node.root, "PRD-DE-MUC-2026-DESK-F4A7B2", "--ladder")
    assert result.stdout.splitlines()[1] == "0\t0\tyes\t-\t1\t0\t60"
    assert daemon.requests[0][2] == {"product": "PRD-DE-MUC-2026-DESK-F4A7B2"}


def test_demand_is_registered_with_what_fits_it(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /api/v1/wanted"] = (201, DEMAND)
    options = ("--max-price", "40.50", "--radius-km", "500", "--wanted-by", "munich-farm", "--valid-for", 60)
    result = run("wanted", "add", node.root, "organic-*", "200", "kg", *options)
    assert result.exit_code == 0
    assert "id\tWNT-00000001\n" in result.stdout
    assert f"fits\t{MATERIAL} at vienna.loop\nfits\tPRD-DE-GRZ-1 at graz.loop, gone\n" in result.stdout
    wish = {"max_price": 40.5, "radius_km": 500, "wanted_by": "munich-farm", "valid_for_s": 60}
    assert daemon.requests == [
        ("POST", "/api/v1/wanted", {"category": "organic-*", "quantity": 200, "unit": "kg", **wish})
    ]
    run("wanted", "add", node.root, "furniture-*", "2", "piece", "--product")
    assert daemon.requests[1][2] == {"product_category": "furniture-*", "quantity": 2, "unit": "piece"}


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ((), "scope=local&limit=20&status=open"),
        (("--peers", "--limit", 3), "scope=federation&limit=3&status=open"),
        (("--all",), "scope=local&limit=20"),
    ],
)
def test_demand_is_listed(
    run: Run, node: NodeDirectory, daemon: FakeDaemon, options: tuple[object, ...], query: str
) -> None:
    daemon.answers["GET /api/v1/wanted"] = (200, {"results": [DEMAND], "next": None})
    result = run("wanted", "list", node.root, *options)
    line = "WNT-00000001\tmunich.loop\torganic-*\t200 kg\t40.5\t-\topen\t2026-12-01T00:00:00Z"
    assert result.stdout.splitlines()[1] == line
    assert daemon.requests == [("GET", f"/api/v1/wanted?{query}", None)]


def test_demand_is_shown_and_closed(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["GET /api/v1/wanted/WNT-00000001"] = (200, DEMAND)
    daemon.answers["POST /api/v1/wanted/WNT-00000001/close"] = (200, {**DEMAND, "status": "fulfilled"})
    assert "status\topen\n" in run("wanted", "show", node.root, "WNT-00000001").stdout
    assert "status\tfulfilled\n" in run("wanted", "close", node.root, "WNT-00000001", "--fulfilled").stdout
    assert daemon.requests[1] == ("POST", "/api/v1/wanted/WNT-00000001/close", {"status": "fulfilled"})
    assert run("wanted", "close", node.root, "WNT-00000001").exit_code == 0
    assert daemon.requests[2][2] == {"status": "withdrawn"}


def test_a_plan_is_shown_with_what_it_saves(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /api/v1/route/plan"] = (200, PLAN)
    result = run("plan", node.root)
    assert result.stdout.splitlines()[1] == f"{MATERIAL}\tmunich.loop\tWNT-00000001\tvienna.loop\t200 kg\t104.5\t425"
    assert result.stderr.splitlines() == [
        "served: 1 for 104.5 LC",
        "each in turn: 1 for 110 LC",
        "saved: 5.5 LC",
        "not served: WNT-2",
    ]
    assert daemon.requests == [("POST", "/api/v1/route/plan", {})]


def test_a_plan_of_a_file(run: Run, node: NodeDirectory, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.answers["POST /api/v1/route/plan"] = (200, PLAN)
    file = tmp_path / "task.json"
    file.write_text('{"batches": []}')
    assert run("plan", node.root, file, "--json").exit_code == 0
    assert run("plan", node.root, "-", stdin=b'{"demands": []}').exit_code == 0
    assert [request[2] for request in daemon.requests] == [{"batches": []}, {"demands": []}]
    missing = run("plan", node.root, tmp_path / "missing.json")
    assert (missing.exit_code, "No such file" in missing.stderr) == (1, True)
