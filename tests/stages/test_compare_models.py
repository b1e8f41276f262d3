"""The real command on real windows; a small fake stands in for the language model."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grpo.evaluation import leaderboard, protocol, sampling, source_code
from grpo.evaluation.protocol import Forecast
from grpo.language import prompts
from grpo.language.scale import to_levels
from grpo.runs.log import stage_entry
from grpo.stages import compare_models
from preprocessing import laws
from preprocessing.simulation import parse_simulated_stock

STOCK = "sim:ou?half_life=5&rows=700"
SLUG = "sim_ou_half_life-5_rows-700"
FORECASTERS = "[base,sft,random_walk,random_walk_drift]"


class FakeModel:
    """The last close with noise that the adapter's text sets; every fifth answer is nonsense."""

    calls: list[tuple[str, str | None]] = []  # noqa: RUF012

    def __init__(self, spec, prompt, generation, *, name, lora_rank=None):
        self.name, self.noise = name, 0.01
        self.adapter = spec.adapter
        if self.adapter:
            self.noise = float((self.adapter / "adapter_model.safetensors").read_text())

    def predict(self, context, *, horizon, num_samples, seed):
        FakeModel.calls.append((self.name, self.adapter and self.adapter.parent.name))
        noise = np.random.default_rng(seed).standard_normal((len(context), num_samples, horizon))
        samples = context.last_price[:, None, None] * np.exp(self.noise * np.cumsum(noise, axis=-1))
        valid = np.ones(samples.shape[:2], dtype=bool)
        valid[:, ::5] = False
        levels = to_levels(samples, context.last_price[:, None, None], context.feature("volatility")[:, None, None])
        texts = [[" ".join(str(round(level)) for level in path) for path in window] for window in levels]
        texts = tuple(
            tuple(text if ok else "up" for text, ok in zip(*row, strict=True)) for row in zip(texts, valid, strict=True)
        )
        samples[~valid] = np.nan
        return Forecast(samples=samples, valid=valid, texts=texts)

    def save(self, path): ...


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    command = [sys.executable, "-m", "preprocessing.combined_preprocessor"]
    subprocess.run([*command, "--stock", STOCK, "--output_dir", str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def run(tmp_path, data, monkeypatch):
    """Runs the stage in this process: run(*flags) -> exit code."""
    module = types.ModuleType("grpo.sampling.forecaster")
    module.load_llm_forecaster = FakeModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "grpo.sampling.forecaster", module)
    monkeypatch.setattr(FakeModel, "calls", [])
    monkeypatch.delenv("RANK", raising=False)
    folder = tmp_path / "run"
    (folder / "data").mkdir(parents=True)
    for file in data.glob("*.csv"):
        os.link(file, folder / "data" / file.name)
    write_adapter(folder / "stage2_sft_training" / "adapter", 0.02)

    def call(*flags, forecasters=FORECASTERS):
        arguments = ["--stock", STOCK, "--run_dir", str(folder), "--compare.forecasters", forecasters]
        arguments += [
            "--results_dir",
            str(tmp_path),
            "--compare.num_samples",
            "10",
            "--compare.max_windows",
            "40",
            *flags,
        ]
        monkeypatch.setattr(sys, "argv", ["compare_models", *arguments])
        return stage_entry(compare_models.main)

    call.folder = folder  # type: ignore[attr-defined]
    return call


def write_adapter(folder, noise):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_text(str(noise))


def test_a_comparison_writes_tables_and_pictures(run, capsys):
    history = [{"step": 1, "reward": -1.0}, {"step": 1, "eval_crps": 2.0}]
    (run.folder / "stage1_grpo_training").mkdir()
    (run.folder / "stage1_grpo_training" / "log_history.json").write_text(json.dumps(history))
    assert run() == 0
    out = run.folder / "model_comparison"
    names = ["base", "sft", "random_walk", "random_walk_drift", "optimum"]
    table = pd.read_csv(out / "leaderboard.csv").set_index("forecaster")
    assert sorted(table.index) == sorted(names)
    assert table.loc["random_walk", "rel_crps"] == 1
    assert table.loc["optimum", ["rel_crps", "skill"]].tolist() == pytest.approx([table["rel_crps"].min(), 1])
    assert table.loc["sft", "valid"] == pytest.approx(0.8)
    rows = pd.read_csv(out / "rows.csv")
    assert rows.groupby("forecaster").size().to_dict() == dict.fromkeys(names, 40)
    assert rows.groupby("forecaster")["crps"].mean().to_dict() == pytest.approx(table["crps"].to_dict())
    prices = pd.read_parquet(out / "forecasts.parquet")
    assert len(prices) == len(names) * 40 * 10 * 10
    assert prices["price"].isna().sum() == 2 * 40 * 2 * 10  # two models, two nonsense answers of ten per window
    pictures = (
        "fan_chart",
        "error_by_horizon",
        "coverage",
        "pit",
        "learnt",
        "skill_by_date",
        "training_curves",
    )
    for picture in pictures:
        assert (out / f"{picture}.svg").read_text().startswith("<svg ")
    report = (out / "leaderboard.md").read_text()
    printed = capsys.readouterr().out
    assert printed.startswith(report)
    assert printed.splitlines()[-2] == f"Report: {out / 'report.html'}"
    assert "## Where every forecaster answered" in report
    common = pd.read_csv(out / "where_every_forecaster_answered.csv")
    assert common["valid"].tolist() == [1] * len(names)
    page = (out / "report.html").read_text()
    assert all(f">{name}<" in page for name in names)
    assert "stage 1: GRPO" in page
    assert [page.count(f" ({place} window)") for place in ("best", "median", "worst")] == [2 * 4] * 3
    metrics = json.loads((out / "manifest.json").read_text())["metrics"]
    invalid = "20% of the answers of {} are invalid; each counts as the last close."
    assert sorted(metrics["warnings"]) == [invalid.format("base"), invalid.format("sft")]
    assert all(f"**Warning:** {warning}" in report and warning in page for warning in metrics["warnings"])
    assert f"**{metrics['verdict']}**" in report
    assert metrics["skill"]["optimum"] == pytest.approx(1)


def test_a_killed_comparison_goes_on_with_the_next_forecaster(run):
    assert run() == 0
    assert FakeModel.calls == [("base", None), ("sft", "stage2_sft_training")]
    out = run.folder / "model_comparison"
    whole = (out / "leaderboard.csv").read_text()
    (out / "manifest.json").unlink()
    for file in out.glob("forecasts/sft-*.npz"):
        file.unlink()
    assert run() == 0
    assert FakeModel.calls[2:] == [("sft", "stage2_sft_training")]
    again = pd.read_csv(out / "leaderboard.csv").set_index("forecaster").drop(columns="seconds")
    (out / "first.csv").write_text(whole)
    first = pd.read_csv(out / "first.csv").set_index("forecaster").drop(columns="seconds")
    pd.testing.assert_frame_equal(again, first)


def test_forecasts_of_a_changed_adapter_are_not_reused(run):
    assert run() == 0
    out = run.folder / "model_comparison"
    before = pd.read_csv(out / "leaderboard.csv").set_index("forecaster")["crps"]
    write_adapter(run.folder / "stage2_sft_training" / "adapter", 0.05)
    (out / "manifest.json").unlink()
    assert run() == 0
    assert FakeModel.calls[2:] == [("sft", "stage2_sft_training")]
    after = pd.read_csv(out / "leaderboard.csv").set_index("forecaster")["crps"]
    assert after["sft"] > before["sft"]
    assert after["base"] == before["base"]


def test_a_finished_comparison_is_shown_again_without_work(run, capsys):
    assert run() == 0
    shown = capsys.readouterr().out
    assert run() == 0
    assert capsys.readouterr().out == shown
    assert len(FakeModel.calls) == 2


def test_other_settings_make_it_again_from_what_is_there(run, capsys):
    assert run() == 0
    capsys.readouterr()
    assert run(forecasters="base,sft,random_walk,grpo_1st") == 1  # its adapter is not there
    assert run(forecasters="base,sft,random_walk") == 0
    error = capsys.readouterr().err
    assert "compare: made again, since forecasters.random_walk_drift was '" in error
    assert "sft: forecasts made before are used again" in error
    assert len(FakeModel.calls) == 2
    table = pd.read_csv(run.folder / "model_comparison" / "leaderboard.csv")
    assert set(table["forecaster"]) == {"base", "sft", "random_walk", "optimum"}


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        (laws, {"optimum"}),
        (sampling, {"optimum", "random_walk", "random_walk_drift"}),
        (prompts, {"base", "sft"}),
        (leaderboard, set()),
    ],
)
def test_changed_code_makes_the_forecasts_again_that_it_decides(run, monkeypatch, changed, again):
    assert run() == 0
    folder = run.folder / "model_comparison"
    before = set((folder / "forecasts").iterdir())
    made = (folder / "manifest.json").stat().st_mtime_ns
    more = {Path(changed.__file__): b"\ny = 1"}
    monkeypatch.setattr(source_code, "read_source", lambda file: file.read_bytes() + more.get(file, b""))
    assert run() == 0
    assert {path.name.rpartition("-")[0] for path in set((folder / "forecasts").iterdir()) - before} == again
    assert ((folder / "manifest.json").stat().st_mtime_ns != made) == bool(again)


def test_tables_of_former_settings_do_not_stay(run):
    assert run("--base-cutoff", "2002-06-01") == 0
    former = run.folder / "model_comparison" / "before_and_after_the_cut-off_of_the_base_model.csv"
    assert former.exists()
    assert run() == 0
    assert not former.exists()


def test_a_damaged_forecast_is_made_again_with_a_warning(run, capsys):
    assert run() == 0
    out = run.folder / "model_comparison"
    before = (out / "rows.csv").read_bytes()
    (out / "manifest.json").unlink()
    [file] = out.glob("forecasts/sft-*.npz")
    file.write_bytes(file.read_bytes()[:-99])
    assert run() == 0
    assert f"warning: {file} is damaged" in capsys.readouterr().err
    assert FakeModel.calls[2:] == [("sft", "stage2_sft_training")]
    assert (out / "rows.csv").read_bytes() == before


def test_llm_means_the_adapters_that_are_there_and_the_walk_is_added(run, capsys):
    assert run(forecasters="llm") == 0
    assert FakeModel.calls == [("base", None), ("sft", "stage2_sft_training")]
    assert "random_walk is added: skill is measured against it" in capsys.readouterr().err
    assert run("--grpo-saved-lora-1st", "nowhere", forecasters="llm") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "nowhere" in line


def test_settings_reach_a_plugin_and_change_it_alone(run):
    assert run(forecasters="random_walk,random_walk_drift") == 0
    out = run.folder / "model_comparison"
    before = pd.read_csv(out / "leaderboard.csv").set_index("forecaster")["width_80"]
    assert (
        run("--baselines.random_walk_drift", "{recent_weight: 0.0}", forecasters="random_walk,random_walk_drift") == 0
    )
    after = pd.read_csv(out / "leaderboard.csv").set_index("forecaster")["width_80"]
    assert after["random_walk"] == before["random_walk"]
    assert after["random_walk_drift"] != before["random_walk_drift"]
    assert len(list(out.glob("forecasts/random_walk-*.npz"))) == 1
    assert len(list(out.glob("forecasts/random_walk_drift-*.npz"))) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{random_walk: {wait: 1}}", "baselines.random_walk.wait: random_walk has no such setting; there are recent"),
        ("{random_walk: {recent_weight: 2}}", "baselines.random_walk: recent_weight must be in [0, 1]"),
        ("{randm_walk: {}}", "baselines: there is no 'randm_walk'; there are "),
    ],
)
def test_wrong_settings_of_a_plugin_are_refused_before_any_work(run, capsys, settings, message):
    assert run("--baselines", settings) == 1
    assert message in capsys.readouterr().err
    assert FakeModel.calls == []


def test_without_windows_they_are_made_first(tmp_path, monkeypatch):
    folder = tmp_path / "alone"
    arguments = ["--stock", STOCK, "--run-dir", str(folder), "--forecasters", "random_walk_drift"]
    monkeypatch.setattr(sys, "argv", ["compare_models", *arguments, "--num-samples", "10", "--max-windows", "20"])
    assert stage_entry(compare_models.main) == 0
    assert (folder / "data" / "manifest.json").exists()
    assert set(pd.read_csv(folder / "model_comparison" / "leaderboard.csv")["forecaster"]) == {
        *("random_walk", "random_walk_drift", "optimum")
    }


def test_buy_and_hold_is_invested_between_the_windows_that_were_drawn(tmp_path, monkeypatch):
    stocks = ["sim:gbm?rows=500&seed=1", "sim:gbm?rows=500&seed=2"]
    flags = ["--stock", ",".join(stocks), "--run-dir", str(tmp_path), "--results-dir", str(tmp_path)]
    flags += ["--forecasters", "random_walk_drift", "--num-samples", "10", "--max-windows", "4"]
    monkeypatch.setattr(sys, "argv", ["compare_models", *flags])
    assert stage_entry(compare_models.main) == 0
    out = tmp_path / "model_comparison"
    drawn = pd.read_csv(out / "rows.csv", parse_dates=["date"])["date"]
    bars = [parse_simulated_stock(stock).bars() for stock in stocks]
    calendar = bars[0].index
    first, last = calendar.searchsorted(drawn.min()), calendar.searchsorted(drawn.max()) + 10
    growth = np.mean([own["close"].iloc[last] / own["open"].iloc[first + 1] for own in bars])
    cost = 5e-4 * (1 + growth)
    years = (calendar[last] - calendar[first]).days / 365.25
    hold = pd.read_csv(out / "trading.csv").set_index("forecaster").loc["buy and hold"]
    assert hold["annual_return"] == pytest.approx((growth - cost) ** (1 / years) - 1)
    assert hold["trades"] == 2


def test_windows_that_are_only_partly_there_are_not_overwritten(run, capsys):
    [file] = (run.folder / "data").glob("*_val_y.csv")
    file.unlink()
    assert run() == 1
    assert "input val_y is missing" in capsys.readouterr().err
    assert not (run.folder / "data" / "manifest.json").exists()


def test_walk_forward_folds_fit_plugins_on_all_that_came_before(run, data, monkeypatch):
    spans = []
    fit = protocol.forecaster_plugin("random_walk_drift").fit

    def spy(config, train, val, **settings):
        spans.append((train.truth.dates.max(), val.truth.dates.min(), val.truth.dates.max()))
        return fit(config, train, val, **settings)

    monkeypatch.setattr(protocol.forecaster_plugin("random_walk_drift"), "fit", spy)
    flags = ("--folds", "3", "--seeds", "2", "--max-windows", "0", "--base-cutoff", "2002-06-01")
    assert run(*flags, forecasters="base,random_walk_drift") == 0
    out = run.folder / "model_comparison"
    rows = pd.read_csv(out / "rows.csv", parse_dates=["date"])
    assert len(set(rows.groupby("forecaster").size())) == 1
    drift = rows[(rows["forecaster"] == "random_walk_drift") & (rows["seed"] == 0)]
    test = pd.read_csv(next(data.glob("*_test_x.csv")), parse_dates=["date"])["date"]
    assert set(drift["date"]) < set(test)  # the embargo before each further block takes windows away
    assert drift.groupby("fold").size().between(1, len(test) / 3).all()
    first_targets = drift.groupby("fold")["date"].min().to_numpy()
    assert len(spans) == 6  # three folds with two seeds
    for (train_end, val_start, val_end), first in zip(spans[:3], first_targets, strict=True):
        assert train_end < val_start < val_end < first + np.timedelta64(1, "D")
        assert val_start - train_end > np.timedelta64(20, "D")  # purge and embargo
    assert [name for name, _ in FakeModel.calls] == ["base"] * 2  # it is not trained again: once a seed
    by_fold = pd.read_csv(out / "walk-forward_folds.csv")
    assert by_fold.groupby("fold")["forecaster"].count().tolist() == [4, 4, 4]
    optimum = by_fold[by_fold["forecaster"] == "optimum"].set_index("fold")
    lucky = optimum["rel_crps"] < 1  # on few windows chance decides, and there is no gap to close
    assert lucky.any()
    assert optimum.loc[lucky, "skill"].tolist() == pytest.approx([1] * lucky.sum())
    assert "| forecaster        | fold 1 | fold 2 | fold 3 |" in (out / "leaderboard.md").read_text()
    table = pd.read_csv(out / "leaderboard.csv").set_index("forecaster")
    assert table.loc["base", "rel_crps_sd"] > 0
    windows = len(drift)
    assert set(table["num_windows"]) == {windows}
    assert set(pd.read_csv(out / "by_day_ahead.csv")["num_windows"]) == {windows}
    counted = next(line for line in (out / "leaderboard.md").read_text().splitlines() if " origins from " in line)
    assert counted.startswith(f"{windows} windows of {STOCK}, {drift['date'].nunique()} origins from ")
    assert counted.endswith("10 samples each. Means over 2 seeds, ± their standard deviation.")
    assert counted in html.unescape((out / "report.html").read_text())
    assert len(pd.read_csv(out / "before_and_after_the_cut-off_of_the_base_model.csv")) == 8


def test_every_comparison_is_a_trial_that_counts_once(run, tmp_path):
    assert run() == 0
    out = run.folder / "model_comparison"
    [line] = (tmp_path / "trials.jsonl").read_text().splitlines()
    trial = json.loads(line)
    assert trial["forecasters"] == ["base", "random_walk_drift", "sft"]
    assert len(trial["sharpe"]) == 6  # two rules
    table = pd.read_csv(out / "trading.csv")
    assert table["sharpe"].iloc[:-1].tolist() == pytest.approx(list(trial["sharpe"].values()))
    assert set(table["forecaster"]) == {"base", "random_walk_drift", "sft", "buy and hold"}
    (out / "manifest.json").unlink()
    assert run() == 0
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 1
    first = table.set_index(["forecaster", "rule"])["deflated"]
    assert run("--seed", "1") == 0
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 2
    assert "one of 12 trials" in (out / "leaderboard.md").read_text()
    assert run() == 0  # the first again, which is now one of 12
    again = pd.read_csv(out / "trading.csv").set_index(["forecaster", "rule"])["deflated"]
    assert (again.dropna() != first.dropna()).all()


def test_a_log_of_trials_that_cannot_be_written_stops_nothing(run, tmp_path, capsys):
    (tmp_path / "trials.jsonl").mkdir()
    assert run() == 0
    assert "warning: the log of trials cannot be kept" in capsys.readouterr().err


def test_placebos_fit_again_and_ask_the_language_model_only_where_contexts_change(run):
    assert run("--placebo", "all", forecasters="base,random_walk_drift") == 0
    out = run.folder / "model_comparison"
    assert [name for name, _ in FakeModel.calls] == ["base"] * 2  # the comparison, and the random walks
    table = pd.read_csv(out / "placebo.csv")
    assert table.groupby("placebo")["forecaster"].apply(list).to_dict() == {
        "shuffle": ["base", "random_walk_drift"],
        "sign_flip": ["base", "random_walk_drift"],
        "gbm": ["base", "random_walk_drift", "random_walk"],
    }
    assert (table["p_holm"] > 0.05).all()
    assert len(list(out.glob("forecasters/random_walk_drift-*/fitted"))) == 4  # fitted on four kinds of windows
    assert "## Placebo" in (out / "leaderboard.md").read_text()


def test_probes_of_the_embedded_model_are_not_applicable(run):
    assert run("--probes", "true", forecasters="base") == 0
    report = (run.folder / "model_comparison" / "leaderboard.md").read_text()
    assert "## Probes\n\nNot applicable: the embedded model has read no text" in report


def test_a_placebo_that_the_windows_do_not_allow_is_left_out_and_said(run):
    assert run("--placebo", "shuffle", "--max-windows", "1", forecasters="random_walk_drift") == 0
    report = (run.folder / "model_comparison" / "leaderboard.md").read_text()
    assert "**Warning:** The placebo shuffle was left out: the 1 windows of" in report
    assert "Only 1 dates" in report


def test_more_folds_than_the_span_has_room_for(run, capsys):
    assert run("--folds", "20") == 1
    assert "error: compare.folds 20: fold 1 has no test windows; ask for fewer folds" in capsys.readouterr().err


def test_a_missing_adapter_names_the_stage_to_run(run, capsys):
    assert run(forecasters="[grpo_1st,random_walk]") == 1
    error = capsys.readouterr().err
    assert "grpo_lora_1st" in error
    assert "stage1_train_grpo" in error
    assert not (run.folder / "model_comparison").exists()


def test_an_unknown_forecaster_is_refused_before_any_work(run, capsys):
    assert run(forecasters="[base,random_walk,nonsense]") == 1
    assert "no 'nonsense'; there are llm, base, grpo_1st, sft, grpo_2nd, all, " in capsys.readouterr().err
    assert FakeModel.calls == []


def test_only_the_first_process_compares(run, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run() == 0
    assert not (run.folder / "model_comparison").exists()


def test_help_explains_without_loading_torch():
    code = "import sys; from grpo.stages import compare_models; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    command = [sys.executable, "-m", "grpo.stages.compare_models", "--help"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "--compare.num_samples" in text
    assert "Sample paths per window and forecaster, S." in text


def test_the_naive_forecasters_are_registered():
    assert {"random_walk", "random_walk_drift"} <= set(protocol.forecaster_names())
    assert protocol.forecaster_plugin("random_walk").name == "random_walk"
