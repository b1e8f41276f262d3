from __future__ import annotations

import itertools
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.report import write_report
from grpo.evaluation.report.writer import drawings_of, render
from tests.evaluation.report_inputs import NAMES, build_inputs, build_windows, evaluate_law

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "br", "hr", "img", "input"}
ODD_NAMES = ("random_walk", "<b>bold</b>", 'say "no"', "R&D", "a'b", "ключ", "x" * 80, "a/b?c=d#e", "{{ braces }}")


class Page(HTMLParser):
    """A page as a reader of HTML sees it: balanced, or an error; its texts, attributes and tables."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.titles: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "caption":
            self.rows: list[list[str]] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        self.texts.append((inside, data))
        if inside == "caption":
            self.tables[data] = self.rows
        elif "td" in self.open or ("th" in self.open and "table" in self.open):
            self.rows[-1][-1] += f"{data} "
        if inside == "title":
            self.titles.append(data)

    def table(self, caption: str) -> pd.DataFrame:
        head, *body = ([cell.strip() for cell in row] for row in self.tables[caption])
        return pd.DataFrame(body, columns=head)

    @property
    def text(self) -> str:
        return "\n".join(data for inside, data in self.texts if inside not in ("style", "script"))


@pytest.fixture
def inputs(make_windows):
    windows = build_windows(make_windows)
    return build_inputs(windows, [evaluate_law(name, windows) for name in NAMES])


def checked(inputs) -> Page:
    """The page of these inputs, whose numbers are all numbers."""
    html = render(inputs, drawings_of(inputs))
    page = Page(html)
    shown = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
    assert not re.search(r"\b(nan|NaN|inf|None|NaT)\b", shown)
    return page


def test_equal_inputs_give_equal_bytes(tmp_path, inputs):
    for folder in ("a", "b"):
        write_report(inputs, tmp_path / folder)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "report.html" in files
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_verdict_warnings_facts_and_note_are_read_first_to_last(inputs):
    warnings = ["sft was trained until 2020-02-01, after the first test day.", "Only 12 dates."]
    page = checked(replace(inputs, warnings=warnings))
    order = [inputs.title, inputs.verdict, *warnings, inputs.optimum_note, "command", "compare --stock S00"]
    places = [page.text.rindex(text) for text in order]
    assert places == sorted(places)


def test_headings_descend_one_level_at_a_time(inputs):
    levels = [int(tag[1]) for tag, _ in checked(inputs).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_nothing_is_loaded_from_anywhere(inputs):
    html = render(inputs, drawings_of(inputs))
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html
    for tag, attributes in Page(html).tags:
        assert "src" not in attributes, tag
        assert (attributes.get("href") or "#").startswith("#") or attributes["href"] == "data:,"
    assert "default-src 'none'" in html


def test_every_link_has_its_target(inputs):
    tags = checked(inputs).tags
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert {(attributes["href"] or "")[1:] for tag, attributes in tags if tag == "a"} <= ids


def test_the_leaderboard_shows_the_numbers_of_the_table(inputs):
    shown = checked(inputs).table("Leaderboard")
    table = inputs.table
    assert shown["forecaster"].tolist() == table["forecaster"].tolist()
    headers = {"skill": "skill", "rel_crps": "rel. CRPS", "rel_mae": "rel. MAE", "r2": "R²", "valid": "valid"}
    for name, header in headers.items():
        assert [cell.split()[0] for cell in shown[header]] == [f"{value:.3f}" for value in table[name]], name
    sft = shown.set_index("forecaster").loc["sft"]
    low, high = table.set_index("forecaster").loc["sft", ["rel_crps_low", "rel_crps_high"]]
    assert sft["rel. CRPS"].split(maxsplit=1)[1] == f"[{low:.2f}, {high:.2f}]"
    more = checked(inputs).table("More scores").set_index("forecaster")
    assert more.loc["sft", "CRPS %"] == f"{table.set_index('forecaster').loc['sft', 'crps']:.3f}"


def test_an_empty_cell_says_why(inputs):
    page = checked(inputs)
    assert page.table("Leaderboard").set_index("forecaster").loc["random_walk", "p (Holm)"] == "–"
    reasons = [attributes.get("title") for tag, attributes in page.tags if tag == "td"]
    assert "not tested: a yardstick, too few dates, or no difference at all" in reasons


def test_the_glossary_explains_every_column(inputs):
    page = checked(inputs)
    explained = {data for inside, data in page.texts if inside == "dt"}
    columns = {*page.table("Leaderboard").columns, *page.table("More scores").columns} - {"forecaster"}
    assert columns <= explained


def test_yardsticks_are_marked(inputs):
    rows = [attributes.get("class") for tag, attributes in checked(inputs).tags if tag == "tr"]
    assert rows.count("yardstick") == 4  # random walk and optimum, in two tables


def test_completions_are_shown_as_text_with_their_rewards(inputs):
    answer = "<think>if a < b & c</think><script>alert(1)</script>{{ x }}"
    completions = pd.DataFrame(
        {"forecaster": ["sft", "sft"], "stock": ["S00", "R&D"], "date": ["2020-01-01", "2020-01-02"],
         "text": [answer, ""], "valid": [True, False], "energy": [-0.25, np.nan], "format": [1.0, 0.0]}
    )  # fmt: skip
    page = checked(replace(inputs, completions=completions))
    assert ("pre", answer) in page.texts
    assert [tag for tag, _ in page.tags].count("script") == 1
    values = [data for inside, data in page.texts if inside == "b"]
    assert values == ["-0.250", "1.000", "–", "0.000"]
    assert page.text.count("not valid") == 1


def test_extra_tables_are_shown_with_index_and_gaps(inputs):
    extra = {
        "By fold": pd.DataFrame({"rel_crps": [0.98, np.nan], "windows": [6, 7]}, index=pd.Index([1, 2], name="fold")),
        "Nothing": pd.DataFrame({"stock": []}),
    }
    notes = {"By fold": "Two folds.", "Nothing": "No stock is known."}
    page = checked(replace(inputs, extra_tables=extra, table_notes=notes))
    assert [("p", note) in page.texts for note in notes.values()] == [True, True]
    folds = page.table("By fold")
    assert folds.to_dict("list") == {"fold": ["1", "2"], "rel. CRPS": ["0.980", "–"], "windows": ["6", "7"]}
    assert "Nothing" not in page.tables


def test_a_long_table_is_folded(inputs):
    extra = {"Long": pd.DataFrame({"day": range(31)}), "Short": pd.DataFrame({"day": range(30)})}
    page = checked(replace(inputs, extra_tables=extra))
    assert [text for inside, text in page.texts if inside == "summary"] == ["31 rows"]
    assert (len(page.table("Long")), len(page.table("Short"))) == (31, 30)


def test_training_curves_say_what_was_logged(inputs):
    histories = {"stage 1": [{"step": 1, "reward": -1.5}, {"step": 2, "eval_crps": 1.25}], "stage 2": []}
    page = checked(replace(inputs, histories=histories))
    assert "step 1: -1.5" in page.titles
    assert "step 2: 1.25" in page.titles
    shown = [text for inside, text in page.texts if inside == "figcaption" and text.startswith("stage")]
    assert shown == ["stage 1"]  # a stage that logged nothing has no empty panel


def test_seeds_show_their_spread_beside_the_number(inputs):
    table = inputs.table.assign(rel_crps_sd=0.0125)
    shown = checked(replace(inputs, table=table)).table("Leaderboard").set_index("forecaster")
    assert "±\N{NO-BREAK SPACE}0.013" in shown.loc["sft", "rel. CRPS"]
    assert "rel crps sd" not in shown


def test_without_an_optimum_there_is_no_skill(make_windows):
    windows = build_windows(make_windows)
    page = checked(build_inputs(windows, [evaluate_law(name, windows) for name in NAMES[:2]]))
    assert "skill" not in page.table("Leaderboard")
    assert "How much of what can be learnt" not in page.text


def worthless(name, windows):
    samples = np.full((len(windows), 5, windows.horizon), np.nan)
    forecast = Forecast(samples=samples, valid=np.zeros(samples.shape[:2], dtype=bool))
    return replace(evaluate_law(name, windows), forecast=forecast, scores=score_windows(forecast, windows))


def endless(name, windows):
    samples = np.full((len(windows), 5, windows.horizon), 1.7e308)
    samples[:, ::2] = 1e-300
    forecast = Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))
    return replace(evaluate_law(name, windows), forecast=forecast, scores=score_windows(forecast, windows))


@pytest.mark.parametrize(
    ("names", "shape", "maker"),
    [
        (NAMES, {"dates": 1}, evaluate_law),
        (NAMES, {"dates": 1, "horizon": 1}, evaluate_law),
        (NAMES, {"horizon": 1}, evaluate_law),
        (("random_walk",), {}, evaluate_law),
        (("random_walk", "optimum"), {}, evaluate_law),
        (("random_walk", "sft"), {}, worthless),
        (("random_walk", "sft"), {}, endless),
        (("random_walk", "sft", "optimum"), {"stocks": 70, "dates": 3}, evaluate_law),
        ((*ODD_NAMES, *(f"model {i}" for i in range(21))), {"stocks": 2}, evaluate_law),
    ],
    ids=["one window", "one price", "one step", "walk alone", "yardsticks", "all invalid", "infinite", "70 stocks",
         "30 odd names"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_any_comparison_gives_a_page(make_windows, names, shape, maker):
    windows = build_windows(make_windows, **shape)
    evaluations = [(evaluate_law if name == "random_walk" else maker)(name, windows) for name in names]
    inputs = build_inputs(windows, evaluations)
    page = checked(inputs)
    assert sorted(page.table("Leaderboard")["forecaster"]) == sorted(names)
    for name in names:
        assert any(title.startswith(f"{name}:") for title in page.titles), name  # a row of the coverage chart
        assert ("h3", name) in page.texts  # its fan charts
    coordinates = [value for tag, a in page.tags if tag == "path" for value in re.findall(r"[-\d.]+", a["d"] or "")]
    assert np.isfinite([float(value) for value in coordinates]).all()
    if shape.get("stocks", 1) > 1:
        assert {f"S{i:02d}" for i in range(shape["stocks"])} <= set(page.text.split())


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_an_infinite_score_reads_as_one(make_windows):
    windows = build_windows(make_windows)
    page = checked(build_inputs(windows, [evaluate_law("random_walk", windows), endless("sft", windows)]))
    assert page.table("Leaderboard").set_index("forecaster").loc["sft", "rel. CRPS"] == "∞"
    values = [attributes["data-value"] for tag, attributes in page.tags if tag == "td" and "data-value" in attributes]
    assert "Infinity" in values
    assert page.text.count("beyond the axis: sft") == 1  # by horizon; by date nothing is left to draw
    assert "By date" not in page.text


def test_a_default_run_stays_small(make_windows):
    windows = build_windows(make_windows, dates=200, horizon=10)
    names = ("base", "grpo_1st", "sft", "grpo_2nd", "random_walk", "optimum")
    evaluations = [evaluate_law(name, windows, samples=100) for name in names]
    inputs = build_inputs(windows, evaluations, language_models=names[:4])
    histories = {f"stage {i}": [{"step": s, "reward": -1.0 / (s + 1), "eval_crps": 1.0} for s in range(1000)]
                 for i in range(3)}  # fmt: skip
    inputs = replace(inputs, histories=histories)
    assert len(render(inputs, drawings_of(inputs)).encode()) < 500_000


def test_the_page_travels_with_the_package():
    """Every file beside the code that the page is made of is declared as package data."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folder = ROOT / "grpo" / "evaluation" / "report"
    declared = {file for pattern in patterns["grpo.evaluation.report"] for file in folder.glob(pattern)}
    assert declared == {file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert declared
