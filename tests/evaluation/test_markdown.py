from __future__ import annotations

import numpy as np
import pandas as pd

from grpo.evaluation.harness import evaluate
from grpo.evaluation.leaderboard import leaderboard
from grpo.evaluation.markdown import details_markdown, estimate, frame_markdown, leaderboard_markdown
from tests.evaluation.noise import NoiseAround


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def table(make_windows, *names):
    moves = np.random.default_rng(0).standard_normal((60, 1))
    windows = make_windows([100.0] * 60, 100 * np.exp(0.02 * moves))
    scales = {"random_walk": 2.0, "good": 1.0, "optimum": 0.0}
    evaluations = [
        evaluate(NoiseAround(name, windows, scales[name]), windows, num_samples=20, seed=0) for name in names
    ]
    return leaderboard(evaluations, windows)


def test_the_first_table_is_readable_and_says_what_the_leaderboard_says(make_windows):
    board = table(make_windows, "random_walk", "good", "optimum")
    lines = leaderboard_markdown(board).splitlines()
    assert len({len(line) for line in lines}) == 1
    header = cells(lines[0])
    assert header[:3] == ["forecaster", "skill [95 %]", "rel. CRPS [95 %]"]
    assert len(header) == 10
    rows = {cells(line)[0]: dict(zip(header, cells(line), strict=True)) for line in lines[2:]}
    assert list(rows) == ["optimum", "good", "random_walk"]
    good = board.set_index("forecaster").loc["good"]
    interval = f"[{good['rel_crps_low']:.2f}, {good['rel_crps_high']:.2f}]"
    assert rows["good"]["rel. CRPS [95 %]"] == f"{good['rel_crps']:.3f} {interval}"
    assert rows["random_walk"]["rel. CRPS [95 %]"] == "1.000"
    assert (rows["random_walk"]["p (Holm)"], rows["optimum"]["MCS"], rows["good"]["MCS"]) == ("", "", "yes")
    assert rows["good"]["direction (up)"] == f"{good['direction_hit']:.2f} ({good['always_up_hit']:.2f})"


def test_without_an_optimum_there_is_no_column_of_skill(make_windows):
    header = cells(leaderboard_markdown(table(make_windows, "random_walk", "good")).splitlines()[0])
    assert header[:3] == ["forecaster", "rel. CRPS [95 %]", "p (Holm)"]


def test_the_details_show_the_rest(make_windows):
    board = table(make_windows, "random_walk", "good").assign(trained_until=["2020-01-01", "unknown"])
    header, _, good, walk = map(cells, details_markdown(board).splitlines())
    assert header == [
        *("forecaster", "CRPS %", "energy %", "MAE %", "p", "Clark-West p", "direction p", "straight lines"),
        *("seconds", "trained until"),
    ]
    assert good[1] == f"{board.loc[0, 'crps']:.3f}"
    assert (good[-1], walk[-1], walk[4]) == ("2020-01-01", "unknown", "")


def test_an_estimate_carries_its_spread_and_interval_where_there_are_any():
    row = {"skill": 0.5, "skill_sd": 0.0123, "skill_low": -0.004, "skill_high": 1.0}
    assert estimate(row, "skill") == "0.500 ± 0.012 [0.00, 1.00]"
    assert estimate({"skill": 0.5}, "skill") == "0.500"
    assert estimate({"skill": np.nan, "skill_sd": np.nan}, "skill") == ""


def test_any_table_reads_well():
    frame = pd.DataFrame({"name": ["a", "bb"], "value": [0.12345, np.nan], "yes": [True, False], "n": [3, 4]})
    assert frame_markdown(frame).splitlines() == [
        "| name | value | yes |  n |",
        "| ---- | ----: | --: | -: |",
        "| a    | 0.123 | yes |  3 |",
        "| bb   |       |  no |  4 |",
    ]
