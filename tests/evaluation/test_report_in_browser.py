"""The page in a real browser, where there is one."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from grpo.evaluation.report import write_report
from tests.evaluation.report_inputs import NAMES, build_inputs, build_windows, evaluate_law

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def path(tmp_path, make_windows):
    windows = build_windows(make_windows, stocks=3)
    evaluations = [evaluate_law(name, windows) for name in ("base", *NAMES, "long" * 25)]
    inputs = build_inputs(windows, evaluations)
    answers = pd.DataFrame(
        {"forecaster": ["sft"], "stock": ["S00"], "date": ["2020-01-01"], "text": ["500 " * 300], "valid": [True]}
    )
    numbers = pd.DataFrame({"stock": ["b", "a", "d", "c"], "gain": [2.0, np.nan, -10.0, 1e-5], "dates": [1, 2, 3, 4]})
    history = [{"step": 1, "reward": -1.5}, {"step": 2, "reward": -1.0, "eval_crps": 1.25}]
    write_report(
        replace(
            inputs,
            completions=answers,
            histories={"stage 1": history},
            extra_tables={"Numbers": numbers},
            warnings=["A warning."],
            facts={"command": "compare --" + "x" * 300},
        ),
        tmp_path,
    )
    return tmp_path / "report.html"


@pytest.fixture
def open_page(browser, path):
    """Opens the page at a width and theme; nothing may be asked of the network or said on the console."""
    contexts, requests, complaints = [], [], []

    def start(width=1280, scheme="light", javascript=True):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=javascript
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} == {path.as_uri()}


def test_one_line_runs_down_the_small_pictures_of_all_rows(browser, tmp_path, make_windows):
    windows = build_windows(make_windows)
    inputs = build_inputs(windows, [evaluate_law(name, windows) for name in NAMES])
    spread = inputs.table["forecaster"].map({"sft": 0.01, "optimum": 0.02})  # the random walk has none
    table = inputs.table.assign(skill_sd=spread, rel_crps_sd=spread)
    write_report(replace(inputs, table=table), tmp_path)
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    marks = "marks => marks.map(mark => mark.getBoundingClientRect())"
    pictures = page.eval_on_selector_all("#leaderboard .whisker", marks)
    rows = page.eval_on_selector_all("#leaderboard tbody tr", marks)
    page.close()
    assert len(pictures) == len(rows) == 3
    assert len({picture["left"] for picture in pictures}) == 1
    for picture, row in zip(pictures, rows, strict=True):
        assert row["top"] < picture["top"] < picture["bottom"] < row["bottom"]


def column(page, caption, number):
    return page.eval_on_selector_all(
        f"table:has(caption:text-is('{caption}')) tbody tr",
        f"rows => rows.map(row => row.cells[{number}].textContent)",
    )


def test_tables_sort_both_ways_with_empty_cells_last(open_page):
    page = open_page()
    table = page.locator("table", has=page.locator("caption", has_text=re.compile("^Numbers$")))
    head = table.locator("thead th").nth(1)
    assert column(page, "Numbers", 1) == ["2.000", "–", "-10.00", "1.0e-05"]
    head.locator("button").click()
    assert column(page, "Numbers", 1) == ["-10.00", "1.0e-05", "2.000", "–"]
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert column(page, "Numbers", 1) == ["2.000", "1.0e-05", "-10.00", "–"]
    assert column(page, "Numbers", 0) == ["b", "c", "d", "a"]
    assert head.get_attribute("aria-sort") == "descending"
    table.locator("thead th button").first.click()
    assert column(page, "Numbers", 0) == ["a", "b", "c", "d"]
    assert head.get_attribute("aria-sort") is None


def test_every_chart_is_drawn(open_page):
    page = open_page()
    page.evaluate("document.querySelectorAll('[hidden]').forEach(node => node.hidden = false)")
    boxes = page.eval_on_selector_all(
        "svg.chart",
        """charts => charts.map(chart => {
            const box = chart.getBoundingClientRect(), marks = [...chart.querySelectorAll("path, circle, rect")];
            const inside = marks.map(mark => mark.getBoundingClientRect()).every(mark =>
                mark.left >= box.left - 2 && mark.right <= box.right + 2 &&
                mark.top >= box.top - 2 && mark.bottom <= box.bottom + 2);
            const cut = [...chart.querySelectorAll("text")].filter(text => {
                const own = text.getBoundingClientRect();
                return own.left < box.left - 2 || own.right > box.right + 2;
            }).map(text => text.textContent);
            return [box.width, box.height, marks.length, inside, cut];
        })""",
    )
    # coverage, horizon, date and skill; a histogram and three fans for each of 5; stocks for 4; reward and validation
    assert len(boxes) == 4 + 5 + 15 + 4 + 2
    for width, height, marks, inside, cut in boxes:
        assert width > 100
        assert height > 60
        assert marks > 2
        assert inside
        assert cut == []


def test_the_theme_follows_the_system_and_the_button(open_page):
    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page, dark = open_page(), open_page(scheme="dark")
    light = background(page)
    assert light == "rgb(255, 255, 255)"
    assert background(dark) != light
    assert page.locator("button.theme").text_content() == "Dark"
    page.locator("button.theme").click()
    assert background(page) == background(dark)
    assert page.locator("button.theme").text_content() == "Light"
    page.locator("button.theme").click()
    assert background(page) == light


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(open_page, width):
    page = open_page(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_one_forecaster_is_shown_at_a_time(open_page):
    page = open_page()
    choices = page.locator("#windows .choices")
    shown = choices.locator(":scope > div:visible")
    assert shown.count() == 1
    choices.locator("select").select_option("random_walk")
    assert shown.count() == 1
    assert shown.get_attribute("data-choice") == "random_walk"


def test_pointing_at_a_legend_dims_the_other_lines(open_page):
    page = open_page()
    page.locator("#horizon .legend li", has_text=re.compile("^base$")).hover()
    dimmed = page.eval_on_selector_all("#horizon svg .dim", "nodes => nodes.map(node => node.dataset.series)")
    assert len(dimmed) == 4
    assert "base" not in dimmed


def test_without_javascript_everything_is_there(open_page):
    page = open_page(javascript=False)
    assert page.locator("button, select").count() == 0
    assert page.locator("#windows .choices > div:visible").count() == 5
    assert page.locator("#stocks figure:visible").count() == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(open_page, scheme):
    """WCAG 2.1 asks for a contrast of 4.5 for text; the colours in use are read from the page."""
    colours = open_page(scheme=scheme).eval_on_selector_all(
        "h1, h2, p, th, td, dt, dd, a, small, figcaption, .chart text:not(.on-column text)",
        """nodes => nodes.map(node => {
            const style = getComputedStyle(node);
            return node instanceof SVGElement ? style.fill : style.color;
        })""",
    )
    page = (1.0, 1.0, 1.0) if scheme == "light" else tuple(value / 255 for value in (0x15, 0x18, 0x1C))
    for colour in set(colours):
        rgb = tuple(int(value) / 255 for value in re.findall(r"\d+", colour)[:3])
        assert contrast(rgb, page) >= 4.5, colour


def contrast(first, second):
    """Ratio of relative luminances, WCAG 2.1."""

    def luminance(rgb):
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_it_prints_light_and_whole(open_page):
    page = open_page(scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.pdf(format="A4")[:5] == b"%PDF-"
