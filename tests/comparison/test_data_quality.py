"""What preprocessing found stands beside the numbers, and a headline that rests on frozen prices says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grpo.comparison.data_quality import data_findings, stands_still, still_windows
from grpo.evaluation.comparison import Comparison, pooled_table
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast
from preprocessing.bars import BarsReport
from preprocessing.combined_preprocessor import REPORT_FILE, preprocess
from preprocessing.config import DataConfig
from preprocessing.stock_windows import split_windows
from preprocessing.windows import WindowSet

DAYS = pd.bdate_range("2015-01-01", periods=700, name="date")


def bars(seed: int, frozen: slice = slice(0, 0)) -> pd.DataFrame:
    steps = 0.01 * np.random.default_rng(seed).standard_normal(700)
    steps[frozen] = 0.0
    close = 100 * np.exp(steps.cumsum())
    return pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close) | {"volume": 1.0}, index=DAYS)


def windows(frozen: slice) -> WindowSet:
    return split_windows({"A": bars(1), "B": bars(2, frozen)}, DataConfig())[0]["test"]


def compare(test: WindowSet) -> Comparison:
    """The random walk, and one that is the same but for frozen pasts, where it is sure."""
    noise = np.random.default_rng(0).standard_normal((len(test), 50, test.horizon)).cumsum(axis=2)
    spread = np.full(len(test), 0.01)
    walk = test.context.last_price[:, None, None] * np.exp(spread[:, None, None] * noise)
    past = test.context.past[:, :, 0]
    sure = np.where(past[:, -1] == past[:, -15], 1e-4, 0.01 + 1e-6 * np.arange(len(test)))
    other = test.context.last_price[:, None, None] * np.exp(sure[:, None, None] * noise)
    evaluations = []
    for name, samples in (("random_walk", walk), ("sure", other)):
        forecast = Forecast(samples=samples, valid=np.ones(samples.shape[:2], bool))
        evaluations.append(Evaluation(name=name, forecast=forecast, scores=score_windows(forecast, test), seconds=0.0))
    numbers = np.zeros(len(test), dtype=int)
    return Comparison(windows=test, evaluations=tuple(evaluations), seed=numbers, fold=numbers)


def test_windows_that_stand_still_hold_ten_equal_closes() -> None:
    test = windows(slice(640, 649))  # nine steps without a move: ten equal closes
    rows = stands_still(test)
    held = [
        (test.context.origin[row] >= np.datetime64(DAYS[648 - 10]))
        and (test.context.origin[row] <= np.datetime64(DAYS[639 + 29]))
        for row in range(len(test))
        if test.context.item_id[row] == "B"
    ]
    assert rows[np.array(test.context.item_id) == "B"].tolist() == held
    assert not rows[np.array(test.context.item_id) == "A"].any()
    assert not stands_still(windows(slice(640, 648))).any()


def test_a_headline_that_rests_on_frozen_prices_says_so() -> None:
    comparison = compare(windows(slice(580, 690)))
    sections, warnings, headline = still_windows(comparison, pooled_table(comparison))
    count = int(stands_still(comparison.windows).sum())
    assert headline.startswith("sure beats the random walk at 5%")
    assert f"This rests on {count} windows whose price stands still. Without them: No forecaster beats" in headline
    assert warnings == [f"{count} of {len(comparison.windows)} windows have a price that stands still (B {count})."]
    assert sections[0].title == "Without windows whose price stands still"
    moving = pooled_table(comparison.take(~stands_still(comparison.windows)))
    pd.testing.assert_series_equal(sections[0].table["rel_crps"], moving["rel_crps"])
    assert sections[0].table.set_index("forecaster").loc["sure", "rel_crps"] == pytest.approx(1.0, abs=0.01)


def test_nothing_is_said_of_prices_that_move() -> None:
    comparison = compare(windows(slice(0, 0)))
    sections, warnings, headline = still_windows(comparison, pooled_table(comparison))
    assert (sections, warnings) == ([], [])
    assert headline.startswith("No forecaster beats the random walk at 5%")


def entry(**found: object) -> dict[str, object]:
    return vars(BarsReport(source="x", rows_read=700, **found))  # type: ignore[arg-type]


def test_findings_stand_beside_the_stocks_they_concern(tmp_path: Path) -> None:
    stocks = {
        "A": entry(stale_rows=30, zero_volume_rows=4),
        "B": entry(impossible_moves=2, moves=("2020-01-02 x100",), gaps=1, longest_gap_days=9.0),
        "C": entry(skipped="stock C has 3 rows"),
        "D": entry(suspected_splits=1),  # of no interest: not compared
        "E": entry(missing_opens=7),
        "F": entry(),
    }
    (tmp_path / REPORT_FILE).write_text(json.dumps({"stocks": stocks}))
    sections, warnings = data_findings(tmp_path, ["A", "B", "E", "F"])
    assert sections[0].table.set_index("stock")["found"].to_dict() == {
        "A": "zero volume rows 4, stale rows 30",
        "B": "gaps 1 (longest gap 9 days), impossible moves 2, moves: 2020-01-02 x100",
        "C": "left out: stock C has 3 rows",
        "E": "repaired: missing opens 7",
    }
    assert warnings == [
        "1 of 6 stocks are left out: C.",
        "The prices hold moves that no market makes: B (2020-01-02 x100).",
    ]
    assert data_findings(tmp_path / "nowhere", ["A"]) == ([], [])


def test_the_report_of_preprocessing_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    frame = bars(1)
    frame.iloc[600, :4] *= 100
    frame.to_csv(tmp_path / "data" / "A.csv")
    preprocess("A", DataConfig(data_dir=tmp_path / "data"), tmp_path / "out")
    sections, warnings = data_findings(tmp_path / "out", ["A"])
    assert "impossible moves 2, moves: 2017-04-20 x" in sections[0].table["found"].iloc[0]
    assert warnings[0].startswith("The prices hold moves that no market makes: A (2017-04-20 x")
