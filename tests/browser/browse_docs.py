"""`/docs` in a browser: what a person sees, and what the browser says of it. `make test-browser` runs these.

They need a browser, which `make test` does not ask for: so their file is named as pytest by itself does not look for.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.browser.devtools import Page, chromium, tab
from tests.nodes import RunningNode, running

WIDTHS_PX = (320, 400, 800, 1280, 1920)
# WCAG 2.2, 1.4.3: text of usual size.
CONTRAST_MIN = 4.5

RELATIVE_LUMINANCE = """
(colour) => {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(value => value / 255);
  const [r, g, b] = parts.map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
"""
# Every kind of text on the page against the nearest ground behind it: the least contrast, and where.
LEAST_CONTRAST = f"""
(() => {{
  const luminance = {RELATIVE_LUMINANCE};
  const ground = element => {{
    for (let at = element; at; at = at.parentElement) {{
      const colour = getComputedStyle(at).backgroundColor;
      if (!colour.endsWith(", 0)") && colour !== "transparent") return colour;
    }}
    return "rgb(255, 255, 255)";
  }};
  let least = [99, ""];
  for (const element of document.querySelectorAll("body, nav *, main *")) {{
    const [text, behind] = [getComputedStyle(element).color, ground(element)].map(luminance);
    const contrast = (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
    if (contrast < least[0]) least = [contrast, element.outerHTML.slice(0, 80)];
  }}
  return least;
}})()
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    made = RunningNode.init(tmp_path_factory.mktemp("browsed"), "munich")
    with running(made):
        yield made


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    profile = tmp_path_factory.mktemp("browser") / "profile"
    profile.mkdir()
    with chromium(profile) as address:
        yield address


@pytest.fixture
async def page(browser: str, node: RunningNode) -> AsyncIterator[Page]:
    """The page, opened on a wide screen."""
    async with tab(browser) as opened:
        await opened.look(1280)
        await opened.open(f"https://127.0.0.1:{node.port}/docs")
        yield opened


async def test_it_is_shown_with_its_style_and_without_complaints(page: Page) -> None:
    assert "munich.loop" in await page.evaluate("document.title")
    assert await page.evaluate("getComputedStyle(document.body).display") == "grid"
    assert page.complaints() == []


async def test_it_asks_nobody_but_its_node(page: Page, node: RunningNode) -> None:
    asked = [event["request"]["url"] for event in page.all("Network.requestWillBeSent")]
    assert f"https://127.0.0.1:{node.port}/docs/style.css" in asked
    assert await page.evaluate("document.querySelector('link[rel=icon]').getAttribute('href')") == "/docs/icon.svg"
    assert [url for url in asked if not url.startswith(f"https://127.0.0.1:{node.port}/")] == []


async def test_a_script_in_the_page_would_not_run(page: Page) -> None:
    """The policy holds, and a violation is seen by the test that looks for complaints."""
    await page.evaluate(
        "(() => { const script = document.createElement('script'); script.textContent = 'window.ran = true';"
        " document.body.append(script); })()"
    )
    await page.event("Log.entryAdded")
    assert await page.evaluate("window.ran === undefined")
    assert any("Content Security Policy" in complaint for complaint in page.complaints())


async def test_every_route_has_an_entry_that_its_link_leads_to(page: Page, node: RunningNode) -> None:
    paths = node.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    links = await page.evaluate(
        "Array.from(document.querySelectorAll('nav li a'), link => [link.innerText, link.getAttribute('href')])"
    )
    assert {text for text, _ in links} == routes
    for text, anchor in links:
        top = await page.evaluate(
            "(async () => { document.documentElement.style.scrollBehavior = 'auto';"
            f" location.hash = {anchor!r}; await new Promise(requestAnimationFrame);"
            f" const target = document.querySelector('article:target');"
            " return target && target.querySelector('h3').innerText + ' @ '"
            " + (target.getBoundingClientRect().top < innerHeight); })()"
        )
        assert top == f"{text} @ true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", WIDTHS_PX)
async def test_nothing_is_cut_off_or_scrolls_sideways(page: Page, width_px: int, scheme: str) -> None:
    await page.look(width_px, scheme)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width_px
    # Only code, which may not be broken, scrolls inside its own box.
    wide = await page.evaluate(
        "Array.from(document.querySelectorAll('main *')).filter(element => !element.closest('pre')"
        f" && element.getBoundingClientRect().right > {width_px}).map(element => element.outerHTML.slice(0, 80))"
    )
    assert wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_stands_out_from_its_ground(page: Page, scheme: str) -> None:
    await page.look(1280, scheme)
    contrast, where = await page.evaluate(LEAST_CONTRAST)
    assert contrast >= CONTRAST_MIN, where


async def test_both_schemes_are_the_readers_choice(page: Page) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        await page.look(1280, scheme)
        grounds.append(await page.evaluate(f"({RELATIVE_LUMINANCE})(getComputedStyle(document.body).backgroundColor)"))
    light, dark = grounds
    assert light > 0.8
    assert dark < 0.05


async def test_on_a_narrow_screen_the_first_route_needs_no_long_scroll(page: Page) -> None:
    """The list of routes is an aid there, not a wall before the text."""
    await page.look(400)
    assert await page.evaluate("document.querySelector('h1').getBoundingClientRect().top") < 600
