"""`loopd search`: what it asks the daemon, and what it prints."""

import json
from collections.abc import Callable

from click.testing import Result

from loopd.directory import NodeDirectory
from tests.fake_daemon import FakeDaemon

Run = Callable[..., Result]
LOCAL = {
    "id": "MAT-DE-MUC-2026-FOOD-B847F3",
    "category": "organic-food",
    "quantity": {"value": 500, "unit": "kg"},
    "distance_km": 0.0,
    "loop_cost": 60.0,
}
HEARD = {
    "id": "PRD-DE-MUC-2026-DESK-F4A7B2",
    "product_category": "furniture-office",
    "source_node": "munich.loop",
    "verified": False,
}


def test_every_filter_is_asked_for_by_its_name(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /api/v1/material/search"] = (
        200,
        {"results": [LOCAL], "total": 3, "next": "/api/v1/material/search?cursor=abc", "omitted": 2},
    )
    options = [
        *("--category", "organic-*", "--radius-km", "25.5", "--near", "48.1", "-11.5", "--min-quantity", "0.5"),
        *("--unit", "t", "--available-from", "2026-01-01T00:00:00Z", "--available-until", "2026-02-01T00:00:00Z"),
        *("--max-loop-cost", "80.50", "--destination", "vienna.loop", "--text", "spent grain", "--limit", "1"),
    ]
    result = run("search", node.root, *options)
    assert result.exit_code == 0, result.output
    header, row = result.stdout.splitlines()
    assert header.split("\t")[:4] == ["id", "category", "condition", "quantity"]
    assert row.split("\t") == [LOCAL["id"], "organic-food", "-", "500 kg", "0.0", "60.0", "-", "-", "-"]
    assert result.stderr == "1 of 3; 2 without a price left out\n"
    assert daemon.requests == [
        (
            "POST",
            "/api/v1/material/search",
            {
                "category": "organic-*",
                "radius_km": 25.5,
                "near": {"lat": 48.1, "lon": -11.5},
                "min_quantity": 0.5,
                "unit": "t",
                "available_from": "2026-01-01T00:00:00Z",
                "available_until": "2026-02-01T00:00:00Z",
                "max_loop_cost": 80.5,
                "destination": "vienna.loop",
                "text": "spent grain",
                "limit": 1,
            },
        )
    ]


def test_products_of_the_federation(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /api/v1/product/search"] = (200, {"results": [HEARD], "total": 1, "next": None})
    options = ["--products", "--federation", "--category", "furniture-*", "--condition", "good"]
    result = run("search", node.root, *options)
    assert result.stdout.splitlines()[1].split("\t")[6:8] == ["munich.loop", "no"]
    (request,) = daemon.requests
    assert request[1:] == (
        "/api/v1/product/search",
        {"product_category": "furniture-*", "condition": "good", "scope": "federation", "limit": 20},
    )


def test_all_results_are_followed_page_by_page(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /api/v1/material/search"] = (200, {"results": [LOCAL], "total": 2, "next": "/page-2"})
    daemon.answers["POST /page-2"] = (200, {"results": [HEARD], "total": 2, "next": None})
    result = run("search", node.root, "--all", "--limit", "1", "--json")
    assert json.loads(result.stdout) == {"results": [LOCAL, HEARD], "total": 2, "next": None}
    assert [request[2] for request in daemon.requests] == [{"limit": 1}, {"limit": 1}]


def test_a_refused_search_names_the_place(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    details = {"reason": "unknown_category", "errors": [{"pointer": "/category", "rule": "x", "message": "no such"}]}
    error = {"error": {"code": "INVALID_REQUEST", "message": "It is not known.", "details": details}}
    daemon.answers["POST /api/v1/material/search"] = (400, error)
    result = run("search", node.root, "--category", "plastik")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "loopd:   /category: no such\n" in result.stderr


def test_a_place_that_the_sentence_names_is_not_repeated(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    details = {"reason": "unknown_category", "errors": [{"pointer": "/category", "rule": "x", "message": "no such"}]}
    error = {"error": {"code": "INVALID_REQUEST", "message": "/category: no such", "details": details}}
    daemon.answers["POST /api/v1/material/search"] = (400, error)
    assert run("search", node.root).stderr == "loopd: /category: no such [unknown_category]\n"
