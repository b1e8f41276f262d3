from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import optimize

from baselines.statistical.naive import RandomWalk
from grpo.comparison.contenders import Plugin
from grpo.comparison.forecasters import Forecasters
from grpo.evaluation.comparison import Fold
from grpo.evaluation.identity import plugin_identity
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast, SettingsError, forecaster_plugin
from grpo.evaluation.spread import (
    FACTOR_FILE,
    SpreadError,
    SpreadPlugin,
    best_factor,
    choose_spread,
    scale_spread,
    split_calibration,
)
from preprocessing.windows import WindowSet
from tests.windows_factory import simulated_windows

HORIZON = 4


@dataclass(frozen=True)
class Known:
    """Gaussian walks whose daily volatility is a known multiple of the one that makes the truth."""

    volatility: float
    drift: float = 0.0
    name: str = "known"

    def predict(self, context, *, horizon, num_samples, seed):
        steps = np.random.default_rng(seed).standard_normal((len(context), num_samples, horizon))
        walk = np.cumsum(self.volatility * steps + self.drift, axis=-1)
        samples = context.last_price[:, None, None] * np.exp(walk)
        return Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))


def true_windows(make_windows, count: int = 2000, volatility: float = 0.01, drift: float = 0.0) -> WindowSet:
    steps = np.random.default_rng(8).standard_normal((count, HORIZON))
    return make_windows(np.full(count, 50.0), 50 * np.exp(np.cumsum(volatility * steps + drift, axis=-1)))


@pytest.mark.parametrize("too_wide", [0.5, 1.0, 1.6])
def test_a_known_factor_is_found(make_windows, too_wide):
    windows = true_windows(make_windows, drift=0.004)
    # 2,000 paths of four dependent days tell a standard deviation to about one percent
    found = choose_spread(Known(0.01 * too_wide, drift=0.004), windows, seed=1)
    assert found == pytest.approx(1 / too_wide, rel=0.04)


def test_the_factor_has_the_smallest_score_that_the_comparison_gives(make_windows):
    windows = true_windows(make_windows, 200)
    forecast = Known(0.013).predict(windows.context, horizon=HORIZON, num_samples=100, seed=2)

    def score(factor: float) -> float:
        return score_windows(scale_spread(forecast, factor), windows).crps.mean()

    by_search = optimize.brute(lambda x: score(x[0]), [slice(0.5, 1.2, 0.002)], finish=None)
    assert best_factor(forecast, windows) == pytest.approx(by_search, abs=0.002)


def test_the_median_stays_and_distances_in_log_price_are_scaled(make_windows):
    windows = make_windows([2.0], [[2.0, 2.0]])
    # the second half has the median 1 on day 1 and 0 on day 2; in either half one sample is no answer
    first = [[0.0, 5.0], [1.0, -1.0], [np.nan, np.nan], [3.0, 0.0]]
    others = [[np.nan, np.nan], [1.0, 0.0], [9.0, -4.0], [-7.0, 2.0]]
    logs, valid = np.array([first + others]), np.array([[True, True, False, True, False, True, True, True]])
    drawn = Forecast(samples=np.exp(logs), valid=valid, texts=(tuple("abcdefgh"),))
    halved = scale_spread(drawn, 0.5)
    expected = [[[0.5, 2.5], [1.0, -0.5], [np.nan, np.nan], [2.0, 0.0]]]
    np.testing.assert_allclose(np.log(halved.samples), expected, atol=1e-15)
    assert halved.texts == (tuple("abcd"),)
    np.testing.assert_allclose(scale_spread(drawn, 1.0).samples, drawn.samples[:, :4], rtol=1e-15)
    assert scale_spread(drawn, 400.0).valid.tolist() == [[False, True, False, False]]
    assert np.isfinite(best_factor(drawn, windows))
    drawn.samples[:, 4:], drawn.valid[:, 4:] = np.nan, False
    np.testing.assert_allclose(scale_spread(drawn, 0.5).samples, np.exp(logs[:, :4]), rtol=1e-15)


def test_scaled_samples_score_as_samples_of_the_scaled_law(make_windows):
    windows = true_windows(make_windows, 4000)
    wide = Known(0.02).predict(windows.context, horizon=HORIZON, num_samples=40, seed=3)
    right = Known(0.01).predict(windows.context, horizon=HORIZON, num_samples=20, seed=4)
    scaled, exact = (
        score_windows(forecast, windows).crps.mean(axis=1) for forecast in (scale_spread(wide, 0.5), right)
    )
    # the centre is off by a median of 20: (1 - 1/2)^2 4 pi / 2 / 20 of the law's variance, 2 % of the CRPS
    assert abs((scaled - exact).mean()) < 0.03 * exact.mean() + 3 * (scaled - exact).std() / np.sqrt(4000)
    about_own = Forecast(samples=np.tile(wide.samples[:, :20], (1, 2, 1)), valid=wide.valid)
    own = score_windows(scale_spread(about_own, 0.5), windows).crps.mean(axis=1)
    assert own.mean() > scaled.mean() + 3 * (own - scaled).std() / np.sqrt(4000)


def test_windows_without_any_answer_count_as_the_last_close(make_windows):
    windows = true_windows(make_windows, 40)
    forecast = Known(0.02).predict(windows.context, horizon=HORIZON, num_samples=50, seed=2)
    rows = np.arange(20)
    first = best_factor(forecast.take(rows), windows.take(rows))
    samples, valid = forecast.samples.copy(), forecast.valid.copy()
    samples[20:], valid[20:] = np.nan, False
    assert best_factor(Forecast(samples=samples, valid=valid), windows) == pytest.approx(first, rel=1e-3)


def test_without_validation_windows_nothing_is_chosen(make_windows):
    none = true_windows(make_windows, 2).take(np.arange(0))
    with pytest.raises(SpreadError, match="known: its spread is chosen on validation windows and there are none"):
        choose_spread(Known(0.01), none, seed=0)


@pytest.fixture(scope="module")
def splits() -> dict[str, WindowSet]:
    return simulated_windows("sim:gbm?rows=700&seed=1", window=30, horizon=5)


def fit_calibrated(name: str, splits: dict[str, WindowSet]):
    plugin, settings = split_calibration(name, forecaster_plugin(name), {"calibrate": "spread"})
    assert settings == {}
    assert isinstance(plugin, SpreadPlugin)
    config = forecaster_plugin(name).Config()
    return plugin, plugin.fit(config, splits["train"], splits["val"], horizon=5, seed=0, out_dir=None)


@pytest.mark.parametrize("name", ["random_walk", "historical_bootstrap"])
def test_any_plugin_is_calibrated_by_one_setting_and_reads_itself_again(splits, tmp_path, name):
    plugin, fitted = fit_calibrated(name, splits)
    ask = {"horizon": 5, "num_samples": 9, "seed": 4}
    context = splits["test"].context
    drawn = fitted.forecaster.predict(context, horizon=5, num_samples=18, seed=4)
    told = fitted.predict(context, **ask)
    centre = np.median(np.log(drawn.samples[:, 9:]), axis=1, keepdims=True)
    expected = centre + fitted.factor * (np.log(drawn.samples[:, :9]) - centre)
    np.testing.assert_allclose(np.log(told.samples), expected, atol=1e-12)
    fitted.save(tmp_path)
    np.testing.assert_array_equal(plugin.load(tmp_path).predict(context, **ask).samples, told.samples)
    (tmp_path / FACTOR_FILE).write_text("wide\n")
    with pytest.raises(SpreadError, match=rf"{FACTOR_FILE} does not hold the factor of a spread .*fit it again"):
        plugin.load(tmp_path)


def test_the_calibrated_walk_is_the_walk_with_its_volatility_times_the_factor(splits):
    itself = forecaster_plugin("random_walk_calibrated")
    fitted = itself.fit(itself.Config(), splits["train"], splits["val"], horizon=5, seed=0, out_dir=None)
    assert float(fitted.spread) == fit_calibrated("random_walk", splits)[1].factor != 1.0
    ask = {"horizon": 5, "num_samples": 9, "seed": 4}
    last = splits["test"].context.last_price[:, None, None]
    walk = RandomWalk(RandomWalk.Config()).predict(splits["test"].context, **ask)
    told = fitted.predict(splits["test"].context, **ask)
    np.testing.assert_allclose(np.log(told.samples / last), fitted.spread * np.log(walk.samples / last), atol=1e-12)


def ask_in_comparison(folder, splits: dict[str, WindowSet], settings: dict[str, str]) -> np.ndarray:
    """Samples of the random walk as the comparison gets them, fitted in an empty folder."""
    forecasters = Forecasters(folder, num_samples=100, logger=logging.getLogger("test"))
    walk = Plugin("random_walk", "random_walk", settings)
    fold = Fold(1, splits["train"], splits["val"], splits["test"])
    forecast = forecasters.ask(walk, [fold], seed=0)[0]
    assert np.array_equal(forecasters.ask(walk, [fold], seed=0)[0].samples, forecast.samples)
    return forecast.samples


def test_the_comparison_chooses_on_validation_windows_and_never_on_test_windows(splits, tmp_path):
    def squared(windows: WindowSet) -> WindowSet:
        """The same futures twice as far from the last close, in log price."""
        last = windows.context.last_price[:, None]
        return dataclasses.replace(
            windows, truth=dataclasses.replace(windows.truth, future=last * (windows.truth.future / last) ** 2)
        )

    plain = ask_in_comparison(tmp_path / "plain", splits, {})
    told = ask_in_comparison(tmp_path / "a", splits, {"calibrate": "spread"})
    wild_test = ask_in_comparison(tmp_path / "b", splits | {"test": squared(splits["test"])}, {"calibrate": "spread"})
    wild_val = ask_in_comparison(tmp_path / "c", splits | {"val": squared(splits["val"])}, {"calibrate": "spread"})
    np.testing.assert_array_equal(wild_test, told)
    centre = np.median(plain, axis=1, keepdims=True)
    spread, wide = np.log(told / centre).std(), np.log(wild_val / centre).std()
    assert spread != np.log(plain / centre).std()
    assert wide == pytest.approx(2 * spread, rel=0.02)


def test_none_is_the_default_and_changes_nothing():
    for settings in ({}, {"calibrate": "none"}):
        plugin, own = split_calibration("random_walk", RandomWalk, settings | {"recent_weight": 0.2})
        assert plugin is RandomWalk
        assert own == {"recent_weight": 0.2}
    assert plugin_identity("random_walk", {"calibrate": "none"}) == plugin_identity("random_walk", {})
    assert plugin_identity("random_walk", {"calibrate": "spread"}) != plugin_identity("random_walk", {})


def test_another_word_is_refused():
    with pytest.raises(SettingsError, match=r"baselines\.random_walk\.calibrate must be none or spread; got 'scale'"):
        split_calibration("random_walk", RandomWalk, {"calibrate": "scale"})
