"""A real daemon under requests made from its own description: never 5xx, and every answer is one that it describes."""

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.hostile.stage import OWN, Stage, staged

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 15
NO_CHECK = list(HealthCheck)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


@pytest.fixture(scope="module")
def session(stage: Stage) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.verify = str(stage.node.ca_file)
        session.trust_env = False
        yield session


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_what_is_described_is_what_is_answered(mode: GenerationMode, stage: Stage, session: requests.Session) -> None:
    description = schemathesis.openapi.from_dict(stage.get("/openapi.json"))
    tried = 0
    for found in description.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not list(operation.body) and not list(operation.query):
            # Nothing in it can be wrong.
            continue

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=NO_CHECK)
        @given(case=operation.as_strategy(generation_mode=mode))
        def examples(case: schemathesis.Case) -> None:
            _try(case, stage, session)

        examples()
        tried += 1
    assert tried >= 10


def _try(case: schemathesis.Case, stage: Stage, session: requests.Session) -> None:
    prepared = session.prepare_request(_request(case, stage))
    body = prepared.body if isinstance(prepared.body, bytes) else (prepared.body or "").encode()
    if (case.method == "POST" and "/federat" in case.path) or case.path.endswith("/federate/settlement"):
        # Signed by a peer, so that what is inside is looked at.
        prepared.headers.update(stage.vienna.headers(prepared.path_url, body, OWN, method=case.method))
    response = session.send(prepared, timeout=10, allow_redirects=False, stream=True)
    if response.headers.get("Content-Type") == "text/event-stream":
        # It has no end; its beginning is its answer.
        response._content = next(response.iter_content(chunk_size=None))
        response.close()
    case.validate_response(response, checks=CHECKS)


def _request(case: schemathesis.Case, stage: Stage) -> requests.Request:
    options = case.as_transport_kwargs(base_url=f"https://127.0.0.1:{stage.node.port}")
    scope = "offer:write" if case.path.endswith(("/offers", "/select")) else "material:write"
    if "/loopcoin/" in case.path:
        scope = "account"
    headers = {**options.pop("headers"), **stage.bearer(scope)}
    known = ("method", "url", "params", "data", "json", "cookies")
    return requests.Request(headers=headers, **{name: options[name] for name in known if name in options})


def test_the_node_serves_on(stage: Stage) -> None:
    assert stage.get("/health")
    assert "Traceback" not in stage.node.log_text()
