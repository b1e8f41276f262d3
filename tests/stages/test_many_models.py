"""Any number of adapters and base models in one table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grpo.config import RunConfig
from grpo.evaluation.forecast_files import load_forecast
from preprocessing.windows_reader import read_windows
from tests.tiny_adapters import publish_random_adapter
from tests.tiny_models import save_tiny_model
from tests.tiny_runs import TinyRun, paths_of

PLUGIN = """
from dataclasses import dataclass
import numpy as np
from grpo.evaluation.protocol import Forecast

class Still:
    name = "still"

    @dataclass(frozen=True)
    class Config:
        move: float = 0.0

    def __init__(self, move):
        self.move = move

    @classmethod
    def fit(cls, config, train, val, *, horizon, seed, out_dir):
        return cls(config.move)

    @classmethod
    def load(cls, path):
        return cls(float((path / "move").read_text()))

    def predict(self, context, *, horizon, num_samples, seed):
        samples = np.exp(self.move) * np.tile(context.last_price[:, None, None], (1, num_samples, horizon))
        return Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))

    def save(self, path):
        (path / "move").write_text(str(self.move))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> TinyRun:
    """Windows, a second base model, and an adapter of each: `A` of the embedded one, `B` of the other."""
    made = TinyRun(tmp_path_factory.mktemp("many")).stages("preprocess")
    paths = paths_of(made.config("compare"))
    train = read_windows(paths.train_x, paths.train_y)
    tiny = save_tiny_model("qwen2", made.root / "tiny")
    publish_random_adapter(RunConfig(), made.root / "A", train)
    publish_random_adapter(RunConfig(), made.root / "A2", train, scale=0.05)
    publish_random_adapter(RunConfig(model=str(tiny)), made.root / "B", train, scale=0.2)
    (made.root / "still.py").write_text(PLUGIN)
    return made


def compare(run: TinyRun, *words: str, flags: tuple[object, ...] = ()) -> int:
    return run.stage("compare", "--compare.num_samples", 4, "--forecasters", ",".join(words), *flags)


def test_two_adapters_and_two_base_models_stand_in_one_table_by_their_given_names(run):
    tiny, root = run.root / "tiny", run.root
    words = ["base", f"tiny=base@{tiny}", f"mine={root / 'A'}", f"wild={root / 'A2'}", f"other={root / 'B'}@{tiny}"]
    plugins = ["baselines.statistical.naive:RandomWalkDrift", f"up={root / 'still.py'}:Still"]
    settings = ("--baselines", "{up: {move: 0.01}}", "--compare.placebo", "shuffle", "--compare.probes", "true")
    assert compare(run, *words, *plugins, "random_walk", flags=settings) == 0
    folder = run.place("compare")
    table = pd.read_csv(folder / "leaderboard.csv").set_index("forecaster")
    models = ["base", "tiny", "mine", "wild", "other"]
    assert set(table.index) == {*models, "RandomWalkDrift", "up", "random_walk", "optimum"}
    answers = {load_forecast(next(folder.glob(f"forecasts/{name}-*.npz")))[0].texts for name in models}
    assert len(answers) == len(models)  # no two said the same
    paths = pd.read_parquet(folder / "forecasts.parquet")
    prices = {name: part["price"].to_numpy() for name, part in paths.groupby("forecaster")}
    last = pd.read_csv(folder / "rows.csv").query("forecaster == 'up'")["last_close"].to_numpy()
    assert np.allclose(np.unique(prices["up"]), np.unique(np.exp(0.01) * last))
    until = str(read_windows(*(paths_of(run.config("compare")).named("train_x", "train_y").values())).truth.dates.max())
    assert table["trained_until"].reindex(models).tolist() == ["simulated data", "unknown", *[until[:10]] * 3]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["inputs"]["other"]["path"] == str(root / "B")
    page = (folder / "report.html").read_text()
    assert all(f">{name}<" in page for name in (*models, "up"))
    intervals = pd.read_csv(folder / "intervals.csv")
    assert set(models) <= set(intervals["forecaster"])


def test_a_name_more_asks_that_one_alone(run, capfd):
    assert compare(run, "base", f"mine={run.root / 'A'}") == 0
    capfd.readouterr()
    assert compare(run, "base", f"mine={run.root / 'A'}", f"second={run.root / 'A2'}") == 0
    told = capfd.readouterr().err
    assert all(f"{name}: forecasts made before are used again" in told for name in ("base", "mine", "random_walk"))
    assert "second: forecasts made before" not in told


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sft={A}", "'sft=': there is a forecaster of that name; take another name"),
        ("ridge={A}", "'ridge=': there is a forecaster of that name"),
        ("mine={A}/nowhere", "there is no such folder"),
        ("mine={A}@{tiny}", "was trained on base model 'embedded', but --model is 'tiny'"),
        ("mine={B}", "its adapter was trained on 'tiny', which was a folder; say where it lies: NAME=ADAPTER@./tiny"),
        ("mine={tiny}", "has no grpo_forecast.json"),
        ("mine={A},mine={A2}", "two are called 'mine'"),
        ("mine={A}@v2", "'mine': adapter {A}@v2: there is no such folder"),
        ("nowhere.py:Mine", "there is no file "),
        ("still=no_such_package_here:Still", "no module no_such_package_here is installed"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line_before_any_work(run, capfd, word, message):
    places = {name: str(run.root / name) for name in ("A", "A2", "B", "tiny")}
    assert compare(run, "base", *word.format(**places).split(",")) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert message.format(**places) in line


def test_an_adapter_of_windows_of_another_size_is_refused(run, tmp_path, capfd):
    other = TinyRun(tmp_path)
    assert other.stage("preprocess", "--data.horizon", 5) == 0
    flags = ("--data.horizon", 5)
    assert compare(other, f"mine={run.root / 'A'}", flags=flags) == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert "mine: its adapter was trained to read 30 days and forecast 10, but these windows have 30 and 5" in error


def test_two_runs_stand_side_by_side(run):
    """The embedded model's adapter from one run's folder, in the comparison of another."""
    first, second = Path(run.root / "A"), Path(run.root / "A2")
    assert compare(run, f"A={first}", f"B={second}", "random_walk") == 0
    table = pd.read_csv(run.place("compare") / "leaderboard.csv").set_index("forecaster")
    assert table.loc["A", "crps"] != table.loc["B", "crps"]
