"""What every forecaster of this package must do, each driven through the same steps on simulated stocks."""

from __future__ import annotations

import dataclasses
import re
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from baselines.building_blocks.packages import MissingPackageError
from baselines.building_blocks.tensor_files import SavedFileError
from baselines.neural.learning_curves import LearningCurve
from baselines.statistical.bootstrap import FhsConfig
from grpo.evaluation.protocol import (
    Forecaster,
    SettingsError,
    forecaster_config,
    forecaster_names,
    forecaster_plugin,
)
from preprocessing.config import DataConfig
from preprocessing.errors import UserError
from preprocessing.simulation import parse_simulated_stock
from preprocessing.stock_windows import split_windows
from preprocessing.windows import FEATURES, Context, WindowSet
from tests.baselines.fake_models import MODULES

NAMES = (
    "random_walk",
    "random_walk_calibrated",
    "random_walk_drift",
    "random_walk_panel_drift",
    "seasonal_naive",
    "straight_line",
    "ewma_t",
    "garch_t",
    "historical_bootstrap",
    "fhs",
    "fhs_drift",
    "auto_arima",
    "auto_ets",
    "auto_theta",
    "ar1",
    "har",
    "ridge",
    "lightgbm_quantile",
    "chronos",
    "timesfm",
    "decision_transformer",
    "decision_transformer_bc",
    "seqgan",
    "seqgan_mle",
    "gflownet",
    "gflownet_no_context",
    "gail",
    "gail_pretrained",
)
FAST_SETTINGS: dict[str, dict[str, Any]] = {
    "decision_transformer": {"steps": 20, "evaluate_every": 10, "validation_windows": 20},
    "decision_transformer_bc": {"steps": 20, "evaluate_every": 10, "validation_windows": 20},
    "seqgan": {
        "pretraining_steps": 20,
        "validation_windows": 20,
        "discriminator_pretraining_sets": 2,
        "adversarial_batches": 4,
        "rollouts": 2,
    },
    "seqgan_mle": {"pretraining_steps": 20, "validation_windows": 20},
    "gflownet": {"steps": 20, "check_every": 10, "check_windows": 20},
    "gflownet_no_context": {"steps": 20, "check_every": 10, "check_windows": 20},
    "gail": {"pretrain_steps": 20, "validate_every": 10, "validation_steps": 100, "iterations": 2, "environments": 16},
    "gail_pretrained": {"pretrain_steps": 20, "validate_every": 10, "validation_steps": 100},
}
"""For what takes more than a few seconds to fit by default."""
RESUMED = (
    "decision_transformer",
    "decision_transformer_bc",
    "seqgan",
    "seqgan_mle",
    "gflownet",
    "gflownet_no_context",
    "gail_pretrained",
)
"""Those whose fit goes on where it was killed; so does gail's, by the code of gail_pretrained."""
NO_FURTHER = ("historical_bootstrap", "har", "ridge", "lightgbm_quantile", *RESUMED, "gail")
"""Those that forecast no further ahead than they were fitted for."""
PACKAGES = {
    "garch_t": ("arch", "grpo-forecast[stats]"),
    "auto_arima": ("statsforecast", "grpo-forecast[stats]"),
    "auto_ets": ("statsforecast", "grpo-forecast[stats]"),
    "auto_theta": ("statsforecast", "grpo-forecast[stats]"),
    "lightgbm_quantile": ("lightgbm", "grpo-forecast[lightgbm]"),
    "chronos": ("chronos", "chronos-forecasting"),
    "timesfm": ("timesfm", "timesfm[torch]"),
    "gail": ("sb3_contrib", "grpo-forecast[gail]"),
}
"""Module that each needs beyond this project's dependencies, and what pip has to install for it."""
STOCKS = ("sim:gbm?rows=600&seed=1", "sim:ar?rows=600&seed=2")
DATA = DataConfig(window=30, horizon=5)
ROWS = np.array([0, 40, 90])  # of the test windows
PRICES = ["open", "high", "low", "close"]


@cache
def bars() -> dict[str, pd.DataFrame]:
    return {name: parse_simulated_stock(name).bars() for name in STOCKS}


@cache
def splits() -> dict[str, WindowSet]:
    return split_windows(bars(), DATA)[0]


@cache
def fitted(name: str):
    config, data = forecaster_config(name, FAST_SETTINGS.get(name, {})), splits()
    with tempfile.TemporaryDirectory() as folder:
        plugin = forecaster_plugin(name)
        return plugin.fit(config, data["train"], data["val"], horizon=5, seed=0, out_dir=Path(folder))


def samples(forecaster, context: Context, *, seed: int = 3, horizon: int = 5, num_samples: int = 7) -> np.ndarray:
    forecast = forecaster.predict(context, horizon=horizon, num_samples=num_samples, seed=seed)
    assert forecast.samples.shape == (len(context), num_samples, horizon)
    assert forecast.valid.all()
    return forecast.samples


@pytest.fixture(params=NAMES)
def name(request, monkeypatch) -> str:
    for module, stand_in in MODULES.items():
        monkeypatch.setitem(sys.modules, module, stand_in)
    if request.param in PACKAGES and PACKAGES[request.param][0] not in MODULES:
        pytest.importorskip(PACKAGES[request.param][0])
    return request.param


@pytest.fixture
def context() -> Context:
    return splits()["test"].context.take(ROWS)


def test_all_are_registered():
    assert set(NAMES) <= set(forecaster_names())


def test_its_settings_are_read_as_those_of_any_plugin(name):
    assert forecaster_config(name, {}) == forecaster_plugin(name).Config()


def test_settings_are_typed_as_they_should():
    assert forecaster_config("fhs", {"block": None, "decay": 0.94}) == FhsConfig(decay=0.94)
    assert forecaster_config("ewma_t", {"dof": float("inf"), "tails": "day"}).tails == "day"
    with pytest.raises(SettingsError, match=r"baselines\.ewma_t: .*tails"):
        forecaster_config("ewma_t", {"tails": "fat"})


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_one_line_that_says_what_to_install(name, monkeypatch):
    package, install = PACKAGES[name]
    plugin = forecaster_plugin(name)
    assert plugin.requires == (package,)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"{package}.models", raising=False)
    windows = splits()["train"]
    with pytest.raises(MissingPackageError) as missing:
        plugin.fit(plugin.Config(), windows, windows, horizon=5, seed=0, out_dir=Path("unused"))
    assert str(missing.value) == f"{name} needs {package}, which is not installed: pip install '{install}'"


def test_it_forecasts_and_repeats_itself(name, context):
    forecaster = fitted(name)
    assert isinstance(forecaster, Forecaster)
    assert forecaster.name == name
    first = samples(forecaster, context)
    np.testing.assert_array_equal(samples(forecaster, context), first)
    assert (samples(forecaster, context, seed=4) != first).any(axis=(1, 2)).all()
    assert len(np.unique(first.round(9), axis=1)) == len(context)
    # a day's spread around the last close is that of days of one percent, not of another unit
    assert 0.001 < np.log(first / context.last_price[:, None, None]).std() < 0.2


def test_a_window_is_sampled_alike_in_any_company(name, context):
    together = samples(fitted(name), context)
    order = np.array([2, 0])
    np.testing.assert_allclose(samples(fitted(name), context.take(order)), together[order], rtol=1e-12)


def test_saved_and_loaded_it_forecasts_the_same(name, context, tmp_path):
    forecaster = fitted(name)
    forecaster.save(tmp_path)
    again = forecaster_plugin(name).load(tmp_path)
    assert again.config == forecaster.config
    np.testing.assert_array_equal(samples(again, context), samples(forecaster, context))


def test_prices_times_ten_are_samples_times_ten(name, context):
    tenfold = {
        stock: table.assign(**{column: 10 * table[column] for column in PRICES}) for stock, table in bars().items()
    }
    scaled = split_windows(tenfold, DATA)[0]["test"].context.take(ROWS)
    np.testing.assert_allclose(scaled.past, 10 * context.past)
    # the optimisers of statsforecast magnify the last bit of their input
    tolerance = 1e-5 if name.startswith("auto_") else 1e-9
    np.testing.assert_allclose(samples(fitted(name), scaled), 10 * samples(fitted(name), context), rtol=tolerance)


def test_the_future_of_a_window_changes_nothing(name, context):
    def crash(table: pd.DataFrame) -> pd.DataFrame:
        later = table.index > context.origin.max()
        return table.assign(**{column: np.where(later, 0.3, 1.0) * table[column] for column in PRICES})

    changed = split_windows({stock: crash(table) for stock, table in bars().items()}, DATA)[0]["test"]
    assert not np.array_equal(changed.truth.future, splits()["test"].truth.future)
    np.testing.assert_array_equal(samples(fitted(name), changed.context.take(ROWS)), samples(fitted(name), context))


def test_a_shorter_horizon_is_forecast_and_a_longer_one_forecast_or_refused(name, context):
    samples(fitted(name), context, horizon=2)
    if name in NO_FURTHER:
        with pytest.raises(UserError, match=f"{name} was fitted for 5 days ahead and cannot forecast 6"):
            samples(fitted(name), context, horizon=6)
    else:
        samples(fitted(name), context, horizon=12)


def test_an_unknown_stock_is_named_where_it_matters(name, context):
    other = dataclasses.replace(context, item_id=("ZZZ",) * len(context))
    if name in ("random_walk_drift", "garch_t"):
        with pytest.raises(UserError, match=f"{name}: no training windows of ZZZ"):
            samples(fitted(name), other)
    else:
        samples(fitted(name), other)


@pytest.mark.parametrize("name", RESUMED)
def test_a_killed_fit_does_not_go_on_with_other_windows(name, tmp_path, monkeypatch):
    settings = FAST_SETTINGS[name] | ({"temperature": 1.0} if name.startswith("gflownet") else {})
    plugin, config = forecaster_plugin(name), forecaster_config(name, settings)
    train, val = splits()["train"], splits()["val"]

    def fit(train: WindowSet, val: WindowSet) -> None:
        plugin.fit(config, train, val, horizon=5, seed=0, out_dir=tmp_path)

    def power_cut(*args, **others):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LearningCurve, "write", power_cut)  # after the last step, before the checkpoint is removed
        with pytest.raises(KeyboardInterrupt):
            fit(train, val)
    features = train.context.features.copy()
    features[0, FEATURES.index("rsi")] += 1
    otherwise = [
        (train, dataclasses.replace(val, truth=dataclasses.replace(val.truth, future=1.01 * val.truth.future))),
        (train.take(np.arange(len(train))[::-1]), val),
        (dataclasses.replace(train, context=dataclasses.replace(train.context, features=features)), val),
    ]
    for windows in otherwise:
        with pytest.raises(SavedFileError, match=r"\.safetensors is of a (training|fit) with other"):
            fit(*windows)
    fit(train, val)


def test_a_damaged_or_missing_file_is_one_line(name, tmp_path):
    plugin = forecaster_plugin(name)
    with pytest.raises(SavedFileError, match=f"does not hold a fitted {name} .*fit it again"):
        plugin.load(tmp_path)
    fitted(name).save(tmp_path)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(SavedFileError, match=re.escape(file.name)) as refused:
        plugin.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_the_file_of_another_forecaster_is_refused(tmp_path):
    fitted("historical_bootstrap").save(tmp_path)
    with pytest.raises(SavedFileError, match="does not hold a fitted fhs"):
        forecaster_plugin("fhs").load(tmp_path)
