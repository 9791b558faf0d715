"""`loopd peer`, `material` and `offer`: what they ask the daemon, and what they print."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from loopd.directory import NodeDirectory
from tests.fake_daemon import FakeDaemon

Run = Callable[..., Result]
MATERIAL = "MAT-DE-MUC-2025-FOOD-B847F3"
OFFERS = {
    "offers": [
        {
            "id": "OFFER-1",
            "from": "munich.loop",
            "bidder": "munich-farm",
            "base_price": 50,
            "loop_cost": 50.0,
            "breakdown": {"base": 50, "export": 0, "import": 0, "distance": 0},
            "rank": 1,
            "reason": "lowest_loop_cost",
            "status": "selected",
            "valid_until": "2026-01-01T00:00:00Z",
        },
        {"id": "OFFER-2", "from": "x.loop", "breakdown": None, "rank": None, "reason": "signals_unknown"},
    ],
    "selected": "OFFER-1",
    "reason": "lowest_loop_cost",
}

FARM = "business:farm@munich.loop"
UNKNOWN_ACCOUNT = {"error": {"message": "There is no such account here.", "details": {"reason": "unknown_account"}}}


def test_adding_a_peer_prints_both_fingerprints(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /admin/v1/peers"] = (
        200,
        {
            "peer": {"id": "vienna.loop"},
            "own_fingerprint": "aaaa:bbbb",
            "peer_fingerprint": "cccc:dddd",
            "status": "pending",
            "message": "pending: waits for the operator of vienna.loop",
        },
    )
    result = run("peer", "add", node.root, "https://127.0.0.1:8444/api/v1", "--auth", "unsigned-lab")
    assert result.exit_code == 0
    assert "own fingerprint\taaaa:bbbb\npeer fingerprint\tcccc:dddd\n" in result.stdout
    assert "waits for the operator" in result.stdout
    body = {"url": "https://127.0.0.1:8444/api/v1", "auth": "unsigned-lab"}
    assert daemon.requests == [("POST", "/admin/v1/peers", body)]


def test_a_peer_that_refuses_is_a_failure(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /admin/v1/peers"] = (200, {"status": "rejected", "message": "full"})
    result = run("peer", "add", node.root, "https://127.0.0.1:8444/api/v1")
    assert (result.exit_code, result.stderr) == (1, "loopd: https://127.0.0.1:8444/api/v1 refused: full\n")


@pytest.mark.parametrize(
    ("command", "request_line"),
    [
        ("approve", ("POST", "/admin/v1/peers/vienna.loop/approve", None)),
        ("suspend", ("POST", "/admin/v1/peers/vienna.loop/suspend", None)),
        ("resume", ("POST", "/admin/v1/peers/vienna.loop/resume", None)),
        ("remove", ("DELETE", "/admin/v1/peers/vienna.loop", None)),
    ],
)
def test_decisions_about_a_peer(
    run: Run, node: NodeDirectory, daemon: FakeDaemon, command: str, request_line: tuple[str, str, None]
) -> None:
    result = run("peer", command, node.root, "vienna.loop")
    assert result.exit_code == 0
    assert result.stdout.startswith("vienna.loop: ")
    assert daemon.requests == [request_line]


def test_peers_are_listed(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    entry = {"id": "vienna.loop", "status": "active", "health": "active", "queue": 0, "fingerprint": "aaaa"}
    daemon.answers["GET /admin/v1/peers"] = (200, {"peers": [entry]})
    header, line = run("peer", "list", node.root).stdout.splitlines()
    assert header.startswith("id\tstatus\thealth\t")
    assert line.startswith("vienna.loop\tactive\tactive\t-\t")
    assert json.loads(run("peer", "list", node.root, "--json").stdout) == {"peers": [entry]}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (b'{ "@type": "MaterialDNA",\n "n": 1.10 }', "/api/v1/material"),
        (b'{"@type": "ProductDNA"}', "/api/v1/product"),
        (b"[]", "/api/v1/material"),
    ],
)
def test_a_document_goes_to_its_route_byte_for_byte(
    run: Run, node: NodeDirectory, daemon: FakeDaemon, tmp_path: Path, document: bytes, path: str
) -> None:
    daemon.answers[f"POST {path}"] = (201, {"id": MATERIAL, "status": "registered"})
    (tmp_path / "document.json").write_bytes(document)
    assert run("material", "add", node.root, tmp_path / "document.json").stdout == f"{MATERIAL}\tregistered\n"
    result = run("material", "add", node.root, "-", "--json", stdin=document)
    assert json.loads(result.stdout)["id"] == MATERIAL
    assert daemon.requests == [("POST", path, json.loads(document))] * 2
    assert daemon.content_types == ["application/ld+json"] * 2


def test_every_violation_of_a_document_is_shown(
    run: Run, node: NodeDirectory, daemon: FakeDaemon, tmp_path: Path
) -> None:
    errors = [
        {"pointer": "/quantity/unit", "rule": "enum", "message": "not one of kg, g"},
        {"pointer": "", "rule": "required"},
    ]
    error = {"message": "The document is not valid.", "details": {"reason": "schema", "errors": errors}}
    daemon.answers["POST /api/v1/material"] = (400, {"error": error})
    (tmp_path / "document.json").write_text("{}")
    result = run("material", "add", node.root, tmp_path / "document.json")
    assert result.exit_code == 1
    assert result.stderr == (
        "loopd: The document is not valid. [schema]\nloopd:   /quantity/unit: not one of kg, g\nloopd:   /: required\n"
    )
    assert "No such file" in run("material", "add", node.root, tmp_path / "nowhere").stderr


def test_materials_are_listed(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    quantity = {"value": 2.5, "unit": "t"}
    record = {"id": MATERIAL, "category": "organic-food", "quantity": quantity, "status": "available"}
    daemon.answers["GET /api/v1/material"] = (200, {"results": [record], "next": None})
    daemon.answers["GET /api/v1/product"] = (200, {"results": [], "next": None})
    lines = run("material", "list", node.root, "--limit", "5").stdout.splitlines()
    assert lines[1] == f"{MATERIAL}\torganic-food\t2.5 t\tavailable\t-\t-"
    assert len(run("material", "list", node.root, "--products").stdout.splitlines()) == 1
    assert [path for _, path, _ in daemon.requests] == ["/api/v1/material?limit=5", "/api/v1/product?limit=20"]
    assert run("material", "list", node.root, "--limit", "101").exit_code == 2


def test_an_offer_is_made_with_exact_numbers(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    breakdown = {"base": 60, "export": 24, "import": 12, "distance": 8}
    daemon.answers["POST /admin/v1/offers"] = (201, {"id": "OFFER-1", "loop_cost": 104.1, "breakdown": breakdown})
    extras = ["--quantity", "1.5", "--unit", "t", "--distance-km", "400", "--valid-for", "3600", "--bidder", "farm"]
    extras += ["--buyer-account", FARM]
    daemon.answers[f"GET /api/v1/loopcoin/accounts/{FARM}"] = (200, {"id": FARM})
    result = run("offer", "make", node.root, MATERIAL, "60.10", *extras)
    assert result.exit_code == 0
    assert "loop cost\t104.1\n" in result.stdout
    (_, path, _), (_, _, body) = daemon.requests
    assert path == f"/api/v1/loopcoin/accounts/{FARM}"
    assert body == {
        "material": MATERIAL,
        "base_price": 60.10,
        "quantity": 1.5,
        "unit": "t",
        "distance_km": 400,
        "valid_for_s": 3600,
        "bidder": "farm",
        "buyer_account": FARM,
    }
    assert run("offer", "make", node.root, MATERIAL, "60").exit_code == 0
    assert daemon.requests[2][2] == {"material": MATERIAL, "base_price": 60}


def test_an_offer_that_nobody_here_could_pay_is_not_made(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers[f"GET /api/v1/loopcoin/accounts/{FARM}"] = (404, UNKNOWN_ACCOUNT)
    result = run("offer", "make", node.root, MATERIAL, "60", "--buyer-account", FARM)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"loopd: {FARM}: There is no such account here. [unknown_account]\n")
    assert [method for method, _, _ in daemon.requests] == ["GET"]


def test_who_is_paid_for_a_material_is_looked_for(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    record = {"id": MATERIAL, "status": "registered", "metadata": {"seller_account": FARM}}
    daemon.answers["POST /api/v1/material"] = (201, record)
    daemon.answers[f"GET /api/v1/loopcoin/accounts/{FARM}"] = (404, UNKNOWN_ACCOUNT)
    result = run("material", "add", node.root, "-", stdin=b"{}")
    assert (result.exit_code, result.stdout) == (0, f"{MATERIAL}\tregistered\n")
    assert result.stderr.startswith(f"loopd: /metadata/seller_account {FARM}: There is no such account here.")
    daemon.answers[f"GET /api/v1/loopcoin/accounts/{FARM}"] = (200, {"id": FARM})
    assert run("material", "add", node.root, "-", stdin=b"{}").stderr == ""


@pytest.mark.parametrize("price", ["60.001", "much", "nan", "Infinity", "-1", "-0"])
def test_a_bad_price_is_misuse(run: Run, node: NodeDirectory, price: str) -> None:
    assert run("offer", "make", node.root, "--", MATERIAL, price).exit_code == 2


def test_offers_are_listed_and_selected(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers[f"GET /api/v1/material/{MATERIAL}/offers"] = (200, OFFERS)
    daemon.answers[f"POST /api/v1/material/{MATERIAL}/select"] = (200, OFFERS)
    result = run("offer", "list", node.root, MATERIAL)
    header, first, second = result.stdout.splitlines()
    assert header.split("\t")[:3] == ["rank", "offer", "from"]
    assert first.split("\t")[:7] == ["1", "OFFER-1", "munich-farm", "50", "0", "0", "0"]
    assert "signals_unknown" in second
    assert result.stderr == "selected: OFFER-1 (lowest_loop_cost)\n"
    assert run("offer", "select", node.root, MATERIAL).exit_code == 0
    assert json.loads(run("offer", "select", node.root, MATERIAL, "OFFER-1", "--json").stdout) == OFFERS
    assert [body for _, _, body in daemon.requests] == [None, {}, {"offer": "OFFER-1"}]


def test_ids_are_quoted_and_products_have_their_own_path(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["GET /api/v1/product/PRD-CHAIR-0001/offers"] = (200, {"offers": [], "selected": None})
    assert run("offer", "list", node.root, "PRD-CHAIR-0001").exit_code == 0
    run("peer", "suspend", node.root, "../tokens/1?x")
    assert daemon.requests[1][1] == "/admin/v1/peers/..%2Ftokens%2F1%3Fx/suspend"
