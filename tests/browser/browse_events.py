"""`/api/v1/stream` in a browser: its own EventSource follows, and goes on by itself when the node was away."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.browser.devtools import Page, chromium, tab
from tests.nodes import RunningNode, running

PATIENCE_S = 30.0
FOLLOW = """
(() => {
  window.told = [];
  window.words = [];
  window.source = new EventSource("/api/v1/stream?kind=material.*");
  source.onmessage = event => told.push([Number(event.lastEventId), JSON.parse(event.data).subject]);
  for (const word of ["gap", "end"]) source.addEventListener(word, event => words.push([word, JSON.parse(event.data)]));
})()
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    made = RunningNode.init(tmp_path_factory.mktemp("browser"), "a")
    with running(made):
        yield made


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium(tmp_path_factory.mktemp("chromium") / "profile") as address:
        yield address


@pytest.fixture
async def page(node: RunningNode, browser: str) -> AsyncIterator[Page]:
    """A page of the node's own origin, whose policy forbids it nothing."""
    async with tab(browser) as opened:
        await opened.open(f"https://127.0.0.1:{node.port}/health")
        yield opened


async def becomes(page: Page, expression: str, expected: Any) -> None:
    """Wait until an expression has that value."""
    found = None
    for _ in range(int(PATIENCE_S / 0.05)):
        found = await page.evaluate(expression)
        if found == expected:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{expression} is {found}, not {expected}")


async def test_an_event_source_follows_over_a_stop_of_the_node(page: Page, node: RunningNode) -> None:
    await page.evaluate(FOLLOW)
    await becomes(page, "source.readyState", 1)
    names = [node.register() for _ in range(3)]
    await becomes(page, "told.map(([id, subject]) => subject)", names)
    assert node.stop() == 0
    await becomes(page, "words", [["end", {"reason": "draining"}]])
    await becomes(page, "source.readyState", 0)
    node.start()
    # Not yet there again, or there already: both must come to the same.
    names += [node.register() for _ in range(3)]
    await becomes(page, "told.map(([id, subject]) => subject)", names)
    node.kill9()
    node.start()
    names.append(node.register())
    await becomes(page, "told.map(([id, subject]) => subject)", names)
    ids = await page.evaluate("told.map(([id]) => id)")
    assert ids == sorted(set(ids))
    assert await page.evaluate("words.length") == 1
