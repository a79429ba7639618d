"""The operator's page in a real browser: plots, keyboard, screen readers, contrast, and without JavaScript."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.router.admin.served import Served, served_page

pytestmark = pytest.mark.slow

#: Finds every text whose contrast to its ground is below 4.5 to 1 (WCAG 2.2, level AA), or 3 to 1 for large text.
_CONTRAST = """() => {
  const numbers = (colour) => (colour.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = (c) => { const s = c / 255; return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = numbers(getComputedStyle(one).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.closest("script, noscript, option")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [luminance(numbers(style.color)), luminance(ground(element))].sort((x, y) => y - x);
    const least = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < least) bad.push(element.outerHTML.slice(0, 80));
  }
  return bad;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_page(tmp_path_factory.mktemp("page")) as served:
        yield served


def shown(browser: Any, page: Served, **how: Any) -> tuple[Any, list[str]]:
    """Open the page, and return it with what the browser complains of and with every address elsewhere it asks for."""
    tab = browser.new_page(**how)
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on(
        "request",
        lambda request: None if request.url.startswith((page.url, "data:,")) else complaints.append(request.url),
    )
    tab.goto(f"{page.url}/?period=all")
    return tab, complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_are_drawn_nothing_is_asked_elsewhere_and_every_text_is_legible(
    browser: Any, page: Served, scheme: str
) -> None:
    tab, complaints = shown(browser, page, color_scheme=scheme)
    tab.wait_for_selector("[data-plot] canvas")
    assert tab.locator("[data-plot] canvas").count() == 3
    tab.fill("#prompt", "prompt number 7")
    tab.click("button")
    tab.wait_for_selector("text=Where the risks come from")
    tab.wait_for_selector("[data-plot] canvas")
    assert tab.evaluate(_CONTRAST) == []
    assert not complaints
    tab.close()


def test_a_keyboard_reaches_everything_and_sees_where_it_is(browser: Any, page: Served) -> None:
    tab, _ = shown(browser, page)
    reached, outlines = [], []
    for _ in range(30):
        tab.keyboard.press("Tab")
        found = tab.evaluate(
            "() => { const e = document.activeElement; const o = getComputedStyle(e);"
            " return [e.id || e.textContent.trim() || e.tagName, o.outlineStyle]; }"
        )
        reached.append(found[0])
        outlines.append(found[1])
        if found[0] == "The same as JSON":
            break
    assert reached[0] == "Skip to the figures"
    assert {"1 hour", "prompt", "policy", "Decide", "The same as JSON"} <= set(reached)
    assert set(outlines) == {"solid"}
    tab.close()


def test_a_screen_reader_finds_landmarks_headings_in_order_and_names_of_everything(browser: Any, page: Served) -> None:
    tab, _ = shown(browser, page)
    tab.fill("#prompt", "prompt number 7")
    tab.click("button")
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert tab.get_by_role(landmark).count() == 1, landmark
    levels = tab.evaluate("() => [...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    unnamed = tab.evaluate(
        "() => [...document.querySelectorAll('textarea, select')].filter((e) => !e.labels.length).map((e) => e.id)"
    )
    assert not unnamed
    assert tab.get_by_role("img", name="Plot of").count() == 3
    assert tab.locator("th:not([scope])").count() == tab.locator(".u-legend th").count()
    assert tab.evaluate("() => document.documentElement.lang") == "en"
    tab.close()


def test_without_javascript_all_figures_are_there_and_a_prompt_can_be_tried(browser: Any, page: Served) -> None:
    tab, _ = shown(browser, page, java_script_enabled=False)
    assert "Plots need JavaScript" in tab.inner_text("main")
    assert "$9.00, 75.0" in tab.inner_text("main")
    tab.fill("#prompt", "prompt number 7")
    tab.click("button")
    assert "Where the risks come from" in tab.inner_text("#try")
    tab.close()


def test_a_narrow_screen_scrolls_in_one_direction_only(browser: Any, page: Served) -> None:
    tab, _ = shown(browser, page, viewport={"width": 360, "height": 740})
    tab.wait_for_selector("[data-plot] canvas")
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= 360
    tab.close()
