"""What is generated is current, and says what the code says."""

import asyncio

import pytest

from loopd.api.request_form import RequestForm
from loopd.protocol.documents import check_document
from loopd.protocol.json_text import dump_json
from scripts.generate import GENERATED, ROOT
from scripts.reference.routes import served_routes


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_file_is_current(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == GENERATED[name](), "make generate rewrites it"


def test_an_example_of_a_route_is_what_the_route_takes() -> None:
    checked = set()
    for route in asyncio.run(served_routes()):
        schema = route.request_schema
        if not route.example or schema is None or b'"$ref"' in dump_json(schema):
            continue
        checked.add(route.path)
        if isinstance(schema, str):
            check_document(route.example.encode(), schema)
        else:
            RequestForm(schema).read(route.example.encode())
    assert {"/api/v1/loopcoin/transfers", "/api/v1/loopcoin/issuance", "/api/v1/route"} <= checked
