import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from loopd.observe.logging import REDACTED, configure_logging
from loopd.observe.settings import LogSettings

TOKEN = "loopd_" + "x" * 43


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_object_with_the_bound_ids() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger().info("ready", listen="127.0.0.1:8443")
    structlog.get_logger().debug("not written")
    (line,) = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["event"], line["request_id"]) == ("info", "ready", "r1")


def test_the_standard_librarys_lines_have_the_same_form() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(level="warning"), stream)
    logging.getLogger("aiohttp.server").error("bad %s", "request")
    logging.getLogger("aiohttp.server").info("not written")
    logging.getLogger("odd").error("%d", "no number")
    first, second = lines(stream)
    assert (first["event"], first["logger"], first["level"]) == ("bad request", "aiohttp.server", "error")
    assert second["event"] == "%d"


def test_secrets_are_never_written() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    try:
        raise RuntimeError(f"could not use {TOKEN}")
    except RuntimeError:
        structlog.get_logger().exception(
            f"with {TOKEN}",
            token="abc",
            admin_token="abc",
            Authorization="Basic abc",
            seed=b"abc",
            header="Bearer abc.def",
            headers={"Cookie": "abc", "Accept": "*/*", "deep": [{"x-api-secret": "abc"}]},
            pem="-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----",
            raw=b"abc",
            token_id=7,
        )
    text = stream.getvalue()
    assert TOKEN not in text
    assert "abc" not in text
    (line,) = lines(stream)
    assert line["token_id"] == 7
    assert line["headers"] == {"Cookie": REDACTED, "Accept": "*/*", "deep": [{"x-api-secret": REDACTED}]}
    assert line["header"] == f"Bearer {REDACTED}"
    assert "RuntimeError" in line["exception"]


def test_what_is_nested_without_end_is_cut() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    endless: list[Any] = []
    endless.append(endless)
    structlog.get_logger().info("odd", value=endless, other=object(), key={1: 2})
    (line,) = lines(stream)
    assert "nested too deep" in json.dumps(line["value"])


def test_a_terminal_gets_lines_for_people() -> None:
    stream = Terminal()
    configure_logging(LogSettings(), stream)
    structlog.get_logger().info("ready", admin_token="abc")
    assert "ready" in stream.getvalue()
    assert "abc" not in stream.getvalue()
    with pytest.raises(ValueError):
        json.loads(stream.getvalue())
    machine = Terminal()
    configure_logging(LogSettings(format="json"), machine)
    structlog.get_logger().info("ready")
    assert lines(machine)[0]["event"] == "ready"
